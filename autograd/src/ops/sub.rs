//! `sub`: the difference of two values of equal shape.

use super::add::same_shape;
use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`sub`].
#[derive(Clone)]
pub struct Sub;

/// `a - b`, equal shapes. Expand the smaller first where shapes differ.
#[track_caller]
pub fn sub(a: &Var, b: &Var) -> Result<Var> {
    apply_one(Sub, &[a, b])
}

impl Op for Sub {
    fn name(&self) -> &'static str {
        "sub"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        same_shape(self.name(), inputs)
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![elementwise::sub(&contiguous(inputs[0])?, &contiguous(inputs[1])?)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        let da = at.when(0, || Ok(dy.clone()))?;
        let db = at.when(1, || elementwise::scale(&contiguous(dy)?, -1.0))?;
        Ok(vec![da, db])
    }
}

impl Reference for Sub {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].zip(&inputs[1], |a, b| a - b)]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [&[][..], &[1], &[7], &[3, 5], &[2, 3, 4, 5]]
        .into_iter()
        .map(|shape| {
            let inputs = vec![Input::random(shape, 11, 1.0), Input::random(shape, 12, 30.0)];
            Case::new(format!("{shape:?}"), Sub, inputs)
        })
        .collect()
}
