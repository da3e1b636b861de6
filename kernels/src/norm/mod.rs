//! Normalisation: batch (per channel, with residual and ReLU fused), layer (per row), and to unit L2 length.
//!
//! All are bound by memory. Batch normalisation of n f32 elements must read x twice (statistics, then the
//! result) and write y: [`batch_forward_bytes`]. Its backward must read dy and x (and y for the ReLU mask)
//! twice and write dx: [`batch_backward_bytes`]. Rows of layer and L2 normalisation fit in the first-level
//! cache, so that each tensor moves once.

mod batch;
pub(crate) mod batch_backward_cuda;
pub(crate) mod batch_cuda;
pub(crate) mod batch_merge;
pub mod cases;
pub(crate) mod check;
mod columns;
mod cpu;
#[cfg(test)]
mod device_tests;
mod l2;
pub(crate) mod l2_cuda;
mod layer;
pub(crate) mod layer_backward_cuda;
pub(crate) mod layer_cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

pub(crate) use batch::require_map;
pub use batch::{
    BatchBackward, BatchForward, BatchStatistics, batch_apply, batch_backward, batch_backward_of_map,
    batch_forward, batch_map, batch_statistics,
};
pub use batch_merge::TileSums;
pub use l2::{l2_backward, l2_forward};
pub use layer::{layer_backward, layer_backward_residual, layer_forward, layer_forward_residual};

use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor};

/// Bytes that [`batch_forward`] must move for `n` elements: x twice, the residual, y.
pub fn batch_forward_bytes(n: usize, residual: bool) -> usize {
    4 * n * (3 + usize::from(residual))
}

/// Bytes that [`batch_backward`] must move for `n` elements: dy and x twice, dx, and for a ReLU two more: y twice, or
/// y and the residual's gradient, which then stands for dy and y in the second pass.
pub fn batch_backward_bytes(n: usize, relu: bool) -> usize {
    4 * n * (5 + 2 * usize::from(relu))
}

/// Checks that `x` is of a float type of its device and has a last dimension, and gives (rows, last dimension).
#[track_caller]
fn rows_of(name: &'static str, x: &Tensor) -> Result<(usize, usize)> {
    require_float(name, "x", x)?;
    match x.shape().split_last() {
        Some((&last, leading)) => Ok((leading.iter().product(), last)),
        None => Err(Error::shape(name, "x needs at least one dimension").argument("x", x)),
    }
}

/// Checks the type and shape of an argument.
#[track_caller]
fn require(
    name: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    dtype: DType,
    shape: &[usize],
) -> Result<()> {
    tensor.require_dtype(name, argument, dtype)?;
    tensor.require_shape(name, argument, shape)
}

/// Checks an f32 argument that may be absent.
#[track_caller]
fn require_parameter(
    name: &'static str,
    argument: &'static str,
    tensor: Option<&Tensor>,
    shape: &[usize],
) -> Result<()> {
    tensor.map_or(Ok(()), |t| require(name, argument, t, DType::F32, shape))
}

/// The values of an argument on the CPU, if there is one.
#[track_caller]
fn values(tensor: Option<&Tensor>) -> Result<Option<&[f32]>> {
    tensor.map(|t| t.as_slice::<f32>()).transpose()
}

/// The device of all tensors that there are.
#[track_caller]
fn one_device(name: &'static str, tensors: &[(&'static str, Option<&Tensor>)]) -> Result<Device> {
    let (names, tensors): (Vec<&str>, Vec<&Tensor>) =
        tensors.iter().filter_map(|&(n, t)| t.map(|t| (n, t))).unzip();
    common(name, &names, &tensors)
}
