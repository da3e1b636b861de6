//! Rows to unit length.

use crate::multiversion;
use crate::parallel::{GRAIN, chunks, chunks2};

/// Partial sums of a row: enough independent chains to hide the latency of an addition.
const CHAINS: usize = 32;

/// Sum of a * b in f64; products of f32 are exact there.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; CHAINS];
    let (a, a_rest) = a.as_chunks::<CHAINS>();
    let (b, b_rest) = b.as_chunks::<CHAINS>();
    for (a, b) in a.iter().zip(b) {
        for j in 0..CHAINS {
            sums[j] += f64::from(a[j]) * f64::from(b[j]);
        }
    }
    for (j, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[j] += f64::from(a) * f64::from(b);
    }
    sums.iter().sum()
}

multiversion! {
    fn forward_rows(x: &[f32], width: usize, eps: f32, y: &mut [f32], norm: &mut [f32]) {
        for (i, norm) in norm.iter_mut().enumerate() {
            let row = &x[i * width..][..width];
            let length = dot(row, row).sqrt();
            *norm = length as f32;
            let inverse = if length < f64::from(eps) { 1.0 / f64::from(eps) } else { 1.0 / length };
            for (y, &x) in y[i * width..][..width].iter_mut().zip(row) {
                *y = (f64::from(x) * inverse) as f32;
            }
        }
    }
}

multiversion! {
    fn backward_rows(dy: &[f32], y: &[f32], width: usize, norm: &[f32], eps: f32, dx: &mut [f32]) {
        for (i, &norm) in norm.iter().enumerate() {
            let (dy, y) = (&dy[i * width..][..width], &y[i * width..][..width]);
            let short = norm < eps;
            let along = if short { 0.0 } else { dot(dy, y) as f32 };
            let length = if short { eps } else { norm };
            for ((dx, &dy), &y) in dx[i * width..][..width].iter_mut().zip(dy).zip(y) {
                *dx = (dy - y * along) / length;
            }
        }
    }
}

/// y [rows, width] and norm [rows] from x.
pub fn forward(x: &[f32], width: usize, eps: f32, y: &mut [f32], norm: &mut [f32]) {
    if width == 0 {
        norm.fill(0.0);
        return;
    }
    let rows = (GRAIN / width).max(1);
    chunks2(y, rows * width, norm, rows, |i, y, norm| {
        forward_rows(&x[i * rows * width..][..y.len()], width, eps, y, norm);
    });
}

/// dx from dy, y [rows, width] and norm [rows].
pub fn backward(dy: &[f32], y: &[f32], width: usize, norm: &[f32], eps: f32, dx: &mut [f32]) {
    let rows = (GRAIN / width.max(1)).max(1);
    chunks(dx, rows * width, |start, dx| {
        let range = start..start + dx.len();
        let norm = &norm[start / width..][..dx.len() / width];
        backward_rows(&dy[range.clone()], &y[range], width, norm, eps, dx);
    });
}
