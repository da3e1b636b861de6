//! IDX files (MNIST's format), plain or compressed: a magic number, the sizes, then bytes.
//!
//! Big-endian; the magic number is 0x0000_08rr for unsigned bytes in rr dimensions, followed by one 32-bit size
//! a dimension (`yann.lecun.com/exdb/mnist`, "File formats").

use crate::dataset::InMemory;
use engine::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An array of bytes in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Size of each dimension.
    pub dims: Vec<usize>,
    /// Elements.
    pub data: Vec<u8>,
}

/// Reads the file `path`, compressed or not, which must have `rank` dimensions.
#[track_caller]
pub fn read(path: &Path, rank: u8) -> Result<Idx> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read IDX", path, e))?;
    parse(path, &bytes, rank)
}

/// Reads an IDX file's content, compressed (it begins with gzip's 1f 8b) or not. `path` is for messages.
#[track_caller]
pub fn parse(path: &Path, bytes: &[u8], rank: u8) -> Result<Idx> {
    let inflated;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut out = Vec::new();
        MultiGzDecoder::new(bytes).read_to_end(&mut out).map_err(|e| {
            Error::format("read IDX", path, format!("the gzip data is corrupt or cut short: {e}"))
        })?;
        inflated = out;
        &inflated
    } else {
        bytes
    };
    let wrong = |message: String| Err(Error::format("read IDX", path, message));
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return wrong(format!("expected a header, found {} bytes", bytes.len()));
    };
    let (magic, expected) = (u32::from_be_bytes(*magic), 0x0800 | u32::from(rank));
    if magic != expected {
        return wrong(format!("expected magic number {expected:#010x}, found {magic:#010x}"));
    }
    let (sizes, _) = rest.as_chunks::<4>();
    if sizes.len() < usize::from(rank) {
        return wrong(format!("expected a header of {} bytes, found {}", 4 + 4 * rank, bytes.len()));
    }
    let dims: Vec<usize> =
        sizes[..usize::from(rank)].iter().map(|b| u32::from_be_bytes(*b) as usize).collect();
    let data = &rest[4 * usize::from(rank)..];
    let expected = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if expected != Some(data.len()) {
        let expected = expected.map_or("more than memory holds".to_string(), |n| n.to_string());
        return wrong(format!("sizes {dims:?} need {expected} bytes of data, found {}", data.len()));
    }
    Ok(Idx { dims, data: data.to_vec() })
}

/// The IDX bytes of an array, uncompressed.
#[track_caller]
pub fn encode(idx: &Idx) -> Result<Vec<u8>> {
    let too_large = || Error::value("write IDX", "at most 255 dimensions below 2^32").with("dims", &idx.dims);
    let rank = u8::try_from(idx.dims.len()).map_err(|_| too_large())?;
    let mut out = vec![0, 0, 8, rank];
    for &d in &idx.dims {
        out.extend(u32::try_from(d).map_err(|_| too_large())?.to_be_bytes());
    }
    out.extend(&idx.data);
    Ok(out)
}

/// The first of `stem`, `stem.gz` in `folder` that exists.
pub fn find(folder: &Path, stem: &str) -> Option<PathBuf> {
    [folder.join(stem), folder.join(format!("{stem}.gz"))].into_iter().find(|p| p.is_file())
}

/// A labelled dataset from its images (rank 3) and labels (rank 1). The paths are for messages.
#[track_caller]
pub fn dataset(name: &str, images: (&Path, Idx), labels: (&Path, Idx), classes: &[&str]) -> Result<InMemory> {
    let ((image_path, images), (label_path, labels)) = (images, labels);
    let [count, height, width] = images.dims[..] else {
        return Err(Error::format("read IDX", image_path, "images must have 3 dimensions"));
    };
    if count != labels.data.len() {
        let text = format!("{} labels, but {} has {count} images", labels.data.len(), image_path.display());
        return Err(Error::format("read IDX", label_path, text));
    }
    if let Some(i) = labels.data.iter().position(|&l| usize::from(l) >= classes.len()) {
        let text = format!("label {} at {i} is not one of the {} classes", labels.data[i], classes.len());
        return Err(Error::format("read IDX", label_path, text));
    }
    if height * width == 0 || count == 0 {
        return Err(Error::format("read IDX", image_path, format!("no pixel in sizes {:?}", images.dims)));
    }
    let classes = classes.iter().map(|c| c.to_string()).collect();
    InMemory::new(name, images.data, [height, width, 1], labels.data, classes)
}

