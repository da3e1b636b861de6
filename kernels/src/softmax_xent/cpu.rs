//! CPU backend: rows in pieces of [`PIECE`] elements, which stay in the first-level cache between the pass
//! for the maximum and the pass for the sum, so that memory is read once.
//!
//! Short rows are shared out over threads in groups, long rows piece by piece. A row's pieces, and the order
//! in which their partial results are merged, depend on V alone.

use super::lanes::{Soft, exp_scaled, exp_sum, maximum, shifted_sum, soft_sum, subtract_soft};
use crate::parallel::{GRAIN, chunks, chunks2};
use rayon::prelude::*;

/// Elements of a row that one task handles at a time: 32 KiB.
pub const PIECE: usize = 8192;

/// Up to this magnitude a rounded lse leaves a relative error of at most 2^-20 in exp(x - lse). Beyond it,
/// backward finds the maximum and the sum again.
const ACCURATE_LSE: f32 = 16.0;

/// What each row should predict.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// [M] classes.
    Labels(&'a [i32]),
    /// [M, V] weights.
    Probabilities(&'a [f32]),
}

/// The target and how much of it is spread evenly over all classes.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// What each row should predict.
    pub target: Target<'a>,
    /// Share of the weight that is spread evenly, 0 to 1.
    pub smoothing: f32,
}

/// Sums over one piece of a row, relative to its own `shift`.
#[derive(Clone, Copy)]
pub(crate) struct Partial {
    /// Largest element.
    max: f32,
    /// Sum of exp(x - max), or NaN.
    sum: f64,
    /// Sum of t and of t (x - shift) for soft targets. `shift` is `max`, or 0 if that is not finite.
    soft: Soft,
    /// Sum of x - shift, if there is smoothing.
    level: f64,
    len: usize,
}

impl Partial {
    pub(crate) fn shift(&self) -> f32 {
        if self.max == f32::NEG_INFINITY { 0.0 } else { self.max }
    }

    pub(crate) fn of(x: &[f32], t: Option<&[f32]>, smoothing: bool) -> Partial {
        let max = maximum(x);
        let mut p = Partial { max, sum: 0.0, soft: Soft::default(), level: 0.0, len: x.len() };
        p.sum = exp_sum(x, p.shift(), 1.0);
        if let Some(t) = t {
            p.soft = soft_sum(x, t, p.shift());
        }
        if smoothing {
            p.level = shifted_sum(x, p.shift());
        }
        p
    }

    /// Both pieces together, in this order.
    pub(crate) fn merge(self, next: Partial) -> Partial {
        let max = if next.max > self.max { next.max } else { self.max };
        let mut out = Partial { max, sum: 0.0, soft: Soft::default(), level: 0.0, len: self.len + next.len };
        let shift = f64::from(out.shift());
        for p in [self, next] {
            let moved = f64::from(p.shift()) - shift;
            // A piece of minus infinity has sum 0 and shift 0, which may lie far above the common one.
            out.sum += if p.sum == 0.0 { 0.0 } else { p.sum * moved.exp() };
            out.soft.weight += p.soft.weight;
            out.soft.product += p.soft.product + p.soft.weight * moved;
            out.level += p.level + p.len as f64 * moved;
        }
        out
    }

    /// Nothing but minus infinity was seen.
    pub(crate) fn is_void(&self) -> bool {
        self.max == f32::NEG_INFINITY && self.sum == 0.0
    }

    /// Sum of t over the sum of exp(x - shift).
    pub(crate) fn soft_over_sum(&self) -> f32 {
        (self.soft.weight / self.sum) as f32
    }

    fn lse(&self) -> f32 {
        (f64::from(self.shift()) + self.sum.ln()) as f32
    }

    /// Loss of a row with these sums. `label` is the label's logit, if there are labels.
    pub(crate) fn loss(&self, label: Option<f32>, smoothing: f32) -> f32 {
        if self.is_void() {
            return 0.0;
        }
        let log_sum = self.sum.ln();
        let smoothing = f64::from(smoothing);
        let mut loss = 0.0;
        if smoothing < 1.0 {
            loss += (1.0 - smoothing)
                * match label {
                    Some(x) => log_sum - (f64::from(x) - f64::from(self.shift())),
                    None => self.soft.weight * log_sum - self.soft.product,
                };
        }
        if smoothing > 0.0 {
            loss += smoothing * (log_sum - self.level / self.len as f64);
        }
        loss as f32
    }
}

fn row_of<'a>(weights: Weights<'a>, row: usize, v: usize) -> Option<&'a [f32]> {
    match weights.target {
        Target::Labels(_) => None,
        Target::Probabilities(t) => Some(&t[row * v..(row + 1) * v]),
    }
}

