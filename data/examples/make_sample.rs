//! Makes the files of `data/sample` from the whole of Fashion-MNIST:
//! `cargo run --release -p data --example make_sample -- FOLDER` writes them to FOLDER.
//!
//! The rule: from each split the first 1,000 (train) or 200 (test) images of every class in the order of the
//! file, kept in that order, leaving out any image equal to one chosen before, train first.

use data::Dataset;
use data::idx::{Idx, encode};
use engine::{Error, Result};
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| Error::value("make_sample", "give the folder to write to"))?;
    let whole = data::open("fashion-mnist", None)?;
    let mut chosen = HashSet::new();
    write(&*whole.train, 1000, &mut chosen, &folder, "train")?;
    write(&*whole.test, 200, &mut chosen, &folder, "t10k")
}

fn write(
    set: &dyn Dataset,
    each: usize,
    chosen: &mut HashSet<Vec<u8>>,
    folder: &Path,
    prefix: &str,
) -> Result<()> {
    let mut counts = vec![0; set.classes().len()];
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..set.len() {
        let (image, label) = (set.image(i)?, set.label(i).unwrap_or(usize::MAX));
        if counts.get(label).is_some_and(|&c| c < each) && chosen.insert(image.pixels.to_vec()) {
            counts[label] += 1;
            pixels.extend_from_slice(&image.pixels);
            labels.push(label as u8);
        }
    }
    let [height, width] = set.size().unwrap_or_default();
    let images = Idx { dims: vec![labels.len(), height, width], data: pixels };
    let labels = Idx { dims: vec![labels.len()], data: labels };
    for (idx, name) in [(images, "images-idx3"), (labels, "labels-idx1")] {
        let bytes = encode(&idx)?;
        let path = folder.join(format!("{prefix}-{name}-ubyte.gz"));
        engine::files::write_atomically(&path, |out| {
            let mut gz = flate2::write::GzEncoder::new(out, flate2::Compression::best());
            gz.write_all(&bytes)?;
            gz.finish().map(|_| ())
        })?;
        println!("{} {:?}", path.display(), idx.dims);
    }
    Ok(())
}
