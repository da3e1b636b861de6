//! Layer normalisation: one row at a time, which stays in the first-level cache between its passes.

use crate::multiversion;
use crate::parallel::GRAIN;
use crate::reduce::Partials;
use engine::Result;
use rayon::prelude::*;

/// Partial sums of a row: enough independent chains to hide the latency of an addition.
const CHAINS: usize = 64;
/// Rows whose parameter gradients are summed in f32 before they are added to f64 totals.
const BLOCK: usize = 32;

/// Sum over j of f(j), in [`CHAINS`] partial sums, those then in pairs.
#[inline(always)]
fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; CHAINS];
    let whole = n / CHAINS * CHAINS;
    for start in (0..whole).step_by(CHAINS) {
        for j in 0..CHAINS {
            sums[j] += f(start + j);
        }
    }
    for j in whole..n {
        sums[j - whole] += f(j);
    }
    let mut half = CHAINS / 2;
    while half > 0 {
        for j in 0..half {
            sums[j] += sums[j + half];
        }
        half /= 2;
    }
    sums[0]
}

/// Sum of a row in f64: exact for a constant row, and free of cancellation in f32.
#[inline(always)]
fn sum_wide(row: &[f32]) -> f64 {
    let mut sums = [0f64; CHAINS / 2];
    let (whole, rest) = row.as_chunks::<{ CHAINS / 2 }>();
    for part in whole {
        for j in 0..CHAINS / 2 {
            sums[j] += f64::from(part[j]);
        }
    }
    sums.iter_mut().zip(rest).for_each(|(s, &v)| *s += f64::from(v));
    sums.iter().sum()
}

multiversion! {
    fn forward_rows(
        x: &[f32], width: usize, weight: &[f32], bias: &[f32], eps: f32,
        y: &mut [f32], mean: &mut [f32], rstd: &mut [f32]
    ) {
        let n = width as f64;
        for i in 0..mean.len() {
            let row = &x[i * width..][..width];
            let y = &mut y[i * width..][..width];
            let average = sum_wide(row) / n;
            // What rounding the mean misses goes into the variance and the offset.
            let near = average as f32;
            let missed = average - f64::from(near);
            let squares = f64::from(sum(width, |j| (row[j] - near) * (row[j] - near))) / n;
            let variance = squares - missed * missed;
            let variance = if variance < 0.0 { 0.0 } else { variance };
            let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
            mean[i] = near;
            rstd[i] = inverse as f32;
            let (scale, offset) = (inverse as f32, (-missed * inverse) as f32);
            match (weight.is_empty(), bias.is_empty()) {
                (true, true) => {
                    for j in 0..width {
                        y[j] = (row[j] - near) * scale + offset;
                    }
                }
                (false, true) => {
                    let weight = &weight[..width];
                    for j in 0..width {
                        y[j] = ((row[j] - near) * scale + offset) * weight[j];
                    }
                }
                (true, false) => {
                    let bias = &bias[..width];
                    for j in 0..width {
                        y[j] = (row[j] - near) * scale + offset + bias[j];
                    }
                }
                (false, false) => {
                    let (weight, bias) = (&weight[..width], &bias[..width]);
                    for j in 0..width {
                        y[j] = ((row[j] - near) * scale + offset) * weight[j] + bias[j];
                    }
                }
            }
        }
    }
}

/// y, mean and rstd from x [rows, width].
pub fn forward(
    x: &[f32],
    width: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    (y, mean, rstd): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let rows = (GRAIN / width).max(1);
    let (weight, bias) = (weight.unwrap_or(&[]), bias.unwrap_or(&[]));
    y.par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width))
        .zip(mean.par_chunks_mut(rows).zip(rstd.par_chunks_mut(rows)))
        .for_each(|((y, x), (mean, rstd))| forward_rows(x, width, weight, bias, eps, y, mean, rstd));
}

