//! Launchers of normalisation to unit Euclidean length.

use super::{cpu, required, rows_of};
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
/// Squares are summed in f64, so that rows of magnitude 1e-30 or 1e30 neither vanish nor overflow.
#[track_caller]
pub fn l2_forward(x: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let name = "l2_norm";
    let _op = memory::operation(name);
    let (rows, width) = rows_of(name, x)?;
    rank_two(name, x)?;
    match x.device() {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
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
/// dy, y [M, D]; norm [M] as it gave them.
#[track_caller]
pub fn l2_backward(dy: &Tensor, y: &Tensor, norm: &Tensor, eps: f32) -> Result<Tensor> {
    let name = "l2_norm_backward";
    let _op = memory::operation(name);
    let (rows, width) = rows_of(name, y)?;
    rank_two(name, y)?;
    let gradient = required(name, "dy", dy, y.shape())?;
    let norms = required(name, "norm", norm, &[rows])?;
    match common(name, &["dy", "y", "norm"], &[dy, y, norm])? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => {
            let values = y.as_slice::<f32>()?;
            let mut dx = Tensor::empty(y.shape(), DType::F32, Device::Cpu)?;
            cpu::l2::backward(gradient, values, width, norms, eps, dx.as_mut_slice()?);
            Ok(dx)
        }
    }
}
