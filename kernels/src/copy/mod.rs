//! Moving elements: strided views to contiguous tensors, concatenation, rows by index and put at an index, windows of planes,
//! other element types.
//!
//! Every element is read once and written once ([`bytes`]). [`scatter_add_rows`], the gradient of [`gather_rows`],
//! is the only one that computes.

pub mod cases;
pub(crate) mod check;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub mod reference;
mod strided;
pub(crate) mod strided_cuda;
#[cfg(test)]
mod tests;
mod windows;
pub(crate) mod workloads;

pub(crate) use windows::kernels as window_kernels;
pub use windows::windows;

use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Element, Error, Result, Tensor, memory};
use half::bf16;
use std::sync::atomic::{AtomicUsize, Ordering};

static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Copies that [`contiguous`] has made in this process.
pub fn copies() -> usize {
    COPIES.load(Ordering::Relaxed)
}

/// Bytes that must move for `elements` elements of `size` bytes: each read and written once.
pub fn bytes(elements: usize, size: usize) -> usize {
    2 * elements * size
}

/// Runs `$body` with `$t` the element type of `$dtype`.
macro_rules! by_dtype {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::BF16 => {
                type $t = bf16;
                $body
            }
            DType::I32 => {
                type $t = i32;
                $body
            }
            DType::U8 => {
                type $t = u8;
                $body
            }
        }
    };
}

/// The same elements in row-major order without gaps, of any type and strides. x itself (no copy) if it is so
/// already; [`copies`] counts the others.
#[track_caller]
pub fn contiguous(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() {
        return Ok(x.clone());
    }
    let name = "contiguous";
    let _op = memory::operation(name);
    COPIES.fetch_add(1, Ordering::Relaxed);
    match x.device() {
        Device::Cuda(_) => strided_cuda::contiguous(name, x),
        Device::Cpu => {
            let mut out = Tensor::empty(x.shape(), x.dtype(), Device::Cpu)?;
            by_dtype!(x.dtype(), T => {
                strided::copy(x.storage_slice::<T>()?, x.layout(), out.as_mut_slice::<T>()?);
            });
            Ok(out)
        }
    }
}

/// Tensors one after another along dimension `dim`: equal types and equal sizes in all other dimensions;
/// contiguous.
#[track_caller]
pub fn cat(tensors: &[&Tensor], dim: usize) -> Result<Tensor> {
    let name = "cat";
    let _op = memory::operation(name);
    let Some(first) = tensors.first() else {
        return Err(Error::value(name, "needs at least one tensor"));
    };
    if dim >= first.rank() {
        return Err(Error::shape(name, format!("there is no dimension {dim}")).argument("first", first));
    }
    let mut shape = first.shape().to_vec();
    shape[dim] = 0;
    for t in tensors {
        t.require_dtype(name, "every tensor", first.dtype())?;
        let alike =
            t.rank() == first.rank() && (0..t.rank()).all(|d| d == dim || t.shape()[d] == first.shape()[d]);
        if !alike {
            return Err(Error::shape(name, format!("all sizes but dimension {dim}'s must be equal"))
                .argument("first", first)
                .argument("other", t));
        }
        shape[dim] += t.shape()[dim];
    }
    let inner: usize = shape[dim + 1..].iter().product();
    match common(name, &vec!["tensor"; tensors.len()], tensors)? {
        Device::Cuda(_) => strided_cuda::cat(name, tensors, &shape, dim, inner),
        Device::Cpu => {
            let mut out = Tensor::empty(&shape, first.dtype(), Device::Cpu)?;
            by_dtype!(first.dtype(), T => {
                let mut parts = Vec::with_capacity(tensors.len());
                for t in tensors {
                    parts.push((t.as_slice::<T>()?, t.shape()[dim] * inner));
                }
                cpu::cat(&parts, out.as_mut_slice::<T>()?);
            });
            Ok(out)
        }
    }
}

/// An error unless `index` is i32 of rank 1.
#[track_caller]
fn require_index(name: &'static str, index: &Tensor) -> Result<()> {
    index.require_dtype(name, "index", DType::I32)?;
    match index.rank() {
        1 => Ok(()),
        _ => Err(Error::shape(name, "index must have rank 1").argument("index", index)),
    }
}

/// The indices, each checked to be in 0 .. n.
#[track_caller]
fn indices<'a>(name: &'static str, index: &'a Tensor, n: usize) -> Result<&'a [i32]> {
    let values = index.as_slice::<i32>()?;
    let bad = values.iter().position(|&i| usize::try_from(i).map_or(true, |i| i >= n));
    match bad {
        None => Ok(values),
        Some(at) => {
            let text = format!("index {at} is {}, outside 0 .. {n}", values[at]);
            Err(Error::value(name, text).argument("index", index))
        }
    }
}

