//! Layer and batch normalisation, forward and backward. Weights and statistics are f32.

use super::Direction;
use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::Result;
use kernels::norm;
use serde::Deserialize;

const LAYER_EPS: f32 = 1e-6;
const BATCH_EPS: f32 = 1e-5;

/// Rows of a transformer, with the residual branch added first if `residual`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerNorm {
    direction: Direction,
    rows: usize,
    width: usize,
    #[serde(default)]
    residual: bool,
}

impl Computation for LayerNorm {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let shape = [self.rows, self.width];
        let mut all = named([
            ("x", source.uniform(&shape)?),
            ("weight", source.uniform_f32(&[self.width])?),
            ("bias", source.uniform_f32(&[self.width])?),
        ]);
        if self.direction == Direction::Backward {
            let (_, mean, rstd) = norm::layer_forward(&all[0].1, None, None, LAYER_EPS)?;
            all.extend(named([("mean", mean), ("rstd", rstd), ("dy", source.uniform(&shape)?)]));
        }
        if self.residual {
            let name = if self.direction == Direction::Backward { "dsum" } else { "branch" };
            all.extend(named([(name, source.uniform(&shape)?)]));
        }
        Ok(all)
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let of = |i: usize| &inputs[i].1;
        let (x, weight, bias) = (of(0), Some(of(1)), Some(of(2)));
        if self.direction == Direction::Backward {
            let (dx, dweight, dbias) = match self.residual {
                true => norm::layer_backward_residual(of(5), of(6), x, of(3), of(4), weight)?,
                false => norm::layer_backward(of(5), x, of(3), of(4), weight)?,
            };
            return Ok(named([("dx", dx), ("dweight", dweight), ("dbias", dbias)]));
        }
        if self.residual {
            let (sum, y, _, _) = norm::layer_forward_residual(x, of(3), weight, bias, LAYER_EPS)?;
            return Ok(named([("y", y), ("sum", sum)]));
        }
        Ok(named([("y", norm::layer_forward(x, weight, bias, LAYER_EPS)?.0)]))
    }

    /// Forward x and y, with a residual the branch and the sum too; backward x, dy, dx, with one dsum too. Beside them
    /// mean and rstd of each row.
    fn work(&self, size: usize) -> Work {
        let tensors = match (self.direction, self.residual) {
            (Direction::Backward, residual) => 3 + usize::from(residual),
            (_, residual) => 2 + 2 * usize::from(residual),
        };
        let bytes = self.rows * (tensors * self.width * size + 8);
        Work { bytes: bytes as f64, flops: 8.0 * (self.rows * self.width) as f64 }
    }
}

/// Batch normalisation of images with a ReLU, with a residual added before it if `residual`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchNorm {
    direction: Direction,
    images: usize,
    side: usize,
    channels: usize,
    #[serde(default)]
    residual: bool,
}

impl BatchNorm {
    fn shape(&self) -> [usize; 4] {
        [self.images, self.side, self.side, self.channels]
    }
}

impl Computation for BatchNorm {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let shape = self.shape();
        let mut all = named([
            ("x", source.uniform(&shape)?),
            ("weight", source.uniform_f32(&[self.channels])?),
            ("bias", source.uniform_f32(&[self.channels])?),
        ]);
        let residual = self.residual.then(|| source.uniform(&shape)).transpose()?;
        if self.direction == Direction::Backward {
            let (x, weight, bias) = (&all[0].1, Some(&all[1].1), Some(&all[2].1));
            let forward = norm::batch_forward(x, weight, bias, residual.as_ref(), true, BATCH_EPS)?;
            all.extend(named([
                ("y", forward.y),
                ("mean", forward.mean),
                ("variance", forward.variance),
                ("dy", source.uniform(&shape)?),
            ]));
        }
        // Of the gradients the residual is no input, but a reference has to make y of it.
        all.extend(residual.map(|tensor| ("residual".to_string(), tensor)));
        Ok(all)
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let of = |i: usize| &inputs[i].1;
        let (x, weight, bias) = (of(0), Some(of(1)), Some(of(2)));
        if self.direction != Direction::Backward {
            let residual = self.residual.then(|| of(3));
            return Ok(named([("y", norm::batch_forward(x, weight, bias, residual, true, BATCH_EPS)?.y)]));
        }
        let (y, mean, variance, dy) = (Some(of(3)), of(4), of(5), of(6));
        let back =
            norm::batch_backward(dy, x, y, mean, variance, weight, true, self.residual, true, BATCH_EPS)?;
        let mut all = named([("dx", back.dx), ("dweight", back.dweight), ("dbias", back.dbias)]);
        all.extend(back.dresidual.map(|tensor| ("dresidual".to_string(), tensor)));
        Ok(all)
    }

    /// The family's formulas, which are for four bytes an element.
    fn work(&self, size: usize) -> Work {
        let elements = self.shape().iter().product();
        let bytes = match self.direction {
            Direction::Backward => norm::batch_backward_bytes(elements, true),
            _ => norm::batch_forward_bytes(elements, self.residual),
        };
        Work { bytes: (bytes / 4 * size) as f64, flops: 8.0 * elements as f64 }
    }
}
