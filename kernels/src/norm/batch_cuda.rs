//! Launches of `batch.cu`.

use super::TileSums;
use super::columns::{FINISH, Plan, aligned, finish_block, stride};
use crate::cuda::{THREADS, typed_kernels};
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

typed_kernels! {
    family: "norm", file: "batch.cu", options: [];
    STATISTICS = "norm_batch_statistics";
    FINISH_STATISTICS = "norm_batch_finish";
    PREPARE = "norm_batch_prepare";
    APPLY = "norm_batch_apply";
}

/// y from x [.., C] and the map (mean, scale, offset) of each channel.
#[track_caller]
pub fn apply(
    name: &'static str,
    x: &Tensor,
    channels: usize,
    map: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let mut y = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let plan = Plan::map(x.len() / channels.max(1), channels, x.dtype());
    Launch::new(APPLY.of(name, x.dtype())?, x.device())?
        .read(x)?
        .read_optional(residual)?
        .read(map)?
        .write(&mut y)?
        .value(plan.columns)
        .value(stride(channels) as u32)
        .value(u32::from(relu))
        .value(u32::from(aligned([Some(x), residual])))
        .grid3(plan.grid())
        .block3(plan.block())
        .flops(4.0 * x.len() as f64)
        .run()?;
    Ok(y)
}

/// Partial statistics of x [.., C]: mean and squares of the rows of each block.
#[track_caller]
fn partials(name: &'static str, x: &Tensor, channels: usize) -> Result<(Plan, Tensor)> {
    let (dtype, device) = (x.dtype(), x.device());
    let plan = Plan::sums(x.len() / channels.max(1), channels, dtype);
    let mut partials = plan.partials(dtype, device)?;
    Launch::new(STATISTICS.of(name, dtype)?, device)?
        .read(x)?
        .write(&mut partials)?
        .value(plan.columns)
        .value(u32::from(x.is_aligned(16)))
        .grid3(plan.grid())
        .block3(plan.block())
        .flops(5.0 * x.len() as f64)
        .run()?;
    Ok((plan, partials))
}

/// Mean, variance and map of x [.., C], which has a row, and whose sums are there or not.
#[track_caller]
pub fn statistics(
    name: &'static str,
    x: &Tensor,
    channels: usize,
    sums: Option<&TileSums>,
    (weight, bias): (Option<&Tensor>, Option<&Tensor>),
    eps: f32,
    [mean, variance, map]: [&mut Tensor; 3],
) -> Result<()> {
    let (plan, partials) = match sums {
        Some(sums) => sums.merge()?,
        None => partials(name, x, channels)?,
    };
    Launch::new(FINISH_STATISTICS.of(name, x.dtype())?, x.device())?
        .read(&partials)?
        .read_optional(weight)?
        .read_optional(bias)?
        .write(mean)?
        .write(variance)?
        .write(map)?
        .value(plan.columns)
        .value(plan.blocks as u64)
        .value(stride(channels) as u32)
        .value(eps)
        .grid(channels.div_ceil(FINISH))
        .block3(finish_block(plan.blocks))
        .run()
}

/// The map of given statistics [C].
#[track_caller]
pub fn map_of(
    name: &'static str,
    (mean, variance): (&Tensor, &Tensor),
    (weight, bias): (Option<&Tensor>, Option<&Tensor>),
    dtype: DType,
    eps: f32,
) -> Result<Tensor> {
    let channels = mean.len();
    let mut map = Tensor::empty(&[3, stride(channels)], DType::F32, mean.device())?;
    Launch::new(PREPARE.of(name, dtype)?, mean.device())?
        .read(mean)?
        .read(variance)?
        .read_optional(weight)?
        .read_optional(bias)?
        .write(&mut map)?
        .value(channels as u32)
        .value(stride(channels) as u32)
        .value(eps)
        .grid(channels.div_ceil(THREADS))
        .block(THREADS)
        .run()?;
    Ok(map)
}
