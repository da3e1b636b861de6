//! `relu`: the positive part.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`relu`].
#[derive(Clone)]
pub struct Relu;

/// `max(x, 0)`; the gradient at 0 is 0.
#[track_caller]
pub fn relu(x: &Var) -> Result<Var> {
    apply_one(Relu, &[x])
}

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        Ok(inputs.to_vec())
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let y = elementwise::relu(&contiguous(inputs[0])?)?;
        save.save(&y);
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || elementwise::relu_backward(&dy, &at.saved[0]))?])
    }
}

impl Reference for Relu {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|x| x.max(T::ZERO))]
    }
}

/// Cases of the operation's checks. Values keep away from the kink, where no difference quotient holds.
pub(crate) fn cases() -> Vec<Case> {
    [&[1][..], &[7], &[3, 17], &[2, 3, 4, 5]]
        .into_iter()
        .map(|shape| {
            let away = Array::random(shape, 3, 1.0).map(|x: f64| if x < 0.0 { x - 0.125 } else { x + 0.125 });
            Case::new(format!("{shape:?}"), Relu, vec![Input::new(away)])
        })
        .collect()
}
