//! Tensors in safetensors files: named arrays and a map of strings, read and written whole.

use crate::{DType, Device, Error, Result, Tensor, files};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What a safetensors file holds.
#[derive(Debug, Default, Clone)]
pub struct Contents {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free-form strings by key.
    pub metadata: BTreeMap<String, String>,
}

/// Writes `contents` to `path` atomically (see [`files::write_atomically`]). Tensors must be contiguous.
#[track_caller]
pub fn save(path: &Path, contents: &Contents) -> Result<()> {
    let mut views = Vec::with_capacity(contents.tensors.len());
    for (name, tensor) in &contents.tensors {
        let (dtype, bytes): (Dtype, &[u8]) = match tensor.dtype() {
            DType::F32 => (Dtype::F32, bytemuck::cast_slice(tensor.as_slice::<f32>()?)),
            DType::BF16 => (Dtype::BF16, bytemuck::cast_slice(tensor.as_slice::<half::bf16>()?)),
            DType::I32 => (Dtype::I32, bytemuck::cast_slice(tensor.as_slice::<i32>()?)),
            DType::U8 => (Dtype::U8, tensor.as_slice::<u8>()?),
        };
        let view = TensorView::new(dtype, tensor.shape().to_vec(), bytes)
            .map_err(|e| Error::format("write safetensors", path, format!("{name}: {e}")))?;
        views.push((name.as_str(), view));
    }
    let metadata: HashMap<String, String> = contents.metadata.clone().into_iter().collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let bytes =
        safetensors::serialize(views, metadata).map_err(|e| Error::format("write safetensors", path, e))?;
    files::write_atomically(path, |out| out.write_all(&bytes))
}

/// Reads all of `path` to the CPU.
///
/// f64, f16, i64 and bool arrays become f32, f32, i32 and u8. Errors name the file: missing, cut short, not
/// safetensors, a type that no tensor here can hold.
#[track_caller]
pub fn load(path: &Path) -> Result<Contents> {
    let operation = "read safetensors";
    let bytes = std::fs::read(path).map_err(|e| Error::io(operation, path, e))?;
    let broken = |e: safetensors::SafeTensorError| {
        Error::format(operation, path, format!("not a whole safetensors file ({e})"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let mut contents = Contents::default();
    if let Some(metadata) = header.metadata() {
        contents.metadata = metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    }
    for (name, view) in SafeTensors::deserialize(&bytes).map_err(broken)?.tensors() {
        let tensor = from_view(&view)
            .map_err(|e| Error::format(operation, path, format!("tensor '{name}': {}", e.message())))?;
        contents.tensors.insert(name, tensor);
    }
    Ok(contents)
}

/// Little-endian values of `N` bytes each.
fn values<'a, const N: usize, T>(data: &'a [u8], read: impl Fn([u8; N]) -> T + 'a) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
}

fn from_view(view: &TensorView<'_>) -> Result<Tensor> {
    let (shape, data) = (view.shape(), view.data());
    match view.dtype() {
        Dtype::F32 => Tensor::from_slice(&values(data, f32::from_le_bytes), shape),
        Dtype::F64 => Tensor::from_slice(&values(data, |b| f64::from_le_bytes(b) as f32), shape),
        Dtype::F16 => Tensor::from_slice(&values(data, |b| half::f16::from_le_bytes(b).to_f32()), shape),
        Dtype::BF16 => Tensor::from_slice(&values(data, half::bf16::from_le_bytes), shape),
        Dtype::I32 => Tensor::from_slice(&values(data, i32::from_le_bytes), shape),
        Dtype::I64 => {
            let wide = values(data, i64::from_le_bytes);
            let narrow: Option<Vec<i32>> = wide.into_iter().map(|v| i32::try_from(v).ok()).collect();
            let narrow = narrow.ok_or_else(|| Error::value("i64", "a value does not fit 32 bits"))?;
            Tensor::from_slice(&narrow, shape)
        }
        Dtype::U8 | Dtype::BOOL => Tensor::from_slice(data, shape),
        other => Err(Error::dtype("read", format!("element type {other:?} is not supported"))),
    }
}

impl Contents {
    /// The tensor called `name`; an error that lists what there is.
    #[track_caller]
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.tensors.keys().map(String::as_str).take(20).collect();
            Error::value("read safetensors", format!("no tensor '{name}'; there are: {}", names.join(", ")))
        })
    }

    /// Adds a tensor, copied to contiguous order on the CPU if it is strided or on another device.
    pub fn insert(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let tensor = match tensor.device() == Device::Cpu && tensor.is_contiguous() {
            true => tensor.clone(),
            false => tensor.copy_to(Device::Cpu)?,
        };
        self.tensors.insert(name.into(), tensor);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Contents {
        let mut c = Contents::default();
        let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
        c.insert("a", &x.transpose(0, 1).unwrap()).unwrap();
        c.insert("b", &Tensor::from_slice(&[7i32], &[]).unwrap()).unwrap();
        c.insert("c", &Tensor::from_slice(&[1u8, 2], &[2]).unwrap()).unwrap();
        c.insert("d", &Tensor::from_slice(&[half::bf16::from_f32(1.5)], &[1]).unwrap()).unwrap();
        c.metadata.insert("step".into(), "12".into());
        c
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        save(&path, &example()).unwrap();
        let c = load(&path).unwrap();
        assert_eq!(c.metadata["step"], "12");
        assert_eq!(c.get("a").unwrap().as_slice::<f32>().unwrap(), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(c.get("b").unwrap().as_slice::<i32>().unwrap(), [7]);
        assert_eq!(c.get("d").unwrap().dtype(), DType::BF16);
        assert!(c.get("e").unwrap_err().message().contains("a, b, c, d"));
    }

    #[test]
    fn every_truncation_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        save(&path, &example()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            let error = load(&path).unwrap_err();
            assert!(error.message().contains("x.safetensors"), "{error}");
        }
        assert!(load(Path::new("/nonexistent.safetensors")).unwrap_err().message().contains("/nonexistent"));
    }
}
