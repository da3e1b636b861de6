//! CPU backend of the cross-entropy with a teacher: pieces of an image's rows, of [`PIECE`] classes, are tasks. A task makes the
//! teacher's probabilities there once, for all the student's crops. Partial sums are merged in the order of pieces.

use super::cpu::{add_row, exponentials, rows_per_task, scaled};
use super::positive;
use super::xent::{Problem, Teacher};
use crate::math::exp;
use crate::multiversion;
use crate::parallel::{GRAIN, chunks2};
use crate::softmax_xent::cpu::{PIECE, Partial};
use crate::softmax_xent::lanes::{exp_scaled, maximum, subtract_soft};
use engine::{Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Columns of a task of [`means`].
const COLUMNS: usize = 512;

multiversion! {
    /// y = exp(y - shift) factor
    fn probabilities(y: &mut [f32], shift: f32, factor: f32) {
        for y in y.iter_mut() {
            *y = exp(*y - shift) * factor;
        }
    }
}

multiversion! {
    /// y = x factor
    fn product(x: &[f32], factor: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * factor;
        }
    }
}

multiversion! {
    /// y = a + b
    fn sum(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

/// Shift, factor and entropy of a row, which becomes its exponentials.
fn row_statistics(y: &mut [f32]) -> ([f32; 2], f32) {
    let top = maximum(y);
    let shift = if top == f32::NEG_INFINITY { 0.0 } else { top };
    let (sum, product) = exponentials(y, shift);
    // Nothing but minus infinity was seen: no probabilities.
    match sum == 0.0 {
        true => ([0.0, 0.0], 0.0),
        false => ([shift, (1.0 / sum) as f32], (sum.ln() - product / sum) as f32),
    }
}

/// A teacher's center, empty where there is none, and its temperature.
#[track_caller]
fn settings<'a>(operation: &str, teacher: &Teacher<'a>) -> Result<(&'a [f32], f32)> {
    let center = teacher.center.map(Tensor::as_slice).transpose()?.unwrap_or_default();
    Ok((center, positive(operation, teacher.temperature)?))
}

/// `rows` [N, 2] and `entropy` [N]: see [`super::teacher_rows`].
#[track_caller]
pub fn rows(operation: &str, teacher: &Teacher, rows: &mut [f32], entropy: &mut [f32]) -> Result<()> {
    let (x, k) = (teacher.logits.as_slice::<f32>()?, teacher.logits.shape()[1]);
    let (center, t) = settings(operation, teacher)?;
    let step = rows_per_task(k);
    chunks2(rows, 2 * step, entropy, step, |task, rows, entropy| {
        let mut y = vec![0f32; k];
        for (i, (row, entropy)) in rows.chunks_mut(2).zip(entropy).enumerate() {
            scaled(&x[(task * step + i) * k..][..k], center, t, &mut y);
            let (numbers, own) = row_statistics(&mut y);
            row.copy_from_slice(&numbers);
            *entropy = own;
        }
    });
    Ok(())
}

/// `mean` [K] and `usage` [K]: see [`super::teacher_means`].
#[track_caller]
pub fn means(
    operation: &str,
    teacher: &Teacher,
    rows: &[f32],
    share: Option<&[f32]>,
    mean: &mut [f32],
    usage: &mut [f32],
) -> Result<()> {
    let (x, k) = (teacher.logits.as_slice::<f32>()?, teacher.logits.shape()[1]);
    let (center, t) = settings(operation, teacher)?;
    let even = 1.0 / (rows.len() / 2) as f64;
    chunks2(mean, COLUMNS, usage, COLUMNS, |task, mean, usage| {
        let range = task * COLUMNS..task * COLUMNS + mean.len();
        let center = if center.is_empty() { center } else { &center[range.clone()] };
        let (mut y, mut sums) = (vec![0f32; mean.len()], [vec![0f64; mean.len()], vec![0f64; mean.len()]]);
        for (i, (x, row)) in x.chunks(k).zip(rows.chunks(2)).enumerate() {
            let weight = share.map_or(even, |share| f64::from(share[i]));
            if weight == 0.0 {
                continue;
            }
            let x = &x[range.clone()];
            add_row(&mut sums[0], x, weight);
            scaled(x, center, t, &mut y);
            probabilities(&mut y, row[0], row[1]);
            add_row(&mut sums[1], &y, weight);
        }
        for (out, sums) in [mean, usage].into_iter().zip(sums) {
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
        }
    });
    Ok(())
}

/// A teacher whose probabilities are asked for piece by piece.
pub struct Targets<'a> {
    problem: Problem,
    logits: &'a [f32],
    center: &'a [f32],
    temperature: f32,
    /// [N, 2] of (shift, factor).
    rows: &'a [f32],
}

/// What a task writes to, again and again.
struct Scratch {
    /// The teacher's probabilities in each of its crops, and their sum.
    p: [Vec<f32>; 3],
    /// The student's logits over its temperature.
    x: Vec<f32>,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { p: [vec![], vec![], vec![]], x: vec![] }
    }

    /// What the student should predict in a crop.
    fn targets(&self, problem: Problem, crop: usize) -> &[f32] {
        match (problem.teachers, crop) {
            (1, _) | (_, 1) => &self.p[0],
            (_, 0) => &self.p[1],
            _ => &self.p[2],
        }
    }
}

