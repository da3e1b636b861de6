//! Launches of `batch.cu`.

use super::columns::{FINISH, Plan, aligned, finish_block, stride};
use super::{BatchForward, TileSums};
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

/// What comes after the normalisation.
#[derive(Debug, Clone, Copy)]
pub struct Tail<'a> {
    pub weight: Option<&'a Tensor>,
    pub bias: Option<&'a Tensor>,
    pub residual: Option<&'a Tensor>,
    pub relu: bool,
    pub eps: f32,
}

/// y from x [.., C] and the map (mean, scale, offset) of each channel.
#[track_caller]
fn apply(name: &'static str, x: &Tensor, channels: usize, map: &Tensor, tail: Tail) -> Result<Tensor> {
    let mut y = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let plan = Plan::map(x.len() / channels.max(1), channels, x.dtype());
    Launch::new(APPLY.of(name, x.dtype())?, x.device())?
        .read(x)?
        .read_optional(tail.residual)?
        .read(map)?
        .write(&mut y)?
        .value(plan.columns)
        .value(stride(channels) as u32)
        .value(u32::from(tail.relu))
        .value(u32::from(aligned([Some(x), tail.residual])))
        .grid3(plan.grid())
        .block3(plan.block())
        .flops(4.0 * x.len() as f64)
        .run()?;
    Ok(y)
}

/// Partial statistics of x [.., C]: mean and squares of the rows of each block.
#[track_caller]
fn statistics(name: &'static str, x: &Tensor, channels: usize) -> Result<(Plan, Tensor)> {
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

/// y, mean and variance of x [.., C], which has a row, and whose sums are there or not.
#[track_caller]
pub fn forward(
    name: &'static str,
    x: &Tensor,
    channels: usize,
    sums: Option<&TileSums>,
    tail: Tail,
) -> Result<BatchForward> {
    let (dtype, device) = (x.dtype(), x.device());
    let (plan, partials) = match sums {
        Some(sums) => sums.merge()?,
        None => statistics(name, x, channels)?,
    };
    let mut mean = Tensor::empty(&[channels], DType::F32, device)?;
    let mut variance = Tensor::empty(&[channels], DType::F32, device)?;
    let mut map = Tensor::empty(&[3, stride(channels)], DType::F32, device)?;
    Launch::new(FINISH_STATISTICS.of(name, dtype)?, device)?
        .read(&partials)?
        .read_optional(tail.weight)?
        .read_optional(tail.bias)?
        .write(&mut mean)?
        .write(&mut variance)?
        .write(&mut map)?
        .value(plan.columns)
        .value(plan.blocks as u64)
        .value(stride(channels) as u32)
        .value(tail.eps)
        .grid(channels.div_ceil(FINISH))
        .block3(finish_block(plan.blocks))
        .run()?;
    let y = apply(name, x, channels, &map, tail)?;
    Ok(BatchForward { y, mean, variance })
}

/// y of x [.., C] with given statistics.
#[track_caller]
pub fn apply_given(
    name: &'static str,
    x: &Tensor,
    (mean, variance): (&Tensor, &Tensor),
    tail: Tail,
) -> Result<Tensor> {
    let channels = mean.len();
    let mut map = Tensor::empty(&[3, stride(channels)], DType::F32, x.device())?;
    Launch::new(PREPARE.of(name, x.dtype())?, x.device())?
        .read(mean)?
        .read(variance)?
        .read_optional(tail.weight)?
        .read_optional(tail.bias)?
        .write(&mut map)?
        .value(channels as u32)
        .value(stride(channels) as u32)
        .value(tail.eps)
        .grid(channels.div_ceil(THREADS))
        .block(THREADS)
        .run()?;
    apply(name, x, channels, &map, tail)
}
