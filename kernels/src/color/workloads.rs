//! What is profiled and timed: the targets of a batch of colorization.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::Workload;

/// Points of 64 images of 16 x 16.
fn points(device: Device) -> Result<Tensor> {
    on_device(&Array::random(&[64 * 256, 2], 1, 30.0), DType::F32, device)
}

fn bins(device: Device) -> Result<Tensor> {
    on_device(&cases::Case { n: 1, q: 313, neighbours: 10, ties: false }.centres(), DType::F32, device)
}

const SPREAD: Spread = Spread { neighbours: 10, sigma: 5.0 };

/// The family's workloads, in f32 whatever the type.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "rgb_to_lab 64x32x32",
            prepare: |device, _| {
                let x = on_device(&cases::colours(64 * 32 * 32), DType::F32, device)?;
                Ok(Box::new(move || rgb_to_lab(&x).map(drop)))
            },
        },
        Workload {
            label: "soft_encode 16384 to 313",
            prepare: |device, _| {
                let (points, bins) = (points(device)?, bins(device)?);
                Ok(Box::new(move || soft_encode(&points, &bins, SPREAD).map(drop)))
            },
        },
        Workload {
            label: "pixel_weights 64x256",
            prepare: |device, _| {
                let (points, bins) = (points(device)?, bins(device)?);
                let (_, nearest) = soft_encode(&points, &bins, SPREAD)?;
                let images = points.reshape(&[64, 256, 2])?;
                let weights = Tensor::full(&[313], 1.0, device)?;
                Ok(Box::new(move || pixel_weights(&images, &nearest, &weights, 5.0).map(drop)))
            },
        },
    ]
}
