//! What is profiled and timed: one product of each tile, and a sum in parts.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

fn operand(seed: u64, shape: [usize; 2], device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(&shape, seed, 1.0), dtype, device)
}

fn product(
    device: Device,
    dtype: DType,
    [m, n, k]: [usize; 3],
    transpose_a: bool,
    transpose_b: bool,
) -> Result<Run> {
    let a = operand(1, if transpose_a { [k, m] } else { [m, k] }, device, dtype)?;
    let b = operand(2, if transpose_b { [n, k] } else { [k, n] }, device, dtype)?;
    Ok(Box::new(move || matmul(&a, &b, transpose_a, transpose_b).map(drop)))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "matmul 512x512x512",
            prepare: |device, dtype| product(device, dtype, [512, 512, 512], false, false),
        },
        Workload {
            label: "matmul 512x512x512, b transposed",
            prepare: |device, dtype| product(device, dtype, [512, 512, 512], false, true),
        },
        Workload {
            label: "matmul 4096x16x256",
            prepare: |device, dtype| product(device, dtype, [4096, 16, 256], false, true),
        },
        Workload {
            label: "matmul 128x128x8192, a transposed",
            prepare: |device, dtype| product(device, dtype, [128, 128, 8192], true, false),
        },
        Workload {
            label: "linear 1024x256 to 256",
            prepare: |device, dtype| {
                let x = operand(1, [1024, 256], device, dtype)?;
                let weight = operand(2, [256, 256], device, dtype)?;
                let bias = operand(3, [1, 256], device, dtype)?.reshape(&[256])?;
                Ok(Box::new(move || linear(&x, &weight, Some(&bias)).map(drop)))
            },
        },
    ]
}
