//! Launchers of layer normalisation (Ba, Kiros and Hinton, 2016).

use super::{cpu, layer_backward_cuda, layer_cuda, one_device, require, require_parameter, rows_of, values};
use engine::{DType, Device, Error, Result, Tensor, memory};

/// y = (x - mean) * rstd * weight + bias with each row's own mean and rstd = 1 / sqrt(biased variance + eps).
///
/// x [.., D], weight and bias [D] (1 and 0 if absent). Gives y as x, mean and rstd [..]. An error if D is 0.
///
/// On the CPU all tensors are f32. On CUDA devices x and y may be bf16; weight, bias, mean and rstd are f32 always.
#[track_caller]
pub fn layer_forward(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (_, y, mean, rstd) = forward("layer_norm", x, None, weight, bias, eps)?;
    Ok((y, mean, rstd))
}

/// [`layer_forward`] of x + branch, of one shape and type, in one pass. Gives the sum too: (sum, y, mean, rstd). Types
/// as there, and the branch's is x's.
///
/// The sum is rounded to the element type, and what is normalised is the rounded sum, so that a backward pass from the
/// sum sees what this saw.
#[track_caller]
pub fn layer_forward_residual(
    x: &Tensor,
    branch: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<(Tensor, Tensor, Tensor, Tensor)> {
    let (sum, y, mean, rstd) = forward("layer_norm_residual", x, Some(branch), weight, bias, eps)?;
    Ok((sum.unwrap_or_else(|| x.clone()), y, mean, rstd))
}

#[track_caller]
fn forward(
    name: &'static str,
    x: &Tensor,
    branch: Option<&Tensor>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<layer_cuda::Forward> {
    let _op = memory::operation(name);
    let (_, width) = rows_of(name, x)?;
    if width == 0 {
        return Err(Error::shape(name, "a row needs at least one element").argument("x", x));
    }
    if let Some(branch) = branch {
        require(name, "branch", branch, x.dtype(), x.shape())?;
    }
    require_parameter(name, "weight", weight, &[width])?;
    require_parameter(name, "bias", bias, &[width])?;
    match one_device(name, &[("x", Some(x)), ("branch", branch), ("weight", weight), ("bias", bias)])? {
        Device::Cuda(_) => layer_cuda::forward(name, x, branch, (weight, bias), width, eps),
        Device::Cpu => {
            let leading = &x.shape()[..x.rank() - 1];
            let (weights, biases) = (values(weight)?, values(bias)?);
            let mut y = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut mean = Tensor::empty(leading, DType::F32, Device::Cpu)?;
            let mut rstd = Tensor::empty(leading, DType::F32, Device::Cpu)?;
            let outputs = (y.as_mut_slice()?, mean.as_mut_slice()?, rstd.as_mut_slice()?);
            let sum = match branch {
                None => {
                    cpu::layer::forward(x.as_slice()?, width, weights, biases, eps, outputs);
                    None
                }
                Some(branch) => {
                    let terms = (x.as_slice()?, branch.as_slice()?);
                    let mut sum = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
                    let store = sum.as_mut_slice()?;
                    cpu::layer::forward_residual(terms, store, width, weights, biases, eps, outputs);
                    Some(sum)
                }
            };
            Ok((sum, y, mean, rstd))
        }
    }
}

/// Gradients of [`layer_forward`]: (dx, dweight [D], dbias [D]).
///
/// dy, x [.., D]; mean and rstd [..] as it gave them.
///
/// On the CPU all tensors are f32. On CUDA devices dy, x and dx may be bf16; the others are f32 always.
#[track_caller]
pub fn layer_backward(
    dy: &Tensor,
    x: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
) -> Result<(Tensor, Tensor, Tensor)> {
    backward("layer_norm_backward", dy, None, x, mean, rstd, weight)
}

/// Gradients of [`layer_forward_residual`]: (dx, dweight [D], dbias [D]), where dx, the gradient of the sum's use in
/// the normalisation plus `dsum`, that of its other uses, is the gradient of both x and the branch.
///
/// dy, dsum, sum [.., D]; mean and rstd [..] as it gave them; types as in [`layer_backward`].
#[track_caller]
pub fn layer_backward_residual(
    dy: &Tensor,
    dsum: &Tensor,
    sum: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
) -> Result<(Tensor, Tensor, Tensor)> {
    backward("layer_norm_residual_backward", dy, Some(dsum), sum, mean, rstd, weight)
}

#[track_caller]
fn backward(
    name: &'static str,
    dy: &Tensor,
    dsum: Option<&Tensor>,
    x: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: Option<&Tensor>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let _op = memory::operation(name);
    let (_, width) = rows_of(name, x)?;
    if width == 0 {
        return Err(Error::shape(name, "a row needs at least one element").argument("x", x));
    }
    let leading = &x.shape()[..x.rank() - 1];
    require(name, "dy", dy, x.dtype(), x.shape())?;
    if let Some(dsum) = dsum {
        require(name, "dsum", dsum, x.dtype(), x.shape())?;
    }
    require(name, "mean", mean, DType::F32, leading)?;
    require(name, "rstd", rstd, DType::F32, leading)?;
    require_parameter(name, "weight", weight, &[width])?;
    let all = [
        ("dy", Some(dy)),
        ("dsum", dsum),
        ("x", Some(x)),
        ("mean", Some(mean)),
        ("rstd", Some(rstd)),
        ("weight", weight),
    ];
    match one_device(name, &all)? {
        Device::Cuda(_) => {
            let inputs = layer_backward_cuda::Inputs { dy, x, mean, rstd, weight, dsum };
            layer_backward_cuda::backward(name, inputs, width)
        }
        Device::Cpu => {
            let mut dx = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut dweight = Tensor::empty(&[width], DType::F32, Device::Cpu)?;
            let mut dbias = Tensor::empty(&[width], DType::F32, Device::Cpu)?;
            let outputs = (dx.as_mut_slice()?, dweight.as_mut_slice()?, dbias.as_mut_slice()?);
            let statistics = (mean.as_slice()?, rstd.as_slice()?);
            let (gradient, other) = (dy.as_slice()?, values(dsum)?);
            cpu::layer::backward(gradient, other, x.as_slice()?, statistics, values(weight)?, outputs)?;
            Ok((dx, dweight, dbias))
        }
    }
}
