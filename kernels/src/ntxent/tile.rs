//! What is done to one tile: the two matrix products and the weights.

use crate::math::exp;
use crate::matmul::cpu::{Mat, gemm_serial};
use crate::multiversion;
use engine::Result;

/// s [m, n] = a [m, d] b [n, d]^T.
pub(super) fn similarities(a: &[f32], b: &[f32], d: usize, s: &mut [f32]) -> Result<()> {
    if d == 0 {
        s.fill(0.0);
        return Ok(());
    }
    let (m, n) = (a.len() / d, b.len() / d);
    gemm_serial(m, n, d, Mat::rows(a, d), Mat::rows(b, d).transposed(), false, s, n)
}

/// out [m, d] += w [m, n] b [n, d], for d > 0.
pub(super) fn accumulate(w: &[f32], b: &[f32], d: usize, out: &mut [f32]) -> Result<()> {
    let (m, n) = (out.len() / d, b.len() / d);
    gemm_serial(m, d, n, Mat::rows(w, n), Mat::rows(b, d), true, out, d)
}

multiversion! {
    /// s = exp(s / temperature - lse) coefficient, for one row of the similarities.
    ///
    /// The quotient is rounded as lse was: where one similarity dominates, both are equal and its weight is
    /// exactly the coefficient, however large they are. A product with 1 / temperature is not.
    pub(super) fn weights_by_row(s: &mut [f32], temperature: f32, lse: f32, coefficient: f32) {
        for s in s.iter_mut() {
            *s = exp(*s / temperature - lse) * coefficient;
        }
    }
}

multiversion! {
    /// As [`weights_by_row`] where each element belongs to a row of its own.
    pub(super) fn weights_by_column(s: &mut [f32], temperature: f32, lse: &[f32], coefficient: &[f32]) {
        for ((s, &lse), &coefficient) in s.iter_mut().zip(lse).zip(coefficient) {
            *s = exp(*s / temperature - lse) * coefficient;
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
