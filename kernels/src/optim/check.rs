//! The CUDA kernels against the CPU backend, which the tests hold against the references: steps must agree bit for bit,
//! for gradients in f32 and bf16, tensors aligned and not, numbers by value and from device memory.

use super::cases::{Case, cases};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, guarded, misaligned, on_device};
use crate::compare::check_equal;

/// Which update, with everything that has no default.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Sgd { momentum: f32, nesterov: bool },
    Lars(LarsVariant),
    AdamW { betas: (f32, f32) },
}

pub(super) const RATE: f32 = 0.1;
pub(super) const TRUST: f32 = 1e-3;
pub(super) const EPS: f32 = 1e-8;
/// What the moving averages keep.
const AVERAGE_DECAY: f32 = 0.9;

pub(super) fn rules() -> Vec<Rule> {
    let mut all = vec![
        Rule::Sgd { momentum: 0.0, nesterov: false },
        Rule::Sgd { momentum: 0.9, nesterov: false },
        Rule::Sgd { momentum: 0.9, nesterov: true },
        Rule::AdamW { betas: (0.9, 0.999) },
        Rule::AdamW { betas: (0.9, 0.95) },
    ];
    all.extend([LarsVariant::Simclr, LarsVariant::Byol, LarsVariant::Lightly].map(Rule::Lars));
    all
}

/// Where a run's tensors are, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub device: Device,
    /// Element type of gradients. On the CPU their values are rounded to it and kept in f32.
    pub gradients: DType,
    /// None: all aligned, and numbers by value. Else one tensor of each slot is one element behind a multiple of 16
    /// bytes, in turn, starting with this one; and numbers are read from tensors.
    pub misaligned: Option<usize>,
    /// Steps before the first.
    pub before: u64,
}

impl Place {
    pub(super) fn cpu(gradients: DType) -> Place {
        Place { device: Device::Cpu, gradients, misaligned: None, before: 0 }
    }

    fn put(&self, x: &[f64], which: usize, slot: usize, dtype: DType) -> Result<Tensor> {
        let x = Array::new(&[x.len()], x.to_vec());
        match self.misaligned.is_some_and(|first| (first + slot) % TENSORS == which) {
            true => misaligned(&x, dtype, self.device),
            false => on_device(&x, dtype, self.device),
        }
    }

    fn gradient(&self, x: &[f64], slot: usize) -> Result<Tensor> {
        let rounded = Array::<f64>::new(&[x.len()], x.to_vec()).rounded_to(self.gradients);
        let dtype = if self.device == Device::Cpu { DType::F32 } else { self.gradients };
        self.put(&rounded.data, 1, slot, dtype)
    }

    fn scalar(&self, x: f32) -> Result<Tensor> {
        Tensor::from_slice(&[x], &[1])?.to_device(self.device)
    }
}

/// Tensors of a slot: value, gradient, first, second, low, average.
const TENSORS: usize = 6;

/// What a step writes of a parameter.
pub(super) struct Held {
    pub value: Tensor,
    pub first: Tensor,
    pub second: Tensor,
    pub low: Tensor,
    pub average: Tensor,
}

