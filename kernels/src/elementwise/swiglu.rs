//! The gated unit silu(a) b of transformers' feed-forward layers (Shazeer, "GLU variants improve transformer", 2020).

use super::{cpu, cuda};
use crate::cuda::require_float;
use engine::device::common;
use engine::{Device, Error, Result, Tensor, memory};

/// The shape of the result of x `[.., 2 H]`, and H.
#[track_caller]
fn halved(name: &'static str, x: &Tensor) -> Result<(Vec<usize>, usize)> {
    match x.shape() {
        [rows @ .., width] if width.is_multiple_of(2) => Ok(([rows, &[width / 2]].concat(), width / 2)),
        _ => Err(Error::shape(name, "x must be [.., 2 H]").argument("x", x)),
    }
}

/// silu(a) b for every row of x `[.., 2 H]` -> `[.., H]`: a is the first half of the row, b the second, silu(a) =
/// a / (1 + e^-a). f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn swiglu(x: &Tensor) -> Result<Tensor> {
    let name = "swiglu";
    let _op = memory::operation(name);
    require_float(name, "x", x)?;
    let (shape, half) = halved(name, x)?;
    let mut y = Tensor::empty(&shape, x.dtype(), x.device())?;
    match x.device() {
        Device::Cpu => cpu::swiglu(x.as_slice()?, half, y.as_mut_slice()?),
        Device::Cuda(_) => cuda::swiglu(x, half, &mut y)?,
    }
    Ok(y)
}

/// Gradient of [`swiglu`] from its input: dy `[.., H]`, x `[.., 2 H]` -> `[.., 2 H]`. f32 (on CUDA devices bf16 too),
/// contiguous.
#[track_caller]
pub fn swiglu_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let name = "swiglu_backward";
    let _op = memory::operation(name);
    require_float(name, "x", x)?;
    let (shape, half) = halved(name, x)?;
    dy.require_dtype(name, "dy", x.dtype())?;
    dy.require_shape(name, "dy", &shape)?;
    let mut dx = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    match common(name, &["dy", "x"], &[dy, x])? {
        Device::Cpu => {
            cpu::swiglu_backward(dy.as_slice::<f32>()?, x.as_slice()?, half, dx.as_mut_slice::<f32>()?)
        }
        Device::Cuda(_) => cuda::swiglu_backward(dy, x, half, &mut dx)?,
    }
    Ok(dx)
}
