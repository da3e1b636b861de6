//! `add_bias`: one vector added to every row.

use super::check::{floats, reshaped, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::{elementwise, reduce};

/// The operation of [`add_bias`].
#[derive(Clone)]
pub struct AddBias;

/// `x + bias` for every row: x [.., N], bias [N] -> [.., N].
#[track_caller]
pub fn add_bias(x: &Var, bias: &Var) -> Result<Var> {
    apply_one(AddBias, &[x, bias])
}

impl Op for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "bias"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        let Some(&n) = inputs[0].shape.last() else {
            return Err(wrong_shapes(self, inputs, "x needs at least one dimension"));
        };
        shape(self, 1, &inputs[1], &[n], "one value a column of x [N]")?;
        Ok(vec![inputs[0].clone()])
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![elementwise::add_bias(&contiguous(inputs[0])?, &contiguous(inputs[1])?)?])
    }

    /// The bias's gradient is the sum of all rows.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        let dbias = at.when(1, || {
            let n = at.inputs[1].shape[0];
            let rows = at.inputs[0].shape.iter().rev().skip(1).product();
            reduce::sum_rows(&contiguous(&reshaped(dy, &[rows, n])?)?)
        })?;
        Ok(vec![at.when(0, || Ok(dy.clone()))?, dbias])
    }
}

impl Reference for AddBias {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![elementwise::reference::add_bias(&inputs[0], &inputs[1])]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [&[1][..], &[5], &[4, 3], &[2, 3, 8], &[33, 17]]
        .into_iter()
        .map(|shape| {
            let inputs =
                vec![Input::random(shape, 24, 1.0), Input::random(&shape[shape.len() - 1..], 25, 1.0)];
            Case { gradient_factor: 3.0, ..Case::new(format!("{shape:?}"), AddBias, inputs) }
        })
        .collect()
}
