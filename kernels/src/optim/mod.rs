//! Optimiser steps over many tensors at once: SGD, LARS, AdamW, the moving average of a teacher, and the norm
//! of all gradients.
//!
//! All tensors together are cut into fixed chunks and shared out over threads, so that a thousand small biases
//! cost no more than one large weight. Everything is bound by memory. In floats a parameter: SGD reads 3 and
//! writes 2; AdamW reads 4 and writes 3; LARS adds a pass that reads 2, for the norms; the moving average reads
//! 2 and writes 1; the global norm reads 1. See README.md for the formulas.

pub mod cases;
pub mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;
mod update;

use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// One parameter with its gradient, its optimiser state and its own settings.
pub struct Slot<'a> {
    /// The parameter, f32, any shape; written in place.
    pub value: &'a mut Tensor,
    /// Its gradient, same shape.
    pub gradient: &'a Tensor,
    /// Momentum (SGD, LARS) or first moment (AdamW), same shape. Zeros before the first step.
    pub first: &'a mut Tensor,
    /// Second moment (AdamW only), same shape. Zeros before the first step.
    pub second: Option<&'a mut Tensor>,
    /// Weight decay of this parameter; zero for biases and norms.
    pub weight_decay: f32,
    /// Multiplies the learning rate, for layer-wise rates.
    pub rate_scale: f32,
    /// Whether LARS's trust ratio applies; false for biases and norms.
    pub adapt: bool,
}

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

/// The device of all slots; an error names the slot, by position, whose tensors do not fit.
#[track_caller]
fn checked(operation: &str, slots: &[Slot], second: bool) -> Result<Device> {
    for (i, slot) in slots.iter().enumerate() {
        let names = ["value", "gradient", "first"];
        common(operation, &names, &[slot.value, slot.gradient, slot.first])?;
        let mut others = vec![("gradient", slot.gradient), ("first", &*slot.first)];
        match (&slot.second, second) {
            (Some(second), _) => others.push(("second", second)),
            (None, true) => {
                return Err(Error::value(operation, format!("slot {i} has no second moment"))
                    .argument("value", slot.value));
            }
            (None, false) => {}
        }
        slot.value.require_dtype(operation, "value", DType::F32)?;
        for (name, tensor) in others {
            tensor.require_dtype(operation, name, DType::F32)?;
            if tensor.shape() != slot.value.shape() {
                let text = format!("{name} of slot {i} must have the value's shape");
                return Err(Error::shape(operation, text)
                    .argument("value", slot.value)
                    .argument(name, tensor));
            }
        }
        if slot.value.device() != slots[0].value.device() {
            return Err(Error::new(
                engine::ErrorKind::Device,
                operation,
                format!("slot {i} lies on another device than slot 0"),
            )
            .argument("value", slot.value));
        }
    }
    Ok(slots.first().map_or(Device::Cpu, |s| s.value.device()))
}

/// One step of stochastic gradient descent with momentum, as PyTorch's: with `u = gradient_scale g + d w`,
/// `v = momentum v + u` (`v = u` at the first step), `w -= rate u'` where `u'` is `v`, or
/// `u + momentum v` with Nesterov's momentum.
///
/// Errors if a slot's tensors differ in shape, type or device.
#[track_caller]
pub fn sgd(
    slots: &mut [Slot],
    rate: f32,
    momentum: f32,
    nesterov: bool,
    first_step: bool,
    gradient_scale: f32,
) -> Result<()> {
    let _op = memory::operation("sgd");
    match checked("sgd", slots, false)? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::sgd(slots, update::Sgd { rate, momentum, nesterov, first_step, gradient_scale }),
    }
}

/// One step of LARS: momentum whose step is as large, relative to the weights, as `trust` says. See
/// [`LarsVariant`]. `g` is `gradient_scale` times the gradient.
///
/// Errors if a slot's tensors differ in shape, type or device.
#[track_caller]
pub fn lars(
    slots: &mut [Slot],
    rate: f32,
    momentum: f32,
    trust: f32,
    variant: LarsVariant,
    gradient_scale: f32,
) -> Result<()> {
    let _op = memory::operation("lars");
    match checked("lars", slots, false)? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::lars(slots, cpu::Lars { rate, momentum, trust, variant, gradient_scale }),
    }
}

/// One step of AdamW as PyTorch's (Loshchilov and Hutter 2019): `w *= 1 - rate d`, then
/// `w -= rate m' / (sqrt(v') + eps)` with the bias-corrected moments `m' = m / (1 - beta1^step)`,
/// `v' = v / (1 - beta2^step)`. `step` counts from 1. The gradient is multiplied by `gradient_scale` first.
///
/// Errors if a slot has no second moment, its tensors differ in shape, type or device, or step is 0.
#[track_caller]
pub fn adamw(
    slots: &mut [Slot],
    rate: f32,
    betas: (f32, f32),
    eps: f32,
    step: u64,
    gradient_scale: f32,
) -> Result<()> {
    let _op = memory::operation("adamw");
    if step == 0 {
        return Err(Error::value("adamw", "steps count from 1"));
    }
    match checked("adamw", slots, true)? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::adamw(slots, cpu::AdamW { rate, betas, eps, step, gradient_scale }),
    }
}

/// Moves each first tensor towards its second: `target = decay target + (1 - decay) online`.
///
/// Errors if the two of a pair differ in shape, type or device.
#[track_caller]
pub fn ema(targets: &mut [(&mut Tensor, &Tensor)], decay: f32) -> Result<()> {
    let _op = memory::operation("ema");
    let mut device = Device::Cpu;
    for (i, (target, online)) in targets.iter().enumerate() {
        device = common("ema", &["target", "online"], &[target, online])?;
        target.require_dtype("ema", "target", DType::F32)?;
        online.require_dtype("ema", "online", DType::F32)?;
        if target.shape() != online.shape() {
            return Err(Error::shape("ema", format!("the tensors of pair {i} must have one shape"))
                .argument("target", target)
                .argument("online", online));
        }
    }
    match device {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::ema(targets, decay),
    }
}

/// Euclidean norm of all gradients together, for clipping. Zero for none.
#[track_caller]
pub fn global_norm(gradients: &[&Tensor]) -> Result<f32> {
    let _op = memory::operation("global_norm");
    if gradients.is_empty() {
        return Ok(0.0);
    }
    let names = vec!["gradient"; gradients.len()];
    match common("global_norm", &names, gradients)? {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::global_norm(gradients),
    }
}
