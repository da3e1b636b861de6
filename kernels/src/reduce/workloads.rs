//! What is profiled and timed: the gradient of a bias, a sum of everything, rows.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

/// Tokens of a batch and their width.
const SHAPE: [usize; 2] = [2_048, 768];

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    fn of(device: Device, dtype: DType, f: fn(&Tensor) -> Result<Tensor>) -> Result<Run> {
        let x = on_device(&Array::random(&SHAPE, 1, 1.0), dtype, device)?;
        Ok(Box::new(move || f(&x).map(drop)))
    }
    vec![
        Workload { label: "sum_rows 2048x768", prepare: |device, dtype| of(device, dtype, sum_rows) },
        Workload {
            label: "sum of everything 2048x768",
            prepare: |device, dtype| of(device, dtype, |x| sum(x, &[0, 1])),
        },
        Workload {
            label: "sum over the last 2048x768",
            prepare: |device, dtype| of(device, dtype, |x| sum(x, &[1])),
        },
        Workload { label: "argmax_last 2048x768", prepare: |device, dtype| of(device, dtype, argmax_last) },
    ]
}
