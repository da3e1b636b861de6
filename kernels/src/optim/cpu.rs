//! CPU backend: chunks of all tensors together, in parallel. Norms keep one f64 partial a chunk and add them
//! in order.

use super::update::{self, Moments, Scaled};
use super::{LarsVariant, Slot, adapts};
use engine::{Result, Tensor};
use half::bf16;
use rayon::prelude::*;

/// Elements in a chunk: with gradient and two moments it stays in the second-level cache.
const CHUNK: usize = 1 << 14;

/// lightly's addition to the denominator of the trust ratio.
const LIGHTLY_EPS: f64 = 1e-8;

/// Settings of a LARS step.
#[derive(Debug, Clone, Copy)]
pub struct Lars {
    /// Learning rate.
    pub rate: f32,
    /// Momentum.
    pub momentum: f32,
    /// Size of a step relative to the weights, at rate 1.
    pub trust: f32,
    /// Which LARS.
    pub variant: LarsVariant,
    /// Multiplies the gradient.
    pub gradient_scale: f32,
}

/// Settings of an AdamW step.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first and the second moment.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Counts from 1.
    pub step: u64,
    /// Multiplies the gradient.
    pub gradient_scale: f32,
}

/// A chunk of a slot's value, gradient and moments (empty where there is no second), and the slot's factors.
struct Piece<'a, F> {
    value: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    low: Option<&'a mut [bf16]>,
    average: Option<&'a mut [f32]>,
    factors: F,
}

/// The chunks of a tensor that may be there.
fn optional<'a, T: engine::Element>(
    tensor: &'a mut Option<&mut Tensor>,
) -> Result<Option<std::slice::ChunksMut<'a, T>>> {
    tensor.as_mut().map(|t| Ok(t.as_mut_slice::<T>()?.chunks_mut(CHUNK))).transpose()
}

/// The chunks of all slots; `factors` gives each slot's own.
fn pieces<'a, F: Copy>(
    slots: &'a mut [Slot],
    factors: impl Fn(usize, &Slot) -> F,
) -> Result<Vec<Piece<'a, F>>> {
    let mut out = Vec::new();
    for (i, slot) in slots.iter_mut().enumerate() {
        let factors = factors(i, slot);
        let value = slot.value.as_mut_slice::<f32>()?.chunks_mut(CHUNK);
        let gradient = slot.gradient.as_slice::<f32>()?.chunks(CHUNK);
        let first = slot.first.as_mut_slice::<f32>()?.chunks_mut(CHUNK);
        let mut seconds = optional::<f32>(&mut slot.second)?;
        let (mut lows, mut averages) = (optional::<bf16>(&mut slot.low)?, optional(&mut slot.average)?);
        for ((value, gradient), first) in value.zip(gradient).zip(first) {
            let second = seconds.as_mut().and_then(Iterator::next).unwrap_or_default();
            let low = lows.as_mut().and_then(Iterator::next);
            let average = averages.as_mut().and_then(Iterator::next);
            out.push(Piece { value, gradient, first, second, low, average, factors });
        }
    }
    Ok(out)
}

/// Updates all pieces, in parallel, and what follows their values. `decay` is the averages'.
fn sweep<F: Copy + Send>(all: Vec<Piece<F>>, decay: f32, update: impl Fn(&mut Piece<F>) + Sync) {
    let rest = (1.0 - f64::from(decay)) as f32;
    all.into_par_iter().for_each(|mut p| {
        update(&mut p);
        if let Some(low) = p.low {
            update::low(p.value, low);
        }
        if let Some(average) = p.average {
            update::ema(average, p.value, decay, rest);
        }
    });
}

/// One SGD step over all slots.
pub fn sgd(slots: &mut [Slot], settings: update::Sgd, average_decay: f32) -> Result<()> {
    let all = pieces(slots, |_, slot| (settings.rate * slot.rate_scale, slot.weight_decay))?;
    sweep(all, average_decay, |p| {
        update::sgd(p.value, p.gradient, p.first, p.factors.0, p.factors.1, settings);
    });
    Ok(())
}

/// One LARS step over all slots: a pass for the norms of those that adapt, a pass for the update.
pub fn lars(slots: &mut [Slot], settings: Lars, average_decay: f32) -> Result<()> {
    let factors = lars_factors(slots, settings)?;
    let all = pieces(slots, |i, _| factors[i])?;
    sweep(all, average_decay, |p| update::scaled(p.value, p.gradient, p.first, p.factors));
    Ok(())
}

