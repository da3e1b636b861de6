//! CPU backend: chunks of all tensors together, in parallel. Norms keep one f64 partial a chunk and add them
//! in order.

use super::update::{self, Moments, Scaled};
use super::{Follower, LarsVariant, Slot, Step, StepCount};
use engine::{Result, Tensor};
use half::bf16;
use rayon::prelude::*;

/// Elements in a chunk: with gradient and two moments it stays in the second-level cache.
const CHUNK: usize = 1 << 14;

/// lightly's addition to the denominator of the trust ratio.
const LIGHTLY_EPS: f64 = 1e-8;

/// The numbers of a step.
pub struct Numbers<'a> {
    rate: f32,
    decay_scale: f32,
    scale: f32,
    scales: Option<&'a [f32]>,
    average_decay: f32,
    before: u64,
}

impl<'a> Numbers<'a> {
    /// Reads them.
    #[track_caller]
    pub fn read(operation: &str, step: &Step<'a>, before: StepCount) -> Result<Numbers<'a>> {
        Ok(Numbers {
            rate: step.rate.read(operation)?,
            decay_scale: step.decay_scale.read(operation)?,
            scale: step.gradient_scale.read(operation)?,
            scales: step.gradient_scales.map(Tensor::as_slice::<f32>).transpose()?,
            average_decay: step.average_decay.read(operation)?,
            before: before.read(operation)?,
        })
    }

    /// Those of slot `i`; none while it is left alone.
    fn of(&self, i: usize, slot: &Slot) -> Option<Own> {
        let still = slot.hold.is_still(self.before);
        Some(Own {
            before: slot.hold.own_steps(self.before)?,
            still,
            rate: if still { 0.0 } else { self.rate },
            rate_scale: slot.rate_scale,
            decay: self.decay_scale * slot.weight_decay,
            scale: self.scales.map_or(self.scale, |scales| self.scale * scales[i]),
        })
    }
}

/// A step's numbers for one slot.
#[derive(Debug, Clone, Copy)]
struct Own {
    /// Steps that the slot took.
    before: u64,
    /// Whether its value stays.
    still: bool,
    /// 0 where the value stays.
    rate: f32,
    rate_scale: f32,
    decay: f32,
    /// Multiplies the gradient.
    scale: f32,
}

/// A chunk of a slot's value, gradient and moments (empty where there is no second), and the slot's factors.
struct Piece<'a, F> {
    value: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    low: Option<&'a mut [bf16]>,
    average: Option<&'a mut [f32]>,
    still: bool,
    factors: F,
}

/// The chunks of a tensor that may be there.
fn optional<'a, T: engine::Element>(
    tensor: &'a mut Option<&mut Tensor>,
) -> Result<Option<std::slice::ChunksMut<'a, T>>> {
    tensor.as_mut().map(|t| Ok(t.as_mut_slice::<T>()?.chunks_mut(CHUNK))).transpose()
}

/// The chunks of all slots that are not left alone; `factors` gives each slot's own.
fn pieces<'a, F: Copy>(
    slots: &'a mut [Slot],
    numbers: &Numbers,
    factors: impl Fn(usize, &Slot, Own) -> F,
) -> Result<Vec<Piece<'a, F>>> {
    let mut out = Vec::new();
    for (i, slot) in slots.iter_mut().enumerate() {
        let Some(own) = numbers.of(i, slot) else { continue };
        let factors = factors(i, slot, own);
        let value = slot.value.as_mut_slice::<f32>()?.chunks_mut(CHUNK);
        let gradient = slot.gradient.as_slice::<f32>()?.chunks(CHUNK);
        let first = slot.first.as_mut_slice::<f32>()?.chunks_mut(CHUNK);
        let mut seconds = optional::<f32>(&mut slot.second)?;
        let (mut lows, mut averages) = (optional::<bf16>(&mut slot.low)?, optional(&mut slot.average)?);
        for ((value, gradient), first) in value.zip(gradient).zip(first) {
            let second = seconds.as_mut().and_then(Iterator::next).unwrap_or_default();
            let low = lows.as_mut().and_then(Iterator::next);
            let average = averages.as_mut().and_then(Iterator::next);
            out.push(Piece { value, gradient, first, second, low, average, still: own.still, factors });
        }
    }
    Ok(out)
}

/// Updates all pieces, in parallel, and what follows their values. `decay` is the averages'.
fn sweep<F: Copy + Send>(all: Vec<Piece<F>>, decay: f32, update: impl Fn(&mut Piece<F>) + Sync) {
    let rest = (1.0 - f64::from(decay)) as f32;
    all.into_par_iter().for_each(|mut p| {
        let kept = p.still.then(|| p.value.to_vec());
        update(&mut p);
        if let Some(kept) = kept {
            p.value.copy_from_slice(&kept);
        }
        if let Some(low) = p.low {
            update::low(p.value, low);
        }
        if let Some(average) = p.average {
            update::ema(average, p.value, decay, rest);
        }
    });
}

/// One SGD step over all slots.
pub fn sgd(slots: &mut [Slot], numbers: &Numbers, momentum: f32, nesterov: bool) -> Result<()> {
    let all = pieces(slots, numbers, |_, _, own| update::Sgd {
        scale: own.scale,
        decay: own.decay,
        rate: own.rate * own.rate_scale,
        momentum,
        nesterov,
        fresh: own.before == 0,
    })?;
    sweep(all, numbers.average_decay, |p| update::sgd(p.value, p.gradient, p.first, p.factors));
    Ok(())
}

/// Settings of a LARS step that do not change.
#[derive(Debug, Clone, Copy)]
pub struct Lars {
    /// Momentum.
    pub momentum: f32,
    /// Size of a step relative to the weights, at rate 1.
    pub trust: f32,
    /// Which LARS.
    pub variant: LarsVariant,
}

