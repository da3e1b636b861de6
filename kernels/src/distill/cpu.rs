//! CPU backend: rows in parallel, sums in f64. Sinkhorn-Knopp keeps the exponentials where the result will be, and a
//! factor for each row and column beside them.

use crate::math::exp;
use crate::multiversion;
use crate::parallel::{GRAIN, chunks, chunks2};
use crate::softmax_xent::lanes::maximum;
use rayon::prelude::*;

/// Partial sums side by side: one vector of 512 bits.
const LANES: usize = 16;

/// Sums below the smallest normal number have no inverse in f32: whatever they are of stays zero.
fn inverse(sum: f64) -> f64 {
    if sum < f64::from(f32::MIN_POSITIVE) { 0.0 } else { 1.0 / sum }
}

multiversion! {
    /// y = (x - c) / t, c nothing where it is empty.
    pub(super) fn scaled(x: &[f32], c: &[f32], t: f32, y: &mut [f32]) {
        if c.is_empty() {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x / t;
            }
        } else {
            for ((y, &x), &c) in y.iter_mut().zip(x).zip(c) {
                *y = (x - c) / t;
            }
        }
    }
}

multiversion! {
    /// y = (x - shift) / t
    fn shifted(x: &[f32], shift: f32, t: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - shift) / t;
        }
    }
}

multiversion! {
    /// y = exp(y - shift); the sums of that and of that times y - shift, of which nothing times infinity is nothing.
    pub(super) fn exponentials(y: &mut [f32], shift: f32) -> (f64, f64) {
        let (mut sum, mut product) = ([0f64; LANES], [0f64; LANES]);
        for y in y.chunks_mut(LANES) {
            for ((s, p), y) in sum.iter_mut().zip(product.iter_mut()).zip(y) {
                let difference = *y - shift;
                let e = exp(difference);
                let term = f64::from(e) * f64::from(difference);
                *s += f64::from(e);
                *p += if e == 0.0 { 0.0 } else { term };
                *y = e;
            }
        }
        (sum.iter().sum(), product.iter().sum())
    }
}

multiversion! {
    /// y *= factor
    fn multiply(y: &mut [f32], factor: f64) {
        for y in y.iter_mut() {
            *y = (f64::from(*y) * factor) as f32;
        }
    }
}

/// Rows in a task.
pub(super) fn rows_per_task(k: usize) -> usize {
    (GRAIN / 4 / k).max(1)
}

/// The teacher's `p` [N, K] and its `entropy` [N].
pub fn softmax(x: &[f32], k: usize, center: Option<&[f32]>, t: f32, p: &mut [f32], entropy: &mut [f32]) {
    let center = center.unwrap_or_default();
    let step = rows_per_task(k);
    chunks2(p, step * k, entropy, step, |task, p, entropy| {
        for (i, (p, entropy)) in p.chunks_mut(k).zip(entropy).enumerate() {
            scaled(&x[(task * step + i) * k..][..k], center, t, p);
            let top = maximum(p);
            let shift = if top == f32::NEG_INFINITY { 0.0 } else { top };
            let (sum, product) = exponentials(p, shift);
            // Nothing but minus infinity was seen: no probabilities.
            if sum == 0.0 {
                *entropy = 0.0;
                continue;
            }
            multiply(p, 1.0 / sum);
            *entropy = (sum.ln() - product / sum) as f32;
        }
    });
}

multiversion! {
    /// sums += e factor
    pub(super) fn add_row(sums: &mut [f64], e: &[f32], factor: f64) {
        for (sum, &e) in sums.iter_mut().zip(e) {
            *sum += f64::from(e) * factor;
        }
    }
}

multiversion! {
    /// Sum of e c.
    fn dot(e: &[f32], c: &[f64]) -> f64 {
        let mut sum = [0f64; LANES];
        for (e, c) in e.chunks(LANES).zip(c.chunks(LANES)) {
            for ((s, &e), &c) in sum.iter_mut().zip(e).zip(c) {
                *s += f64::from(e) * c;
            }
        }
        sum.iter().sum()
    }
}

/// Columns of a task: 32 KiB of sums.
const COLUMNS: usize = 4096;

