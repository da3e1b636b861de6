//! Launches of `batch_backward.cu`.

use super::BatchBackward;
use super::columns::{FINISH, Plan, aligned, finish_block, stride};
use crate::cuda::typed_kernels;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

typed_kernels! {
    family: "norm", file: "batch_backward.cu", options: [];
    SUMS = "norm_batch_bwd_sums";
    FINISH_SUMS = "norm_batch_bwd_finish";
    APPLY = "norm_batch_bwd_apply";
}

/// What tells where a ReLU has let values through.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    /// Its result.
    Result(&'a Tensor),
    /// The map that makes it of x, without a residual.
    Map(&'a Tensor),
}

/// Gradients from dy, x [.., C], statistics and, behind a ReLU, what tells its mask.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "the gradients and what they depend on")]
pub fn backward(
    name: &'static str,
    (dy, x): (&Tensor, &Tensor),
    mask: Option<Mask<'_>>,
    (mean, variance): (&Tensor, &Tensor),
    weight: Option<&Tensor>,
    has_residual: bool,
    training: bool,
    eps: f32,
) -> Result<BatchBackward> {
    let (dtype, device, channels) = (x.dtype(), x.device(), mean.len());
    let rows = x.len() / channels.max(1);
    let plan = Plan::sums(rows, channels, dtype);
    let mut partials = plan.partials(dtype, device)?;
    let (y, forward) = match mask {
        Some(Mask::Result(y)) => (Some(y), None),
        Some(Mask::Map(map)) => (None, Some(map)),
        None => (None, None),
    };
    let mut masked = match (y, has_residual) {
        (Some(_), true) => Some(Tensor::empty(x.shape(), dtype, device)?),
        _ => None,
    };
    Launch::new(SUMS.of(name, dtype)?, device)?
        .read(dy)?
        .read(x)?
        .read_optional(y)?
        .read(mean)?
        .read_optional(forward)?
        .write_optional(masked.as_mut())?
        .write(&mut partials)?
        .value(plan.columns)
        .value(stride(channels) as u32)
        .value(u32::from(aligned([Some(dy), Some(x), y, Some(mean)])))
        .grid3(plan.grid())
        .block3(plan.block())
        .flops(4.0 * x.len() as f64)
        .run()?;
    let mut dweight = Tensor::empty(&[channels], DType::F32, device)?;
    let mut dbias = Tensor::empty(&[channels], DType::F32, device)?;
    let mut map = Tensor::empty(&[4, stride(channels)], DType::F32, device)?;
    Launch::new(FINISH_SUMS.of(name, dtype)?, device)?
        .read(&partials)?
        .read(mean)?
        .read(variance)?
        .read_optional(weight)?
        .write(&mut dweight)?
        .write(&mut dbias)?
        .write(&mut map)?
        .value(plan.columns)
        .value(plan.blocks as u64)
        .value(stride(channels) as u32)
        .value(eps)
        .grid(channels.div_ceil(FINISH))
        .block3(finish_block(plan.blocks))
        .run()?;
    // The masked gradient, once written, spares reading dy and y again.
    let (gradient, mask) = match &masked {
        Some(g) => (g, None),
        None => (dy, y),
    };
    let values = training.then_some(x);
    let mut dx = Tensor::empty(x.shape(), dtype, device)?;
    let plan = Plan::map(rows, channels, dtype);
    Launch::new(APPLY.of(name, dtype)?, device)?
        .read(gradient)?
        .read_optional(values)?
        .read_optional(mask)?
        .read(&map)?
        .read_optional(forward)?
        .write(&mut dx)?
        .value(plan.columns)
        .value(stride(channels) as u32)
        .value(u32::from(aligned([Some(gradient), values, mask])))
        .grid3(plan.grid())
        .block3(plan.block())
        .flops(5.0 * x.len() as f64)
        .run()?;
    let dresidual = match (has_residual, masked) {
        (false, _) => None,
        (true, Some(g)) => Some(g),
        (true, None) => Some(dy.clone()),
    };
    Ok(BatchBackward { dx, dweight, dbias, dresidual })
}
