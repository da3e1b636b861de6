//! What is profiled and timed: the pooling after a ResNet's first convolution, and the average at its end.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

const IMAGES: [usize; 4] = [1, 56, 56, 64];

fn images(device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(&IMAGES, 1, 1.0), dtype, device)
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    fn run(f: impl Fn() -> Result<Tensor> + 'static) -> Result<Run> {
        Ok(Box::new(move || f().map(drop)))
    }
    vec![
        Workload {
            label: "max_forward 1x56x56x64, 3x3, stride 2",
            prepare: |device, dtype| {
                let x = images(device, dtype)?;
                run(move || max_forward(&x, 3, 2, 1).map(|(y, _)| y))
            },
        },
        Workload {
            label: "max_backward 1x56x56x64, 3x3, stride 2",
            prepare: |device, dtype| {
                let x = images(device, dtype)?;
                let (y, index) = max_forward(&x, 3, 2, 1)?;
                run(move || max_backward(&y, &index, &IMAGES, 3, 2, 1))
            },
        },
        Workload {
            label: "global_average_forward 1x56x56x64",
            prepare: |device, dtype| {
                let x = images(device, dtype)?;
                run(move || global_average_forward(&x))
            },
        },
        Workload {
            label: "global_average_backward 1x56x56x64",
            prepare: |device, dtype| {
                let dy = on_device(&Array::random(&[1, 64], 1, 1.0), dtype, device)?;
                run(move || global_average_backward(&dy, &IMAGES))
            },
        },
    ]
}
