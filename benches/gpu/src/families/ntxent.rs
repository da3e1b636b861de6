//! SimCLR's loss of all pairs. The vectors are given as they are: normalising them is outside, on both sides.

use super::Direction;
use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::{DType, Result};
use kernels::ntxent::{self, Positive, Spec};
use kernels::{copy, elementwise, norm};
use serde::Deserialize;

const TEMPERATURE: f32 = 0.1;

/// 2 `pairs` unit vectors of `width`; view i and view i + `pairs` are of one image. The losses, and with `both` the
/// gradient of their weighted sum.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ntxent {
    direction: Direction,
    pairs: usize,
    width: usize,
}

impl Computation for Ntxent {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let rows = 2 * self.pairs;
        let (unit, _) = norm::l2_forward(&source.uniform_f32(&[rows, self.width])?, 1e-12)?;
        let rows_of_type = if source.dtype == DType::F32 { unit } else { copy::cast(&unit, source.dtype)? };
        let positive: Vec<i32> = (0..rows).map(|i| ((i + self.pairs) % rows) as i32).collect();
        let mut all = named([
            ("rows", rows_of_type),
            ("positive", source.integers(&positive)?),
            ("dloss", source.uniform_f32(&[rows])?),
        ]);
        if self.direction == Direction::Backward {
            let (_, lse) = self.loss(&all)?;
            all.extend(named([("lse", lse)]));
        }
        Ok(all)
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let (loss, lse) = match self.direction {
            Direction::Backward => (None, inputs[3].1.clone()),
            _ => self.loss(inputs).map(|(loss, lse)| (Some(loss), lse))?,
        };
        let mut all: Tensors = loss.into_iter().map(|loss| ("loss".to_string(), loss)).collect();
        if self.direction == Direction::Forward {
            return Ok(all);
        }
        let (rows, positive, dloss) = (&inputs[0].1, Positive::Column(&inputs[1].1), &inputs[2].1);
        let mut back = ntxent::backward(dloss, rows, rows, positive, self.spec(), &lse, true)?;
        // The vectors are rows and columns: their gradient is the sum of both.
        if let Some(dcolumns) = &back.dcolumns {
            elementwise::add_assign(&mut back.drows, dcolumns)?;
        }
        all.push(("drows".to_string(), back.drows));
        Ok(all)
    }

    /// Rows read by each direction, their gradient written; 2 R² D FLOPs forward, 6 R² D backward.
    fn work(&self, size: usize) -> Work {
        let rows = 2 * self.pairs;
        let (tensors, products) = match self.direction {
            Direction::Forward => (1, 2.0),
            Direction::Backward => (2, 6.0),
            Direction::Both => (3, 8.0),
        };
        let flops = products * (rows as f64).powi(2) * self.width as f64;
        Work { bytes: (rows * (tensors * self.width * size + 16)) as f64, flops }
    }
}

impl Ntxent {
    fn spec(&self) -> Spec {
        Spec { temperature: TEMPERATURE, self_column: Some(0) }
    }

    fn loss(&self, inputs: &Tensors) -> Result<(engine::Tensor, engine::Tensor)> {
        let rows = &inputs[0].1;
        ntxent::forward(rows, rows, Positive::Column(&inputs[1].1), self.spec())
    }
}
