//! What a dataset is; datasets in memory; parts of datasets.

use engine::{Error, Result};
use std::borrow::Cow;
use std::sync::Arc;

/// One image: bytes 0 ..= 255 in rows of pixels, channels last (HWC).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image<'a> {
    /// `height * width * channels` bytes, borrowed from a dataset in memory or decoded just now.
    pub pixels: Cow<'a, [u8]>,
    /// Rows.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
    /// Bytes a pixel: 1 (grey) or 3 (RGB).
    pub channels: usize,
}

/// Images, and labels where there are any. Reading is safe from many threads at once.
pub trait Dataset: Send + Sync {
    /// A name for messages, such as `fashion-mnist train`.
    fn name(&self) -> &str;

    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels of every image.
    fn channels(&self) -> usize;

    /// Height and width, if all images have the same.
    fn size(&self) -> Option<[usize; 2]>;

    /// Image `index`. Errors: no such image, or it cannot be read or decoded.
    fn image(&self, index: usize) -> Result<Image<'_>>;

    /// The class of image `index`, an index into [`Dataset::classes`]; `None` if it has no label.
    fn label(&self, index: usize) -> Option<usize>;

    /// Names of the classes; empty if nothing is labelled.
    fn classes(&self) -> &[String];
}

/// What training sees and what it never sees.
#[derive(Clone)]
pub struct Splits {
    /// For training.
    pub train: Arc<dyn Dataset>,
    /// For the final test alone.
    pub test: Arc<dyn Dataset>,
    /// What a user should know of how they were made, such as how many files were left out.
    pub notes: Vec<String>,
}

impl Splits {
    /// Two datasets without notes.
    pub fn new(train: impl Dataset + 'static, test: impl Dataset + 'static) -> Splits {
        Splits { train: Arc::new(train), test: Arc::new(test), notes: Vec::new() }
    }
}

/// Images of one size, all in memory.
#[derive(Debug, Clone)]
pub struct InMemory {
    name: String,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    classes: Vec<String>,
    shape: [usize; 3],
    count: usize,
}

impl InMemory {
    /// `shape` is height, width, channels; `pixels` holds the images one after another, HWC. `labels` is
    /// empty, or has one class an image.
    ///
    /// Errors if the number of bytes is not a multiple of an image, the counts of images and labels differ, or
    /// a label is no class.
    #[track_caller]
    pub fn new(
        name: impl Into<String>,
        pixels: Vec<u8>,
        shape: [usize; 3],
        labels: Vec<u8>,
        classes: Vec<String>,
    ) -> Result<InMemory> {
        InMemory::with_labels(name, pixels, shape, labels.into_iter().map(u32::from).collect(), classes)
    }

    /// The same for any number of classes.
    #[track_caller]
    pub fn with_labels(
        name: impl Into<String>,
        pixels: Vec<u8>,
        shape: [usize; 3],
        labels: Vec<u32>,
        classes: Vec<String>,
    ) -> Result<InMemory> {
        let name = name.into();
        let one = shape.iter().product::<usize>();
        if one == 0 || !pixels.len().is_multiple_of(one) || !matches!(shape[2], 1 | 3) {
            return Err(Error::shape(
                &name,
                format!("{} bytes are not whole images of {shape:?} (channels 1 or 3)", pixels.len()),
            ));
        }
        let count = pixels.len() / one;
        if !labels.is_empty() && labels.len() != count {
            return Err(Error::shape(&name, format!("{count} images but {} labels", labels.len())));
        }
        if let Some(i) = labels.iter().position(|&l| l as usize >= classes.len()) {
            let rule = format!("label {} of image {i} is not one of {} classes", labels[i], classes.len());
            return Err(Error::value(&name, rule));
        }
        Ok(InMemory { name, pixels, labels, classes, shape, count })
    }
}

/// An error unless `index` is below `len`.
#[track_caller]
fn check_index(name: &str, index: usize, len: usize) -> Result<()> {
    match index < len {
        true => Ok(()),
        false => Err(Error::value(name, format!("no image {index}: there are {len}"))),
    }
}

impl Dataset for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.count
    }

    fn channels(&self) -> usize {
        self.shape[2]
    }

    fn size(&self) -> Option<[usize; 2]> {
        Some([self.shape[0], self.shape[1]])
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        check_index(&self.name, index, self.count)?;
        let [height, width, channels] = self.shape;
        let one = height * width * channels;
        let pixels = Cow::Borrowed(&self.pixels[index * one..(index + 1) * one]);
        Ok(Image { pixels, height, width, channels })
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).map(|&l| l as usize)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

/// Some images of another dataset, in a given order; an image may appear more than once.
#[derive(Clone)]
pub struct Subset {
    of: Arc<dyn Dataset>,
    indices: Vec<usize>,
    name: String,
}

impl Subset {
    /// The images `indices` of `of`. An error if there is no such image.
    #[track_caller]
    pub fn new(of: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Subset> {
        for &i in &indices {
            check_index(of.name(), i, of.len())?;
        }
        let name = format!("{} of {}", indices.len(), of.name());
        Ok(Subset { of, indices, name })
    }

    /// Which images of the other dataset these are.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn channels(&self) -> usize {
        self.of.channels()
    }

    fn size(&self) -> Option<[usize; 2]> {
        self.of.size()
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        check_index(&self.name, index, self.indices.len())?;
        self.of.image(self.indices[index])
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.indices.get(index).and_then(|&i| self.of.label(i))
    }

    fn classes(&self) -> &[String] {
        self.of.classes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> InMemory {
        let classes = vec!["a".to_string(), "b".to_string()];
        InMemory::new("three", (0..12).collect(), [2, 2, 1], vec![0, 1, 0], classes).unwrap()
    }

    #[test]
    fn images_labels_and_parts() {
        let whole: Arc<dyn Dataset> = Arc::new(three());
        assert_eq!(whole.image(1).unwrap().pixels.as_ref(), [4, 5, 6, 7]);
        assert!(whole.image(3).unwrap_err().message().contains("no image 3: there are 3"));
        assert_eq!(whole.label(3), None);
        let part = Subset::new(whole.clone(), vec![2, 1, 1]).unwrap();
        assert_eq!((part.len(), part.label(0), part.label(1)), (3, Some(0), Some(1)));
        assert_eq!(part.image(0).unwrap(), whole.image(2).unwrap());
        assert_eq!(part.image(2).unwrap(), whole.image(1).unwrap());
        assert!(part.image(3).is_err());
        assert!(Subset::new(whole, vec![3]).is_err());
    }

    #[test]
    fn inconsistent_parts_are_errors() {
        let make = |bytes: usize, labels: Vec<u8>| {
            InMemory::new("x", vec![0; bytes], [2, 2, 1], labels, vec!["a".into()]).map(|_| ())
        };
        make(8, vec![]).unwrap();
        assert!(make(9, vec![]).unwrap_err().message().contains("not whole images"));
        assert!(make(8, vec![0]).unwrap_err().message().contains("2 images but 1 labels"));
        assert!(make(8, vec![0, 1]).unwrap_err().message().contains("label 1 of image 1"));
    }
}