impl<'a> Targets<'a> {
    /// The teacher on the CPU.
    #[track_caller]
    pub fn new(
        operation: &str,
        problem: Problem,
        teacher: &Teacher<'a>,
        rows: &'a Tensor,
    ) -> Result<Targets<'a>> {
        let (center, temperature) = settings(operation, teacher)?;
        let (logits, rows) = (teacher.logits.as_slice()?, rows.as_slice()?);
        Ok(Targets { problem, logits, center, temperature, rows })
    }

    /// Pieces of a row.
    fn pieces(&self) -> usize {
        self.problem.k.div_ceil(PIECE)
    }

    /// Tasks that are worth a thread's while.
    fn least_tasks(&self) -> usize {
        (GRAIN / 8 / (self.problem.k.min(PIECE) * self.problem.crops.max(1))).max(1)
    }

    /// The image and the classes of a task.
    fn place(&self, task: usize) -> (usize, Range<usize>) {
        let start = task % self.pieces() * PIECE;
        (task / self.pieces(), start..(start + PIECE).min(self.problem.k))
    }

    /// The teacher's probabilities of an image and these classes.
    fn make(&self, image: usize, range: &Range<usize>, p: &mut [Vec<f32>; 3]) {
        let Problem { images, teachers, k, .. } = self.problem;
        p.iter_mut().for_each(|p| p.resize(range.len(), 0.0));
        let center = if self.center.is_empty() { self.center } else { &self.center[range.clone()] };
        for (crop, p) in p.iter_mut().enumerate().take(teachers) {
            let row = crop * images + image;
            scaled(&self.logits[row * k..][range.clone()], center, self.temperature, p);
            probabilities(p, self.rows[2 * row], self.rows[2 * row + 1]);
        }
        if let ([first, second, both], 2) = (p, teachers) {
            sum(first, second, both);
        }
    }
}

/// `loss` [M] and `rows` [M, 2] of (largest logit, weight / sum of exponentials); a row of nothing but minus infinity costs
/// nothing and is (minus infinity, 0).
pub fn forward(targets: &Targets, student: &[f32], inverse: f32, loss: &mut [f32], rows: &mut [f32]) {
    let Problem { images, crops, k, .. } = targets.problem;
    let pieces = targets.pieces();
    let parts: Vec<Vec<Partial>> = (0..images * pieces)
        .into_par_iter()
        .with_min_len(targets.least_tasks())
        .map_init(Scratch::new, |scratch, task| {
            let (image, range) = targets.place(task);
            targets.make(image, &range, &mut scratch.p);
            scratch.x.resize(range.len(), 0.0);
            let crop = |crop: usize| {
                product(&student[(crop * images + image) * k..][range.clone()], inverse, &mut scratch.x);
                let p: &Scratch = scratch;
                Partial::of(&p.x, Some(p.targets(targets.problem, crop)), false)
            };
            (0..crops).map(crop).collect()
        })
        .collect();
    for (row, (loss, numbers)) in loss.iter_mut().zip(rows.chunks_mut(2)).enumerate() {
        let own = |piece: usize| parts[row % images * pieces + piece][row / images];
        let all = (1..pieces).fold(own(0), |all, piece| all.merge(own(piece)));
        *loss = all.loss(None, 0.0);
        numbers.copy_from_slice(&match all.is_void() {
            true => [f32::NEG_INFINITY, 0.0],
            false => [all.shift(), all.soft_over_sum()],
        });
    }
}

/// `dx` [M, K] from `dloss` [M] and forward's `rows`.
pub fn backward(
    targets: &Targets,
    dloss: &[f32],
    student: &[f32],
    inverse: f32,
    rows: &[f32],
    dx: &mut [f32],
) {
    let Problem { images, k, .. } = targets.problem;
    let pieces = targets.pieces();
    // The crops of each task's image, in order.
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..images * pieces).map(|_| Vec::new()).collect();
    for (row, dx) in dx.chunks_mut(k).enumerate() {
        for (piece, dx) in dx.chunks_mut(PIECE).enumerate() {
            tasks[row % images * pieces + piece].push(dx);
        }
    }
    let tasks = tasks.into_par_iter().with_min_len(targets.least_tasks()).enumerate();
    tasks.for_each_init(Scratch::new, |scratch, (task, crops)| {
        let (image, range) = targets.place(task);
        targets.make(image, &range, &mut scratch.p);
        scratch.x.resize(range.len(), 0.0);
        for (crop, dx) in crops.into_iter().enumerate() {
            let row = crop * images + image;
            let (shift, factor) = (rows[2 * row], rows[2 * row + 1]);
            if shift == f32::NEG_INFINITY {
                dx.fill(0.0);
                continue;
            }
            let scale = dloss[row] * inverse;
            product(&student[row * k..][range.clone()], inverse, &mut scratch.x);
            exp_scaled(&scratch.x, shift, factor, 0.0, scale, dx);
            subtract_soft(scratch.targets(targets.problem, crop), scale, dx);
        }
    });
}
