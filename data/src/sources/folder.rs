//! Image files in folders: one folder a class, or no class at all.

use super::{Availability, Source};
use crate::decode::{self, resized, with_channels};
use crate::{Image, InMemory, Splits};
use engine::random::Purpose;
use engine::{Error, ErrorKind, Philox, Result};
use kernels::augment::Crop;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

mod listing;

use listing::{Entry, Listing};

pub(super) const SOURCE: Source = Source {
    name: "folder",
    spec: "folder:DIR",
    description: "image files (JPEG, PNG, WebP) in DIR, a folder a class or none; --size N, --windows N",
    open,
    probe: |_| Availability::NeedsFolder,
};

/// Side of a window unless `--size` says another.
const WINDOW: usize = 64;
/// A window shows at most this many times its own side of the photo.
const WIDEST: f32 = 4.0;
/// Bytes of pixels that are kept in memory at most.
const MOST: usize = 16 << 30;

/// What may follow the folder in a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Options {
    /// Rows and columns of every image.
    size: Option<usize>,
    /// Random windows of each photo.
    windows: Option<usize>,
    /// Whether files that cannot be decoded are left out and counted.
    skip_corrupt: bool,
}

#[track_caller]
fn usage(text: String) -> Error {
    Error::new(ErrorKind::Usage, "open dataset", text)
}

/// The folder and the options of `DIR --size N --windows N --skip-corrupt`.
fn parse(argument: &str) -> Result<(&str, Options)> {
    let (folder, given) = match argument.strip_prefix("--") {
        Some(given) => ("", Some(given)),
        None => argument.split_once(" --").map_or((argument, None), |(folder, given)| (folder, Some(given))),
    };
    let mut options = Options::default();
    for part in given.into_iter().flat_map(|given| given.split(" --")) {
        let mut words = part.split_whitespace();
        let (name, value) = (words.next().unwrap_or_default(), words.next());
        let number = || match value.map(str::parse::<usize>) {
            Some(Ok(n)) if n > 0 => Ok(Some(n)),
            _ => Err(usage(format!(
                "--{name} wants a number of at least 1, not '{}'",
                value.unwrap_or_default()
            ))),
        };
        match name {
            "size" => options.size = number()?,
            "windows" => options.windows = number()?,
            "skip-corrupt" if value.is_none() => options.skip_corrupt = true,
            _ => {
                let text = "folder:DIR may be followed by --size N, --windows N and --skip-corrupt";
                return Err(usage(format!("{text}, not by '--{part}'")));
            }
        }
        if words.next().is_some() {
            return Err(usage(format!("'--{part}' has too many words")));
        }
    }
    Ok((folder.trim(), options))
}

fn open(argument: &str, data_dir: Option<&Path>) -> Result<Splits> {
    let (folder, options) = parse(argument)?;
    let folder = match (folder, data_dir) {
        ("", None) => {
            let text =
                "write folder:DIR, where DIR holds image files, or a folder of image files for each class";
            return Err(usage(text.into()));
        }
        ("", Some(folder)) => folder,
        (folder, _) => Path::new(folder),
    };
    let Listing { classes, train, test } = listing::read(folder)?;
    let (train, test) = (Decoded::read(&train, &options)?, Decoded::read(&test, &options)?);
    let skipped = train.skipped + test.skipped;
    if train.images.is_empty() {
        let text = format!("none of the {skipped} image files for training in it can be decoded");
        return Err(Error::format("open dataset", folder, text));
    }
    // Both splits or none are grey.
    let all = || train.images.iter().chain(&test.images);
    let channels = all().map(|image| image.channels).max().unwrap_or(1);
    let [height, width] = one_size(&train, &test)?;
    let dataset = |split: &str, part: &Decoded| {
        let pixels: Vec<u8> = part
            .images
            .par_iter()
            .flat_map_iter(|image| with_channels(image.pixels.to_vec(), image.channels, channels))
            .collect();
        let name = format!("{} {split}", folder.display());
        let (labels, shape) = (part.labels.clone(), [height, width, channels]);
        InMemory::with_labels(name, pixels, shape, labels, classes.clone())
    };
    let mut splits = Splits::new(dataset("train", &train)?, dataset("test", &test)?);
    if skipped > 0 {
        splits
            .notes
            .push(format!("{}: {skipped} image files left out that cannot be decoded", folder.display()));
    }
    Ok(splits)
}

