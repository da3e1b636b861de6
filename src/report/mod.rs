//! `pretext report`: one self-contained HTML page about one or several runs.
//!
//! [`gather`] reads a run's folder and computes what is missing, the modules beside it know how to make and draw one part each,
//! and [`page`] puts the parts in order. The page refers to nothing outside itself, and its own policy forbids it to: style and
//! script are in it, images are `data:` addresses.

pub mod chart;
pub mod curves;
pub mod gallery;
pub mod gather;
pub mod html;
pub mod image;
pub mod inside;
pub mod map;
pub mod metrics;
pub mod page;
pub mod pca;
pub mod predictions;
pub mod results;
pub mod space;
pub mod tsne;
pub mod views;

use crate::output::Output;
use engine::{Device, Result};
use gather::{Gathered, Opened};
use image::Sheet;
use std::path::{Path, PathBuf};

/// What can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where features are computed.
    pub device: Device,
    /// Images on a map at most; 0 leaves maps out.
    pub points: usize,
    /// Whether accuracies that are not recorded are computed.
    pub table: bool,
}

/// A dataset: its specification, and where it lies if the user said so.
pub type Source = (String, Option<PathBuf>);

/// Sheets of thumbnails, shared by runs on the same data.
#[derive(Default)]
pub struct Sheets(Vec<(Source, Sheet)>);

impl Sheets {
    /// The number of a dataset's sheet, which is made when it is first asked for.
    fn get(&mut self, key: Source, make: impl FnOnce() -> Result<Sheet>) -> Result<usize> {
        if let Some(i) = self.0.iter().position(|(k, _)| *k == key) {
            return Ok(i);
        }
        self.0.push((key, make()?));
        Ok(self.0.len() - 1)
    }

    fn iter(&self) -> impl Iterator<Item = &Sheet> {
        self.0.iter().map(|(_, sheet)| sheet)
    }
}

/// The page about the runs in these folders.
///
/// Errors: a folder that is no pre-training run, or whose configuration or metrics cannot be read. Whatever else is missing is
/// said on the page.
pub fn page(folders: &[PathBuf], options: &Options, output: &Output) -> Result<String> {
    let (mut opened, mut sheets) = (Opened::default(), Sheets::default());
    let names = names(folders);
    let runs = folders
        .iter()
        .zip(names)
        .map(|(path, name)| Gathered::new(path, name, options, &mut opened, &mut sheets, output))
        .collect::<Result<Vec<_>>>()?;
    Ok(page::render(&runs, &sheets))
}

/// What the page calls each run: the folder's name, or the whole path where two have the same name.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let short = |path: &Path| match path.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => path.display().to_string(),
    };
    let alone = |name: &String| folders.iter().filter(|f| short(f) == *name).count() == 1;
    folders.iter().map(|f| Some(short(f)).filter(alone).unwrap_or_else(|| f.display().to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_called_by_their_folders() {
        let folders = ["runs/a", "other/a", "runs/b"].map(PathBuf::from);
        assert_eq!(names(&folders), ["runs/a", "other/a", "b"]);
    }
}