/// [`forward`] of the sum of two terms, which is stored: each piece while its sum is in the cache.
pub fn forward_residual(
    (x, branch): (&[f32], &[f32]),
    sum: &mut [f32],
    width: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    (y, mean, rstd): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let rows = (GRAIN / width).max(1);
    let (weight, bias) = (weight.unwrap_or(&[]), bias.unwrap_or(&[]));
    let terms = x.par_chunks(rows * width).zip(branch.par_chunks(rows * width));
    y.par_chunks_mut(rows * width)
        .zip(terms.zip(sum.par_chunks_mut(rows * width)))
        .zip(mean.par_chunks_mut(rows).zip(rstd.par_chunks_mut(rows)))
        .for_each(|((y, ((x, branch), sum)), (mean, rstd))| {
            sum.iter_mut().zip(x.iter().zip(branch)).for_each(|(s, (x, b))| *s = x + b);
            forward_rows(sum, width, weight, bias, eps, y, mean, rstd);
        });
}

multiversion! {
    /// dx of at most [`BLOCK`] rows; their terms of dweight and dbias are added to `dw` and `db`.
    fn backward_rows(
        dy: &[f32], x: &[f32], mean: &[f32], rstd: &[f32], weight: &[f32],
        dx: &mut [f32], dw: &mut [f32], db: &mut [f32]
    ) {
        let width = dw.len();
        let db = &mut db[..width];
        let weight = &weight[..width];
        for i in 0..mean.len() {
            let (dy, x) = (&dy[i * width..][..width], &x[i * width..][..width]);
            let dx = &mut dx[i * width..][..width];
            let (mean, rstd) = (mean[i], rstd[i]);
            // dx holds the normalised row until its sums are known.
            for j in 0..width {
                let normal = (x[j] - mean) * rstd;
                dx[j] = normal;
                dw[j] += dy[j] * normal;
                db[j] += dy[j];
            }
            let inverse = 1.0 / width as f32;
            let average = sum(width, |j| dy[j] * weight[j]) * inverse;
            let along = sum(width, |j| dy[j] * weight[j] * dx[j]) * inverse;
            for j in 0..width {
                dx[j] = rstd * (dy[j] * weight[j] - average - dx[j] * along);
            }
        }
    }
}

/// dx, dweight and dbias from dy, x [rows, width], mean and rstd [rows]. `dsum` [rows, width] is added to dx.
pub fn backward(
    dy: &[f32],
    dsum: Option<&[f32]>,
    x: &[f32],
    (mean, rstd): (&[f32], &[f32]),
    weight: Option<&[f32]>,
    (dx, dweight, dbias): (&mut [f32], &mut [f32], &mut [f32]),
) -> Result<()> {
    let width = dweight.len();
    let ones = vec![1f32; if weight.is_some() { 0 } else { width }];
    let weight = weight.unwrap_or(&ones);
    let rows = BLOCK * (4 * GRAIN / width / BLOCK).max(1);
    let mut partials = Partials::new(mean.len().div_ceil(rows), 2 * width)?;
    let step = rows * width;
    partials.par_chunks_exact_mut(2 * width).zip(dx.par_chunks_mut(step)).enumerate().for_each_init(
        || vec![0f32; 2 * width],
        |sums, (piece, (totals, dx))| {
            totals.fill(0.0);
            let first = piece * rows;
            for (b, dx) in dx.chunks_mut(BLOCK * width).enumerate() {
                let row = first + b * BLOCK;
                let n = dx.len() / width;
                let range = row * width..(row + n) * width;
                sums.fill(0.0);
                let (dw, db) = sums.split_at_mut(width);
                let (mean, rstd) = (&mean[row..][..n], &rstd[row..][..n]);
                backward_rows(&dy[range.clone()], &x[range.clone()], mean, rstd, weight, dx, dw, db);
                if let Some(dsum) = dsum {
                    dx.iter_mut().zip(&dsum[range]).for_each(|(d, &s)| *d += s);
                }
                totals.iter_mut().zip(sums.iter()).for_each(|(t, &s)| *t += f64::from(s));
            }
        },
    );
    for (j, out) in dweight.iter_mut().chain(dbias).enumerate() {
        *out = partials.chunks_exact(2 * width).map(|p| p[j]).sum::<f64>() as f32;
    }
    Ok(())
}
