//! Four numbers a Philox block, chunks of blocks in parallel.

use crate::parallel::{GRAIN, chunks};
use engine::random::philox4x32_10;
use std::f32::consts::TAU;

/// A stream of [`engine::Philox`], addressed by block.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub seed: u64,
    pub purpose: u32,
    pub index: u64,
}

impl Stream {
    /// The four words of a block.
    pub fn block(&self, block: u32) -> [u32; 4] {
        let counter = [block, self.index as u32, (self.index >> 32) as u32, self.purpose];
        philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// The stream of a further attempt. Purposes are far below 2^16.
    fn attempt(self, attempt: u16) -> Stream {
        Stream { purpose: self.purpose | u32::from(attempt) << 16, ..self }
    }
}

/// Uniform in [0, 1) from a word, as [`engine::Philox::uniform`].
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Two independent normal values from two words.
fn normal_pair(a: u32, b: u32) -> [f32; 2] {
    let radius = (-2.0 * (1.0 - unit(a)).ln()).sqrt();
    let angle = TAU * unit(b);
    [radius * angle.cos(), radius * angle.sin()]
}

/// `value` of each block of the stream, four elements a block.
fn by_block<T: Copy + Send>(out: &mut [T], stream: Stream, value: impl Fn([u32; 4]) -> [T; 4] + Sync) {
    chunks(out, GRAIN / 4, |start, out| {
        for (i, out) in out.chunks_mut(4).enumerate() {
            let values = value(stream.block((start / 4 + i) as u32));
            out.copy_from_slice(&values[..out.len()]);
        }
    });
}

/// The words themselves.
pub fn words(out: &mut [i32], stream: Stream) {
    by_block(out, stream, |words| words.map(|w| w as i32));
}

/// Uniform in [low, high).
pub fn uniform(out: &mut [f32], low: f32, high: f32, stream: Stream) {
    by_block(out, stream, |words| words.map(|w| low + (high - low) * unit(w)));
}

/// Normal values in pairs.
pub fn normal(out: &mut [f32], mean: f32, std: f32, stream: Stream) {
    by_block(out, stream, |[a, b, c, d]| {
        let ([p, q], [r, s]) = (normal_pair(a, b), normal_pair(c, d));
        [p, q, r, s].map(|z| mean + std * z)
    });
}

/// A value inside the bound among a block's candidates.
fn inside([a, b, c, d]: [u32; 4], bound: f32) -> Option<f32> {
    if bound >= 1.0 {
        let ([p, q], [r, s]) = (normal_pair(a, b), normal_pair(c, d));
        return [p, q, r, s].into_iter().find(|z| z.abs() <= bound);
    }
    let candidate = |u: u32, v: u32| {
        let z = (2.0 * unit(u) - 1.0) * bound;
        (unit(v) < (-0.5 * z * z).exp()).then_some(z)
    };
    candidate(a, b).or_else(|| candidate(c, d))
}

/// Normal values within the bound. At least two in three candidates are, so that 2^16 attempts never fail in
/// practice; 0, the mode, stands for the case that they would.
pub fn truncated_normal(out: &mut [f32], std: f32, bound: f32, stream: Stream) {
    chunks(out, GRAIN / 16, |start, out| {
        for (i, o) in out.iter_mut().enumerate() {
            let block = (start + i) as u32;
            let value = (0..=u16::MAX).find_map(|a| inside(stream.attempt(a).block(block), bound));
            *o = std * value.unwrap_or(0.0);
        }
    });
}