/// Sinkhorn-Knopp of all rows of `scores` [N, K].
///
/// A row's exponentials are relative to its own largest score; its factor starts with what that leaves out, relative to
/// the largest score of all, so that rows of small scores do not vanish before they are scaled.
pub fn sinkhorn(scores: &[f32], k: usize, t: f32, iterations: usize, out: &mut [f32]) {
    let n = scores.len() / k;
    let mut tops = vec![0f32; n];
    let step = rows_per_task(k);
    chunks2(out, step * k, &mut tops, step, |task, out, tops| {
        for (i, (out, top)) in out.chunks_mut(k).zip(tops).enumerate() {
            let scores = &scores[(task * step + i) * k..][..k];
            *top = maximum(scores);
            let shift = if *top == f32::NEG_INFINITY { 0.0 } else { *top };
            shifted(scores, shift, t, out);
            exponentials(out, 0.0);
        }
    });
    let top = maximum(&tops);
    let start = |&own: &f32| if own == top { 1.0 } else { (f64::from(own - top) / f64::from(t)).exp() };
    let mut row: Vec<f64> = tops.iter().map(start).collect();
    let mut column = vec![0f64; k];
    // Columns get N / K, as rows of 1 leave them: else factors would grow by N / K an iteration.
    let mass = n as f64 / k as f64;
    for _ in 0..iterations {
        chunks(&mut column, COLUMNS, |start, column| {
            column.fill(0.0);
            for (e, &factor) in out.chunks(k).zip(&row) {
                add_row(column, &e[start..start + column.len()], factor);
            }
            column.iter_mut().for_each(|sum| *sum = inverse(*sum) * mass);
        });
        row.par_iter_mut().zip(out.par_chunks(k)).for_each(|(row, e)| *row = inverse(dot(e, &column)));
    }
    out.par_chunks_mut(k).zip(&row).for_each(|(e, &row)| {
        for (e, &column) in e.iter_mut().zip(&column) {
            *e = (f64::from(*e) * column * row) as f32;
        }
    });
}

/// |x - y + eps|
fn distance(x: &[f32], y: &[f32], eps: f32) -> f64 {
    let square = |(&x, &y): (&f32, &f32)| {
        let difference = f64::from(x - y + eps);
        difference * difference
    };
    x.iter().zip(y).map(square).sum::<f64>().sqrt()
}

/// The other row that is most similar, the first of several. A similarity that is not a number is the least.
fn most_similar(similar: &[f32], own: usize) -> usize {
    let mut best = (usize::from(own == 0), f32::NEG_INFINITY);
    for (j, &s) in similar.iter().enumerate() {
        if j != own && s > best.1 {
            best = (j, s);
        }
    }
    best.0
}

/// KoLeo's loss [N] and nearest [N] from `similar` [N, N], the inner products of `x` [N, D].
pub fn koleo(similar: &[f32], x: &[f32], d: usize, eps: f32, loss: &mut [f32], nearest: &mut [i32]) {
    let n = loss.len();
    let step = (GRAIN / (n + d)).max(1);
    chunks2(loss, step, nearest, step, |task, loss, nearest| {
        for (i, (loss, nearest)) in loss.iter_mut().zip(nearest).enumerate() {
            let i = task * step + i;
            let j = most_similar(&similar[i * n..][..n], i);
            *nearest = j as i32;
            let distance = distance(&x[i * d..][..d], &x[j * d..][..d], eps);
            *loss = -(distance + f64::from(eps)).ln() as f32;
        }
    });
}

/// dx [N, D] from dloss [N]. Indices are in range.
pub fn koleo_backward(dloss: &[f32], x: &[f32], d: usize, nearest: &[i32], eps: f32, dx: &mut [f32]) {
    let row = |i: usize| &x[i * d..][..d];
    // -1 / ((distance + eps) distance), the rows that name each as their nearest, in order.
    let mut named = vec![Vec::new(); nearest.len()];
    let mut factor = Vec::with_capacity(nearest.len());
    for (i, &j) in nearest.iter().enumerate() {
        named[j as usize].push(i);
        let distance = distance(row(i), row(j as usize), eps);
        factor.push(-f64::from(dloss[i]) / ((distance + f64::from(eps)) * distance));
    }
    let step = (GRAIN / d).max(1);
    chunks(dx, step * d, |start, dx| {
        for (i, dx) in dx.chunks_mut(d).enumerate() {
            let i = start / d + i;
            let (own, near) = (row(i), row(nearest[i] as usize));
            for c in 0..d {
                let mut sum = factor[i] * f64::from(own[c] - near[c] + eps);
                for &other in &named[i] {
                    sum -= factor[other] * f64::from(x[other * d + c] - own[c] + eps);
                }
                dx[c] = sum as f32;
            }
        }
    });
}
