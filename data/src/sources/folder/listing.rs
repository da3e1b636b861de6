//! Which image files a folder holds, their classes, and which are for training.

use crate::decode::EXTENSIONS;
use engine::random::Purpose;
use engine::{Error, ErrorKind, Philox, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders in folders that are looked into; links may form a circle.
const DEEPEST: usize = 16;
/// One file of so many is held out for the test where the folder has no split of its own.
const HELD_OUT: usize = 5;

/// An image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: PathBuf,
    pub label: Option<u32>,
    /// Its place among all files, from which its windows are drawn.
    pub index: usize,
}

/// The files of both splits, in order of their names.
#[derive(Debug)]
pub(super) struct Listing {
    pub classes: Vec<String>,
    pub train: Vec<Entry>,
    pub test: Vec<Entry>,
}

/// Lists `root`. Where it has folders `train` and `test` (or `val`), these are the splits; else one file of five of each class,
/// chosen at random by a fixed seed, is for the test.
pub(super) fn read(root: &Path) -> Result<Listing> {
    let there = |name: &str| Some(root.join(name)).filter(|path| path.is_dir());
    if let (Some(train), Some(test)) = (there("train"), there("test").or_else(|| there("val"))) {
        let (classes, train_files) = classes(&train)?;
        let (test_classes, test_files) = self::classes(&test)?;
        if classes != test_classes {
            return Err(different(&train, &classes, &test, &test_classes));
        }
        let first = train_files.len();
        return Ok(Listing { classes, train: entries(train_files, 0), test: entries(test_files, first) });
    }
    let (classes, files) = classes(root)?;
    let all = entries(files, 0);
    let mut held_out = vec![false; all.len()];
    for class in 0..classes.len().max(1) {
        let of_class = |entry: &&Entry| entry.label.is_none_or(|label| label as usize == class);
        let places: Vec<usize> = all.iter().filter(of_class).map(|entry| entry.index).collect();
        let count = if places.len() < 2 { 0 } else { (places.len() / HELD_OUT).max(1) };
        let order = Philox::new(0, Purpose::Split, class as u64).permutation(places.len());
        order.iter().take(count).for_each(|&place| held_out[places[place]] = true);
    }
    let (test, train) = all.into_iter().partition(|entry| held_out[entry.index]);
    Ok(Listing { classes, train, test })
}

/// A file and its class.
type File = (PathBuf, Option<u32>);

fn entries(files: Vec<File>, first: usize) -> Vec<Entry> {
    let entry = |(i, (path, label)): (usize, _)| Entry { path, label, index: first + i };
    files.into_iter().enumerate().map(entry).collect()
}

/// The classes of a folder and its files: one class for each folder in it, sorted, or none where there are files alone.
fn classes(folder: &Path) -> Result<(Vec<String>, Vec<File>)> {
    let (names, mut files) = (children(folder)?, Vec::new());
    let (folders, loose): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| folder.join(name).is_dir());
    let loose: Vec<PathBuf> =
        loose.iter().map(|name| folder.join(name)).filter(|path| is_image(path)).collect();
    let wrong = |text: String| Err(Error::new(ErrorKind::Usage, "open dataset", text));
    match (folders.is_empty(), loose.first()) {
        (true, None) => {
            return wrong(format!(
                "{} holds no image: image files end in {}",
                folder.display(),
                EXTENSIONS.map(|e| format!(".{e}")).join(", ")
            ));
        }
        (true, Some(_)) => return Ok((Vec::new(), loose.into_iter().map(|path| (path, None)).collect())),
        (false, Some(file)) => {
            return wrong(format!(
                "{} is an image beside folders of images: put it into the folder of its class, or all images into one \
                 folder without others",
                file.display()
            ));
        }
        (false, None) => {}
    }
    let mut classes = Vec::new();
    for name in folders {
        let (path, mut found) = (folder.join(&name), Vec::new());
        gather(&path, 0, &mut found)?;
        if found.is_empty() {
            return wrong(format!(
                "{} holds no image: each folder is a class, remove it or fill it",
                path.display()
            ));
        }
        let label = classes.len() as u32;
        files.extend(found.into_iter().map(|path| (path, Some(label))));
        classes.push(name.to_string_lossy().into_owned());
    }
    Ok((classes, files))
}

/// The image files in a folder and the folders in it, in the order of their names.
fn gather(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth > DEEPEST {
        let text = format!(
            "{} lies more than {DEEPEST} folders deep: is there a circle of links?",
            folder.display()
        );
        return Err(Error::new(ErrorKind::Usage, "open dataset", text));
    }
    for name in children(folder)? {
        let path = folder.join(name);
        if path.is_dir() {
            gather(&path, depth + 1, found)?;
        } else if is_image(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// Names in a folder, sorted by their bytes; those that begin with a dot are hidden.
fn children(folder: &Path) -> Result<Vec<OsString>> {
    let fail = |e| Error::io("open dataset", folder, e);
    let names = std::fs::read_dir(folder).map_err(fail)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(fail)?;
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    names.sort();
    Ok(names)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| EXTENSIONS.contains(&ending.as_str()))
}

#[track_caller]
fn different(train: &Path, a: &[String], test: &Path, b: &[String]) -> Error {
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        of.iter().filter(|name| !from.contains(name)).cloned().collect()
    };
    let text = format!(
        "{} and {} must have the same classes: missing in the first {:?}, in the second {:?}",
        train.display(),
        test.display(),
        missing(a, b),
        missing(b, a)
    );
    Error::new(ErrorKind::Usage, "open dataset", text)
}
