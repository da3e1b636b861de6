//! Shows a dataset's images through a lens with lateral chromatic aberration, and writes them as PNG files in a folder a class:
//! `cargo run --release -p data --example lens -- SPEC FOLDER [PIXELS]`, for `pretext pretrain METHOD --data folder:FOLDER`.
//!
//! Such a lens magnifies colours differently about the image's middle. Red is magnified and blue reduced here so that at a corner
//! both are PIXELS (1 unless given) from green. Tasks that ask where a part of an image was can be solved by that alone
//! (Doersch et al. 2015, section 3.1): an experiment on what keeps a network from it needs images that have it.

use data::{Dataset, write_png};
use engine::{Error, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let usage = || Error::value("lens", "give a dataset (sample-color), a new folder, and perhaps pixels");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (spec, folder, pixels) = match &arguments[..] {
        [spec, folder] => (spec, PathBuf::from(folder), 1.0),
        [spec, folder, pixels] => (spec, PathBuf::from(folder), pixels.parse().map_err(|_| usage())?),
        _ => return Err(usage()),
    };
    if folder.exists() {
        return Err(Error::value(
            "lens",
            format!("{} is there already: give a new folder", folder.display()),
        ));
    }
    let splits = data::open(spec, None)?;
    write(&*splits.train, pixels, &folder.join("train"))?;
    write(&*splits.test, pixels, &folder.join("test"))
}

fn write(set: &dyn Dataset, shift: f32, folder: &Path) -> Result<()> {
    if set.channels() != 3 {
        return Err(Error::value("lens", format!("{} has no colours to be shifted", set.name())));
    }
    for class in set.classes() {
        let path = folder.join(class.replace('/', "-"));
        std::fs::create_dir_all(&path)
            .map_err(|e| Error::value("lens", format!("{}: {e}", path.display())))?;
    }
    for i in 0..set.len() {
        let image = set.image(i)?;
        let size = [image.height, image.width, 3];
        let class = set.label(i).and_then(|label| set.classes().get(label));
        let class = class.ok_or_else(|| Error::value("lens", format!("image {i} has no class")))?;
        let name = format!("{i:06}.png");
        write_png(
            &folder.join(class.replace('/', "-")).join(name),
            size,
            &through(&image.pixels, size, shift),
        )?;
    }
    println!("{}: {} images", folder.display(), set.len());
    Ok(())
}

/// The image with red `shift` pixels further out than green at a corner, and blue as much further in.
fn through(pixels: &[u8], [height, width, channels]: [usize; 3], shift: f32) -> Vec<u8> {
    let [middle_y, middle_x] = [height, width].map(|n| (n as f32 - 1.0) / 2.0);
    let corner = middle_y.hypot(middle_x).max(1.0);
    let at = |y: usize, x: usize, c: usize| f32::from(pixels[(y * width + x) * channels + c]);
    let seen = |y: usize, x: usize, c: usize| {
        let magnification = 1.0 + (1.0 - c as f32) * shift / corner;
        // Where the lens takes the value from, between four pixels.
        let from =
            |i: usize, middle: f32| (middle + (i as f32 - middle) / magnification).clamp(0.0, 2.0 * middle);
        let (from_y, from_x) = (from(y, middle_y), from(x, middle_x));
        let (top, left) = (from_y as usize, from_x as usize);
        let (bottom, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
        let (down, along) = (from_y - top as f32, from_x - left as f32);
        let mix = |a: f32, b: f32, part: f32| a + part * (b - a);
        let upper = mix(at(top, left, c), at(top, right, c), along);
        let lower = mix(at(bottom, left, c), at(bottom, right, c), along);
        mix(upper, lower, down).round() as u8
    };
    (0..pixels.len()).map(|i| seen(i / (width * channels), i / channels % width, i % channels)).collect()
}
