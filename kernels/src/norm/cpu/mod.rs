//! The CPU backend: rows of channels are processed in [`Lanes`], pieces of rows in parallel.

mod apply;
mod gradient;
pub mod l2;
pub mod layer;
mod statistics;

pub use apply::{Affine, Map, apply, store_map};
pub use gradient::{GradientMap, gradient_apply, gradient_sums};
pub use statistics::{Statistics, statistics};

use engine::Result;
use engine::memory::Scratch;

/// Elements of a piece: one task, one partial result.
const PIECE: usize = 1 << 16;
/// Lane rows that are summed in f32 before they are added to f64 totals.
const BLOCK: usize = 32;

/// Several rows of few channels seen as one lane row that fills vectors: lane j is channel j mod C.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    channels: usize,
    /// Rows in a lane row.
    repeat: usize,
    /// repeat * channels: at least 256 and a multiple of 16 if there are fewer channels than 256.
    width: usize,
}

impl Lanes {
    fn new(channels: usize) -> Lanes {
        let repeat = match channels {
            0 | 256.. => 1,
            _ => {
                let odd = 16 >> channels.trailing_zeros().min(4);
                256usize.div_ceil(channels).next_multiple_of(odd)
            }
        };
        Lanes { channels, repeat, width: repeat * channels }
    }

    /// Elements of a piece: whole blocks of lane rows.
    fn piece(&self) -> usize {
        let block = (BLOCK * self.width).max(1);
        block * (PIECE / block).max(1)
    }

    /// `f(channel)` in every lane.
    fn spread(&self, f: impl Fn(usize) -> f64) -> Result<Scratch<f32>> {
        let mut out = Scratch::<f32>::new(self.width)?;
        for (j, o) in out[..self.channels].iter_mut().enumerate() {
            *o = f(j) as f32;
        }
        for i in 1..self.repeat {
            out.copy_within(..self.channels, i * self.channels);
        }
        Ok(out)
    }
}

/// 1 / sqrt(variance + eps).
fn inverse_deviation(variance: f64, eps: f32) -> f64 {
    1.0 / (variance + f64::from(eps)).sqrt()
}
