//! What an optimiser step is given: parameters with their state, and numbers that change from step to step.

use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Error, ErrorKind, Result, Tensor};

/// A number that changes from step to step.
#[derive(Debug, Clone, Copy)]
pub enum Scalar<'a> {
    /// Known when the step is asked for. A captured step keeps it.
    Value(f32),
    /// An f32 tensor of one element ([1] or []) on the slots' device, read when the step runs.
    Tensor(&'a Tensor),
}

impl From<f32> for Scalar<'_> {
    fn from(value: f32) -> Self {
        Scalar::Value(value)
    }
}

impl<'a> From<&'a Tensor> for Scalar<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Scalar::Tensor(tensor)
    }
}

impl Scalar<'_> {
    /// An error unless it can be read on the device.
    #[track_caller]
    pub(crate) fn require(&self, operation: &str, name: &str, device: Device) -> Result<()> {
        match self {
            Scalar::Value(_) => Ok(()),
            Scalar::Tensor(tensor) => one_element(operation, name, tensor, DType::F32, device),
        }
    }

    /// Its value, on the CPU.
    #[track_caller]
    pub(crate) fn read(&self, operation: &str) -> Result<f32> {
        self.require(operation, "scalar", Device::Cpu)?;
        match self {
            Scalar::Value(value) => Ok(*value),
            Scalar::Tensor(tensor) => Ok(tensor.as_slice::<f32>()?[0]),
        }
    }
}

/// The number of steps that were taken before this one: 0 at the first.
#[derive(Debug, Clone, Copy)]
pub enum StepCount<'a> {
    /// Known when the step is asked for. A captured step keeps it.
    Value(u64),
    /// An i32 tensor [1] on the slots' device, read when the step runs. A negative number is an error on the CPU and
    /// counts as 0 on CUDA devices.
    Tensor(&'a Tensor),
}

impl StepCount<'_> {
    /// An error unless it can be read on the device.
    #[track_caller]
    pub(super) fn require(&self, operation: &str, device: Device) -> Result<()> {
        match self {
            StepCount::Value(_) => Ok(()),
            StepCount::Tensor(tensor) => one_element(operation, "step", tensor, DType::I32, device),
        }
    }

    /// Its value, on the CPU.
    #[track_caller]
    pub(super) fn read(&self, operation: &str) -> Result<u64> {
        self.require(operation, Device::Cpu)?;
        match self {
            StepCount::Value(value) => Ok(*value),
            StepCount::Tensor(tensor) => {
                let step = tensor.as_slice::<i32>()?[0];
                u64::try_from(step)
                    .map_err(|_| Error::value(operation, "steps count from 0").with("step", step))
            }
        }
    }
}

#[track_caller]
fn one_element(operation: &str, name: &str, tensor: &Tensor, dtype: DType, device: Device) -> Result<()> {
    tensor.require_dtype(operation, name, dtype)?;
    if tensor.len() != 1 {
        return Err(Error::shape(operation, format!("{name} must have one element")).argument(name, tensor));
    }
    match tensor.device() == device {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Device, operation, format!("{name} must lie on {device}"))
            .argument(name, tensor)),
    }
}

/// The numbers of a step that change from step to step.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Learning rate.
    pub rate: Scalar<'a>,
    /// Multiplies every slot's weight decay, for a decay with a schedule.
    pub decay_scale: Scalar<'a>,
    /// Multiplies all gradients.
    pub gradient_scale: Scalar<'a>,
    /// Multiplies each slot's gradient on top of that: f32 [slots] on their device, as [`super::clip_scales`] makes them.
    pub gradient_scales: Option<&'a Tensor>,
    /// What the moving averages of slots that have one keep of themselves.
    pub average_decay: Scalar<'a>,
}

impl<'a> Step<'a> {
    /// A step at this learning rate with gradients as they are. Moving averages stay where they are.
    pub fn at(rate: impl Into<Scalar<'a>>) -> Step<'a> {
        let one = Scalar::Value(1.0);
        Step {
            rate: rate.into(),
            decay_scale: one,
            gradient_scale: one,
            gradient_scales: None,
            average_decay: one,
        }
    }
}

/// Whether a slot waits before it is trained. Steps are counted by [`StepCount`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hold {
    /// It is trained from the first step on.
    #[default]
    None,
    /// Nothing of the slot is read or written, neither value, moments, copy nor average, while fewer steps than this
    /// were taken: what PyTorch does with a parameter whose gradient is None. AdamW's bias corrections count from there.
    Untouched(u32),
    /// The value stays as it is while fewer steps than this were taken; moments and average go on as at learning rate 0.
    Still(u32),
}

