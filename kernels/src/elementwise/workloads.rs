//! What is profiled and timed: one kernel of each shape of access.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

/// A quarter of a million elements.
const SHAPE: [usize; 2] = [512, 512];

fn operand(seed: u64, shape: &[usize], device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(shape, seed, 1.0), dtype, device)
}

type Residual = fn(&Tensor, &Tensor, Option<&Tensor>, Option<&Tensor>) -> Result<()>;

/// 512 rows of eight samples, with a scale and a keep.
fn residual(device: Device, dtype: DType, f: Residual) -> Result<Run> {
    let shape = [8, SHAPE[0] / 8, SHAPE[1]];
    let (x, branch) = (operand(1, &shape, device, dtype)?, operand(2, &shape, device, dtype)?);
    let scale = operand(3, &SHAPE[1..], device, DType::F32)?;
    let keep = operand(4, &[8], device, DType::F32)?;
    Ok(Box::new(move || f(&x, &branch, Some(&scale), Some(&keep))))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    fn two(device: Device, dtype: DType, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Run> {
        let (a, b) = (operand(1, &SHAPE, device, dtype)?, operand(2, &SHAPE, device, dtype)?);
        Ok(Box::new(move || f(&a, &b).map(drop)))
    }
    vec![
        Workload { label: "add 512x512", prepare: |device, dtype| two(device, dtype, add) },
        Workload { label: "gelu 512x512", prepare: |device, dtype| two(device, dtype, |a, _| gelu(a)) },
        Workload {
            label: "gelu_backward 512x512",
            prepare: |device, dtype| two(device, dtype, gelu_backward),
        },
        Workload {
            label: "add_bias 512x512",
            prepare: |device, dtype| {
                let x = operand(1, &SHAPE, device, dtype)?;
                let bias = operand(2, &SHAPE[1..], device, dtype)?;
                Ok(Box::new(move || add_bias(&x, &bias).map(drop)))
            },
        },
        Workload {
            label: "bias_gelu 512x512",
            prepare: |device, dtype| {
                let x = operand(1, &SHAPE, device, dtype)?;
                let bias = operand(2, &SHAPE[1..], device, dtype)?;
                Ok(Box::new(move || bias_gelu(&x, &bias).map(drop)))
            },
        },
        Workload {
            label: "swiglu 512x512",
            prepare: |device, dtype| {
                let x = operand(1, &[SHAPE[0], 2 * SHAPE[1]], device, dtype)?;
                Ok(Box::new(move || swiglu(&x).map(drop)))
            },
        },
        Workload {
            label: "swiglu_backward 512x512",
            prepare: |device, dtype| {
                let x = operand(1, &[SHAPE[0], 2 * SHAPE[1]], device, dtype)?;
                let dy = operand(2, &SHAPE, device, dtype)?;
                Ok(Box::new(move || swiglu_backward(&dy, &x).map(drop)))
            },
        },
        Workload {
            label: "residual_scale 512x512",
            prepare: |device, dtype| {
                residual(device, dtype, |x, b, s, k| residual_scale(x, b, s, k).map(drop))
            },
        },
        Workload {
            label: "residual_scale_backward 512x512",
            prepare: |device, dtype| {
                residual(device, dtype, |x, b, s, k| residual_scale_backward(x, b, s, k).map(drop))
            },
        },
    ]
}