/// One LARS step over all slots: a pass for the norms of those that adapt, a pass for the update.
pub fn lars(slots: &mut [Slot], numbers: &Numbers, settings: Lars) -> Result<()> {
    let norms = lars_norms(slots, numbers, settings.variant)?;
    let all = pieces(slots, numbers, |i, _, own| lars_factors(norms[i], own, settings))?;
    sweep(all, numbers.average_decay, |p| update::scaled(p.value, p.gradient, p.first, p.factors));
    Ok(())
}

/// Whether LARS's ratio applies to a slot with this decay.
fn adapts(slot: &Slot, decay: f32, variant: LarsVariant) -> bool {
    slot.adapt && (variant != LarsVariant::Lightly || decay != 0.0)
}

/// Norms of the value and of its decayed gradient, of slots that adapt.
fn lars_norms(slots: &[Slot], numbers: &Numbers, variant: LarsVariant) -> Result<Vec<Option<(f64, f64)>>> {
    let mut chunks = Vec::new();
    let mut sums = vec![None; slots.len()];
    for (i, slot) in slots.iter().enumerate() {
        let Some(own) = numbers.of(i, slot).filter(|own| adapts(slot, own.decay, variant)) else { continue };
        let decay = if variant == LarsVariant::Lightly { 0.0 } else { own.decay };
        let value = slot.value.as_slice::<f32>()?.chunks(CHUNK);
        let gradient = slot.gradient.as_slice::<f32>()?.chunks(CHUNK);
        chunks.extend(value.zip(gradient).map(|(w, g)| (i, w, g, own.scale, decay)));
        sums[i] = Some((0.0, 0.0));
    }
    let partials: Vec<(usize, (f64, f64))> = chunks
        .into_par_iter()
        .map(|(i, w, g, scale, decay)| (i, update::squares_of_both(w, g, scale, decay)))
        .collect();
    for (i, (w, u)) in partials {
        if let Some(sum) = &mut sums[i] {
            sum.0 += w;
            sum.1 += u;
        }
    }
    Ok(sums.into_iter().map(|sum| sum.map(|(w, u): (f64, f64)| (w.sqrt(), u.sqrt()))).collect())
}

/// The factors of a slot; it has norms if it adapts.
fn lars_factors(norms: Option<(f64, f64)>, own: Own, s: Lars) -> Scaled {
    let rate = own.rate * own.rate_scale;
    let (mut decay, mut ratio) = (own.decay, 1.0);
    match norms {
        Some((w, u)) if w > 0.0 && u > 0.0 => {
            let added = match s.variant {
                LarsVariant::Simclr | LarsVariant::Byol => 0.0,
                LarsVariant::Lightly => f64::from(decay) * w + LIGHTLY_EPS,
            };
            ratio = (f64::from(s.trust) * w / (u + added)) as f32;
        }
        Some(_) if s.variant == LarsVariant::Lightly => decay = 0.0,
        _ => {}
    }
    let (inside, outside) = match s.variant {
        LarsVariant::Simclr => (rate * ratio, 1.0),
        LarsVariant::Byol | LarsVariant::Lightly => (ratio, rate),
    };
    Scaled { scale: own.scale, decay, momentum: s.momentum, inside, outside }
}

/// One AdamW step over all slots, which have second moments.
pub fn adamw(slots: &mut [Slot], numbers: &Numbers, betas: (f32, f32), eps: f32) -> Result<()> {
    // Bias corrections in f64: 1 - 0.999^step loses half its digits in f32.
    let correction = |beta: f32, step: u64| 1.0 - f64::from(beta).powf(step as f64);
    let rest = |beta: f32| (1.0 - f64::from(beta)) as f32;
    let all = pieces(slots, numbers, |_, _, own| {
        let rate = f64::from(own.rate) * f64::from(own.rate_scale);
        let step = own.before + 1;
        Moments {
            scale: own.scale,
            betas,
            rest: (rest(betas.0), rest(betas.1)),
            keep: (1.0 - rate * f64::from(own.decay)) as f32,
            rate: (rate / correction(betas.0, step)) as f32,
            root: (1.0 / correction(betas.1, step).sqrt()) as f32,
            eps,
        }
    })?;
    sweep(all, numbers.average_decay, |p| {
        update::adamw(p.value, p.gradient, p.first, p.second, p.factors);
    });
    Ok(())
}

/// The moving average of all pairs.
pub fn ema(followers: &mut [Follower], decay: f32) -> Result<()> {
    let rest = (1.0 - f64::from(decay)) as f32;
    let mut all = Vec::new();
    for follower in followers {
        let target = follower.target.as_mut_slice::<f32>()?.chunks_mut(CHUNK);
        let online = follower.online.as_slice::<f32>()?.chunks(CHUNK);
        let mut lows = optional::<bf16>(&mut follower.low)?;
        let low = std::iter::from_fn(|| Some(lows.as_mut().and_then(Iterator::next)));
        all.extend(target.zip(online).zip(low));
    }
    all.into_par_iter().for_each(|((target, online), low)| {
        update::ema(target, online, decay, rest);
        if let Some(low) = low {
            update::low(target, low);
        }
    });
    Ok(())
}

/// Sum of the squares of each gradient.
pub fn squares(gradients: &[&Tensor]) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for (i, gradient) in gradients.iter().enumerate() {
        all.extend(gradient.as_slice::<f32>()?.chunks(CHUNK).map(|chunk| (i, chunk)));
    }
    let partials: Vec<(usize, f64)> = all.into_par_iter().map(|(i, x)| (i, update::squares(x))).collect();
    let mut sums = vec![0.0; gradients.len()];
    partials.iter().for_each(|&(i, partial)| sums[i] += partial);
    Ok(sums)
}