/// Sums over a whole row, piece by piece.
fn row_partial(x: &[f32], t: Option<&[f32]>, smoothing: bool) -> Partial {
    let piece = |start: usize| {
        let range = start..(start + PIECE).min(x.len());
        Partial::of(&x[range.clone()], t.map(|t| &t[range]), smoothing)
    };
    (PIECE..x.len()).step_by(PIECE).fold(piece(0), |p, start| p.merge(piece(start)))
}

/// As [`row_partial`], the pieces in parallel.
fn row_partial_parallel(x: &[f32], t: Option<&[f32]>, smoothing: bool) -> Partial {
    let parts: Vec<Partial> = (0..x.len().div_ceil(PIECE))
        .into_par_iter()
        .map(|i| {
            let range = i * PIECE..((i + 1) * PIECE).min(x.len());
            Partial::of(&x[range.clone()], t.map(|t| &t[range]), smoothing)
        })
        .collect();
    parts[1..].iter().fold(parts[0], |p, &next| p.merge(next))
}

/// Rows in a task, so that a task is worth starting.
fn rows_per_task(v: usize) -> usize {
    (GRAIN / v.max(1)).max(1)
}

/// `loss` [M] and `lse` [M] of `x` [M, V].
pub fn forward(x: &[f32], v: usize, weights: Weights, loss: &mut [f32], lse: &mut [f32]) {
    let smooth = weights.smoothing > 0.0;
    let finish = |row: usize, p: Partial, loss: &mut f32, lse: &mut f32| {
        let label = match weights.target {
            Target::Labels(labels) => Some(x[row * v + labels[row] as usize]),
            Target::Probabilities(_) => None,
        };
        *loss = p.loss(label, weights.smoothing);
        *lse = p.lse();
    };
    let rows = rows_per_task(v);
    chunks2(loss, rows, lse, rows, |task, loss, lse| {
        for (i, (loss, lse)) in loss.iter_mut().zip(lse).enumerate() {
            let row = task * rows + i;
            let (x, t) = (&x[row * v..(row + 1) * v], row_of(weights, row, v));
            let p = if v > PIECE { row_partial_parallel(x, t, smooth) } else { row_partial(x, t, smooth) };
            finish(row, p, loss, lse);
        }
    });
}

/// Shift and factor with which exp(x - shift) * factor is the softmax, from a rounded lse.
fn normaliser(x: &[f32], lse: f32) -> (f32, f32) {
    if lse.abs() <= ACCURATE_LSE {
        return (lse, 1.0);
    }
    let p = if x.len() > PIECE { row_partial_parallel(x, None, false) } else { row_partial(x, None, false) };
    (p.shift(), (1.0 / p.sum) as f32)
}

/// `dx` [M, V] from `dloss` [M], `x` [M, V] and forward's `lse` [M].
pub fn backward(dloss: &[f32], x: &[f32], v: usize, weights: Weights, lse: &[f32], dx: &mut [f32]) {
    let rows = rows_per_task(v);
    chunks(dx, rows * v, |start, dx| {
        for (i, dx) in dx.chunks_mut(v).enumerate() {
            let row = start / v + i;
            backward_row(row, dloss[row], &x[row * v..(row + 1) * v], weights, lse[row], dx);
        }
    });
}

fn backward_row(row: usize, dloss: f32, x: &[f32], weights: Weights, lse: f32, dx: &mut [f32]) {
    if lse == f32::NEG_INFINITY {
        dx.fill(0.0);
        return;
    }
    let t = row_of(weights, row, x.len());
    let (shift, factor) = normaliser(x, lse);
    let keep = 1.0 - weights.smoothing;
    let total = t.map_or(1.0, |t| t.chunks(PIECE).map(|t| shifted_sum(t, 0.0)).sum::<f64>() as f32);
    let scale = factor * (keep * total + weights.smoothing);
    let even = weights.smoothing / x.len() as f32;
    chunks(dx, PIECE, |start, dx| {
        exp_scaled(&x[start..start + dx.len()], shift, scale, even, dloss, dx);
        if let Some(t) = t {
            subtract_soft(&t[start..start + dx.len()], keep * dloss, dx);
        }
    });
    if let Target::Labels(labels) = weights.target {
        dx[labels[row] as usize] -= keep * dloss;
    }
}

/// `y` [M, V], the softmax of each row of `x` [M, V].
pub fn softmax(x: &[f32], v: usize, y: &mut [f32]) {
    if v == 0 {
        return;
    }
    let rows = rows_per_task(v);
    chunks(y, rows * v, |start, y| {
        for (i, y) in y.chunks_mut(v).enumerate() {
            let x = &x[start + i * v..start + (i + 1) * v];
            let p =
                if v > PIECE { row_partial_parallel(x, None, false) } else { row_partial(x, None, false) };
            let factor = if p.is_void() { 0.0 } else { (1.0 / p.sum) as f32 };
            chunks(y, PIECE, |start, y| {
                exp_scaled(&x[start..start + y.len()], p.shift(), factor, 0.0, 1.0, y);
            });
        }
    });
}