impl Hold {
    /// The steps that count for the slot's moments before this one; none while it is untouched.
    pub(super) fn own_steps(self, before: u64) -> Option<u64> {
        match self {
            Hold::None | Hold::Still(_) => Some(before),
            Hold::Untouched(start) => before.checked_sub(u64::from(start)),
        }
    }

    /// Whether the value stays at this step.
    pub(super) fn is_still(self, before: u64) -> bool {
        matches!(self, Hold::Still(start) if before < u64::from(start))
    }
}

/// One parameter with its gradient, its optimiser state and its own settings.
pub struct Slot<'a> {
    /// The parameter, f32, any shape; written in place.
    pub value: &'a mut Tensor,
    /// Its gradient, same shape; f32, on CUDA devices f32 or bf16.
    pub gradient: &'a Tensor,
    /// Momentum (SGD, LARS) or first moment (AdamW), f32, same shape. Zeros before the first step.
    pub first: &'a mut Tensor,
    /// Second moment (AdamW only), f32, same shape. Zeros before the first step.
    pub second: Option<&'a mut Tensor>,
    /// A bf16 copy of the parameter, same shape, written in the same pass.
    pub low: Option<&'a mut Tensor>,
    /// A moving average of the parameter, such as a teacher's, f32, same shape: after the step
    /// `average = decay average + (1 - decay) value`, in the same pass, with [`Step::average_decay`].
    pub average: Option<&'a mut Tensor>,
    /// Weight decay of this parameter; zero for biases and norms.
    pub weight_decay: f32,
    /// Multiplies the learning rate, for layer-wise rates.
    pub rate_scale: f32,
    /// Whether LARS's trust ratio applies; false for biases and norms.
    pub adapt: bool,
    /// Whether it waits.
    pub hold: Hold,
}

/// The device of all slots; an error names the slot, by position, whose tensors do not fit.
#[track_caller]
pub(super) fn checked(
    operation: &str,
    slots: &[Slot],
    step: &Step,
    before: StepCount,
    second: bool,
) -> Result<Device> {
    for (i, slot) in slots.iter().enumerate() {
        let mut others = vec![("gradient", slot.gradient), ("first", &*slot.first)];
        match (&slot.second, second) {
            (Some(second), _) => others.push(("second", second)),
            (None, true) => {
                return Err(Error::value(operation, format!("slot {i} has no second moment"))
                    .argument("value", slot.value));
            }
            (None, false) => {}
        }
        others.extend(slot.low.as_deref().map(|low| ("low", low)));
        others.extend(slot.average.as_deref().map(|average| ("average", average)));
        let (mut names, mut tensors) = (vec!["value"], vec![&*slot.value]);
        names.extend(others.iter().map(|(name, _)| *name));
        tensors.extend(others.iter().map(|(_, tensor)| *tensor));
        common(operation, &names, &tensors)?;
        slot.value.require_dtype(operation, "value", DType::F32)?;
        for (name, tensor) in others {
            match name {
                "gradient" => require_float(operation, name, tensor)?,
                "low" => tensor.require_dtype(operation, name, DType::BF16)?,
                _ => tensor.require_dtype(operation, name, DType::F32)?,
            }
            if tensor.shape() != slot.value.shape() {
                let text = format!("{name} of slot {i} must have the value's shape");
                return Err(Error::shape(operation, text)
                    .argument("value", slot.value)
                    .argument(name, tensor));
            }
        }
        if slot.value.device() != slots[0].value.device() {
            let text = format!("slot {i} lies on another device than slot 0");
            return Err(Error::new(ErrorKind::Device, operation, text).argument("value", slot.value));
        }
    }
    let device = slots.first().map_or(Device::Cpu, |s| s.value.device());
    if !slots.is_empty() {
        step.rate.require(operation, "rate", device)?;
        step.decay_scale.require(operation, "decay_scale", device)?;
        step.gradient_scale.require(operation, "gradient_scale", device)?;
        step.average_decay.require(operation, "average_decay", device)?;
        before.require(operation, device)?;
        if let Some(scales) = step.gradient_scales {
            scales.require_dtype(operation, "gradient_scales", DType::F32)?;
            scales.require_shape(operation, "gradient_scales", &[slots.len()])?;
            common(operation, &["value", "gradient_scales"], &[slots[0].value, scales])?;
        }
    }
    Ok(device)
}
