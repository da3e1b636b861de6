//! What is done to one tile: the two matrix products and the weights.

use crate::math::exp;
use crate::multiversion;

/// The two matrix products, both in row-major tiles.
pub(super) mod multiply {
    use crate::multiversion;

    /// s [m, n] = a [m, d] b [n, d]^T.
    pub fn similarities(a: &[f32], b: &[f32], d: usize, s: &mut [f32]) {
        let n = b.len() / d.max(1);
        s.fill(0.0);
        let mut bt = vec![0.0; b.len()];
        for (j, row) in b.chunks(d.max(1)).enumerate() {
            for (k, &v) in row.iter().enumerate() {
                bt[k * n + j] = v;
            }
        }
        accumulate(a, &bt, n, s);
    }

    /// out [m, d] += w [m, n] b [n, d].
    pub fn accumulate(w: &[f32], b: &[f32], d: usize, out: &mut [f32]) {
        let n = b.len() / d;
        for (w, out) in w.chunks(n).zip(out.chunks_mut(d)) {
            for (&w, b) in w.iter().zip(b.chunks(d)) {
                axpy(w, b, out);
            }
        }
    }

    multiversion! {
        fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += a * x;
            }
        }
    }
}

multiversion! {
    /// s = exp(s inverse - lse) coefficient, for one row of the similarities.
    pub(super) fn weights_by_row(s: &mut [f32], inverse: f32, lse: f32, coefficient: f32) {
        for s in s.iter_mut() {
            *s = exp(*s * inverse - lse) * coefficient;
        }
    }
}

multiversion! {
    /// As [`weights_by_row`] where each element belongs to a row of its own.
    pub(super) fn weights_by_column(s: &mut [f32], inverse: f32, lse: &[f32], coefficient: &[f32]) {
        for ((s, &lse), &coefficient) in s.iter_mut().zip(lse).zip(coefficient) {
            *s = exp(*s * inverse - lse) * coefficient;
        }
    }
}

multiversion! {
    /// Inner product of two vectors.
    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        for (a, b) in a.chunks(16).zip(b.chunks(16)) {
            for ((s, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                *s += a * b;
            }
        }
        lanes.iter().sum()
    }
}