/// Images of a split in order, and what they are.
#[derive(Default)]
struct Decoded {
    images: Vec<Image<'static>>,
    labels: Vec<u32>,
    /// The file that each image comes from.
    paths: Vec<PathBuf>,
    skipped: usize,
}

impl Decoded {
    /// Decodes files on all of rayon's threads.
    fn read(entries: &[Entry], options: &Options) -> Result<Decoded> {
        if let (Some(size), windows) = (options.size, options.windows.unwrap_or(1)) {
            let bytes =
                [entries.len(), windows, size, size, 3].iter().try_fold(1usize, |a, b| a.checked_mul(*b));
            if bytes.is_none_or(|bytes| bytes > MOST) {
                let text = format!(
                    "{} files x {windows} of {size} x {size} pixels do not fit into {} GiB: choose a smaller --size \
                     or fewer --windows",
                    entries.len(),
                    MOST >> 30
                );
                return Err(usage(text));
            }
        }
        let made: Vec<Result<Vec<Image>>> = entries.par_iter().map(|entry| images(entry, options)).collect();
        let mut out = Decoded::default();
        for (entry, made) in entries.iter().zip(made) {
            match made {
                Err(error) if options.skip_corrupt && error.kind() == ErrorKind::Format => out.skipped += 1,
                Err(error) if error.kind() == ErrorKind::Format => {
                    let text = format!("{}; --skip-corrupt leaves such files out", error.message());
                    return Err(Error::new(ErrorKind::Format, error.operation(), text));
                }
                made => {
                    for image in made? {
                        out.images.push(image);
                        out.labels.extend(entry.label);
                        out.paths.push(entry.path.clone());
                    }
                }
            }
        }
        Ok(out)
    }
}

/// The image of a file, or the windows of a photo.
fn images(entry: &Entry, options: &Options) -> Result<Vec<Image<'static>>> {
    let image = decode::read(&entry.path)?;
    let (height, width, channels) = (image.height, image.width, image.channels);
    let short = height.min(width);
    let cut = |crop: Crop, size: usize| {
        let pixels = resized(&image, crop, size, channels)?;
        Ok(Image { pixels: pixels.into(), height: size, width: size, channels })
    };
    let Some(windows) = options.windows else {
        let Some(size) = options.size else { return Ok(vec![image]) };
        // Shorter side to `size`, then the centre, in one step.
        let centre =
            Crop { top: (height - short) / 2, left: (width - short) / 2, height: short, width: short };
        return Ok(vec![cut(centre, size)?]);
    };
    let size = options.size.unwrap_or(WINDOW);
    let mut random = Philox::new(0, Purpose::Split, 1 << 32 | entry.index as u64);
    let widest = (short as f32 / size as f32).clamp(1.0, WIDEST);
    let window = |_| {
        let side = ((size as f32 * random.range(0.0, widest.ln()).exp()) as usize).clamp(1, short);
        let (top, left) = (random.below(height - side + 1), random.below(width - side + 1));
        cut(Crop { top, left, height: side, width: side }, size)
    };
    (0..windows).map(window).collect()
}

/// The height and width of all images; an error that names two that differ.
fn one_size(train: &Decoded, test: &Decoded) -> Result<[usize; 2]> {
    let mut all = train.images.iter().zip(&train.paths).chain(test.images.iter().zip(&test.paths));
    let size = |image: &Image| [image.height, image.width];
    let Some((first, path)) = all.next() else { return Ok([0, 0]) };
    match all.find(|(image, _)| size(image) != size(first)) {
        None => Ok(size(first)),
        Some((other, other_path)) => Err(usage(format!(
            "images differ in size: {} has {} x {} pixels, {} has {} x {}: give --size N, which makes the shorter side N \
             pixels and keeps the centre",
            path.display(),
            first.height,
            first.width,
            other_path.display(),
            other.height,
            other.width
        ))),
    }
}