/// Parameters and what belongs to them after the case's steps, on the CPU. `gradient` gives those of a step.
pub(super) fn run_with(
    case: &Case,
    rule: Rule,
    gradient_scale: f32,
    place: Place,
    gradient: impl Fn(usize) -> Vec<Vec<f64>>,
) -> Result<Vec<Held>> {
    let states = case.states::<f64>(RATE);
    let mut all = Vec::new();
    for (i, s) in states.iter().enumerate() {
        let mut low = place.put(&vec![f64::NAN; s.w.len()], 4, i, DType::BF16)?;
        low.make_unique()?;
        all.push(Held {
            value: place.put(&s.w, 0, i, DType::F32)?,
            first: place.put(&s.first, 2, i, DType::F32)?,
            second: place.put(&s.second, 3, i, DType::F32)?,
            low,
            average: place.put(&s.w, 5, i, DType::F32)?,
        });
    }
    let scales: Vec<f32> = (0..states.len()).map(|slot| case.gradient_scale(slot)).collect();
    let scales = Tensor::from_slice(&scales, &[scales.len()])?.to_device(place.device)?;
    let mut count = Tensor::from_slice(&[place.before as i32], &[1])?.to_device(place.device)?;
    for i in 0..case.steps {
        let numbers = [RATE, case.decay_scale(i), gradient_scale, AVERAGE_DECAY];
        let tensors = numbers.iter().map(|&x| place.scalar(x)).collect::<Result<Vec<_>>>()?;
        let number = |i: usize| match place.misaligned {
            None => Scalar::Value(numbers[i]),
            Some(_) => Scalar::Tensor(&tensors[i]),
        };
        let step = Step {
            rate: number(0),
            decay_scale: number(1),
            gradient_scale: number(2),
            gradient_scales: Some(&scales),
            average_decay: number(3),
        };
        let before = match place.misaligned {
            None => StepCount::Value(place.before + i as u64),
            Some(_) => StepCount::Tensor(&count),
        };
        let gradients = gradient(i);
        let gradients = gradients.iter().enumerate().map(|(slot, g)| place.gradient(g, slot));
        let gradients = gradients.collect::<Result<Vec<_>>>()?;
        let mut slots = Vec::new();
        for (slot, ((held, gradient), s)) in all.iter_mut().zip(&gradients).zip(&states).enumerate() {
            slots.push(Slot {
                value: &mut held.value,
                gradient,
                first: &mut held.first,
                second: matches!(rule, Rule::AdamW { .. }).then_some(&mut held.second),
                low: Some(&mut held.low),
                average: Some(&mut held.average),
                weight_decay: s.decay as f32,
                rate_scale: case.rate_scale(slot) as f32,
                adapt: s.adapt,
                hold: case.hold(slot),
            });
        }
        match rule {
            Rule::Sgd { momentum, nesterov } => sgd(&mut slots, &step, momentum, nesterov, before)?,
            Rule::Lars(variant) => lars(&mut slots, &step, 0.9, TRUST, variant, before)?,
            Rule::AdamW { betas } => adamw(&mut slots, &step, betas, EPS, before)?,
        }
        advance(&mut count)?;
    }
    let back = |x: &Tensor| x.to_device(Device::Cpu);
    all.iter()
        .map(|h| {
            Ok(Held {
                value: back(&h.value)?,
                first: back(&h.first)?,
                second: back(&h.second)?,
                low: back(&h.low)?,
                average: back(&h.average)?,
            })
        })
        .collect()
}

/// [`run_with`] the case's gradients.
pub(super) fn run(case: &Case, rule: Rule, gradient_scale: f32, place: Place) -> Result<Vec<Held>> {
    run_with(case, rule, gradient_scale, place, |step| case.gradients::<f64>(step))
}

/// The bf16 values as f32.
pub(super) fn widened(x: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = x.to_vec::<half::bf16>()?.into_iter().map(half::bf16::to_f32).collect();
    Tensor::from_slice(&values, x.shape())
}

/// An error unless two runs left the same bits.
pub(super) fn same(what: &str, found: &[Held], expected: &[Held]) -> Result<()> {
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let what = |name: &str| format!("{name} of parameter {i}, {what}");
        check_equal(&what("value"), &f.value, &e.value)?;
        check_equal(&what("first"), &f.first, &e.first)?;
        check_equal(&what("second"), &f.second, &e.second)?;
        check_equal(&what("low"), &widened(&f.low)?, &widened(&e.low)?)?;
        check_equal(&what("average"), &f.average, &e.average)?;
    }
    Ok(())
}

/// The same steps on the device and on the CPU.
pub(super) fn check_steps(device: Device, case: &Case, rule: Rule, shift: usize, before: u64) -> Result<()> {
    for gradients in FLOATS {
        let expected = run(case, rule, 0.25, Place { before, ..Place::cpu(gradients) })?;
        // The copies of one element type are enough for the aligned path of numbers by value.
        let places = if gradients == DType::F32 { &[None, Some(shift)][..] } else { &[Some(shift)] };
        for &misaligned in places {
            let place = Place { device, gradients, misaligned, before };
            let found = guarded(device, || run(case, rule, 0.25, place))?;
            same(&format!("{rule:?}, {place:?}"), &found, &expected)?;
        }
    }
    Ok(())
}

