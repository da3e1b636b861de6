//! Launchers of layer normalisation (Ba, Kiros and Hinton, 2016).

use super::{cpu, optional, required, rows_of};
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// y = (x - mean) * rstd * weight + bias with each row's own mean and rstd = 1 / sqrt(biased variance + eps).
///
/// x [.., D], weight and bias [D] (1 and 0 if absent). Gives y as x, mean and rstd [..]. An error if D is 0.
#[track_caller]
pub fn layer_forward(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<(Tensor, Tensor, Tensor)> {
    let name = "layer_norm";
    let _op = memory::operation(name);
    let (_, width) = rows_of(name, x)?;
    if width == 0 {
        return Err(Error::shape(name, "a row needs at least one element").argument("x", x));
    }
    let weights = optional(name, "weight", weight, &[width])?;
    let biases = optional(name, "bias", bias, &[width])?;
    let leading = &x.shape()[..x.rank() - 1];
    match common(name, &["x", "weight", "bias"], &[x, weight.unwrap_or(x), bias.unwrap_or(x)])? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => {
            let values = x.as_slice::<f32>()?;
            let mut y = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut mean = Tensor::empty(leading, DType::F32, Device::Cpu)?;
            let mut rstd = Tensor::empty(leading, DType::F32, Device::Cpu)?;
            let outputs = (y.as_mut_slice()?, mean.as_mut_slice()?, rstd.as_mut_slice()?);
            cpu::layer::forward(values, width, weights, biases, eps, outputs);
            Ok((y, mean, rstd))
        }
    }
}

/// Gradients of [`layer_forward`]: (dx, dweight [D], dbias [D]).
///
/// dy, x [.., D]; mean and rstd [..] as it gave them.
#[track_caller]
pub fn layer_backward(
    dy: &Tensor,
    x: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let name = "layer_norm_backward";
    let _op = memory::operation(name);
    let (_, width) = rows_of(name, x)?;
    if width == 0 {
        return Err(Error::shape(name, "a row needs at least one element").argument("x", x));
    }
    let leading = &x.shape()[..x.rank() - 1];
    let gradient = required(name, "dy", dy, x.shape())?;
    let statistics = (required(name, "mean", mean, leading)?, required(name, "rstd", rstd, leading)?);
    let weights = optional(name, "weight", weight, &[width])?;
    let all = [dy, x, mean, rstd, weight.unwrap_or(x)];
    match common(name, &["dy", "x", "mean", "rstd", "weight"], &all)? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => {
            let values = x.as_slice::<f32>()?;
            let mut dx = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut dweight = Tensor::empty(&[width], DType::F32, Device::Cpu)?;
            let mut dbias = Tensor::empty(&[width], DType::F32, Device::Cpu)?;
            let outputs = (dx.as_mut_slice()?, dweight.as_mut_slice()?, dbias.as_mut_slice()?);
            cpu::layer::backward(gradient, values, statistics, weights, outputs)?;
            Ok((dx, dweight, dbias))
        }
    }
}
