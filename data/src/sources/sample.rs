//! 10,000 + 2,000 images of Fashion-MNIST, inside the program. `data/sample/README.md` says how they were
//! chosen.

use super::fashion_mnist::CLASSES;
use super::{Availability, Source, no_argument};
use crate::{InMemory, Splits, idx};
use engine::Result;
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "sample",
    spec: "sample",
    description: "10,000 + 2,000 images of Fashion-MNIST inside this program, 1,000 + 200 a class",
    open,
    probe,
};

macro_rules! file {
    ($name:literal) => {
        (concat!("data/sample/", $name), include_bytes!(concat!("../../sample/", $name)).as_slice())
    };
}

fn read(name: &str, images: (&str, &[u8]), labels: (&str, &[u8])) -> Result<InMemory> {
    let (images_path, labels_path) = (Path::new(images.0), Path::new(labels.0));
    let images = idx::parse(images_path, images.1, 3)?;
    let labels = idx::parse(labels_path, labels.1, 1)?;
    idx::dataset(name, (images_path, images), (labels_path, labels), &CLASSES)
}

fn open(argument: &str, _: Option<&Path>) -> Result<Splits> {
    no_argument(SOURCE.name, argument)?;
    let (train, test) = items()?;
    Ok(Splits::new(train, test))
}

/// The training and the test images.
pub(super) fn items() -> Result<(InMemory, InMemory)> {
    let train =
        read("sample train", file!("train-images-idx3-ubyte.gz"), file!("train-labels-idx1-ubyte.gz"))?;
    let test = read("sample test", file!("t10k-images-idx3-ubyte.gz"), file!("t10k-labels-idx1-ubyte.gz"))?;
    Ok((train, test))
}

fn probe(_: Option<&Path>) -> Availability {
    Availability::Here("inside this program".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlap;
    use std::collections::HashSet;

    #[test]
    fn balanced_and_without_an_image_twice() {
        let splits = open("", None).unwrap();
        for (set, each) in [(&splits.train, 1000), (&splits.test, 200)] {
            assert_eq!((set.len(), set.size(), set.channels()), (10 * each, Some([28, 28]), 1));
            let mut counts = [0; 10];
            (0..set.len()).for_each(|i| counts[set.label(i).unwrap()] += 1);
            assert_eq!(counts, [each; 10]);
            let different: HashSet<_> = (0..set.len()).map(|i| set.image(i).unwrap().pixels).collect();
            assert_eq!(different.len(), set.len());
        }
        assert_eq!(overlap(&*splits.train, &*splits.test).unwrap(), []);
    }

    /// Runs where the whole dataset is installed: every image and label is one of its.
    #[test]
    fn the_sample_is_part_of_the_dataset() {
        if let Ok(whole) = crate::open("fashion-mnist", None) {
            let sample = open("", None).unwrap();
            for (part, whole) in [(sample.train, whole.train), (sample.test, whole.test)] {
                let known: HashSet<_> =
                    (0..whole.len()).map(|i| (whole.label(i), whole.image(i).unwrap().pixels)).collect();
                for i in 0..part.len() {
                    assert!(known.contains(&(part.label(i), part.image(i).unwrap().pixels)), "image {i}");
                }
            }
        }
    }
}
