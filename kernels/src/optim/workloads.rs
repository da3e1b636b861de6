//! What is profiled and timed: each step over a large weight and small ones, as in a network.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::Workload;

/// A quarter of a million parameters: whole chunks, one ragged, and biases.
const SIZES: [usize; 6] = [1 << 17, 1 << 16, 50_000, 1000, 256, 3];

/// A parameter with its gradient (in the workload's type), moments, a bf16 copy and an average.
struct Parameter {
    value: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    low: Tensor,
    average: Tensor,
}

fn parameters(device: Device, dtype: DType) -> Result<Vec<Parameter>> {
    let random = |n: usize, seed, dtype| on_device(&Array::random(&[n], seed, 1.0), dtype, device);
    SIZES
        .iter()
        .map(|&n| {
            let zeros = |dtype| Tensor::zeros(&[n], dtype, device);
            Ok(Parameter {
                value: random(n, 1, DType::F32)?,
                gradient: random(n, 2, dtype)?,
                first: zeros(DType::F32)?,
                second: zeros(DType::F32)?,
                low: zeros(DType::BF16)?,
                average: random(n, 1, DType::F32)?,
            })
        })
        .collect()
}

/// Four million gradients in two groups: partial sums enough to outweigh the few numbers that are made of them.
fn large_gradients(device: Device, dtype: DType) -> Result<Vec<Tensor>> {
    [1 << 20; 4].map(|n| on_device(&Array::random(&[n], 2, 1.0), dtype, device)).into_iter().collect()
}
const GROUPS: [u32; 4] = [0, 1, 0, 1];

/// Slots of all parameters, with second moments and with what follows the value where it is asked for.
fn slots(all: &mut [Parameter], second: bool, follow: bool) -> Vec<Slot<'_>> {
    all.iter_mut()
        .map(|p| Slot {
            value: &mut p.value,
            gradient: &p.gradient,
            first: &mut p.first,
            second: second.then_some(&mut p.second),
            low: follow.then_some(&mut p.low),
            average: follow.then_some(&mut p.average),
            weight_decay: 0.05,
            rate_scale: 1.0,
            adapt: true,
            hold: Hold::None,
        })
        .collect()
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "adamw 0.25 M",
            prepare: |device, dtype| {
                let mut all = parameters(device, dtype)?;
                Ok(Box::new(move || {
                    let step = Step::at(1e-3);
                    adamw(&mut slots(&mut all, true, false), &step, (0.9, 0.999), 1e-8, StepCount::Value(9))
                }))
            },
        },
        Workload {
            label: "adamw, bf16 copy and average 0.25 M",
            prepare: |device, dtype| {
                let mut all = parameters(device, dtype)?;
                Ok(Box::new(move || {
                    let step = Step { average_decay: 0.996.into(), ..Step::at(1e-3) };
                    adamw(&mut slots(&mut all, true, true), &step, (0.9, 0.999), 1e-8, StepCount::Value(9))
                }))
            },
        },
        Workload {
            label: "sgd 0.25 M",
            prepare: |device, dtype| {
                let mut all = parameters(device, dtype)?;
                Ok(Box::new(move || {
                    sgd(&mut slots(&mut all, false, false), &Step::at(0.1), 0.9, false, StepCount::Value(9))
                }))
            },
        },
        Workload {
            label: "lars 0.25 M",
            prepare: |device, dtype| {
                let mut all = parameters(device, dtype)?;
                Ok(Box::new(move || {
                    let step = Step::at(0.1);
                    lars(
                        &mut slots(&mut all, false, false),
                        &step,
                        0.9,
                        1e-3,
                        LarsVariant::Byol,
                        StepCount::Value(9),
                    )
                }))
            },
        },
        Workload {
            label: "ema 0.25 M",
            prepare: |device, _| {
                let mut all = parameters(device, DType::F32)?;
                Ok(Box::new(move || {
                    let mut followers = Vec::new();
                    for p in &mut all {
                        followers.push(Follower { target: &mut p.average, online: &p.value, low: None });
                    }
                    ema(&mut followers, 0.99.into())
                }))
            },
        },
        Workload {
            label: "global_norm 4 M",
            prepare: |device, dtype| {
                let all = large_gradients(device, dtype)?;
                Ok(Box::new(move || global_norm(&all.iter().collect::<Vec<_>>()).map(drop)))
            },
        },
        Workload {
            label: "clip by group 4 M",
            prepare: |device, dtype| {
                let all = large_gradients(device, dtype)?;
                Ok(Box::new(move || {
                    clip_scales(&all.iter().collect::<Vec<_>>(), &GROUPS, Clip::group(1.0)).map(drop)
                }))
            },
        },
    ]
}
