//! Softmax and its cross-entropy with labels or with soft targets.
//!
//! With `lse_i = log sum_v exp(x_iv)`, weights `w_iv = (1 - smoothing) t_iv + smoothing / V` (PyTorch's
//! convention; a label is a one-hot `t`) and `W_i = sum_v w_iv`:
//!
//! ```text
//! loss_i = sum_v w_iv (lse_i - x_iv)          d loss_i / d x_iv = W_i exp(x_iv - lse_i) - w_iv
//! ```
//!
//! A weight of zero contributes zero even where the logit is minus infinity. A row of nothing but minus
//! infinity has lse minus infinity, loss 0 and gradient 0. NaN stays in its row.
//!
//! Must move, in floats: forward M V (labels) or 2 M V (soft targets) read; backward the same read and M V
//! written. About one exponential an element each way. Nothing of size [M, V] is made but the gradient.

pub mod cases;
pub(crate) mod check;
pub mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub(crate) mod lanes;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// What each row should predict.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// i32 [M]: the class of each row, in 0 .. V.
    Labels(&'a Tensor),
    /// [M, V] of the logits' type: a weight for each class. Rows need not add up to one.
    Probabilities(&'a Tensor),
}

impl Target<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Target::Labels(t) | Target::Probabilities(t) => t,
        }
    }
}

/// The logits' M and V.
#[track_caller]
fn checked(operation: &str, logits: &Tensor, target: Target, smoothing: f32) -> Result<(usize, usize)> {
    let &[m, v] = logits.shape() else {
        return Err(Error::shape(operation, "logits must be [M, V]").argument("logits", logits));
    };
    require_float(operation, "logits", logits)?;
    if v == 0 && m > 0 {
        return Err(Error::shape(operation, "needs at least one class").argument("logits", logits));
    }
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(Error::value(operation, "smoothing must lie in 0 to 1").with("smoothing", smoothing));
    }
    match target {
        Target::Labels(labels) => {
            labels.require_shape(operation, "labels", &[m])?;
            labels.require_dtype(operation, "labels", DType::I32)?;
        }
        Target::Probabilities(weights) => {
            weights.require_shape(operation, "probabilities", &[m, v])?;
            weights.require_dtype(operation, "probabilities", logits.dtype())?;
        }
    }
    Ok((m, v))
}

/// The target's elements on the CPU, where labels are looked at before they are used.
#[track_caller]
fn weights_on_cpu<'a>(
    operation: &str,
    logits: &Tensor,
    target: Target<'a>,
    smoothing: f32,
) -> Result<cpu::Weights<'a>> {
    let v = logits.shape()[1];
    let target = match target {
        Target::Labels(labels) => {
            let labels = labels.as_slice::<i32>()?;
            if let Some(row) = labels.iter().position(|&l| l < 0 || l as usize >= v) {
                return Err(Error::value(
                    operation,
                    format!("the label of row {row} is {}, outside 0 to {}", labels[row], v - 1),
                )
                .argument("logits", logits));
            }
            cpu::Target::Labels(labels)
        }
        Target::Probabilities(weights) => cpu::Target::Probabilities(weights.as_slice()?),
    };
    Ok(cpu::Weights { target, smoothing })
}

/// Cross-entropy of each row of logits [M, V]: `(loss [M], lse [M])`.
///
/// Logits are f32, on CUDA devices bf16 too; loss and lse are f32. Errors: shapes, types or devices that do not fit;
/// smoothing outside 0 to 1; on the CPU a label outside 0 .. V (the row and the value are named). A CUDA device does
/// not look at labels beforehand: such a label makes its row's loss and gradient NaN.
#[track_caller]
pub fn forward(logits: &Tensor, target: Target, smoothing: f32) -> Result<(Tensor, Tensor)> {
    let _op = memory::operation("softmax_xent");
    let device = common("softmax_xent", &["logits", "target"], &[logits, target.tensor()])?;
    let (m, v) = checked("softmax_xent", logits, target, smoothing)?;
    let mut loss = Tensor::empty(&[m], DType::F32, device)?;
    let mut lse = Tensor::empty(&[m], DType::F32, device)?;
    match device {
        Device::Cuda(_) => cuda::forward(logits, target, smoothing, &mut loss, &mut lse)?,
        Device::Cpu => {
            let weights = weights_on_cpu("softmax_xent", logits, target, smoothing)?;
            cpu::forward(logits.as_slice()?, v, weights, loss.as_mut_slice()?, lse.as_mut_slice()?);
        }
    }
    Ok((loss, lse))
}

/// Gradient of [`forward`]'s loss with respect to the logits, times `dloss` [M]: [M, V] of the logits' type.
///
/// `dloss` and `lse` are f32; `lse` is what `forward` returned for the same logits. Types, errors and labels out of
/// range as [`forward`].
#[track_caller]
pub fn backward(
    dloss: &Tensor,
    logits: &Tensor,
    target: Target,
    smoothing: f32,
    lse: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "softmax_xent_backward";
    let _op = memory::operation("softmax_xent");
    let names = ["dloss", "logits", "target", "lse"];
    let device = common(OP, &names, &[dloss, logits, target.tensor(), lse])?;
    let (m, v) = checked(OP, logits, target, smoothing)?;
    for (name, x) in [("dloss", dloss), ("lse", lse)] {
        x.require_shape(OP, name, &[m])?;
        x.require_dtype(OP, name, DType::F32)?;
    }
    let mut dx = Tensor::empty(&[m, v], logits.dtype(), device)?;
    match device {
        Device::Cuda(_) => cuda::backward(dloss, logits, target, smoothing, lse, &mut dx)?,
        Device::Cpu => {
            let weights = weights_on_cpu(OP, logits, target, smoothing)?;
            let (dloss, lse) = (dloss.as_slice()?, lse.as_slice()?);
            cpu::backward(dloss, logits.as_slice()?, v, weights, lse, dx.as_mut_slice()?);
        }
    }
    Ok(dx)
}

/// Softmax of each row of `x` [M, V], f32 or on CUDA devices bf16, which the result is too. A row of nothing but minus
/// infinity becomes zeros.
#[track_caller]
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let _op = memory::operation("softmax");
    let &[m, v] = x.shape() else {
        return Err(Error::shape("softmax", "x must be [M, V]").argument("x", x));
    };
    require_float("softmax", "x", x)?;
    let mut y = Tensor::empty(&[m, v], x.dtype(), x.device())?;
    match x.device() {
        Device::Cuda(_) => cuda::softmax(x, &mut y)?,
        Device::Cpu => cpu::softmax(x.as_slice()?, v, y.as_mut_slice()?),
    }
    Ok(y)
}
