//! Mean and variance of every channel in one pass, without cancellation.
//!
//! A block of rows is read twice while it is in the cache, in f32: first its mean c to f32's precision, about its
//! first row, then d = x - c, sum d and sum d^2 (corrected two-pass algorithm). Blocks, then pieces, are merged in
//! f64 (Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983).

use super::{BLOCK, Lanes};
use crate::multiversion;
use crate::reduce::Partials;
use engine::Result;
use rayon::prelude::*;

/// Mean and biased variance of every channel, in f64.
pub struct Statistics {
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
}

impl Statistics {
    /// Rounds both to f32.
    pub fn store(&self, mean: &mut [f32], variance: &mut [f32]) {
        mean.iter_mut().zip(&self.mean).for_each(|(o, &v)| *o = v as f32);
        variance.iter_mut().zip(&self.variance).for_each(|(o, &v)| *o = v as f32);
    }
}

multiversion! {
    /// A centre near the mean of rows of `sum.len()` elements, and sums of d and d^2, d = x - centre.
    fn block_sums(x: &[f32], centre: &mut [f32], sum: &mut [f32], square: &mut [f32]) {
        let width = sum.len();
        let (centre, square) = (&mut centre[..width], &mut square[..width]);
        sum.fill(0.0);
        square.fill(0.0);
        let first = &x[..width];
        for row in x[width..].chunks_exact(width) {
            for j in 0..width {
                sum[j] += row[j] - first[j];
            }
        }
        let inverse = width as f32 / x.len() as f32;
        for j in 0..width {
            centre[j] = first[j] + sum[j] * inverse;
            sum[j] = 0.0;
        }
        for row in x.chunks_exact(width) {
            for j in 0..width {
                let d = row[j] - centre[j];
                sum[j] += d;
                square[j] += d * d;
            }
        }
    }
}

multiversion! {
    /// Merges a block's sums about `centre`, of `n` rows, into the mean and centred squares of `before` rows.
    fn merge_block(
        mean: &mut [f64], squares: &mut [f64], before: f64,
        centre: &[f32], sum: &[f32], square: &[f32], n: f64
    ) {
        let (part, weight, inverse) = (n / (before + n), before * n / (before + n), 1.0 / n);
        let width = mean.len();
        let (squares, centre) = (&mut squares[..width], &centre[..width]);
        let (sum, square) = (&sum[..width], &square[..width]);
        for j in 0..width {
            let s = f64::from(sum[j]);
            let centred = f64::from(square[j]) - s * s * inverse;
            let centred = if centred < 0.0 { 0.0 } else { centred };
            let delta = f64::from(centre[j]) + s * inverse - mean[j];
            mean[j] += delta * part;
            squares[j] += centred + delta * delta * weight;
        }
    }
}

multiversion! {
    /// Merges the mean and centred squares of `n` rows into those of `before` rows.
    fn merge(
        mean: &mut [f64], squares: &mut [f64], before: f64, other_mean: &[f64], other_squares: &[f64], n: f64
    ) {
        let (part, weight) = (n / (before + n), before * n / (before + n));
        let width = mean.len();
        let squares = &mut squares[..width];
        let (other_mean, other_squares) = (&other_mean[..width], &other_squares[..width]);
        for j in 0..width {
            let delta = other_mean[j] - mean[j];
            mean[j] += delta * part;
            squares[j] += other_squares[j] + delta * delta * weight;
        }
    }
}

/// Mean [C] and centred squares [C] of one piece, written to `out`.
fn piece(x: &[f32], lanes: Lanes, out: &mut [f64], sums: &mut [f32], totals: &mut [f64]) {
    let Lanes { channels, repeat, width } = lanes;
    let (centre, sums) = sums.split_at_mut(width);
    let (sum, square) = sums.split_at_mut(width);
    let (mean, squares) = totals.split_at_mut(width);
    mean.fill(0.0);
    squares.fill(0.0);
    let rows = x.len() / width;
    let (whole, rest) = x.split_at(rows * width);
    let mut done = 0;
    for block in whole.chunks(BLOCK * width) {
        let n = block.len() / width;
        block_sums(block, centre, sum, square);
        merge_block(mean, squares, done as f64, centre, sum, square, n as f64);
        done += n;
    }
    if !rest.is_empty() {
        let (sum, square) = (&mut sum[..rest.len()], &mut square[..rest.len()]);
        block_sums(rest, centre, sum, square);
        merge_block(&mut mean[..rest.len()], squares, done as f64, centre, sum, square, 1.0);
    }
    // Lanes of one channel are merged in order. Those before the end of `rest` have one row more.
    let (out_mean, out_squares) = out.split_at_mut(channels);
    out_mean.fill(0.0);
    out_squares.fill(0.0);
    let mut before = 0.0;
    for i in 0..repeat {
        let n = (rows + usize::from((i + 1) * channels <= rest.len())) as f64;
        if n > 0.0 {
            let (m, q) = (&mean[i * channels..], &squares[i * channels..]);
            merge(out_mean, out_squares, before, m, q, n);
            before += n;
        }
    }
}

/// Statistics of x [rows, channels]; there is at least one row.
pub fn statistics(x: &[f32], channels: usize) -> Result<Statistics> {
    let lanes = Lanes::new(channels);
    let mut all = Statistics { mean: vec![0.0; channels], variance: vec![0.0; channels] };
    if channels == 0 {
        return Ok(all);
    }
    let step = lanes.piece();
    let count = x.len().div_ceil(step);
    let mut partials = Partials::new(count, 2 * channels)?;
    partials.par_chunks_exact_mut(2 * channels).zip(x.par_chunks(step)).for_each_init(
        || (vec![0f32; 3 * lanes.width], vec![0f64; 2 * lanes.width]),
        |(sums, totals), (out, x)| piece(x, lanes, out, sums, totals),
    );
    let mut before = 0.0;
    for (partial, x) in partials.chunks_exact(2 * channels).zip(x.chunks(step)) {
        let n = (x.len() / channels) as f64;
        let (mean, squares) = partial.split_at(channels);
        merge(&mut all.mean, &mut all.variance, before, mean, squares, n);
        before += n;
    }
    all.variance.iter_mut().for_each(|v| *v /= before);
    Ok(all)
}
