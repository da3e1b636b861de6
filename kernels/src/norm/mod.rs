//! Normalisation: batch (per channel, with residual and ReLU fused), layer (per row), and to unit L2 length.
//!
//! All are bound by memory. Batch normalisation of n f32 elements must read x twice (statistics, then the
//! result) and write y: [`batch_forward_bytes`]. Its backward must read dy and x (and y for the ReLU mask)
//! twice and write dx: [`batch_backward_bytes`]. Rows of layer and L2 normalisation fit in the first-level
//! cache, so that each tensor moves once.

mod batch;
pub mod cases;
mod cpu;
mod l2;
mod layer;
pub mod reference;
#[cfg(test)]
mod tests;

pub use batch::{BatchBackward, BatchForward, batch_apply, batch_backward, batch_forward};
pub use l2::{l2_backward, l2_forward};
pub use layer::{layer_backward, layer_forward};

/// Bytes that [`batch_forward`] must move for `n` elements: x twice, the residual, y.
pub fn batch_forward_bytes(n: usize, residual: bool) -> usize {
    4 * n * (3 + usize::from(residual))
}

/// Bytes that [`batch_backward`] must move for `n` elements: dy and x twice, dx, and for a ReLU two more: y twice, or
/// y and the residual's gradient, which then stands for dy and y in the second pass.
pub fn batch_backward_bytes(n: usize, relu: bool) -> usize {
    4 * n * (5 + 2 * usize::from(relu))
}

/// Checks that `x` is f32 with a last dimension, and gives (rows, last dimension).
#[track_caller]
fn rows_of(name: &'static str, x: &engine::Tensor) -> engine::Result<(usize, usize)> {
    x.require_dtype(name, "x", engine::DType::F32)?;
    match x.shape().split_last() {
        Some((&last, leading)) => Ok((leading.iter().product(), last)),
        None => Err(engine::Error::shape(name, "x needs at least one dimension").argument("x", x)),
    }
}

/// The values of an optional argument of shape `shape`.
#[track_caller]
fn optional<'a>(
    name: &'static str,
    argument: &'static str,
    tensor: Option<&'a engine::Tensor>,
    shape: &[usize],
) -> engine::Result<Option<&'a [f32]>> {
    match tensor {
        Some(t) => required(name, argument, t, shape).map(Some),
        None => Ok(None),
    }
}

/// The values of an argument of shape `shape`.
#[track_caller]
fn required<'a>(
    name: &'static str,
    argument: &'static str,
    tensor: &'a engine::Tensor,
    shape: &[usize],
) -> engine::Result<&'a [f32]> {
    tensor.require_dtype(name, argument, engine::DType::F32)?;
    tensor.require_shape(name, argument, shape)?;
    tensor.as_slice::<f32>()
}
