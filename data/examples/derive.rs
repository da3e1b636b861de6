//! Datasets made of others, for experiments: PNG files in a folder a class, for `--data folder:FOLDER`.
//!
//! `cargo run --release -p data --example derive -- lens SPEC FOLDER` shows images in colour through a lens with lateral chromatic
//! aberration: red is magnified about the image's middle and blue reduced, so that at a corner both are a pixel from green. Tasks
//! that ask where a part of an image was can be solved by that alone (Doersch et al. 2015, section 3.1).
//!
//! `cargo run --release -p data --example derive -- mirrored SPEC FOLDER` mirrors every second image, drawn by lot; the two classes
//! say which. Views that are flipped at random leave nothing to tell them apart by.

use data::{Dataset, write_png};
use engine::random::Purpose;
use engine::{Error, Philox, Result};
use std::path::{Path, PathBuf};

/// Pixels at a corner between green and the two other colours.
const SHIFT: f32 = 1.0;

/// An image's name of its class and its pixels, from its number, its dataset's class and its pixels.
type Derive = fn(usize, &str, &[u8], [usize; 3]) -> Result<(String, Vec<u8>)>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (derive, spec, folder): (Derive, _, _) = match &arguments[..] {
        [kind, spec, folder] if kind == "lens" => (lens, spec, PathBuf::from(folder)),
        [kind, spec, folder] if kind == "mirrored" => (mirrored, spec, PathBuf::from(folder)),
        _ => {
            return Err(Error::value("derive", "say lens or mirrored, a dataset (sample), and a new folder"));
        }
    };
    if folder.exists() {
        let text = format!("{} is there already: give a new folder", folder.display());
        return Err(Error::value("derive", text));
    }
    let splits = data::open(spec, None)?;
    write(&*splits.train, derive, &folder.join("train"))?;
    write(&*splits.test, derive, &folder.join("test"))
}

fn write(set: &dyn Dataset, derive: Derive, folder: &Path) -> Result<()> {
    for i in 0..set.len() {
        let image = set.image(i)?;
        let class = set.label(i).and_then(|label| set.classes().get(label));
        let class = class.ok_or_else(|| Error::value("derive", format!("image {i} has no class")))?;
        let size = [image.height, image.width, set.channels()];
        let (class, pixels) = derive(i, class, &image.pixels, size)?;
        let path = folder.join(class.replace('/', "-"));
        std::fs::create_dir_all(&path)
            .map_err(|e| Error::value("derive", format!("{}: {e}", path.display())))?;
        write_png(&path.join(format!("{i:06}.png")), size, &pixels)?;
    }
    println!("{}: {} images", folder.display(), set.len());
    Ok(())
}

fn mirrored(
    number: usize,
    _: &str,
    pixels: &[u8],
    [_, width, channels]: [usize; 3],
) -> Result<(String, Vec<u8>)> {
    if Philox::new(1, Purpose::Augment, number as u64).below(2) == 0 {
        return Ok(("as-it-was".into(), pixels.to_vec()));
    }
    let rows = pixels.chunks_exact(width * channels);
    let flipped = rows.flat_map(|row| row.chunks_exact(channels).rev().flatten().copied());
    Ok(("mirrored".into(), flipped.collect()))
}

fn lens(_: usize, class: &str, pixels: &[u8], size: [usize; 3]) -> Result<(String, Vec<u8>)> {
    match size[2] {
        3 => Ok((class.into(), through(pixels, size))),
        _ => Err(Error::value("derive", "these images have no colours that a lens could move")),
    }
}

/// The image with red [`SHIFT`] pixels further out than green at a corner, and blue as much further in.
fn through(pixels: &[u8], [height, width, channels]: [usize; 3]) -> Vec<u8> {
    let [middle_y, middle_x] = [height, width].map(|n| (n as f32 - 1.0) / 2.0);
    let corner = middle_y.hypot(middle_x).max(1.0);
    let at = |y: usize, x: usize, c: usize| f32::from(pixels[(y * width + x) * channels + c]);
    let seen = |y: usize, x: usize, c: usize| {
        let magnification = 1.0 + (1.0 - c as f32) * SHIFT / corner;
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
