//! Where images come from: one file a source, one line in [`SOURCES`]. `docs/data.md` says how to add one.

mod fashion_mnist;
mod folder;
mod mnist;
mod sample;
mod sample_color;

use crate::Splits;
use engine::{Error, ErrorKind, Result};
use std::path::Path;

/// Every source that [`open`] knows.
pub const SOURCES: &[Source] =
    &[sample::SOURCE, sample_color::SOURCE, fashion_mnist::SOURCE, mnist::SOURCE, folder::SOURCE];

/// A kind of dataset.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// What a specification begins with.
    pub name: &'static str,
    /// How to write a specification, such as `mnist:DIR`.
    pub spec: &'static str,
    /// One line.
    pub description: &'static str,
    /// Opens it: what follows the colon (empty where there is no colon), and the user's `--data-dir`.
    pub open: fn(argument: &str, data_dir: Option<&Path>) -> Result<Splits>,
    /// Whether it could be opened here, with the user's `--data-dir`.
    pub probe: fn(data_dir: Option<&Path>) -> Availability,
}

/// Whether a source's data is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It is; where.
    Here(String),
    /// It is not; how to get it.
    Missing(String),
    /// It depends on the folder that the specification names.
    NeedsFolder,
}

/// Opens the dataset that `spec` names, `NAME` or `NAME:ARGUMENT`, each with options as on a command line behind it
/// (`folder:photos --size 64`); `data_dir` is for sources that look for files in a usual place.
///
/// Errors: no such source (the message lists what there is), or what the source reports.
#[track_caller]
pub fn open(spec: &str, data_dir: Option<&Path>) -> Result<Splits> {
    let end = spec.find(" --").unwrap_or(spec.len());
    let (name, argument) = match spec[..end].find(':') {
        Some(colon) => (&spec[..colon], &spec[colon + 1..]),
        None => (&spec[..end], spec[end..].trim()),
    };
    match SOURCES.iter().find(|s| s.name == name) {
        Some(source) => (source.open)(argument, data_dir),
        None => {
            let known: Vec<&str> = SOURCES.iter().map(|s| s.spec).collect();
            let text = format!("'{spec}' is no dataset that is known; there are: {}", known.join(", "));
            Err(Error::new(ErrorKind::Usage, "open dataset", text))
        }
    }
}

/// An error unless nothing followed the source's name.
#[track_caller]
fn no_argument(name: &str, argument: &str) -> Result<()> {
    match argument.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Usage,
            "open dataset",
            format!("'{name}' takes no options and nothing after a colon, but was given '{argument}'"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let error = open("imagenet", None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        for source in SOURCES {
            assert!(error.message().contains(source.spec), "{error}");
            assert!(source.spec.starts_with(source.name) && !source.description.is_empty());
        }
        for wrong in ["sample:x", "sample --size 3", "mnist:x --size 3"] {
            let error = open(wrong, None).err().unwrap();
            assert!(error.message().contains("takes no options"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn names_differ() {
        for (i, source) in SOURCES.iter().enumerate() {
            assert!(SOURCES[..i].iter().all(|s| s.name != source.name));
        }
    }
}
