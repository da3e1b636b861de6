//! Launches of `update.cu` and, in the modules below, of `norms.cu` and `scalars.cu`.

use super::table::{CHUNK, Entry, NUMBERS, Table, address_mut};
use super::{LarsVariant, Scalar, Slot, Step, StepCount, adapts};
use crate::cuda::{THREADS, kernels};
use engine::cuda::Launch;
use engine::{DType, Device, Result, Tensor};

kernels! {
    family: "optim", file: "update.cu", options: ["--fmad=false"];
    SGD = "optim_sgd";
    LARS = "optim_lars";
    ADAMW = "optim_adamw";
    EMA = "optim_ema";
}

/// Sums of squares and what is made of them.
pub(crate) mod norms {
    use crate::cuda::kernels;
    kernels! {
        family: "optim", file: "norms.cu", options: ["--fmad=false"];
        SQUARES = "optim_squares";
        NORM = "optim_norm";
        LARS_SQUARES = "optim_lars_squares";
        LARS_FACTORS = "optim_lars_factors";
    }
}

/// Numbers of a step.
pub(crate) mod scalars {
    use crate::cuda::kernels;
    kernels! {
        family: "optim", file: "scalars.cu", options: ["--fmad=false"];
        CLIP_SCALE = "optim_clip_scale";
        SCHEDULE = "optim_schedule";
        ADVANCE = "optim_advance";
        RECORD = "optim_record";
    }
}

/// A [`Scalar`] as kernels take it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Number {
    at: u64,
    value: f32,
    unused: u32,
}
const _: () = assert!(size_of::<Number>() == 16);

