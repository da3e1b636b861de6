//! Images that are in both the training and the test part: the test would reward remembering them.
//!
//! Official splits of real datasets hold a few: CIFAR's photos of one scene, scans of one print. These are counted and told.
//! More than one in a hundred is no accident of collecting but a mistake, such as one folder given for both, and an error
//! unless the user allows it.

use super::Labelled;
use crate::output::Output;
use data::Splits;
use engine::{Error, ErrorKind, Result};
use serde_json::json;
use std::collections::HashSet;

/// What to do about many shared images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// More than [`TOLERATED`] are an error.
    Refuse,
    /// They are told.
    Allow,
}

impl Duplicates {
    /// What `--allow-duplicates` means.
    pub fn allowed(allow: bool) -> Duplicates {
        if allow { Duplicates::Allow } else { Duplicates::Refuse }
    }
}

/// The part of the test set that may be in the training set too.
pub const TOLERATED: f64 = 0.01;

/// Test samples that are training samples too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// So many of the test samples.
    pub count: usize,
    /// All test samples.
    pub tested: usize,
}

/// Counts images of the test part whose every byte is that of a training image. None if there is nothing to test.
///
/// An error if they are more than one in a hundred, and that is not allowed.
pub fn check(splits: &Splits, duplicates: Duplicates, output: &Output) -> Result<Shared> {
    let pairs = match splits.test.is_empty() {
        true => Vec::new(),
        false => data::overlap(splits.train.as_ref(), splits.test.as_ref())?,
    };
    let tested: HashSet<usize> = pairs.iter().map(|(_, test)| *test).collect();
    let shared = Shared { count: tested.len(), tested: splits.test.len() };
    shared.judge(splits.test.name(), duplicates)?;
    if shared.count > 0 {
        let Shared { count, tested } = shared;
        output
            .event(&json!({"event": "duplicates", "test_images_in_training": count, "test_images": tested}));
        output.say(&format!("{count} of {tested} test images are training images too, byte for byte"));
    }
    Ok(shared)
}

/// The same for rows of features, as a file holds them.
pub fn check_rows(train: &Labelled, test: &Labelled, name: &str, duplicates: Duplicates) -> Result<Shared> {
    let bits = |set: &Labelled, i: usize| -> Vec<u32> { set.row(i).iter().map(|v| v.to_bits()).collect() };
    let known: HashSet<Vec<u32>> = (0..train.len()).map(|i| bits(train, i)).collect();
    let count = (0..test.len()).filter(|&i| known.contains(&bits(test, i))).count();
    let shared = Shared { count, tested: test.len() };
    shared.judge(name, duplicates)?;
    Ok(shared)
}

impl Shared {
    fn judge(self, name: &str, duplicates: Duplicates) -> Result<()> {
        let Shared { count, tested } = self;
        let many = count as f64 > TOLERATED * tested as f64;
        match many && duplicates == Duplicates::Refuse {
            false => Ok(()),
            true => {
                let text = format!(
                    "{count} of {tested} test samples of {name} are training samples too: accuracy would say what was \
                     remembered. Give other test images; if these are meant, add --allow-duplicates"
                );
                Err(Error::new(ErrorKind::Value, "training and test samples", text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::InMemory;

    /// `n` different images of two bytes from `from` on.
    fn images(from: usize, n: usize) -> InMemory {
        let pixels = (from..from + n).flat_map(|i| [(i / 256) as u8, (i % 256) as u8]).collect();
        InMemory::new("test part", pixels, [1, 2, 1], vec![0; n], vec!["a".into()]).unwrap()
    }

    #[test]
    fn a_few_shared_images_are_counted_and_many_are_refused() {
        let output = Output { json: false };
        let check = |from, how| check(&Splits::new(images(0, 500), images(from, 200)), how, &output);
        assert_eq!(check(500, Duplicates::Refuse).unwrap().count, 0);
        assert_eq!(check(498, Duplicates::Refuse).unwrap(), Shared { count: 2, tested: 200 });
        let error = check(497, Duplicates::Refuse).unwrap_err();
        assert!(error.message().contains("3 of 200") && error.message().contains("--allow-duplicates"));
        assert_eq!(check(0, Duplicates::Allow).unwrap().count, 200);
        assert!(check(0, Duplicates::Refuse).is_err());
    }

    #[test]
    fn rows_of_features_are_looked_at_too() {
        let rows = |from: usize, n: usize| Labelled {
            features: (from..from + n).flat_map(|i| [i as f32, 1.0]).collect(),
            dim: 2,
            labels: vec![0; n],
        };
        assert_eq!(check_rows(&rows(0, 50), &rows(50, 50), "f", Duplicates::Refuse).unwrap().count, 0);
        assert!(check_rows(&rows(0, 50), &rows(40, 50), "f", Duplicates::Refuse).is_err());
        assert_eq!(check_rows(&rows(0, 50), &rows(40, 50), "f", Duplicates::Allow).unwrap().count, 10);
    }
}