/// The norm of all gradients, what clips it, and moving averages.
pub(super) fn check_norm_and_average(device: Device, case: &Case, shift: usize) -> Result<()> {
    for gradients in FLOATS {
        let groups: Vec<u32> = (0..case.sizes.len()).map(|i| case.group(i)).collect();
        let all = |place: Place| -> Result<Vec<Tensor>> {
            let tensors = case.gradients::<f64>(0).into_iter().enumerate();
            let tensors = tensors.map(|(i, g)| place.gradient(&g, i)).collect::<Result<Vec<_>>>()?;
            let tensors: Vec<&Tensor> = tensors.iter().collect();
            let mut found = vec![global_norm(&tensors)?];
            for clip in [Clip::global(0.5), Clip::group(0.5), Clip::parameter(0.5)] {
                let Clipped { norm, scales } = clip_scales(&tensors, &groups, clip)?;
                found.extend([norm, scales]);
            }
            found.iter().map(|x| x.to_device(Device::Cpu)).collect()
        };
        let expected = all(Place::cpu(gradients))?;
        for misaligned in [None, Some(shift)] {
            let found = guarded(device, || all(Place { device, gradients, misaligned, before: 0 }))?;
            for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
                check_equal(&format!("norm or scales {i}"), f, e)?;
            }
        }
    }
    let follow = |place: Place| -> Result<Vec<Tensor>> {
        let (states, online) = (case.states::<f64>(RATE), case.gradients::<f64>(0));
        let mut targets = Vec::new();
        for (i, (s, o)) in states.iter().zip(&online).enumerate() {
            let mut low = place.put(&vec![f64::NAN; s.w.len()], 4, i, DType::BF16)?;
            low.make_unique()?;
            targets.push((place.put(&s.w, 0, i, DType::F32)?, place.put(o, 1, i, DType::F32)?, low));
        }
        let decay = place.scalar(0.99)?;
        let mut followers = Vec::new();
        for (i, (target, online, low)) in targets.iter_mut().enumerate() {
            followers.push(Follower { target, online, low: (i % 4 != 3).then_some(low) });
        }
        ema(&mut followers, if place.misaligned.is_some() { Scalar::Tensor(&decay) } else { 0.99.into() })?;
        let mut found = Vec::new();
        for (target, _, low) in &targets {
            found.extend([target.to_device(Device::Cpu)?, widened(&low.to_device(Device::Cpu)?)?]);
        }
        Ok(found)
    };
    let expected = follow(Place::cpu(DType::F32))?;
    for misaligned in [None, Some(shift)] {
        let place = Place { device, gradients: DType::F32, misaligned, before: 0 };
        for (i, (f, e)) in guarded(device, || follow(place))?.iter().zip(&expected).enumerate() {
            check_equal(&format!("average or copy {i}, {place:?}"), f, e)?;
        }
    }
    Ok(())
}

/// Schedules, step numbers and histories.
pub(super) fn check_numbers(device: Device) -> Result<()> {
    let all = |device: Device| -> Result<Vec<Tensor>> {
        let values = Tensor::from_slice(&[0.5f32, 0.25, 0.125], &[3])?.to_device(device)?;
        let mut step = Tensor::from_slice(&[0i32], &[1])?.to_device(device)?;
        // More columns than one launch writes.
        let mut history = Tensor::zeros(&[2, 40], DType::F32, device)?;
        let mut found = Vec::new();
        for _ in 0..5 {
            let rate = schedule(&values, &step)?;
            let mut columns = vec![&rate; 39];
            let scalar = Tensor::scalar(7.0)?.to_device(device)?;
            columns.push(&scalar);
            record(&mut history, &step, &columns)?;
            advance(&mut step)?;
            found.push(rate.to_device(Device::Cpu)?);
            found.push(history.to_device(Device::Cpu)?);
        }
        Ok(found)
    };
    let expected = all(Device::Cpu)?;
    for (i, (f, e)) in guarded(device, || all(device))?.iter().zip(&expected).enumerate() {
        check_equal(&format!("number {i}"), f, e)?;
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let cases = cases();
    for case in cases.iter().filter(|case| !case.sizes.is_empty()) {
        for (shift, rule) in rules().into_iter().enumerate() {
            check_steps(device, case, rule, shift, 0).map_err(|e| e.with("case", case))?;
        }
        check_norm_and_average(device, case, 1).map_err(|e| e.with("case", case))?;
    }
    check_numbers(device)?;
    Ok(cases.len())
}