#[track_caller]
fn number(operation: &str, scalar: Scalar) -> Result<Number> {
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

/// Bytes of a partial sum, and of one of two sums.
const PARTIAL: usize = 8;
/// Bytes of the factors of a LARS slot.
const LARS_FACTORS: usize = 16;

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
    fn new(operation: &str, device: Device, slots: &mut [Slot], adapt: fn(&Slot) -> bool) -> Result<Sweep> {
        let (mut elements, mut bytes) = (0, 0);
        let mut entries = Vec::with_capacity(slots.len());
        for slot in slots {
            let adapt = adapt(slot);
            let low = slot.low.as_ref().map_or(0, |_| 2);
            let moments = if slot.second.is_some() { 16 } else { 8 };
            let average = slot.average.as_ref().map_or(0, |_| 8);
            elements += slot.value.len();
            bytes += slot.value.len() * (8 + slot.gradient.dtype().size() + moments + low + average);
            entries.push(Entry::of_slot(operation, slot, adapt)?);
        }
        let table = Table::new(operation, device, entries)?;
        bytes += table.bytes();
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
fn launch(kernel: &'static engine::cuda::Kernel, device: Device, table: &Table) -> Result<Launch> {
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
    first_step: bool,
) -> Result<()> {
    let sweep = Sweep::new("sgd", device, slots, |_| false)?;
    let unread = if first_step { 4 * sweep.elements } else { 0 };
    sweep
        .launch(&SGD, device)?
        .value(number("sgd", step.rate)?)
        .value(number("sgd", step.gradient_scale)?)
        .value(number("sgd", step.average_decay)?)
        .value(momentum)
        .value(u32::from(nesterov))
        .value(u32::from(first_step))
        .bytes(sweep.bytes - unread)
        .flops(7.0 * sweep.elements as f64)
        .run()
}

/// One LARS step over all slots: partial sums, factors, update.
#[track_caller]
pub(super) fn lars(
    device: Device,
    slots: &mut [Slot],
    step: &Step,
    momentum: f32,
    trust: f32,
    variant: LarsVariant,
) -> Result<()> {
    let adapt: fn(&Slot) -> bool = match variant {
        LarsVariant::Lightly => |slot| adapts(slot, LarsVariant::Lightly),
        LarsVariant::Simclr | LarsVariant::Byol => |slot| slot.adapt,
    };
    let (mut summed, mut sums) = (0, 0);
    for slot in slots.iter().filter(|slot| adapt(slot)) {
        summed += slot.value.len() * (4 + slot.gradient.dtype().size());
        sums += slot.value.len().div_ceil(CHUNK) * 2 * PARTIAL;
    }
    let sweep = Sweep::new("lars", device, slots, adapt)?;
    let table = &sweep.table;
    let scale = number("lars", step.gradient_scale)?;
    let mut partials = Tensor::empty(&[table.chunk_count, 2 * PARTIAL], DType::U8, device)?;
    let mut factors = Tensor::empty(&[table.slot_count, LARS_FACTORS], DType::U8, device)?;
    launch(&norms::LARS_SQUARES, device, table)?
        .write(&mut partials)?
        .value(scale)
        .value(number_of(variant))
        .bytes(summed + table.bytes() + sums)
        .flops(7.0 * sweep.elements as f64)
        .run()?;
    Launch::new(&norms::LARS_FACTORS, device)?
        .value(table.slots())
        .read(&partials)?
        .write(&mut factors)?
        .value(table.slot_count as u32)
        .value(number("lars", step.rate)?)
        .value(trust)
        .value(number_of(variant))
        .grid(table.slot_count.div_ceil(THREADS / 32))
        .block(THREADS)
        .bytes(sums + table.slot_count * NUMBERS + factors.len())
        .run()?;
    sweep
        .launch(&LARS, device)?
        .read(&factors)?
        .value(scale)
        .value(number("lars", step.average_decay)?)
        .value(momentum)
        .bytes(sweep.bytes + factors.len())
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
    let sweep = Sweep::new("adamw", device, slots, |_| false)?;
    let before = match before {
        StepCount::Value(value) => StepNumber { at: 0, value },
        StepCount::Tensor(tensor) => StepNumber { at: tensor.device_address("adamw")?, value: 0 },
    };
    sweep
        .launch(&ADAMW, device)?
        .value(number("adamw", step.rate)?)
        .value(number("adamw", step.gradient_scale)?)
        .value(number("adamw", step.average_decay)?)
        .value(before)
        .value(betas.0)
        .value(betas.1)
        .value(eps)
        .flops(15.0 * sweep.elements as f64)
        .run()
}

/// The moving average of all pairs.
#[track_caller]
pub(super) fn ema(device: Device, targets: &mut [(&mut Tensor, &Tensor)], decay: Scalar) -> Result<()> {
    let elements: usize = targets.iter().map(|(target, _)| target.len()).sum();
    let entries = targets.iter_mut().map(|(target, online)| Entry::of_pair("ema", target, online));
    let table = Table::new("ema", device, entries.collect::<Result<_>>()?)?;
    launch(&EMA, device, &table)?
        .value(number("ema", decay)?)
        .bytes(12 * elements + table.bytes())
        .flops(3.0 * elements as f64)
        .run()
}

/// Norm of all gradients together.
#[track_caller]
pub(super) fn global_norm(device: Device, gradients: &[&Tensor]) -> Result<Tensor> {
    let bytes: usize = gradients.iter().map(|g| g.len() * g.dtype().size()).sum();
    let elements: usize = gradients.iter().map(|g| g.len()).sum();
    let entries = gradients.iter().map(|g| Entry::of_gradient("global_norm", g)).collect::<Result<_>>()?;
    let table = Table::new("global_norm", device, entries)?;
    let mut partials = Tensor::empty(&[table.chunk_count, PARTIAL], DType::U8, device)?;
    let mut norm = Tensor::empty(&[1], DType::F32, device)?;
    launch(&norms::SQUARES, device, &table)?
        .write(&mut partials)?
        .bytes(bytes + table.bytes() + partials.len())
        .flops(2.0 * elements as f64)
        .run()?;
    Launch::new(&norms::NORM, device)?
        .read(&partials)?
        .write(&mut norm)?
        .value(table.chunk_count as u64)
        .grid(1)
        .block(THREADS)
        .run()?;
    Ok(norm)
}

/// The factor that scales gradients down to a norm.
#[track_caller]
pub(super) fn clip_scale(norm: &Tensor, limit: f32) -> Result<Tensor> {
    let mut scale = Tensor::empty(&[1], DType::F32, norm.device())?;
    Launch::new(&scalars::CLIP_SCALE, norm.device())?
        .read(norm)?
        .write(&mut scale)?
        .value(limit)
        .grid(1)
        .run()?;
    Ok(scale)
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
