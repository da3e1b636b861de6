//! CPU backend: one task a sample and head. Scores of the head are made by the matrix product, turned into weights in
//! place, and multiplied with the values; query, key and value are read where they lie in qkv.
//!
//! Backward makes the weights again with the same bits, from the rows' own maxima and sums rather than from lse, and
//! takes delta_t = dout_t . out_t as the mean of dout_t . v_s under them. With the matrices at hand that costs no more,
//! and neither the rounding of lse nor that of out reaches the gradients: where one key has nearly all the weight, the
//! difference dout_t . v_s - delta_t cancels as it should.

use super::Sizes;
use crate::math::exp;
use crate::matmul::cpu::{Mat, gemm_serial};
use crate::multiversion;
use crate::parallel::{GRAIN, chunks};
use crate::softmax_xent::lanes::maximum;
use engine::memory::Scratch;
use engine::{Result, Tensor};
use rayon::prelude::*;

/// The arguments, checked.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    /// [B, T, 3, H, D]
    pub qkv: &'a [f32],
    /// B, T, H, D
    pub sizes: Sizes,
    /// [B], each in 0 ..= T
    pub valid: Option<&'a [i32]>,
    /// Added to the scaled scores.
    pub mask: Option<Mask<'a>>,
    /// Of the scores.
    pub scale: f32,
}

/// A mask [1 or B, 1 or H, T, T].
#[derive(Clone, Copy)]
pub struct Mask<'a> {
    values: &'a [f32],
    samples: usize,
    heads: usize,
    tokens: usize,
}

impl<'a> Mask<'a> {
    /// Of a tensor of that shape.
    #[track_caller]
    pub fn new(mask: &'a Tensor) -> Result<Mask<'a>> {
        let [samples, heads, tokens] = [0, 1, 2].map(|i| mask.shape()[i]);
        Ok(Mask { values: mask.as_slice()?, samples, heads, tokens })
    }

    /// The matrix [T, T] of a sample and head.
    fn of(&self, sample: usize, head: usize) -> &'a [f32] {
        let number = sample % self.samples * self.heads + head % self.heads;
        let len = self.tokens * self.tokens;
        &self.values[number * len..(number + 1) * len]
    }
}

/// The matrices [T, D] of one sample and head.
#[derive(Clone, Copy)]
struct Head<'a> {
    query: Mat<'a>,
    key: Mat<'a>,
    value: Mat<'a>,
    /// Keys that are seen.
    keys: usize,
    /// [T, T]
    mask: Option<&'a [f32]>,
}

impl<'a> Problem<'a> {
    /// Sample and head number `pair`, counted head by head.
    fn head(&self, pair: usize) -> Head<'a> {
        let Sizes { tokens, heads, size, .. } = self.sizes;
        let (sample, head) = (pair / heads, pair % heads);
        let part = |part: usize| {
            let first = ((sample * tokens * 3 + part) * heads + head) * size;
            Mat { data: &self.qkv[first..], row_stride: 3 * heads * size, column_stride: 1 }
        };
        let keys = self.valid.map_or(tokens, |valid| valid[sample] as usize);
        let mask = self.mask.map(|mask| mask.of(sample, head));
        Head { query: part(0), key: part(1), value: part(2), keys, mask }
    }

    /// The matrix [T, D] of a head in x [B, T, H, D].
    fn rows<'x>(&self, x: &'x [f32], pair: usize) -> Mat<'x> {
        let Sizes { tokens, heads, size, .. } = self.sizes;
        let first = (pair / heads * tokens * heads + pair % heads) * size;
        Mat { data: &x[first..], row_stride: heads * size, column_stride: 1 }
    }

    /// The scores of a head [T, keys].
    fn scores(&self, head: &Head) -> Result<Scratch<f32>> {
        let Sizes { tokens, size, .. } = self.sizes;
        let mut s = Scratch::<f32>::new(tokens * head.keys)?;
        gemm_serial(tokens, head.keys, size, head.query, head.key.transposed(), false, &mut s, head.keys)?;
        scale_in_place(&mut s, self.scale);
        if let Some(mask) = head.mask {
            for (s, mask) in s.chunks_mut(head.keys).zip(mask.chunks(tokens)) {
                s.iter_mut().zip(mask).for_each(|(s, mask)| *s += mask);
            }
        }
        Ok(s)
    }
}

multiversion! {
    /// s *= scale.
    fn scale_in_place(s: &mut [f32], scale: f32) {
        for s in s.iter_mut() {
            *s *= scale;
        }
    }
}

multiversion! {
    /// s = exp(s - shift), and the sum of that in fixed lanes.
    fn exponentials(s: &mut [f32], shift: f32) -> f32 {
        let mut lanes = [0f32; 16];
        let (blocks, rest) = s.as_chunks_mut::<16>();
        for block in blocks {
            for (sum, s) in lanes.iter_mut().zip(block) {
                *s = exp(*s - shift);
                *sum += *s;
            }
        }
        for (sum, s) in lanes.iter_mut().zip(rest) {
            *s = exp(*s - shift);
            *sum += *s;
        }
        lanes.iter().sum()
    }
}

