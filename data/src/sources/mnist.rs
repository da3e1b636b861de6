//! MNIST, or any other dataset in MNIST's four files.

use super::{Availability, Source, no_argument};
use crate::{Splits, idx};
use engine::{Error, ErrorKind, Result};
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "mnist",
    spec: "mnist:DIR",
    description: "MNIST's four IDX files (plain or .gz) in the folder DIR, 10 classes",
    open,
    probe,
};

const CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

fn open(argument: &str, data_dir: Option<&Path>) -> Result<Splits> {
    if let Some((_, options)) = argument.split_once(" --") {
        no_argument(SOURCE.name, &format!("--{options}"))?;
    }
    let folder = match (argument, data_dir) {
        ("", None) => {
            let text = "write mnist:DIR, where DIR is the folder with train-images-idx3-ubyte and the others";
            return Err(Error::new(ErrorKind::Usage, "open dataset", text));
        }
        ("", Some(folder)) => folder,
        (argument, _) => Path::new(argument),
    };
    Ok(Splits::new(
        idx::read_pair("mnist train", folder, "train", &CLASSES)?,
        idx::read_pair("mnist test", folder, "t10k", &CLASSES)?,
    ))
}

fn probe(_: Option<&Path>) -> Availability {
    Availability::NeedsFolder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idx::{Idx, encode};

    #[test]
    fn a_folder_of_four_files_opens() {
        let folder = tempfile::tempdir().unwrap();
        for (prefix, count) in [("train", 3), ("t10k", 2)] {
            let images = Idx { dims: vec![count, 4, 5], data: vec![count as u8; count * 20] };
            let labels = Idx { dims: vec![count], data: vec![9; count] };
            for (name, idx) in [("images-idx3", images), ("labels-idx1", labels)] {
                let path = folder.path().join(format!("{prefix}-{name}-ubyte"));
                std::fs::write(path, encode(&idx).unwrap()).unwrap();
            }
        }
        let spec = format!("mnist:{}", folder.path().display());
        let splits = crate::open(&spec, None).unwrap();
        assert_eq!((splits.train.len(), splits.test.len()), (3, 2));
        assert_eq!(splits.train.classes()[splits.train.label(2).unwrap()], "9");
        assert_eq!(splits.test.image(1).unwrap().pixels[0], 2);
        assert_eq!(crate::open("mnist", None).err().unwrap().kind(), ErrorKind::Usage);
        assert!(crate::open("mnist", Some(folder.path())).is_ok());
    }
}