/// Rows by index: x [N, ..] of any type, index i32 [M] -> [M, ..].
///
/// An index outside 0 .. N is an error on the CPU. On CUDA devices, where nobody looks at indices in time, its row is NaN,
/// or 0 in integers.
#[track_caller]
pub fn gather_rows(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let name = "gather_rows";
    let _op = memory::operation(name);
    let Some((&n, row)) = x.shape().split_first() else {
        return Err(Error::shape(name, "x needs at least one dimension").argument("x", x));
    };
    require_index(name, index)?;
    let mut shape = vec![index.len()];
    shape.extend_from_slice(row);
    match common(name, &["x", "index"], &[x, index])? {
        Device::Cuda(_) => cuda::gather(x, index, &shape),
        Device::Cpu => {
            let index = indices(name, index, n)?;
            let mut out = Tensor::empty(&shape, x.dtype(), Device::Cpu)?;
            let width = row.iter().product();
            by_dtype!(x.dtype(), T => {
                cpu::gather(x.as_slice::<T>()?, width, index, out.as_mut_slice::<T>()?);
            });
            Ok(out)
        }
    }
}

/// x[index[m]] = rows[m] in place: x [N, ..] of any type, index i32 [M] of different numbers, rows [M, ..] of x's type, as
/// MoCo puts keys in its queue. With an index twice either row is left, in any mixture on CUDA devices.
///
/// An index outside 0 .. N is an error on the CPU, before anything is written; on CUDA devices its row is left out. Other
/// tensors that share x's storage keep the old values (see [`Tensor`]); while a graph is captured there must be none.
#[track_caller]
pub fn put_rows(x: &mut Tensor, index: &Tensor, rows: &Tensor) -> Result<()> {
    let name = "put_rows";
    let _op = memory::operation(name);
    let Some((&n, row)) = x.shape().split_first() else {
        return Err(Error::shape(name, "x needs at least one dimension").argument("x", x));
    };
    require_index(name, index)?;
    let mut shape = vec![index.len()];
    shape.extend_from_slice(row);
    rows.require_shape(name, "rows", &shape)?;
    rows.require_dtype(name, "rows", x.dtype())?;
    match common(name, &["x", "index", "rows"], &[x, index, rows])? {
        Device::Cuda(_) => cuda::put(x, index, rows),
        Device::Cpu => {
            let index = indices(name, index, n)?;
            let width = shape[1..].iter().product();
            by_dtype!(x.dtype(), T => {
                cpu::put(rows.as_slice::<T>()?, width, index, x.as_mut_slice::<T>()?);
            });
            Ok(())
        }
    }
}

/// Gradient of [`gather_rows`]: row r of the result [n, ..] is the sum of the rows of dy [M, ..] whose index is
/// r, added in their order. f32 (on CUDA devices bf16 too, added in f32; where n is far below M, and for a row that
/// receives more than 512, in pieces of M that depend on the sizes alone).
///
/// An index outside 0 .. n is an error on the CPU; on CUDA devices its row is left out.
#[track_caller]
pub fn scatter_add_rows(dy: &Tensor, index: &Tensor, n: usize) -> Result<Tensor> {
    let name = "scatter_add_rows";
    let _op = memory::operation(name);
    require_float(name, "dy", dy)?;
    let Some((&m, row)) = dy.shape().split_first() else {
        return Err(Error::shape(name, "dy needs at least one dimension").argument("dy", dy));
    };
    index.require_shape(name, "index", &[m])?;
    require_index(name, index)?;
    let mut shape = vec![n];
    shape.extend_from_slice(row);
    match common(name, &["dy", "index"], &[dy, index])? {
        Device::Cuda(_) => cuda::scatter_add(dy, index, n, &shape),
        Device::Cpu => {
            let index = indices(name, index, n)?;
            let values = dy.as_slice::<f32>()?;
            let mut out = Tensor::empty(&shape, DType::F32, Device::Cpu)?;
            cpu::scatter_add(values, row.iter().product(), index, n, out.as_mut_slice()?)?;
            Ok(out)
        }
    }
}

/// The same values in another element type; x itself if it has that type.
///
/// To bf16 rounds to nearest, ties to even. To an integer type drops the fraction and goes to the nearest value
/// that the type has; NaN becomes 0.
#[track_caller]
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let _op = memory::operation("cast");
    match x.device() {
        Device::Cuda(_) => cuda::cast(x, dtype),
        Device::Cpu => {
            let mut out = Tensor::empty(x.shape(), dtype, Device::Cpu)?;
            by_dtype!(x.dtype(), S => {
                by_dtype!(dtype, D => cast_cpu::<S, D>(x, &mut out)?);
            });
            Ok(out)
        }
    }
}

fn cast_cpu<S: cpu::Number + Element, D: cpu::Number + Element>(x: &Tensor, out: &mut Tensor) -> Result<()> {
    cpu::cast(x.as_slice::<S>()?, out.as_mut_slice::<D>()?);
    Ok(())
}
