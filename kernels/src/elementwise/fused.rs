//! Chains of elementwise steps: on CUDA devices in one pass, so that what lies between the steps is never written.

use super::{add, cpu, cuda, mul};
use crate::cuda::require_float;
use crate::reduce;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// An error unless x is `[.., N]` and the bias `[N]` of its type; where both are.
#[track_caller]
fn require_bias(name: &'static str, x: &Tensor, bias: &Tensor) -> Result<Device> {
    require_float(name, "x", x)?;
    bias.require_dtype(name, "bias", x.dtype())?;
    let Some(&n) = x.shape().last() else {
        return Err(Error::shape(name, "x needs at least one dimension").argument("x", x));
    };
    bias.require_shape(name, "bias", &[n])?;
    common(name, &["x", "bias"], &[x, bias])
}

/// GELU of x + bias for every row: x `[.., N]`, bias `[N]` -> (y, pre), both `[.., N]`, y = gelu(pre), pre = x + bias.
/// f32 (on CUDA devices bf16 too, where y is computed from the pre-activation before it is rounded), contiguous.
///
/// The gradient with respect to x is [`super::gelu_backward`] of pre, and with respect to the bias the sum of its rows.
#[track_caller]
pub fn bias_gelu(x: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    let name = "bias_gelu";
    let _op = memory::operation(name);
    match require_bias(name, x, bias)? {
        Device::Cpu => {
            let mut y = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut pre = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            cpu::bias_gelu(x.as_slice()?, bias.as_slice()?, y.as_mut_slice()?, pre.as_mut_slice()?);
            Ok((y, pre))
        }
        Device::Cuda(_) => cuda::bias_gelu(x, bias),
    }
}

/// max(x + bias, 0) for every row: x `[.., N]`, bias `[N]` -> `[.., N]`; NaN stays NaN. f32 (on CUDA devices bf16 too),
/// contiguous.
///
/// The gradient with respect to x is [`super::relu_backward`] of the result, and with respect to the bias the sum of
/// its rows.
#[track_caller]
pub fn bias_relu(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let name = "bias_relu";
    let _op = memory::operation(name);
    match require_bias(name, x, bias)? {
        Device::Cpu => {
            let mut out = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            cpu::bias_relu(x.as_slice()?, bias.as_slice()?, out.as_mut_slice()?);
            Ok(out)
        }
        Device::Cuda(_) => cuda::bias_relu(x, bias),
    }
}

/// What scales a residual branch.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a> {
    pub scale: Option<&'a Tensor>,
    pub keep: Option<&'a Tensor>,
    /// Elements of a row.
    pub width: usize,
    /// Rows of a sample.
    pub rows: usize,
}

impl<'a> Factors<'a> {
    /// An error unless both tensors of `[N, .., C]` are of one float type, the scale is f32 `[C]` and the keep f32
    /// `[N]`; also where all are.
    #[track_caller]
    fn new(
        name: &'static str,
        names: [&'static str; 2],
        [x, branch]: [&Tensor; 2],
        scale: Option<&'a Tensor>,
        keep: Option<&'a Tensor>,
    ) -> Result<(Device, Factors<'a>)> {
        require_float(name, names[0], x)?;
        branch.require_dtype(name, names[1], x.dtype())?;
        branch.require_shape(name, names[1], x.shape())?;
        let &[samples, ref inner @ .., width] = x.shape() else {
            return Err(Error::shape(name, "needs samples and channels").argument(names[0], x));
        };
        let (mut all, mut called) = (vec![x, branch], names.to_vec());
        for (what, factor, size) in [("scale", scale, width), ("keep", keep, samples)] {
            if let Some(factor) = factor {
                factor.require_dtype(name, what, DType::F32)?;
                factor.require_shape(name, what, &[size])?;
                all.push(factor);
                called.push(what);
            }
        }
        let rows = inner.iter().product();
        Ok((common(name, &called, &all)?, Factors { scale, keep, width, rows }))
    }

    /// scale keep branch on the CPU.
    #[track_caller]
    fn times(&self, branch: &Tensor) -> Result<Tensor> {
        let slice = |factor: Option<&'a Tensor>| factor.map(|f| f.as_slice::<f32>()).transpose();
        let factors = (slice(self.scale)?, slice(self.keep)?);
        let mut out = Tensor::empty(branch.shape(), DType::F32, Device::Cpu)?;
        cpu::scale_rows(branch.as_slice()?, factors, self.width, self.rows, out.as_mut_slice()?);
        Ok(out)
    }
}

/// The end of a residual block: x + scale keep branch, x and branch `[N, .., C]` of rank 2 or more -> `[N, .., C]`.
///
/// `scale` `[C]` is a factor a channel (LayerScale; Touvron et al., "Going deeper with image transformers", 2021,
/// equation 4), `keep` `[N]` one a sample (stochastic depth: 0, or one over the probability of keeping). Both are f32;
/// without them the factor is 1. x and branch are f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn residual_scale(
    x: &Tensor,
    branch: &Tensor,
    scale: Option<&Tensor>,
    keep: Option<&Tensor>,
) -> Result<Tensor> {
    let name = "residual_scale";
    let _op = memory::operation(name);
    match Factors::new(name, ["x", "branch"], [x, branch], scale, keep)? {
        (Device::Cpu, factors) => add(x, &factors.times(branch)?),
        (Device::Cuda(_), factors) => cuda::residual_scale(Some(x), branch, factors),
    }
}

/// Gradients of [`residual_scale`] with respect to the branch and, in f32, the scale if there is one:
/// dbranch = scale keep dy, dscale = the sum over all rows of keep dy branch. That with respect to x is dy itself.
///
/// dy and branch `[N, .., C]`, of one type, f32 (on CUDA devices bf16 too, and both are read once), contiguous.
#[track_caller]
pub fn residual_scale_backward(
    dy: &Tensor,
    branch: &Tensor,
    scale: Option<&Tensor>,
    keep: Option<&Tensor>,
) -> Result<(Tensor, Option<Tensor>)> {
    let name = "residual_scale_backward";
    let _op = memory::operation(name);
    match Factors::new(name, ["dy", "branch"], [dy, branch], scale, keep)? {
        (Device::Cpu, factors) => {
            let products = |_| {
                let kept = Factors { scale: None, ..factors }.times(dy)?;
                reduce::sum_rows(&mul(&kept, branch)?)
            };
            Ok((factors.times(dy)?, scale.map(products).transpose()?))
        }
        (Device::Cuda(_), factors) => match scale {
            Some(scale) => {
                let (dbranch, dscale) = cuda::residual_scale_backward(dy, branch, scale, factors)?;
                Ok((dbranch, Some(dscale)))
            }
            None => Ok((cuda::residual_scale(None, dy, factors)?, None)),
        },
    }
}
