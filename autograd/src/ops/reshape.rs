//! `reshape`: the same elements under another shape.

use super::check::{floats, reshaped, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};

/// The operation of [`reshape`]: the new shape.
#[derive(Clone)]
pub struct Reshape(Vec<usize>);

/// `x` under another shape of as many elements. A view where the strides allow it, else a copy.
#[track_caller]
pub fn reshape(x: &Var, shape: &[usize]) -> Result<Var> {
    apply_one(Reshape(shape.to_vec()), &[x])
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        match inputs[0].shape.iter().product::<usize>() == self.0.iter().product::<usize>() {
            true => Ok(vec![inputs[0].with_shape(&self.0)]),
            false => {
                Err(wrong_shapes(self, inputs, "the new shape must hold as many elements")
                    .with("to", &self.0))
            }
        }
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![reshaped(inputs[0], &self.0)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        Ok(vec![at.when(0, || reshaped(dy, &at.inputs[0].shape))?])
    }
}

impl Reference for Reshape {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![Array::new(&self.0, inputs[0].data.clone())]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[][..], &[1][..]),
        (&[6], &[2, 3]),
        (&[2, 3, 4], &[4, 6]),
        (&[2, 3, 4], &[24]),
        (&[4, 1, 3], &[2, 1, 2, 3]),
        (&[5, 7, 2], &[7, 10]),
    ]
    .into_iter()
    .map(|(from, to)| {
        Case::new(format!("{from:?} to {to:?}"), Reshape(to.to_vec()), vec![Input::random(from, 161, 1.0)])
    })
    .collect()
}
