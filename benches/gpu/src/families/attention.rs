//! Multi-head attention over packed queries, keys and values.

use super::Direction;
use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::Result;
use kernels::attention::{self, Forward, Scores};
use serde::Deserialize;

/// qkv [B, T, 3, H, D].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attention {
    direction: Direction,
    samples: usize,
    tokens: usize,
    heads: usize,
    size: usize,
}

impl Computation for Attention {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let Attention { samples, tokens, heads, size, .. } = *self;
        let qkv = source.uniform(&[samples, tokens, 3, heads, size])?;
        if self.direction != Direction::Backward {
            return Ok(named([("qkv", qkv)]));
        }
        let dout = source.uniform(&[samples, tokens, heads, size])?;
        let (out, lse) = attention::forward(&qkv, Scores::default())?;
        Ok(named([("qkv", qkv), ("dout", dout), ("out", out), ("lse", lse)]))
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let qkv = &inputs[0].1;
        if self.direction != Direction::Backward {
            let (out, lse) = attention::forward(qkv, Scores::default())?;
            return Ok(named([("out", out), ("lse", lse)]));
        }
        let of = Forward { qkv, scores: Scores::default(), out: &inputs[2].1, lse: &inputs[3].1 };
        Ok(named([("dqkv", attention::backward(&inputs[1].1, of)?)]))
    }

    /// In elements, forward 4 B T H D and lse; backward 8 B T H D and lse.
    fn work(&self, bytes: usize) -> Work {
        let Attention { samples, tokens, heads, size, .. } = *self;
        let (forward, backward) = attention::flops(samples, tokens, heads, size);
        let tensors = if self.direction == Direction::Backward { 8 } else { 4 };
        let moved = samples * tokens * heads * (tensors * size * bytes + 4);
        let flops = if self.direction == Direction::Backward { backward } else { forward };
        Work { bytes: moved as f64, flops }
    }
}
