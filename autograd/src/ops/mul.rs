//! `mul`: the product, element by element, of two values of equal shape.

use super::add::same_shape;
use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`mul`].
#[derive(Clone)]
pub struct Mul;

/// `a * b` element by element, equal shapes. Expand the smaller first where shapes differ.
#[track_caller]
pub fn mul(a: &Var, b: &Var) -> Result<Var> {
    apply_one(Mul, &[a, b])
}

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        same_shape(self.name(), inputs)
    }

    /// Saves, in this order, what the gradient of each needed input is multiplied by.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (a, b) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        if save.needs(0) {
            save.save(&b);
        }
        if save.needs(1) {
            save.save(&a);
        }
        Ok(vec![elementwise::mul(&a, &b)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let mut others = at.saved.iter();
        let mut times_next = |i: usize| match at.needs[i] {
            true => others.next().map(|other| elementwise::mul(&dy, other)).transpose(),
            false => Ok(None),
        };
        Ok(vec![times_next(0)?, times_next(1)?])
    }
}

impl Reference for Mul {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].zip(&inputs[1], |a, b| a * b)]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [&[][..], &[1], &[7], &[3, 5], &[2, 3, 4, 5]]
        .into_iter()
        .map(|shape| {
            let inputs = vec![Input::random(shape, 21, 1.0), Input::random(shape, 22, 30.0)];
            Case::new(format!("{shape:?}"), Mul, inputs)
        })
        .collect()
}