/// The pair `PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte` of `folder`, each plain or `.gz`.
#[track_caller]
pub fn read_pair(name: &str, folder: &Path, prefix: &str, classes: &[&str]) -> Result<InMemory> {
    let path = |stem: String| {
        find(folder, &stem).ok_or_else(|| {
            let missing = std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "there is no such file, nor one that ends in .gz",
            );
            Error::io("open dataset", &folder.join(stem), missing)
        })
    };
    let images = path(format!("{prefix}-images-idx3-ubyte"))?;
    let labels = path(format!("{prefix}-labels-idx1-ubyte"))?;
    dataset(name, (&images, read(&images, 3)?), (&labels, read(&labels, 1)?), classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn images(count: usize) -> Idx {
        Idx { dims: vec![count, 2, 3], data: (0..count * 6).map(|i| i as u8).collect() }
    }

    fn labels(data: &[u8]) -> Idx {
        Idx { dims: vec![data.len()], data: data.to_vec() }
    }

    /// Writes a pair, reads it back.
    fn pair(images: &[u8], labels: &[u8], suffix: &str) -> Result<InMemory> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(format!("{name}{suffix}")), bytes).unwrap();
        };
        write("train-images-idx3-ubyte", images);
        write("train-labels-idx1-ubyte", labels);
        read_pair("test", folder.path(), "train", &["a", "b"])
    }

    fn message(result: Result<InMemory>) -> String {
        result.unwrap_err().message().to_string()
    }

    #[test]
    fn plain_and_compressed_are_equal() {
        let (x, y) = (encode(&images(2)).unwrap(), encode(&labels(&[1, 0])).unwrap());
        for (x, y, suffix) in [(x.clone(), y.clone(), ""), (gz(&x), gz(&y), ".gz"), (gz(&x), y.clone(), "")] {
            let set = pair(&x, &y, suffix).unwrap();
            assert_eq!(
                (set.len(), set.size(), set.label(0), set.label(1)),
                (2, Some([2, 3]), Some(1), Some(0))
            );
            assert_eq!(set.image(1).unwrap().pixels.as_ref(), [6, 7, 8, 9, 10, 11]);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = message(read_pair("test", folder.path(), "t10k", &["a"]));
        assert!(text.contains("t10k-images-idx3-ubyte") && text.contains(".gz"), "{text}");
        let error = read(&folder.path().join("nothing"), 1).unwrap_err();
        assert!(error.message().contains("nothing"), "{error}");
    }

    #[test]
    fn a_wrong_magic_number_shows_both() {
        let y = encode(&labels(&[0, 1])).unwrap();
        let text = message(pair(&y, &y, ""));
        assert!(text.contains("train-images"), "{text}");
        assert!(text.contains("expected magic number 0x00000803, found 0x00000801"), "{text}");
    }

    #[test]
    fn a_cut_or_padded_file_shows_both_counts() {
        let (x, y) = (encode(&images(2)).unwrap(), encode(&labels(&[1, 0])).unwrap());
        let text = message(pair(&x[..x.len() - 5], &y, ""));
        assert!(text.contains("train-images") && text.contains("need 12 bytes of data, found 7"), "{text}");
        let long = [&x[..], &[0]].concat();
        assert!(message(pair(&long, &y, "")).contains("need 12 bytes of data, found 13"));
        assert!(message(pair(&x[..9], &y, "")).contains("header of 16 bytes, found 9"));
        assert!(message(pair(&x[..3], &y, "")).contains("found 3 bytes"));
        let huge = [&x[..4], &[0xff; 12], &[1]].concat();
        assert!(message(pair(&huge, &y, "")).contains("more than memory holds"));
    }

    #[test]
    fn counts_and_labels_are_checked() {
        let x = encode(&images(2)).unwrap();
        let text = message(pair(&x, &encode(&labels(&[1])).unwrap(), ""));
        assert!(text.contains("train-labels") && text.contains("1 labels, but"), "{text}");
        assert!(text.contains("train-images") && text.contains("has 2 images"), "{text}");
        let text = message(pair(&x, &encode(&labels(&[1, 7])).unwrap(), ""));
        assert!(text.contains("label 7 at 1 is not one of the 2 classes"), "{text}");
        let none = Idx { dims: vec![0, 2, 3], data: vec![] };
        let text = message(pair(&encode(&none).unwrap(), &encode(&labels(&[])).unwrap(), ""));
        assert!(text.contains("no pixel"), "{text}");
    }

    #[test]
    fn corrupt_gzip_is_named() {
        let (x, y) = (gz(&encode(&images(40)).unwrap()), encode(&labels(&[0; 40])).unwrap());
        let text = message(pair(&x[..x.len() / 2], &y, ".gz"));
        assert!(text.contains("train-images") && text.contains("gzip"), "{text}");
        let mut bad = x.clone();
        let last = bad.len() - 6;
        bad[last] ^= 0x55;
        assert!(message(pair(&bad, &y, ".gz")).contains("gzip"), "the checksum must be wrong");
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_array_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64), rank in 0u8..5) {
            if let Ok(idx) = parse(Path::new("x"), &bytes, rank) {
                prop_assert_eq!(idx.dims.iter().product::<usize>(), idx.data.len());
            }
        }

        #[test]
        fn what_is_written_is_read(dims in proptest::collection::vec(0usize..5, 1..4)) {
            let data = (0..dims.iter().product::<usize>()).map(|i| i as u8).collect();
            let idx = Idx { dims, data };
            let bytes = encode(&idx).unwrap();
            prop_assert_eq!(&parse(Path::new("x"), &bytes, idx.dims.len() as u8).unwrap(), &idx);
        }
    }
}
