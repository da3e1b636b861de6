//! Files of features: what `pretext embed` writes, and any other program's with the same tensors.

use super::inputs::{self, Part};
use super::{Labelled, leak};
use engine::safetensors::{self, Contents};
use engine::{DType, Error, Result, Tensor};
use std::path::Path;

/// Features of two labelled splits.
pub struct FeatureFile {
    /// For training.
    pub train: Labelled,
    /// For the test.
    pub test: Labelled,
    /// The same images' features behind the last blocks, if the file has them, and what their columns are.
    pub blocks: Option<(Labelled, Labelled, Vec<Part>)>,
    /// The method of the encoder, or the file's name where it is not told.
    pub origin: String,
    /// The data, or the file's name.
    pub data: String,
}

/// Whether a file holds features and not an encoder.
pub fn is_features(contents: &Contents) -> bool {
    contents.tensors.contains_key("train") && !contents.metadata.contains_key("arch")
}

/// Reads tensors `train` [N, D] and `test` [M, D], f32, their labels `train_labels` [N] and `test_labels` [M], i32, and, if there
/// are any, `train_blocks` and `test_blocks`.
///
/// Errors name what is missing or does not fit. A test sample that is a training sample is treated as [`leak::check_rows`] says.
pub fn read(contents: &Contents, path: &Path, duplicates: leak::Duplicates) -> Result<FeatureFile> {
    let fail = |text: String| Error::format("read features", path, text);
    let tensor = |name: &str, dtype: DType, rank: usize| -> Result<Tensor> {
        let missing = || {
            fail(format!(
                "has no tensor '{name}': labelled features of both splits are needed, as `pretext embed` writes them"
            ))
        };
        let tensor = contents.tensors.get(name).ok_or_else(missing)?;
        match (tensor.dtype() == dtype, tensor.rank() == rank) {
            (true, true) => Ok(tensor.clone()),
            _ => Err(fail(format!("'{name}' must be {dtype} with {rank} dimensions")).argument(name, tensor)),
        }
    };
    let labelled = |name: &str, split: &str| -> Result<Labelled> {
        let (rows, labels) =
            (tensor(name, DType::F32, 2)?, tensor(&format!("{split}_labels"), DType::I32, 1)?);
        let set = Labelled {
            features: rows.to_vec::<f32>()?,
            dim: rows.shape()[1],
            labels: labels.to_vec::<i32>()?,
        };
        if rows.shape()[0] != set.labels.len() {
            let text = format!("'{name}' has {} rows and {} labels", rows.shape()[0], set.labels.len());
            return Err(fail(text));
        }
        if set.labels.iter().any(|label| *label < 0) {
            return Err(fail(format!("'{split}_labels' has a negative label")));
        }
        match set.features.iter().all(|v| v.is_finite()) {
            true => Ok(set),
            false => Err(fail(format!("'{name}' has values that are not finite"))),
        }
    };
    let (train, test) = (labelled("train", "train")?, labelled("test", "test")?);
    train.require_match(&test, "read features")?;
    leak::check_rows(&train, &test, &path.display().to_string(), duplicates)?;
    let blocks = match contents.metadata.get("blocks") {
        None => None,
        Some(text) => {
            let parts = inputs::read(text, path)?;
            let (train, test) = (labelled("train_blocks", "train")?, labelled("test_blocks", "test")?);
            train.require_match(&test, "read features")?;
            if parts.iter().any(|part| part.columns.end > train.dim) {
                return Err(fail("'blocks' in its metadata names columns that are not there".into()));
            }
            Some((train, test, parts))
        }
    };
    let name = |key: &str| contents.metadata.get(key).cloned().unwrap_or_else(|| path.display().to_string());
    Ok(FeatureFile { train, test, blocks, origin: name("origin"), data: name("data") })
}

/// Whether the file at `path` holds features; its contents.
pub fn open(path: &Path) -> Result<Option<Contents>> {
    if path.is_dir() {
        return Ok(None);
    }
    let contents = safetensors::load(path)?;
    Ok(is_features(&contents).then_some(contents))
}
