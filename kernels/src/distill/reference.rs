//! The formulas as written in the papers and their code, one element at a time.

use super::Matching;
use crate::array::{Array, Real};
use crate::softmax_xent::reference as softmax_xent;

/// softmax((logits - center) / temperature) of each row [N, K], and its entropy [N].
pub fn teacher_softmax<T: Real>(
    logits: &Array<T>,
    center: Option<&Array<T>>,
    temperature: T,
) -> [Array<T>; 2] {
    let (n, k) = (logits.shape[0], logits.shape[1]);
    let (mut p, mut entropy) = (Array::zeros(&[n, k]), Array::zeros(&[n]));
    for i in 0..n {
        let scaled: Vec<T> = (0..k)
            .map(|j| (logits.data[i * k + j] - center.map_or(T::ZERO, |c| c.data[j])) / temperature)
            .collect();
        let top = scaled.iter().fold(scaled[0], |m, &x| m.max(x));
        let mut sum = T::ZERO;
        scaled.iter().for_each(|&x| sum += (x - top).exp());
        for j in 0..k {
            let q = (scaled[j] - top).exp() / sum;
            p.data[i * k + j] = q;
            // p log p of nothing is nothing.
            if q > T::ZERO {
                entropy.data[i] += q * (sum.ln() - (scaled[j] - top));
            }
        }
    }
    [p, entropy]
}

/// DINOv2's and SwAV's Sinkhorn-Knopp on the first `valid` rows of scores [N, K]: a matrix that is divided by its sum, by
/// columns and by rows again and again. Other rows are zeros.
pub fn sinkhorn<T: Real>(scores: &Array<T>, temperature: T, iterations: usize, valid: usize) -> Array<T> {
    let (n, k) = (scores.shape[0], scores.shape[1]);
    let mut q = Array::zeros(&[n, k]);
    let used = &scores.data[..valid * k];
    if used.is_empty() {
        return q;
    }
    let top = used.iter().fold(used[0], |m, &x| m.max(x));
    let mut total = T::ZERO;
    for (q, &s) in q.data.iter_mut().zip(used) {
        *q = ((s - top) / temperature).exp();
        total += *q;
    }
    q = q.map(|x| x / total);
    let (rows, columns) = (T::of(valid as f64), T::of(k as f64));
    for _ in 0..iterations {
        for j in 0..k {
            let mut sum = T::ZERO;
            (0..valid).for_each(|i| sum += q.data[i * k + j]);
            (0..valid).for_each(|i| q.data[i * k + j] = q.data[i * k + j] / sum / columns);
        }
        for row in q.data[..valid * k].chunks_mut(k) {
            let mut sum = T::ZERO;
            row.iter().for_each(|&x| sum += x);
            row.iter_mut().for_each(|x| *x = *x / sum / rows);
        }
    }
    q.map(|x| x * rows)
}

/// The other row with the largest inner product, the first of several: [N].
pub fn nearest<T: Real>(x: &Array<T>) -> Vec<usize> {
    let (n, d) = (x.shape[0], x.shape[1]);
    let dot = |i: usize, j: usize| {
        let mut sum = T::ZERO;
        (0..d).for_each(|c| sum += x.data[i * d + c] * x.data[j * d + c]);
        sum
    };
    let best = |i: usize| {
        let others = (0..n).filter(|&j| j != i);
        others.reduce(|best, j| if dot(i, j) > dot(i, best) { j } else { best }).unwrap_or(i)
    };
    (0..n).map(best).collect()
}

/// |x_i - x_nearest + eps| of each row.
fn distances<T: Real>(x: &Array<T>, nearest: &[usize], eps: T) -> Vec<T> {
    let d = x.shape[1];
    let distance = |(i, &j): (usize, &usize)| {
        let mut sum = T::ZERO;
        for c in 0..d {
            let difference = x.data[i * d + c] - x.data[j * d + c] + eps;
            sum += difference * difference;
        }
        sum.sqrt()
    };
    nearest.iter().enumerate().map(distance).collect()
}

