//! Optimiser steps over many tensors at once: SGD, LARS, AdamW, the moving average of a teacher, and the norm
//! of all gradients; and the numbers that such a step reads from device memory when it runs in a CUDA graph.
//!
//! All tensors together are cut into fixed chunks and shared out over threads, so that a thousand small biases
//! cost no more than one large weight; on CUDA devices a step is one launch (LARS three). Everything is bound by memory.
//! In floats a parameter: SGD reads 3 and writes 2; AdamW reads 4 and writes 3; LARS adds a pass that reads 2, for the
//! norms; the moving average reads 2 and writes 1, in the same pass as a step 1 and 1; the global norm reads 1. See
//! README.md for the formulas.

pub mod cases;
pub(crate) mod check;
mod clip;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub(crate) mod norms_cuda;
pub mod reference;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod update;
pub(crate) mod workloads;

pub use clip::{Clip, Clipped, Scope, clip_scales, global_norm};
pub use slot::{Hold, Scalar, Slot, Step, StepCount};

use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};
use slot::checked;

/// Where LARS puts the learning rate and the weight decay (You et al. 2017 leaves it open).
///
/// `w` is the parameter, `g` the gradient, `v` the momentum buffer, `d` the decay. In each, `ratio` is 1 if a
/// norm in it is zero and if the slot does not adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LarsVariant {
    /// SimCLR's reference: `u = g + d w; ratio = trust |w| / |u|; v = momentum v + rate ratio u; w -= v`.
    Simclr,
    /// BYOL, MoCo v3, MAE: as SimCLR's, but `v = momentum v + ratio u; w -= rate v`.
    Byol,
    /// lightly: `ratio = trust |w| / (|g| + d |w| + 1e-8); v = momentum v + ratio (g + d w); w -= rate v`. Slots
    /// without weight decay do not adapt. A slot that adapts takes no decay while a norm is zero.
    Lightly,
}

/// One step of stochastic gradient descent with momentum, as PyTorch's: with `u = gradient_scale g + d w`,
/// `v = momentum v + u` (`v = u` at a slot's first step, which does not read the buffer), `w -= rate u'` where `u'` is
/// `v`, or `u + momentum v` with Nesterov's momentum. `before` says how many steps were taken.
///
/// Gradients are f32, on CUDA devices f32 or bf16, each slot its own.
///
/// Errors if a slot's tensors differ in shape, type or device.
#[track_caller]
pub fn sgd(slots: &mut [Slot], step: &Step, momentum: f32, nesterov: bool, before: StepCount) -> Result<()> {
    let name = "sgd";
    let _op = memory::operation(name);
    match checked(name, slots, step, before, false)? {
        device @ Device::Cuda(_) => cuda::sgd(device, slots, step, momentum, nesterov, before),
        Device::Cpu => cpu::sgd(slots, &cpu::Numbers::read(name, step, before)?, momentum, nesterov),
    }
}

/// One step of LARS: momentum whose step is as large, relative to the weights, as `trust` says. See
/// [`LarsVariant`]. `g` is the scaled gradient, which is f32, on CUDA devices f32 or bf16. `before`, how many steps were
/// taken, matters to slots that [`Hold`] back alone.
///
/// Errors if a slot's tensors differ in shape, type or device.
#[track_caller]
pub fn lars(
    slots: &mut [Slot],
    step: &Step,
    momentum: f32,
    trust: f32,
    variant: LarsVariant,
    before: StepCount,
) -> Result<()> {
    let name = "lars";
    let _op = memory::operation(name);
    match checked(name, slots, step, before, false)? {
        device @ Device::Cuda(_) => cuda::lars(device, slots, step, momentum, trust, variant, before),
        Device::Cpu => {
            let settings = cpu::Lars { momentum, trust, variant };
            cpu::lars(slots, &cpu::Numbers::read(name, step, before)?, settings)
        }
    }
}

/// One step of AdamW as PyTorch's (Loshchilov and Hutter 2019): `w *= 1 - rate d`, then
/// `w -= rate m' / (sqrt(v') + eps)` with the bias-corrected moments `m' = m / (1 - beta1^t)`,
/// `v' = v / (1 - beta2^t)`, where t is `before` + 1, less the steps for which the slot was left untouched ([`Hold`]). The
/// gradient is f32, on CUDA devices f32 or bf16.
///
/// Errors if a slot has no second moment or its tensors differ in shape, type or device.
#[track_caller]
pub fn adamw(slots: &mut [Slot], step: &Step, betas: (f32, f32), eps: f32, before: StepCount) -> Result<()> {
    let name = "adamw";
    let _op = memory::operation(name);
    match checked(name, slots, step, before, true)? {
        device @ Device::Cuda(_) => cuda::adamw(device, slots, step, betas, eps, before),
        Device::Cpu => cpu::adamw(slots, &cpu::Numbers::read(name, step, before)?, betas, eps),
    }
}

