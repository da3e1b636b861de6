//! What is profiled and timed.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

/// Rows and channels of a feature map.
const BATCH: [usize; 2] = [16_384, 64];
/// Tokens and their width.
const LAYER: [usize; 2] = [1_024, 384];
/// Tokens wider than a warp holds.
const WIDE: [usize; 2] = [256, 2_048];
/// Projected views.
const UNIT: [usize; 2] = [2_048, 256];

fn operand(seed: u64, shape: &[usize], device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(shape, seed, 1.0), dtype, device)
}

/// Weight and bias.
fn parameters(width: usize, device: Device) -> Result<(Tensor, Tensor)> {
    Ok((operand(7, &[width], device, DType::F32)?, operand(8, &[width], device, DType::F32)?))
}

fn batch(device: Device, dtype: DType) -> Result<Run> {
    let (x, residual) = (operand(1, &BATCH, device, dtype)?, operand(2, &BATCH, device, dtype)?);
    let (w, b) = parameters(BATCH[1], device)?;
    Ok(Box::new(move || batch_forward(&x, Some(&w), Some(&b), Some(&residual), true, 1e-5).map(drop)))
}

fn batch_gradient(device: Device, dtype: DType) -> Result<Run> {
    let (x, dy) = (operand(1, &BATCH, device, dtype)?, operand(3, &BATCH, device, dtype)?);
    let (w, b) = parameters(BATCH[1], device)?;
    let BatchForward { y, mean, variance } = batch_forward(&x, Some(&w), Some(&b), None, true, 1e-5)?;
    Ok(Box::new(move || {
        batch_backward(&dy, &x, Some(&y), &mean, &variance, Some(&w), true, true, true, 1e-5).map(drop)
    }))
}

/// With the ReLU's mask made again, and nothing kept for it.
fn batch_gradient_of_map(device: Device, dtype: DType) -> Result<Run> {
    let (x, dy) = (operand(1, &BATCH, device, dtype)?, operand(3, &BATCH, device, dtype)?);
    let (w, b) = parameters(BATCH[1], device)?;
    let BatchStatistics { mean, variance, map } = batch_statistics(&x, None, Some(&w), Some(&b), 1e-5)?;
    Ok(Box::new(move || batch_backward_of_map(&dy, &x, &map, (&mean, &variance), Some(&w), 1e-5).map(drop)))
}

fn layer(device: Device, dtype: DType, shape: [usize; 2]) -> Result<Run> {
    let (x, branch) = (operand(1, &shape, device, dtype)?, operand(2, &shape, device, dtype)?);
    let (w, b) = parameters(shape[1], device)?;
    Ok(Box::new(move || layer_forward_residual(&x, &branch, Some(&w), Some(&b), 1e-6).map(drop)))
}

fn layer_gradient(device: Device, dtype: DType, shape: [usize; 2]) -> Result<Run> {
    let (x, dy) = (operand(1, &shape, device, dtype)?, operand(2, &shape, device, dtype)?);
    let dsum = operand(3, &shape, device, dtype)?;
    let (w, _) = parameters(shape[1], device)?;
    let (_, mean, rstd) = layer_forward(&x, None, None, 1e-6)?;
    Ok(Box::new(move || layer_backward_residual(&dy, &dsum, &x, &mean, &rstd, Some(&w)).map(drop)))
}

fn unit(device: Device, dtype: DType) -> Result<Run> {
    let x = operand(1, &UNIT, device, dtype)?;
    Ok(Box::new(move || l2_forward(&x, 1e-12).map(drop)))
}

fn unit_gradient(device: Device, dtype: DType) -> Result<Run> {
    let (x, dy) = (operand(1, &UNIT, device, dtype)?, operand(2, &UNIT, device, dtype)?);
    let (y, norm) = l2_forward(&x, 1e-12)?;
    Ok(Box::new(move || l2_backward(&dy, &y, &norm, 1e-12).map(drop)))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { label: "batch_forward 16384x64", prepare: batch },
        Workload { label: "batch_backward 16384x64", prepare: batch_gradient },
        Workload { label: "batch_backward_of_map 16384x64", prepare: batch_gradient_of_map },
        Workload { label: "layer_forward_residual 1024x384", prepare: |d, t| layer(d, t, LAYER) },
        Workload { label: "layer_backward_residual 1024x384", prepare: |d, t| layer_gradient(d, t, LAYER) },
        Workload { label: "layer_forward_residual 256x2048", prepare: |d, t| layer(d, t, WIDE) },
        Workload { label: "layer_backward_residual 256x2048", prepare: |d, t| layer_gradient(d, t, WIDE) },
        Workload { label: "l2_forward 2048x256", prepare: unit },
        Workload { label: "l2_backward 2048x256", prepare: unit_gradient },
    ]
}
