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
    ]
}
