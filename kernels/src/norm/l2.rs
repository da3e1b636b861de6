//! Launchers of normalisation to unit Euclidean length.

use super::{cpu, l2_cuda, require, rows_of};
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

#[track_caller]
fn rank_two(name: &'static str, x: &Tensor) -> Result<()> {
    match x.rank() {
        2 => Ok(()),
        _ => Err(Error::shape(name, "x must have rank 2: [rows, elements]").argument("x", x)),
    }
}

/// y = x / max(|x|, eps) for each row of x [M, D]. Gives y [M, D] and |x| [M].
///
/// Squares are summed in f64 on the CPU, and of a row scaled by a power of two on CUDA devices, so that rows of magnitude
/// 1e-30 or 1e30 neither vanish nor overflow. x and y are f32 (on CUDA devices bf16 too), the norm is f32.
#[track_caller]
pub fn l2_forward(x: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let name = "l2_norm";
    let _op = memory::operation(name);
    let (rows, width) = rows_of(name, x)?;
    rank_two(name, x)?;
    match x.device() {
        Device::Cuda(_) => l2_cuda::forward(name, x, rows, width, eps),
        Device::Cpu => {
            let values = x.as_slice::<f32>()?;
            let mut y = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut norm = Tensor::empty(&[rows], DType::F32, Device::Cpu)?;
            cpu::l2::forward(values, width, eps, y.as_mut_slice()?, norm.as_mut_slice()?);
            Ok((y, norm))
        }
    }
}

/// Gradient of [`l2_forward`]: (dy - y (y . dy)) / |x|, or dy / eps for a row shorter than eps.
///
/// dy, y [M, D], f32 (on CUDA devices bf16 too); norm [M], f32, as it gave them.
#[track_caller]
pub fn l2_backward(dy: &Tensor, y: &Tensor, norm: &Tensor, eps: f32) -> Result<Tensor> {
    let name = "l2_norm_backward";
    let _op = memory::operation(name);
    let (rows, width) = rows_of(name, y)?;
    rank_two(name, y)?;
    require(name, "dy", dy, y.dtype(), y.shape())?;
    require(name, "norm", norm, DType::F32, &[rows])?;
    match common(name, &["dy", "y", "norm"], &[dy, y, norm])? {
        Device::Cuda(_) => l2_cuda::backward(name, (dy, y, norm), width, eps),
        Device::Cpu => {
            let (gradient, norms) = (dy.as_slice::<f32>()?, norm.as_slice::<f32>()?);
            let values = y.as_slice::<f32>()?;
            let mut dx = Tensor::empty(y.shape(), DType::F32, Device::Cpu)?;
            cpu::l2::backward(gradient, values, width, norms, eps, dx.as_mut_slice()?);
            Ok(dx)
        }
    }
}