multiversion! {
    /// s /= total.
    fn divide(s: &mut [f32], total: f32) {
        for s in s.iter_mut() {
            *s /= total;
        }
    }
}

multiversion! {
    /// Inner product of two vectors, in fixed lanes.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        for (a, b) in a.chunks(16).zip(b.chunks(16)) {
            for ((sum, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                *sum += a * b;
            }
        }
        lanes.iter().sum()
    }
}

multiversion! {
    /// e = p (e - delta) scale.
    fn weigh(p: &[f32], delta: f32, scale: f32, e: &mut [f32]) {
        for (e, &p) in e.iter_mut().zip(p) {
            *e = p * (*e - delta) * scale;
        }
    }
}

/// Scores to weights in place; returns lse. Zeros and minus infinity if all scores are minus infinity.
fn softmax(s: &mut [f32]) -> f32 {
    let largest = maximum(s);
    let total = exponentials(s, if largest == f32::NEG_INFINITY { 0.0 } else { largest });
    if total == 0.0 {
        return f32::NEG_INFINITY;
    }
    divide(s, total);
    largest + total.ln()
}

/// `out` [B, T, H, D] and `lse` [B, H, T].
pub fn forward(p: &Problem, out: &mut [f32], lse: &mut [f32]) -> Result<()> {
    let Sizes { tokens, size, .. } = p.sizes;
    if p.sizes.is_empty() {
        return Ok(());
    }
    let mut heads = Scratch::<f32>::new(out.len())?;
    heads.par_chunks_mut(tokens * size).zip(lse.par_chunks_mut(tokens)).enumerate().try_for_each(
        |(pair, (out, lse))| {
            let head = p.head(pair);
            if head.keys == 0 {
                out.fill(0.0);
                lse.fill(f32::NEG_INFINITY);
                return Ok(());
            }
            let mut s = p.scores(&head)?;
            for (s, lse) in s.chunks_mut(head.keys).zip(lse) {
                *lse = softmax(s);
            }
            gemm_serial(tokens, size, head.keys, Mat::rows(&s, head.keys), head.value, false, out, size)
        },
    )?;
    tokens_first(&heads, p.sizes, 1, out);
    Ok(())
}

/// `dqkv` [B, T, 3, H, D] from dout [B, T, H, D].
pub fn backward(p: &Problem, dout: &[f32], dqkv: &mut [f32]) -> Result<()> {
    let Sizes { tokens, size, .. } = p.sizes;
    if p.sizes.is_empty() {
        return Ok(());
    }
    let mut heads = Scratch::<f32>::new(dqkv.len())?;
    let matrix = tokens * size;
    heads.par_chunks_mut(3 * matrix).enumerate().try_for_each(|(pair, gradients)| {
        let head = p.head(pair);
        let keys = head.keys;
        if keys == 0 {
            gradients.fill(0.0);
            return Ok(());
        }
        let (dquery, rest) = gradients.split_at_mut(matrix);
        let (dkey, dvalue) = rest.split_at_mut(matrix);
        dkey[keys * size..].fill(0.0);
        dvalue[keys * size..].fill(0.0);

        let dout = p.rows(dout, pair);
        let mut weights = p.scores(&head)?;
        weights.chunks_mut(keys).for_each(|s| {
            softmax(s);
        });
        let transposed = Mat::rows(&weights, keys).transposed();
        gemm_serial(keys, size, tokens, transposed, dout, false, dvalue, size)?;

        // e_ts = scale p_ts (dout_t . v_s - delta_t), in the place of the inner products.
        let mut e = Scratch::<f32>::new(tokens * keys)?;
        gemm_serial(tokens, keys, size, dout, head.value.transposed(), false, &mut e, keys)?;
        for (e, weights) in e.chunks_mut(keys).zip(weights.chunks(keys)) {
            weigh(weights, dot(weights, e), p.scale, e);
        }
        gemm_serial(tokens, size, keys, Mat::rows(&e, keys), head.key, false, dquery, size)?;
        gemm_serial(keys, size, tokens, Mat::rows(&e, keys).transposed(), head.query, false, dkey, size)
    })?;
    tokens_first(&heads, p.sizes, 3, dqkv);
    Ok(())
}

/// `to` [B, T, parts, H, D] from `from` [B, H, parts, T, D].
fn tokens_first(from: &[f32], sizes: Sizes, parts: usize, to: &mut [f32]) {
    let Sizes { tokens, heads, size, .. } = sizes;
    let row = parts * heads * size;
    chunks(to, GRAIN.div_ceil(row) * row, |start, to| {
        for (i, to) in to.chunks_mut(row).enumerate() {
            let (sample, token) = ((start / row + i) / tokens, (start / row + i) % tokens);
            for (j, to) in to.chunks_mut(size).enumerate() {
                let (part, head) = (j / heads, j % heads);
                let at = (((sample * heads + head) * parts + part) * tokens + token) * size;
                to.copy_from_slice(&from[at..at + size]);
            }
        }
    });
}