fn lars_factors(slots: &[Slot], s: Lars) -> Result<Vec<Scaled>> {
    let mut chunks = Vec::new();
    for (i, slot) in slots.iter().enumerate().filter(|(_, slot)| adapts(slot, s.variant)) {
        let decay = if s.variant == LarsVariant::Lightly { 0.0 } else { slot.weight_decay };
        let value = slot.value.as_slice::<f32>()?.chunks(CHUNK);
        let gradient = slot.gradient.as_slice::<f32>()?.chunks(CHUNK);
        chunks.extend(value.zip(gradient).map(|(w, g)| (i, w, g, decay)));
    }
    let partials: Vec<(usize, (f64, f64))> = chunks
        .into_par_iter()
        .map(|(i, w, g, decay)| (i, update::squares_of_both(w, g, s.gradient_scale, decay)))
        .collect();
    let mut norms = vec![(0f64, 0f64); slots.len()];
    for (i, (w, u)) in partials {
        norms[i].0 += w;
        norms[i].1 += u;
    }
    let factors = |(slot, (w, u)): (&Slot, (f64, f64))| {
        let (w, u, rate) = (w.sqrt(), u.sqrt(), s.rate * slot.rate_scale);
        let mut decay = slot.weight_decay;
        let mut ratio = 1.0;
        if adapts(slot, s.variant) {
            if w > 0.0 && u > 0.0 {
                let added = match s.variant {
                    LarsVariant::Simclr | LarsVariant::Byol => 0.0,
                    LarsVariant::Lightly => f64::from(decay) * w + LIGHTLY_EPS,
                };
                ratio = (f64::from(s.trust) * w / (u + added)) as f32;
            } else if s.variant == LarsVariant::Lightly {
                decay = 0.0;
            }
        }
        let (inside, outside) = match s.variant {
            LarsVariant::Simclr => (rate * ratio, 1.0),
            LarsVariant::Byol | LarsVariant::Lightly => (ratio, rate),
        };
        Scaled { scale: s.gradient_scale, decay, momentum: s.momentum, inside, outside }
    };
    Ok(slots.iter().zip(norms).map(factors).collect())
}

/// One AdamW step over all slots, which have second moments.
pub fn adamw(slots: &mut [Slot], s: AdamW, average_decay: f32) -> Result<()> {
    // Bias corrections in f64: 1 - 0.999^step loses half its digits in f32.
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(s.step as f64);
    let rest = |beta: f32| (1.0 - f64::from(beta)) as f32;
    let all = pieces(slots, |_, slot| {
        let rate = f64::from(s.rate) * f64::from(slot.rate_scale);
        Moments {
            scale: s.gradient_scale,
            betas: s.betas,
            rest: (rest(s.betas.0), rest(s.betas.1)),
            keep: (1.0 - rate * f64::from(slot.weight_decay)) as f32,
            rate: (rate / correction(s.betas.0)) as f32,
            root: (1.0 / correction(s.betas.1).sqrt()) as f32,
            eps: s.eps,
        }
    })?;
    sweep(all, average_decay, |p| update::adamw(p.value, p.gradient, p.first, p.second, p.factors));
    Ok(())
}

/// The moving average of all pairs.
pub fn ema(targets: &mut [(&mut Tensor, &Tensor)], decay: f32) -> Result<()> {
    let rest = (1.0 - f64::from(decay)) as f32;
    let mut all = Vec::new();
    for (target, online) in targets {
        let target = target.as_mut_slice::<f32>()?.chunks_mut(CHUNK);
        all.extend(target.zip(online.as_slice::<f32>()?.chunks(CHUNK)));
    }
    all.into_par_iter().for_each(|(target, online)| update::ema(target, online, decay, rest));
    Ok(())
}

/// Norm of all gradients together.
pub fn global_norm(gradients: &[&Tensor]) -> Result<f32> {
    let mut all = Vec::new();
    for gradient in gradients {
        all.extend(gradient.as_slice::<f32>()?.chunks(CHUNK));
    }
    let partials: Vec<f64> = all.into_par_iter().map(update::squares).collect();
    Ok(partials.iter().sum::<f64>().sqrt() as f32)
}
