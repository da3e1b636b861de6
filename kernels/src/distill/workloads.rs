//! What is profiled and timed: a teacher's targets both ways, the cross-entropy that makes them again, KoLeo of a batch.

use super::xent_cases::XentCase;
use super::xent_check::Inputs;
use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

/// Logits of 64 samples and 8,192 prototypes.
fn logits(device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(&[64, 8192], 1, 0.3), dtype, device)
}

fn rows(device: Device) -> Result<Tensor> {
    on_device(&Array::random(&[256, 384], 1, 0.05), DType::F32, device)
}

/// The student's cross-entropy with a teacher, DINO's of ten crops of 8 images or iBOT's of 64 patches: 8,192 prototypes.
fn xent(device: Device, dtype: DType, dino: bool, back: bool) -> Result<Run> {
    let case = if dino { XentCase::new(8, 10, 8192) } else { XentCase::new(64, 1, 8192) };
    let inputs = Inputs::new(&case, dtype, |x, dtype| on_device(x, dtype, device))?;
    let known = teacher_rows(&inputs.of(&case))?.0;
    let tau = case.temperatures[1];
    let forward = move |case: &XentCase, inputs: &Inputs, known: &Tensor| {
        teacher_xent_forward(&inputs.student, &inputs.of(case), known, tau, case.matching)
    };
    if !back {
        return Ok(Box::new(move || forward(&case, &inputs, &known).map(drop)));
    }
    let (_, rows) = forward(&case, &inputs, &known)?;
    Ok(Box::new(move || {
        let (of, dloss) = (inputs.of(&case), &inputs.dloss);
        teacher_xent_backward(dloss, &inputs.student, &of, &known, tau, case.matching, &rows).map(drop)
    }))
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
            label: "teacher_rows and teacher_means 64x8192",
            prepare: |device, dtype| {
                let x = logits(device, dtype)?;
                let center = on_device(&Array::random(&[8192], 2, 0.1), DType::F32, device)?;
                Ok(Box::new(move || {
                    let teacher = Teacher { logits: &x, center: Some(&center), temperature: 0.04.into() };
                    let (rows, _) = teacher_rows(&teacher)?;
                    teacher_means(&teacher, &rows, None).map(drop)
                }))
            },
        },
        Workload { label: "teacher_xent 80x8192 with 16", prepare: |d, t| xent(d, t, true, false) },
        Workload { label: "teacher_xent_backward 80x8192 with 16", prepare: |d, t| xent(d, t, true, true) },
        Workload { label: "teacher_xent 64x8192 with 64", prepare: |d, t| xent(d, t, false, false) },
        Workload { label: "teacher_xent_backward 64x8192 with 64", prepare: |d, t| xent(d, t, false, true) },
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
