//! The definition, row by row, in any precision.

use crate::array::{Array, Real};

/// log sum exp of a row; minus infinity for a row of minus infinity.
pub fn log_sum_exp<T: Real>(x: &[T]) -> T {
    let max = x.iter().fold(T::of(f64::NEG_INFINITY), |m, &v| m.max(v));
    if max == T::of(f64::NEG_INFINITY) {
        return max;
    }
    let mut sum = T::ZERO;
    for &v in x {
        sum += (v - max).exp();
    }
    max + sum.ln()
}

/// One-hot rows [M, V] of labels.
pub fn one_hot<T: Real>(labels: &[i32], v: usize) -> Array<T> {
    let mut t = Array::zeros(&[labels.len(), v]);
    for (row, &label) in labels.iter().enumerate() {
        t.data[row * v + label as usize] = T::ONE;
    }
    t
}

fn weight<T: Real>(t: T, smoothing: T, v: usize) -> T {
    (T::ONE - smoothing) * t + smoothing / T::of(v as f64)
}

/// `(loss [M], lse [M])` of logits [M, V] with target weights [M, V].
pub fn forward<T: Real>(x: &Array<T>, t: &Array<T>, smoothing: f32) -> (Array<T>, Array<T>) {
    let (m, v) = (x.shape[0], x.shape[1]);
    let smoothing = T::of(f64::from(smoothing));
    let (mut loss, mut lse) = (Array::zeros(&[m]), Array::zeros(&[m]));
    for i in 0..m {
        let row = &x.data[i * v..(i + 1) * v];
        lse.data[i] = log_sum_exp(row);
        if lse.data[i] == T::of(f64::NEG_INFINITY) {
            continue;
        }
        for j in 0..v {
            let w = weight(t.data[i * v + j], smoothing, v);
            if w != T::ZERO {
                loss.data[i] += w * (lse.data[i] - row[j]);
            }
        }
    }
    (loss, lse)
}

/// Gradient [M, V] of the loss times `dloss` [M].
pub fn backward<T: Real>(dloss: &Array<T>, x: &Array<T>, t: &Array<T>, smoothing: f32) -> Array<T> {
    let (m, v) = (x.shape[0], x.shape[1]);
    let smoothing = T::of(f64::from(smoothing));
    let mut dx = Array::zeros(&[m, v]);
    for i in 0..m {
        let lse = log_sum_exp(&x.data[i * v..(i + 1) * v]);
        if lse == T::of(f64::NEG_INFINITY) {
            continue;
        }
        let mut total = T::ZERO;
        for j in 0..v {
            total += weight(t.data[i * v + j], smoothing, v);
        }
        for j in 0..v {
            let p = (x.data[i * v + j] - lse).exp();
            let w = weight(t.data[i * v + j], smoothing, v);
            dx.data[i * v + j] = dloss.data[i] * (total * p - w);
        }
    }
    dx
}

/// Softmax of each row of x [M, V].
pub fn softmax<T: Real>(x: &Array<T>) -> Array<T> {
    let v = x.shape[1];
    let mut y = x.clone();
    for row in y.data.chunks_mut(v.max(1)) {
        let lse = log_sum_exp(row);
        for value in row {
            *value = if lse == T::of(f64::NEG_INFINITY) { T::ZERO } else { (*value - lse).exp() };
        }
    }
    y
}