/// -log(distance + eps) of each row: [N].
pub fn koleo<T: Real>(x: &Array<T>, nearest: &[usize], eps: T) -> Array<T> {
    let loss = distances(x, nearest, eps).into_iter().map(|distance| -(distance + eps).ln());
    Array::new(&[x.shape[0]], loss.collect())
}

/// Gradient of `sum_i dloss_i loss_i`: [N, D].
pub fn koleo_backward<T: Real>(dloss: &Array<T>, x: &Array<T>, nearest: &[usize], eps: T) -> Array<T> {
    let d = x.shape[1];
    let mut dx = Array::zeros(&x.shape);
    for (i, distance) in distances(x, nearest, eps).into_iter().enumerate() {
        for c in 0..d {
            let (at, other) = (i * d + c, nearest[i] * d + c);
            let slope = -dloss.data[i] / (distance + eps) * ((x.data[at] - x.data[other] + eps) / distance);
            dx.data[at] += slope;
            dx.data[other] += -slope;
        }
    }
    dx
}

/// (shift, factor) of each row of logits [N, K]: `p = e^((logit - center) / temperature - shift) factor`. [N, 2].
pub fn teacher_rows<T: Real>(logits: &Array<T>, center: Option<&Array<T>>, temperature: T) -> Array<T> {
    let (n, k) = (logits.shape[0], logits.shape[1]);
    let mut rows = Array::zeros(&[n, 2]);
    for (row, out) in logits.data.chunks(k).zip(rows.data.chunks_mut(2)) {
        let scaled = |j: usize| (row[j] - center.map_or(T::ZERO, |c| c.data[j])) / temperature;
        let top = (1..k).fold(scaled(0), |top, j| top.max(scaled(j)));
        let mut sum = T::ZERO;
        (0..k).for_each(|j| sum += (scaled(j) - top).exp());
        out.copy_from_slice(&[top, T::ONE / sum]);
    }
    rows
}

/// The teacher's probabilities [N, K] from its rows' (shift, factor) [N, 2].
pub fn teacher_probabilities<T: Real>(
    logits: &Array<T>,
    center: Option<&Array<T>>,
    temperature: T,
    rows: &Array<T>,
) -> Array<T> {
    let k = logits.shape[1];
    let probability = |(i, &logit): (usize, &T)| {
        let (row, j) = (i / k, i % k);
        let scaled = (logit - center.map_or(T::ZERO, |c| c.data[j])) / temperature;
        (scaled - rows.data[2 * row]).exp() * rows.data[2 * row + 1]
    };
    Array::new(&logits.shape, logits.data.iter().enumerate().map(probability).collect())
}

/// What each of the student's `m` rows should predict: the sum of those rows of `p` [N, K] that it is matched with.
pub fn matched<T: Real>(p: &Array<T>, m: usize, matching: Matching) -> Array<T> {
    let (n, k) = (p.shape[0], p.shape[1]);
    let mut targets = Array::zeros(&[m, k]);
    for i in 0..m {
        let rows = (0..n).filter(|&j| match matching {
            Matching::SameRow => i == j,
            Matching::OtherCrops => i != j && i % (n / 2) == j % (n / 2),
        });
        for j in rows {
            (0..k).for_each(|c| targets.data[i * k + c] += p.data[j * k + c]);
        }
    }
    targets
}

/// The cross-entropy [M] of the student's logits [M, K] over its temperature with `targets` [M, K].
pub fn teacher_xent<T: Real>(student: &Array<T>, temperature: T, targets: &Array<T>) -> Array<T> {
    softmax_xent::forward(&student.map(|s| s / temperature), targets, 0.0).0
}

/// Gradient of `sum_i dloss_i loss_i` of [`teacher_xent`]: [M, K].
pub fn teacher_xent_backward<T: Real>(
    dloss: &Array<T>,
    student: &Array<T>,
    temperature: T,
    targets: &Array<T>,
) -> Array<T> {
    let x = student.map(|s| s / temperature);
    softmax_xent::backward(dloss, &x, targets, 0.0).map(|d| d / temperature)
}
