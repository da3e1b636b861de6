//! What is profiled and timed: a teacher's targets both ways, KoLeo of a batch.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::Workload;

/// Logits of 64 samples and 8,192 prototypes.
fn logits(device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(&[64, 8192], 1, 0.3), dtype, device)
}

fn rows(device: Device) -> Result<Tensor> {
    on_device(&Array::random(&[256, 384], 1, 0.05), DType::F32, device)
}

/// The family's workloads. KoLeo is in f32 whatever the type.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "teacher_softmax 64x8192",
            prepare: |device, dtype| {
                let x = logits(device, dtype)?;
                let center = on_device(&Array::random(&[8192], 2, 0.1), DType::F32, device)?;
                Ok(Box::new(move || teacher_softmax(&x, Some(&center), 0.04.into()).map(drop)))
            },
        },
        Workload {
            label: "sinkhorn 64x8192, 3 iterations",
            prepare: |device, dtype| {
                let x = logits(device, dtype)?;
                Ok(Box::new(move || sinkhorn(&x, 0.07.into(), 3, None).map(drop)))
            },
        },
        Workload {
            label: "koleo 256x384",
            prepare: |device, _| {
                let x = rows(device)?;
                Ok(Box::new(move || koleo_forward(&x, 1e-8).map(drop)))
            },
        },
        Workload {
            label: "koleo_backward 256x384",
            prepare: |device, _| {
                let x = rows(device)?;
                let (_, nearest) = koleo_forward(&x, 1e-8)?;
                let dloss = Tensor::full(&[256], 1.0 / 256.0, device)?;
                Ok(Box::new(move || koleo_backward(&dloss, &x, &nearest, 1e-8).map(drop)))
            },
        },
    ]
}
