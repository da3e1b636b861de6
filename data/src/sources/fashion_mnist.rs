//! Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017): 60,000 + 10,000 grey images of clothes, 28 x 28, ten classes.

use super::{Availability, Source, no_argument};
use crate::{Splits, idx};
use engine::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "fashion-mnist",
    spec: "fashion-mnist",
    description: "60,000 + 10,000 grey images of clothes, 28 x 28, 10 classes (Zalando, MIT licence)",
    open,
    probe,
};

/// The classes in the order of their labels.
pub(super) const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// Where Debian's package `dataset-fashion-mnist` installs it.
const USUAL: &str = "/usr/share/datasets/fashion-mnist";

const ADVICE: &str = "install the Debian or Ubuntu package dataset-fashion-mnist, or put the four files \
                      train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, \
                      t10k-labels-idx1-ubyte (plain or .gz) in a folder and give --data-dir FOLDER";

/// The folder to read: the user's if there is one, else the usual one if it holds the dataset.
fn folder(data_dir: Option<&Path>) -> Option<PathBuf> {
    let folder = data_dir.unwrap_or(Path::new(USUAL));
    idx::find(folder, "train-images-idx3-ubyte").map(|_| folder.to_path_buf())
}

fn open(argument: &str, data_dir: Option<&Path>) -> Result<Splits> {
    no_argument(SOURCE.name, argument)?;
    let Some(folder) = folder(data_dir) else {
        let looked = data_dir.unwrap_or(Path::new(USUAL)).display();
        let text = format!("Fashion-MNIST is not in {looked}: {ADVICE}");
        return Err(Error::new(ErrorKind::Io, "open dataset", text));
    };
    Ok(Splits::new(
        idx::read_pair("fashion-mnist train", &folder, "train", &CLASSES)?,
        idx::read_pair("fashion-mnist test", &folder, "t10k", &CLASSES)?,
    ))
}

fn probe(data_dir: Option<&Path>) -> Availability {
    match folder(data_dir) {
        Some(folder) => Availability::Here(folder.display().to_string()),
        None => Availability::Missing(ADVICE.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_it_says_how_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let error = open("", Some(empty.path())).err().unwrap();
        assert!(error.message().contains("dataset-fashion-mnist"), "{error}");
        assert!(error.message().contains(&*empty.path().to_string_lossy()), "{error}");
        assert!(matches!(probe(Some(empty.path())), Availability::Missing(_)));
    }

    /// Runs where the package is installed.
    #[test]
    fn the_installed_dataset_has_its_published_sizes() {
        if let Availability::Here(_) = probe(None) {
            let splits = open("", None).unwrap();
            assert_eq!((splits.train.len(), splits.test.len()), (60_000, 10_000));
            for (set, each) in [(&splits.train, 6000), (&splits.test, 1000)] {
                let mut counts = [0; 10];
                (0..set.len()).for_each(|i| counts[set.label(i).unwrap()] += 1);
                assert_eq!(counts, [each; 10]);
            }
        }
    }
}
