//! `expand`: dimensions of size 1 repeated, without copying.

use super::check::{floats, reshaped, wrong_shapes};
use crate::case::{Case, Input, Reference, build};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::reduce;

/// The operation of [`expand`]: the new shape.
#[derive(Clone)]
pub struct Expand(Vec<usize>);

/// `x` repeated along its dimensions of size 1, and along missing leading ones, to `shape`. A view.
#[track_caller]
pub fn expand(x: &Var, shape: &[usize]) -> Result<Var> {
    apply_one(Expand(shape.to_vec()), &[x])
}

impl Op for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        let from = &inputs[0].shape;
        let fits = self.0.len() >= from.len()
            && from.iter().rev().zip(self.0.iter().rev()).all(|(&old, &new)| old == new || old == 1);
        match fits {
            true => Ok(vec![inputs[0].with_shape(&self.0)]),
            false => Err(wrong_shapes(self, inputs, "each dimension must be equal or 1").with("to", &self.0)),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].expand(&self.0)?])
    }

    /// The sum over everything that was repeated.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        let from = &at.inputs[0].shape;
        let lead = self.0.len() - from.len();
        let repeated: Vec<usize> =
            (0..self.0.len()).filter(|&d| d < lead || from[d - lead] != self.0[d]).collect();
        Ok(vec![at.when(0, || match repeated.is_empty() {
            true => Ok(dy.clone()),
            false => reshaped(&reduce::sum(&contiguous(dy)?, &repeated)?, from),
        })?])
    }
}

impl Reference for Expand {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let from = &inputs[0].shape;
        vec![build(&self.0, |index| {
            let own = &index[index.len() - from.len()..];
            let source: Vec<usize> =
                own.iter().zip(from).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect();
            inputs[0].get(&source)
        })]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[][..], &[3, 2][..]),
        (&[3], &[3]),
        (&[3], &[4, 3]),
        (&[4, 1], &[4, 5]),
        (&[1, 4], &[3, 4]),
        (&[2, 1, 3], &[5, 2, 4, 3]),
        (&[7, 1, 1, 5], &[7, 6, 3, 5]),
    ]
    .into_iter()
    .map(|(from, to)| {
        Case::new(format!("{from:?} to {to:?}"), Expand(to.to_vec()), vec![Input::random(from, 191, 1.0)])
    })
    .collect()
}
