//! Softmax cross-entropy with labels.

use super::Direction;
use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::Result;
use kernels::softmax_xent::{self, Target};
use serde::Deserialize;

/// Logits [rows, classes]; the loss of each row, and with `both` the gradient of their weighted sum.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrossEntropy {
    direction: Direction,
    rows: usize,
    classes: usize,
}

impl Computation for CrossEntropy {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let logits = source.uniform(&[self.rows, self.classes])?;
        let labels = source.labels(self.rows, self.classes)?;
        let mut all =
            named([("logits", logits), ("labels", labels), ("dloss", source.uniform_f32(&[self.rows])?)]);
        if self.direction == Direction::Backward {
            let (_, lse) = softmax_xent::forward(&all[0].1, Target::Labels(&all[1].1), 0.0)?;
            all.extend(named([("lse", lse)]));
        }
        Ok(all)
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let (logits, dloss) = (&inputs[0].1, &inputs[2].1);
        let target = Target::Labels(&inputs[1].1);
        if self.direction == Direction::Backward {
            let dx = softmax_xent::backward(dloss, logits, target, 0.0, &inputs[3].1)?;
            return Ok(named([("dlogits", dx)]));
        }
        let (loss, lse) = softmax_xent::forward(logits, target, 0.0)?;
        if self.direction == Direction::Forward {
            return Ok(named([("loss", loss)]));
        }
        let dx = softmax_xent::backward(dloss, logits, target, 0.0, &lse)?;
        Ok(named([("loss", loss), ("dlogits", dx)]))
    }

    /// The logits are read by each direction and the gradient written; about five operations an element and direction.
    fn work(&self, size: usize) -> Work {
        let (tensors, directions) = match self.direction {
            Direction::Forward => (1, 1),
            Direction::Backward => (2, 1),
            Direction::Both => (3, 2),
        };
        let bytes = self.rows * (tensors * self.classes * size + 16);
        Work { bytes: bytes as f64, flops: (5 * directions * self.rows * self.classes) as f64 }
    }
}
