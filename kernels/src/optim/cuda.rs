//! Launches of `update.cu` and, in the modules below, of `norms.cu` and `scalars.cu`.

use super::norms_cuda;
use super::table::{CHUNK, Entry, Table};
use super::{Follower, LarsVariant, Scalar, Slot, Step, StepCount};
use crate::cuda::{THREADS, address_mut, kernels};
use engine::cuda::Launch;
use engine::{DType, Device, Result, Tensor};

kernels! {
    family: "optim", file: "update.cu", options: ["--fmad=false"];
    SGD = "optim_sgd";
    LARS = "optim_lars";
    ADAMW = "optim_adamw";
    EMA = "optim_ema";
}

/// Numbers of a step.
pub(crate) mod scalars {
    use crate::cuda::kernels;
    kernels! {
        family: "optim", file: "scalars.cu", options: ["--fmad=false"];
        SCHEDULE = "optim_schedule";
        ADVANCE = "optim_advance";
        RECORD = "optim_record";
    }
}

/// A [`Scalar`] as kernels take it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
pub(crate) struct Number {
    at: u64,
    value: f32,
    unused: u32,
}
const _: () = assert!(size_of::<Number>() == 16);

/// What kernels are given for a scalar.
#[track_caller]
pub(crate) fn number(operation: &str, scalar: Scalar) -> Result<Number> {
    Ok(match scalar {
        Scalar::Value(value) => Number { at: 0, value, unused: 0 },
        Scalar::Tensor(tensor) => Number { at: tensor.device_address(operation)?, value: 0.0, unused: 0 },
    })
}

/// A [`StepCount`] as kernels take it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct StepNumber {
    at: u64,
    value: u64,
}
const _: () = assert!(size_of::<StepNumber>() == 16);

/// The numbers of a step over many slots, as `common/step_numbers.cuh` has them.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Numbers {
    rate: Number,
    decay_scale: Number,
    scale: Number,
    average_decay: Number,
    before: StepNumber,
    scales: u64,
}
const _: () = assert!(size_of::<Numbers>() == 88);

#[track_caller]
fn numbers(operation: &str, step: &Step, before: StepCount) -> Result<Numbers> {
    let before = match before {
        StepCount::Value(value) => StepNumber { at: 0, value },
        StepCount::Tensor(tensor) => StepNumber { at: tensor.device_address(operation)?, value: 0 },
    };
    Ok(Numbers {
        rate: number(operation, step.rate)?,
        decay_scale: number(operation, step.decay_scale)?,
        scale: number(operation, step.gradient_scale)?,
        average_decay: number(operation, step.average_decay)?,
        before,
        scales: step.gradient_scales.map_or(Ok(0), |scales| scales.device_address(operation))?,
    })
}

/// Bytes of a partial sum, and of one of two sums.
pub(super) const PARTIAL: usize = 8;

/// As norms.cu numbers it.
fn number_of(variant: LarsVariant) -> u32 {
    match variant {
        LarsVariant::Simclr => 0,
        LarsVariant::Byol => 1,
        LarsVariant::Lightly => 2,
    }
}

/// A launch over slots.
struct Sweep {
    table: Table,
    elements: usize,
    /// Bytes of values, gradients, momenta, second moments, copies and averages that are read and written.
    bytes: usize,
}

impl Sweep {
    #[track_caller]
    fn new(operation: &str, device: Device, slots: &mut [Slot], step: &Step) -> Result<Sweep> {
        let (mut elements, mut bytes) = (0, 0);
        let mut entries = Vec::with_capacity(slots.len());
        for slot in slots {
            let low = slot.low.as_ref().map_or(0, |_| 2);
            let moments = if slot.second.is_some() { 16 } else { 8 };
            let average = slot.average.as_ref().map_or(0, |_| 8);
            elements += slot.value.len();
            bytes += slot.value.len() * (8 + slot.gradient.dtype().size() + moments + low + average);
            entries.push(Entry::of_slot(operation, slot)?);
        }
        let table = Table::new(operation, device, entries)?;
        bytes += table.bytes() + step.gradient_scales.map_or(0, |scales| 4 * scales.len());
        Ok(Sweep { table, elements, bytes })
    }

    /// A launch of `kernel` with the tables as its first arguments.
    #[track_caller]
    fn launch(&self, kernel: &'static engine::cuda::Kernel, device: Device) -> Result<Launch> {
        Ok(launch(kernel, device, &self.table)?.bytes(self.bytes))
    }
}

/// A launch of a block a chunk, with the tables as its first arguments.
#[track_caller]
pub(super) fn launch(kernel: &'static engine::cuda::Kernel, device: Device, table: &Table) -> Result<Launch> {
    Ok(Launch::new(kernel, device)?
        .value(table.slots())
        .value(table.chunks())
        .grid(table.chunk_count)
        .block(THREADS))
}

