//! y = relu?((x - mean) * scale + offset + residual?), one pass.

use super::{Lanes, Statistics, inverse_deviation};
use crate::multiversion;
use crate::parallel::{GRAIN, chunks};
use engine::Result;
use engine::memory::Scratch;

/// Weight and bias of the channels, where there are any.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
}

/// The map of every lane: y = (x - mean) * scale + offset.
///
/// The mean is subtracted before scaling: x * scale + (offset - mean * scale) would cancel where the mean is
/// large beside the deviation.
pub struct Map {
    lanes: Lanes,
    mean: Scratch<f32>,
    scale: Scratch<f32>,
    offset: Scratch<f32>,
}

/// Mean, scale and offset of channel `j`. What rounding the mean to f32 loses goes into the offset.
fn numbers(j: usize, mean: f64, variance: f64, affine: Affine, eps: f32) -> [f64; 3] {
    let scale = affine.weight.map_or(1.0, |w| f64::from(w[j])) * inverse_deviation(variance, eps);
    let lost = mean - f64::from(mean as f32);
    [mean, scale, affine.bias.map_or(0.0, |b| f64::from(b[j])) - lost * scale]
}

/// Writes the numbers of each channel to the three rows of `map`, which are `stride` apart.
pub fn store_map(s: &Statistics, affine: Affine, eps: f32, map: &mut [f32], stride: usize) {
    for (j, (&mean, &variance)) in s.mean.iter().zip(&s.variance).enumerate() {
        for (row, v) in numbers(j, mean, variance, affine, eps).into_iter().enumerate() {
            map[row * stride + j] = v as f32;
        }
    }
}

impl Map {
    /// From what [`store_map`] wrote.
    pub fn stored(map: &[f32], channels: usize, stride: usize) -> Result<Map> {
        Map::build(channels, |j, row| map[row * stride + j].into())
    }

    /// From f32 statistics.
    pub fn new(mean: &[f32], variance: &[f32], affine: Affine, eps: f32) -> Result<Map> {
        Map::build(mean.len(), |j, row| numbers(j, mean[j].into(), variance[j].into(), affine, eps)[row])
    }

    fn build(channels: usize, number: impl Fn(usize, usize) -> f64) -> Result<Map> {
        let lanes = Lanes::new(channels);
        let row = |row: usize| lanes.spread(|j| number(j, row));
        Ok(Map { lanes, mean: row(0)?, scale: row(1)?, offset: row(2)? })
    }
}

#[inline(always)]
fn rectify(v: f32, relu: bool) -> f32 {
    if relu && v < 0.0 { 0.0 } else { v }
}

#[inline(always)]
fn lanes_of(x: &[f32], mean: &[f32], scale: &[f32], offset: &[f32], out: &mut [f32], relu: bool) {
    let width = mean.len();
    for (out, x) in out.chunks_mut(width).zip(x.chunks(width)) {
        let n = out.len();
        let (x, mean, scale, offset) = (&x[..n], &mean[..n], &scale[..n], &offset[..n]);
        for j in 0..n {
            out[j] = rectify((x[j] - mean[j]) * scale[j] + offset[j], relu);
        }
    }
}

#[inline(always)]
fn lanes_of_sum(
    x: &[f32],
    other: &[f32],
    mean: &[f32],
    scale: &[f32],
    offset: &[f32],
    out: &mut [f32],
    relu: bool,
) {
    let width = mean.len();
    for ((out, x), other) in out.chunks_mut(width).zip(x.chunks(width)).zip(other.chunks(width)) {
        let n = out.len();
        let (x, other, mean, scale, offset) = (&x[..n], &other[..n], &mean[..n], &scale[..n], &offset[..n]);
        for j in 0..n {
            out[j] = rectify((x[j] - mean[j]) * scale[j] + offset[j] + other[j], relu);
        }
    }
}

multiversion! {
    fn plain(x: &[f32], mean: &[f32], scale: &[f32], offset: &[f32], out: &mut [f32], relu: bool) {
        match relu {
            true => lanes_of(x, mean, scale, offset, out, true),
            false => lanes_of(x, mean, scale, offset, out, false),
        }
    }
}

multiversion! {
    fn with_residual(
        x: &[f32], other: &[f32], mean: &[f32], scale: &[f32], offset: &[f32], out: &mut [f32], relu: bool
    ) {
        match relu {
            true => lanes_of_sum(x, other, mean, scale, offset, out, true),
            false => lanes_of_sum(x, other, mean, scale, offset, out, false),
        }
    }
}

/// y from x [rows, C], both of one length.
pub fn apply(x: &[f32], map: &Map, residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    let width = map.lanes.width.max(1);
    chunks(y, (GRAIN / width).max(1) * width, |start, y| {
        let x = &x[start..][..y.len()];
        match residual {
            None => plain(x, &map.mean, &map.scale, &map.offset, y, relu),
            Some(r) => {
                let r = &r[start..][..y.len()];
                with_residual(x, r, &map.mean, &map.scale, &map.offset, y, relu);
            }
        }
    });
}