/// A tensor that follows another: a teacher's parameter and the student's.
pub struct Follower<'a> {
    /// What is moved, f32, any shape; written in place.
    pub target: &'a mut Tensor,
    /// What it moves towards, f32, same shape.
    pub online: &'a Tensor,
    /// A bf16 copy of the target, same shape, written in the same pass.
    pub low: Option<&'a mut Tensor>,
}

/// Moves each target towards its online tensor, `target = decay target + (1 - decay) online`, and writes the target's
/// bf16 copy where it has one.
///
/// Errors if the tensors of a follower differ in shape or device or are not f32 (the copy bf16).
#[track_caller]
pub fn ema(followers: &mut [Follower], decay: Scalar) -> Result<()> {
    let name = "ema";
    let _op = memory::operation(name);
    let Some(first) = followers.first() else { return Ok(()) };
    let device = first.target.device();
    for (i, follower) in followers.iter().enumerate() {
        let (target, online) = (&*follower.target, follower.online);
        let (mut names, mut tensors) = (vec!["target", "online"], vec![target, online]);
        if let Some(low) = follower.low.as_deref() {
            low.require_dtype(name, "low", DType::BF16)?;
            names.push("low");
            tensors.push(low);
        }
        if common(name, &names, &tensors)? != device {
            let text = format!("follower {i} lies on another device than follower 0");
            return Err(Error::new(engine::ErrorKind::Device, name, text).argument("target", target));
        }
        target.require_dtype(name, "target", DType::F32)?;
        online.require_dtype(name, "online", DType::F32)?;
        if let Some(at) = tensors.iter().position(|t| t.shape() != target.shape()) {
            return Err(Error::shape(name, format!("the tensors of follower {i} must have one shape"))
                .argument("target", target)
                .argument(names[at], tensors[at]));
        }
    }
    decay.require(name, "decay", device)?;
    match device {
        Device::Cuda(_) => cuda::ema(device, followers, decay),
        Device::Cpu => cpu::ema(followers, decay.read(name)?),
    }
}

/// The value of a step, or the last for steps beyond: values [N] f32, step [1] i32, the steps taken before -> [1] f32.
///
/// A negative step is an error on the CPU and gives NaN on CUDA devices.
#[track_caller]
pub fn schedule(values: &Tensor, step: &Tensor) -> Result<Tensor> {
    let name = "schedule";
    let _op = memory::operation(name);
    values.require_dtype(name, "values", DType::F32)?;
    if values.rank() != 1 || values.is_empty() {
        return Err(Error::shape(name, "values must be [N] with N of at least 1").argument("values", values));
    }
    StepCount::Tensor(step).require(name, values.device())?;
    match values.device() {
        Device::Cuda(_) => cuda::schedule(values, step),
        Device::Cpu => {
            let at = StepCount::Tensor(step).read(name)?.min(values.len() as u64 - 1);
            Tensor::from_slice(&[values.as_slice::<f32>()?[at as usize]], &[1])
        }
    }
}

/// Adds 1 to a step number, i32 [1], in place.
#[track_caller]
pub fn advance(step: &mut Tensor) -> Result<()> {
    let name = "advance";
    let _op = memory::operation(name);
    StepCount::Tensor(step).require(name, step.device())?;
    match step.device() {
        Device::Cuda(_) => cuda::advance(step),
        Device::Cpu => {
            let step = &mut step.as_mut_slice::<i32>()?[0];
            *step = step.wrapping_add(1);
            Ok(())
        }
    }
}

/// Writes values of a step, each f32 of one element, to row `step mod R` of a history, in place: history [R, K] f32,
/// step [1] i32, K values.
///
/// A negative step is an error on the CPU and writes nothing on CUDA devices.
#[track_caller]
pub fn record(history: &mut Tensor, step: &Tensor, values: &[&Tensor]) -> Result<()> {
    let name = "record";
    let _op = memory::operation(name);
    history.require_dtype(name, "history", DType::F32)?;
    if history.rank() != 2 || history.shape()[0] == 0 || history.shape()[1] != values.len() {
        let text = format!("history must be [rows, {}], a column for each value", values.len());
        return Err(Error::shape(name, text).argument("history", history));
    }
    StepCount::Tensor(step).require(name, history.device())?;
    for value in values {
        Scalar::Tensor(value).require(name, "value", history.device())?;
    }
    match history.device() {
        Device::Cuda(_) => cuda::record(history, step, values),
        Device::Cpu => {
            let row = StepCount::Tensor(step).read(name)? % history.shape()[0] as u64;
            let start = row as usize * values.len();
            let read = values.iter().map(|v| Scalar::Tensor(v).read(name)).collect::<Result<Vec<f32>>>()?;
            history.as_mut_slice::<f32>()?[start..start + values.len()].copy_from_slice(&read);
            Ok(())
        }
    }
}