/// One SGD step over all slots.
#[track_caller]
pub(super) fn sgd(
    device: Device,
    slots: &mut [Slot],
    step: &Step,
    momentum: f32,
    nesterov: bool,
    before: StepCount,
) -> Result<()> {
    let sweep = Sweep::new("sgd", device, slots, step)?;
    let is_fresh = |slot: &&Slot| match before {
        StepCount::Value(before) => slot.hold.own_steps(before) == Some(0),
        StepCount::Tensor(_) => false,
    };
    let unread: usize = slots.iter().filter(is_fresh).map(|slot| 4 * slot.value.len()).sum();
    sweep
        .launch(&SGD, device)?
        .value(numbers("sgd", step, before)?)
        .value(momentum)
        .value(u32::from(nesterov))
        .bytes(sweep.bytes - unread)
        .flops(7.0 * sweep.elements as f64)
        .run()
}

/// One LARS step over all slots: partial sums, then the update, whose blocks add them.
#[track_caller]
pub(super) fn lars(
    device: Device,
    slots: &mut [Slot],
    step: &Step,
    momentum: f32,
    trust: f32,
    variant: LarsVariant,
    before: StepCount,
) -> Result<()> {
    let (mut summed, mut sums) = (0, 0);
    for slot in slots.iter().filter(|slot| slot.adapt) {
        summed += slot.value.len() * (4 + slot.gradient.dtype().size());
        sums += slot.value.len().div_ceil(CHUNK) * 2 * PARTIAL;
    }
    let sweep = Sweep::new("lars", device, slots, step)?;
    let table = &sweep.table;
    let numbers = numbers("lars", step, before)?;
    let mut partials = Tensor::empty(&[table.chunk_count, 2 * PARTIAL], DType::U8, device)?;
    launch(&norms_cuda::LARS_SQUARES, device, table)?
        .value(numbers)
        .write(&mut partials)?
        .value(number_of(variant))
        .bytes(summed + table.bytes() + sums)
        .flops(7.0 * sweep.elements as f64)
        .run()?;
    sweep
        .launch(&LARS, device)?
        .value(numbers)
        .read(&partials)?
        .value(momentum)
        .value(trust)
        .value(number_of(variant))
        .bytes(sweep.bytes + sums)
        .flops(7.0 * sweep.elements as f64)
        .run()
}

/// One AdamW step over all slots.
#[track_caller]
pub(super) fn adamw(
    device: Device,
    slots: &mut [Slot],
    step: &Step,
    betas: (f32, f32),
    eps: f32,
    before: StepCount,
) -> Result<()> {
    let sweep = Sweep::new("adamw", device, slots, step)?;
    sweep
        .launch(&ADAMW, device)?
        .value(numbers("adamw", step, before)?)
        .value(betas.0)
        .value(betas.1)
        .value(eps)
        .flops(15.0 * sweep.elements as f64)
        .run()
}

/// The moving average of all pairs.
#[track_caller]
pub(super) fn ema(device: Device, followers: &mut [Follower], decay: Scalar) -> Result<()> {
    let elements: usize = followers.iter().map(|f| f.target.len()).sum();
    let low: usize = followers.iter().filter_map(|f| f.low.as_ref()).map(|low| 2 * low.len()).sum();
    let entries = followers.iter_mut().map(|follower| Entry::of_follower("ema", follower));
    let table = Table::new("ema", device, entries.collect::<Result<_>>()?)?;
    launch(&EMA, device, &table)?
        .value(number("ema", decay)?)
        .bytes(12 * elements + low + table.bytes())
        .flops(3.0 * elements as f64)
        .run()
}

/// The value of a step.
#[track_caller]
pub(super) fn schedule(values: &Tensor, step: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::empty(&[1], DType::F32, values.device())?;
    Launch::new(&scalars::SCHEDULE, values.device())?
        .read(values)?
        .read(step)?
        .write(&mut out)?
        .value(values.len() as u64)
        .grid(1)
        .bytes(12)
        .run()?;
    Ok(out)
}

/// step += 1.
#[track_caller]
pub(super) fn advance(step: &mut Tensor) -> Result<()> {
    let device = step.device();
    let at = address_mut("advance", "step", step)?;
    Launch::new(&scalars::ADVANCE, device)?.value(at).grid(1).bytes(8).run()
}

/// Addresses of a launch of `optim_record`.
const SOURCES: usize = 32;

/// Writes a row of the history.
#[track_caller]
pub(super) fn record(history: &mut Tensor, step: &Tensor, values: &[&Tensor]) -> Result<()> {
    let (device, rows) = (history.device(), history.shape()[0]);
    let at = address_mut("record", "history", history)?;
    for (group, values) in values.chunks(SOURCES).enumerate() {
        let mut sources = [0u64; SOURCES];
        for (source, value) in sources.iter_mut().zip(values) {
            *source = value.device_address("record")?;
        }
        Launch::new(&scalars::RECORD, device)?
            .value(at)
            .read(step)?
            .value(sources)
            .value(rows as u64)
            .value(history.shape()[1] as u64)
            .value((group * SOURCES) as u64)
            .value(values.len() as u32)
            .grid(1)
            .block(SOURCES)
            .bytes(4 + 8 * values.len())
            .run()?;
    }
    Ok(())
}
