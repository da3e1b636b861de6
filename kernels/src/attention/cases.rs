//! Shapes and values that tests and benchmarks share.

use super::{Scores, scale_of};
use crate::array::Array;
use engine::{Device, Result, Tensor};

/// What queries, keys, values and upstream gradients look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Normal; queries and keys have this spread, the others 1.
    Normal(f32),
    /// Integers: with them what is 0 by cancellation is exactly 0.
    Integers,
    /// Integers; each token's query has a score of thousands with the token's own key and is far below with all others,
    /// so every weight is 0 or 1. T must be below 2^D.
    Dominant,
}

/// [`Scores`] with tensors of its own.
pub struct OwnedScores {
    /// i32 [B]
    pub valid: Option<Tensor>,
    /// f32 [1 or B, 1 or H, T, T]
    pub mask: Option<Tensor>,
    /// 1 / sqrt(D) if absent.
    pub scale: Option<f32>,
}

impl OwnedScores {
    /// As launchers take it.
    pub fn scores(&self) -> Scores<'_> {
        Scores { valid: self.valid.as_ref(), mask: self.mask.as_ref(), scale: self.scale }
    }
}

/// One problem.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// B
    pub samples: usize,
    /// T
    pub tokens: usize,
    /// H
    pub heads: usize,
    /// D
    pub size: usize,
    /// Whether samples have padding: the first has none, the last no key at all.
    pub padded: bool,
    /// The samples and heads that a mask has, if there is one.
    pub masked: Option<[usize; 2]>,
    /// Of the scores; 1 / sqrt(D) if absent.
    pub scale: Option<f32>,
    /// The inputs.
    pub values: Values,
}

impl Case {
    /// Normal values, no padding.
    pub const fn new(samples: usize, tokens: usize, heads: usize, size: usize) -> Case {
        let values = Values::Normal(1.0);
        Case { samples, tokens, heads, size, padded: false, masked: None, scale: None, values }
    }

    /// qkv [B, T, 3, H, D].
    pub fn qkv(&self) -> Array<f64> {
        let shape = [self.samples, self.tokens, 3, self.heads, self.size];
        let mut x = match self.values {
            Values::Normal(_) => Array::random(&shape, 1, 1.0),
            Values::Integers | Values::Dominant => Array::integers(&shape, 1, 4),
        };
        let row = self.heads * self.size;
        for (i, part) in x.data.chunks_mut(row.max(1)).enumerate() {
            let (token, is_value) = (i / 3 % self.tokens.max(1), i % 3 == 2);
            for (j, x) in part.iter_mut().enumerate().filter(|_| !is_value) {
                match self.values {
                    Values::Normal(spread) => *x = f64::from((*x * f64::from(spread)) as f32),
                    Values::Integers => {}
                    Values::Dominant => {
                        // The token's number in binary, as often as it fits.
                        let digits = (usize::BITS - self.tokens.leading_zeros()) as usize;
                        let bit = token >> (j % self.size % digits) & 1;
                        *x = if bit == 1 { 64.0 } else { -64.0 };
                    }
                }
            }
        }
        x
    }

    /// Upstream gradient [B, T, H, D].
    pub fn dout(&self) -> Array<f64> {
        let shape = [self.samples, self.tokens, self.heads, self.size];
        match self.values {
            Values::Normal(_) => Array::random(&shape, 2, 1.0),
            Values::Integers | Values::Dominant => Array::integers(&shape, 2, 4),
        }
    }

    /// Keys of each sample, if there is padding.
    pub fn valid(&self) -> Option<Vec<usize>> {
        let last = self.samples.saturating_sub(1).max(1);
        self.padded.then(|| (0..self.samples).map(|i| self.tokens - i * self.tokens / last).collect())
    }

    /// What the scores are made of, as tensors on a device.
    pub fn scores_on(&self, device: Device) -> Result<OwnedScores> {
        let lengths = |valid: Vec<usize>| {
            let valid: Vec<i32> = valid.into_iter().map(|n| n as i32).collect();
            Tensor::from_slice(&valid, &[valid.len()])?.to_device(device)
        };
        Ok(OwnedScores {
            valid: self.valid().map(lengths).transpose()?,
            mask: self.mask().map(|mask| mask.to_tensor()?.to_device(device)).transpose()?,
            scale: self.scale,
        })
    }

    /// The mask: normal values, a third of all minus infinity, and one row of nothing else.
    pub fn mask(&self) -> Option<Array<f64>> {
        let [samples, heads] = self.masked?;
        let mut mask = Array::random(&[samples, heads, self.tokens, self.tokens], 3, 1.0);
        for (i, x) in mask.data.iter_mut().enumerate() {
            if i % 3 == 1 || i / self.tokens % self.tokens == self.tokens / 2 {
                *x = f64::NEG_INFINITY;
            }
        }
        Some(mask)
    }

    /// The scale of the scores.
    pub fn scale(&self) -> f32 {
        scale_of(self.scale, self.size)
    }
}

/// Hand-picked: token counts around the tiles of 16, 32 and 64, those of Vision Transformers (37, 50, 257), every
/// path of head sizes, padding, large scores. Small enough for an emulated device.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (tokens, heads, size) in [
        (2, 3, 16),
        (7, 2, 7),
        (16, 1, 32),
        (17, 2, 16),
        (33, 1, 32),
        (37, 2, 64),
        (50, 2, 20),
        (63, 1, 8),
        (64, 1, 40),
        (65, 1, 64),
        (33, 2, 72),
        (31, 1, 128),
        (65, 1, 101),
        (32, 1, 96),
        (257, 1, 16),
    ] {
        all.push(Case::new(1, tokens, heads, size));
    }
    for (samples, tokens, heads, size) in [(5, 37, 1, 16), (4, 66, 1, 64), (3, 34, 1, 128), (3, 2, 3, 1)] {
        all.push(Case { padded: true, ..Case::new(samples, tokens, heads, size) });
    }
    for (masked, tokens, size) in [([1, 1], 37, 64), ([2, 1], 66, 16), ([1, 3], 17, 7), ([2, 3], 33, 72)] {
        all.push(Case { masked: Some(masked), ..Case::new(2, tokens, 3, size) });
    }
    all.push(Case { masked: Some([1, 1]), padded: true, scale: Some(-0.5), ..Case::new(3, 70, 1, 24) });
    for scale in [0.0, -0.5, 1.0] {
        all.push(Case { scale: Some(scale), ..Case::new(2, 19, 1, 24) });
    }
    for (tokens, spread) in [(20, 0.01), (129, 6.0)] {
        all.push(Case { values: Values::Normal(spread), ..Case::new(1, tokens, 1, 32) });
    }
    for (tokens, size) in [(1, 16), (1, 64), (1, 128), (1, 5)] {
        all.push(Case { values: Values::Integers, ..Case::new(3, tokens, 2, size) });
    }
    for (tokens, size) in [(37, 16), (66, 32), (70, 64), (40, 128)] {
        all.push(Case { values: Values::Dominant, ..Case::new(1, tokens, 1, size) });
    }
    for empty in [Case::new(0, 5, 2, 8), Case::new(2, 0, 2, 8), Case::new(2, 5, 0, 8)] {
        all.push(empty);
    }
    all
}

/// Random problems.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (1..4usize, 2..90usize, 1..4usize, 1..100usize, any::<bool>(), 0..3usize).prop_map(
        |(samples, tokens, heads, size, padded, spread)| Case {
            padded,
            values: Values::Normal([0.1, 1.0, 2.0][spread]),
            ..Case::new(samples, tokens, heads, size)
        },
    )
}
