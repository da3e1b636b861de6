//! `add`: the sum of two values of equal shape.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Error, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`add`].
#[derive(Clone)]
pub struct Add;

/// `a + b`, equal shapes. Expand the smaller first where shapes differ.
#[track_caller]
pub fn add(a: &Var, b: &Var) -> Result<Var> {
    apply_one(Add, &[a, b])
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        same_shape(self.name(), inputs)
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![elementwise::add(&contiguous(inputs[0])?, &contiguous(inputs[1])?)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        Ok(vec![at.when(0, || Ok(dy.clone()))?, at.when(1, || Ok(dy.clone()))?])
    }
}

/// The spec that all inputs of an elementwise operation share.
pub(crate) fn same_shape(name: &str, inputs: &[Spec]) -> Result<Vec<Spec>> {
    match inputs {
        [a, b] if a == b => Ok(vec![a.clone()]),
        [_, _] => Err(Error::shape(name, "shapes and types must be equal: expand or cast one first")
            .with("a", &inputs[0])
            .with("b", &inputs[1])),
        _ => Err(Error::value(name, format!("takes 2 inputs, got {}", inputs.len()))),
    }
}

impl Reference for Add {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].zip(&inputs[1], |a, b| a + b)]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [&[][..], &[1], &[7], &[3, 5], &[2, 3, 4, 5]]
        .into_iter()
        .map(|shape| {
            let inputs = vec![Input::random(shape, 1, 1.0), Input::random(shape, 2, 30.0)];
            Case::new(format!("{shape:?}"), Add, inputs)
        })
        .collect()
}
