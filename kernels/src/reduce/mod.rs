//! Sums over dimensions and the position of a row's maximum.
//!
//! Bound by memory: the input is read once ([`bytes`]). Sums are kept in f32 over a block of rows at most, then in
//! f64; pieces depend on the shape alone and are added in order, so that the result does not depend on the number
//! of threads.

pub mod cases;
pub(crate) mod check;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

pub(crate) use cpu::Partials;

use crate::cuda::require_float;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// Bytes that must move: every input element once, every result once.
pub fn bytes(inputs: usize, outputs: usize) -> usize {
    4 * (inputs + outputs)
}

/// Neighbouring dimensions that are all kept or all summed, as one: its size, and whether it is summed.
fn groups(shape: &[usize], dims: &[usize]) -> Vec<(usize, bool)> {
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (d, &n) in shape.iter().enumerate() {
        let summed = dims.contains(&d);
        match groups.last_mut() {
            Some(group) if group.1 == summed => group.0 *= n,
            _ => groups.push((n, summed)),
        }
    }
    groups
}

/// Sum over the dimensions `dims`, which are removed. f32 (on CUDA devices bf16 too, added in f32), contiguous. Nothing
/// to sum gives 0; no dimension gives x itself.
///
/// On CUDA devices the order of the additions depends on the sizes and the element type.
#[track_caller]
pub fn sum(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let name = "sum";
    let _op = memory::operation(name);
    require_float(name, "x", x)?;
    for (i, &d) in dims.iter().enumerate() {
        if d >= x.rank() || dims[..i].contains(&d) {
            let text = "dims must name different dimensions of x";
            return Err(Error::shape(name, text).argument("x", x).with("dims", dims));
        }
    }
    let kept: Vec<usize> = (0..x.rank()).filter(|d| !dims.contains(d)).map(|d| x.shape()[d]).collect();
    match x.device() {
        Device::Cuda(_) => cuda::sum(name, x, dims, &kept),
        Device::Cpu => {
            let values = x.as_slice::<f32>()?;
            if dims.is_empty() {
                return Ok(x.clone());
            }
            let mut out = Tensor::empty(&kept, DType::F32, Device::Cpu)?;
            cpu::sum(values, x.shape(), dims, out.as_mut_slice()?)?;
            Ok(out)
        }
    }
}

/// Sum over all dimensions but the last: x [.., N] -> [N]. Types as [`sum`].
#[track_caller]
pub fn sum_rows(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        0 => Err(Error::shape("sum_rows", "x needs at least one dimension").argument("x", x)),
        rank => sum(x, &(0..rank - 1).collect::<Vec<_>>()),
    }
}

/// Position of the maximum of every row, the first on ties: x [.., N] -> i32 [..]. NaN counts as the largest
/// value. f32 (on CUDA devices bf16 too). An error if there are rows of no element.
#[track_caller]
pub fn argmax_last(x: &Tensor) -> Result<Tensor> {
    let name = "argmax_last";
    let _op = memory::operation(name);
    require_float(name, "x", x)?;
    let Some((&n, leading)) = x.shape().split_last() else {
        return Err(Error::shape(name, "x needs at least one dimension").argument("x", x));
    };
    if (n == 0 && !leading.contains(&0)) || i32::try_from(n).is_err() {
        return Err(Error::shape(name, "a row needs 1 to 2^31 - 1 elements").argument("x", x));
    }
    match x.device() {
        Device::Cuda(_) => cuda::argmax(name, x, n, leading),
        Device::Cpu => {
            let values = x.as_slice::<f32>()?;
            let mut out = Tensor::empty(leading, DType::I32, Device::Cpu)?;
            cpu::argmax(values, n, out.as_mut_slice()?);
            Ok(out)
        }
    }
}
