//! `tanh`: the hyperbolic tangent.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`tanh`].
#[derive(Clone)]
pub struct Tanh;

/// `tanh(x)`, -1 to 1.
#[track_caller]
pub fn tanh(x: &Var) -> Result<Var> {
    apply_one(Tanh, &[x])
}

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        Ok(inputs.to_vec())
    }

    /// Saves the input.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        save.save(&x);
        Ok(vec![elementwise::tanh(&x)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || elementwise::tanh_backward(&dy, &at.saved[0]))?])
    }
}

impl Reference for Tanh {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![elementwise::reference::tanh(&inputs[0])]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [&[1][..], &[7], &[3, 17], &[2, 3, 4, 5]]
        .into_iter()
        .map(|shape| Case::new(format!("{shape:?}"), Tanh, vec![Input::random(shape, 5, 1.5)]))
        .collect()
}
