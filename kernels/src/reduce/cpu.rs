//! Sums of the middle of [outer, reduced, inner], one such step for each group of neighbouring dimensions.

use crate::multiversion;
use crate::parallel::{GRAIN, chunks};
use engine::Result;
use engine::memory::Scratch;
use rayon::prelude::*;
use std::ops::{Deref, DerefMut};

/// Elements of a piece: one task, one partial result.
const PIECE: usize = 1 << 16;
/// Lane rows that are summed in f32 before they are added to f64 totals.
const BLOCK: usize = 16;
/// Lanes of a row of few elements.
const LANES: usize = 128;

/// f64 working space: `count` partial results of `width` numbers each. Content is arbitrary until written.
pub(crate) struct Partials(Scratch<i32>);

impl Partials {
    #[track_caller]
    pub(crate) fn new(count: usize, width: usize) -> Result<Partials> {
        Scratch::new(2 * count * width).map(Partials)
    }
}

impl Deref for Partials {
    type Target = [f64];
    fn deref(&self) -> &[f64] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for Partials {
    fn deref_mut(&mut self) -> &mut [f64] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

multiversion! {
    /// Adds the rows of x, of `block.len()` elements, to `totals`.
    fn add_rows(x: &[f32], block: &mut [f32], totals: &mut [f64]) {
        let width = block.len();
        let totals = &mut totals[..width];
        for rows in x.chunks(BLOCK * width) {
            block.fill(0.0);
            for row in rows.chunks_exact(width) {
                for j in 0..width {
                    block[j] += row[j];
                }
            }
            for j in 0..width {
                totals[j] += f64::from(block[j]);
            }
        }
    }
}

/// Lanes of a column sum: several rows of `inner` elements seen as one.
fn lanes(inner: usize) -> usize {
    inner * LANES.div_ceil(inner)
}

/// Sum of the rows of x, of `inner` elements, to `out`. `width` is a multiple of `inner`.
fn column_sums(
    x: &[f32],
    inner: usize,
    width: usize,
    block: &mut [f32],
    totals: &mut [f64],
    out: &mut [f64],
) {
    totals.fill(0.0);
    let (whole, rest) = x.split_at(x.len() / width * width);
    add_rows(whole, block, totals);
    if !rest.is_empty() {
        add_rows(rest, &mut block[..rest.len()], totals);
    }
    out.fill(0.0);
    for part in totals.chunks_exact(inner) {
        out.iter_mut().zip(part).for_each(|(o, &t)| *o += t);
    }
}

/// out [outer, inner] = the sum over the middle of x [outer, reduced, inner]; no size is 0.
fn sum_middle(x: &[f32], reduced: usize, inner: usize, out: &mut [f32]) -> Result<()> {
    let width = lanes(inner).min(reduced * inner);
    let space = || (vec![0f32; width], vec![0f64; width], vec![0f64; inner]);
    let plane = reduced * inner;
    if plane < 2 * PIECE {
        let planes = (GRAIN / plane).max(1);
        out.par_chunks_mut(planes * inner).zip(x.par_chunks(planes * plane)).for_each_init(
            space,
            |(block, totals, result), (out, x)| {
                for (out, x) in out.chunks_exact_mut(inner).zip(x.chunks_exact(plane)) {
                    column_sums(x, inner, width, block, totals, result);
                    out.iter_mut().zip(result.iter()).for_each(|(o, &r)| *o = r as f32);
                }
            },
        );
        return Ok(());
    }
    let step = (PIECE / width).max(1) * width;
    let mut partials = Partials::new(plane.div_ceil(step), inner)?;
    for (out, x) in out.chunks_exact_mut(inner).zip(x.chunks_exact(plane)) {
        partials
            .par_chunks_exact_mut(inner)
            .zip(x.par_chunks(step))
            .for_each_init(space, |(block, totals, _), (partial, x)| {
                column_sums(x, inner, width, block, totals, partial)
            });
        for (j, o) in out.iter_mut().enumerate() {
            *o = partials.chunks_exact(inner).map(|p| p[j]).sum::<f64>() as f32;
        }
    }
    Ok(())
}

/// Sum of x over the dimensions `dims`, at least one.
pub fn sum(x: &[f32], shape: &[usize], dims: &[usize], out: &mut [f32]) -> Result<()> {
    if x.is_empty() {
        out.fill(0.0);
        return Ok(());
    }
    let mut groups = super::groups(shape, dims);
    let summed: Vec<usize> = (0..groups.len()).filter(|&g| groups[g].1).collect();
    let mut held: Option<Scratch<f32>> = None;
    for (step, &g) in summed.iter().enumerate() {
        let reduced = std::mem::replace(&mut groups[g].0, 1);
        let outer: usize = groups[..g].iter().map(|group| group.0).product();
        let inner: usize = groups[g + 1..].iter().map(|group| group.0).product();
        let from: &[f32] = held.as_deref().unwrap_or(x);
        if step + 1 == summed.len() {
            sum_middle(from, reduced, inner, out)?;
        } else {
            let mut next = Scratch::<f32>::new(outer * inner)?;
            sum_middle(from, reduced, inner, &mut next)?;
            held = Some(next);
        }
    }
    Ok(())
}

multiversion! {
    fn argmax_rows(x: &[f32], n: usize, out: &mut [i32]) {
        for (row, out) in x.chunks_exact(n).zip(out) {
            // Ordered so that NaN is above everything: its key is the largest integer.
            let key = |v: f32| {
                let bits = (v + 0.0).to_bits() as i32;
                let ordered = bits ^ (((bits >> 31) as u32) >> 1) as i32;
                if v.is_nan() { i32::MAX } else { ordered }
            };
            let mut best = i32::MIN;
            for &v in row {
                best = best.max(key(v));
            }
            *out = row.iter().position(|&v| key(v) == best).unwrap_or(0) as i32;
        }
    }
}

/// Position of the maximum of every row of `n` elements.
pub fn argmax(x: &[f32], n: usize, out: &mut [i32]) {
    let rows = (GRAIN / n.max(1)).max(1);
    chunks(out, rows, |start, out| argmax_rows(&x[start * n..][..out.len() * n], n, out));
}
