//! `scale`: a value times a constant.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`scale`]: its factor.
#[derive(Clone)]
pub struct Scale(pub f32);

/// `factor * x`.
#[track_caller]
pub fn scale(x: &Var, factor: f32) -> Result<Var> {
    apply_one(Scale(factor), &[x])
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        Ok(inputs.to_vec())
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![elementwise::scale(&contiguous(inputs[0])?, self.0)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || elementwise::scale(&dy, self.0))?])
    }
}

impl Reference for Scale {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let factor = T::of(f64::from(self.0));
        vec![inputs[0].map(|x| factor * x)]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [(&[][..], 2.0), (&[1], -0.1), (&[7], 1e-3), (&[3, 5], 1e4), (&[2, 3, 4, 5], 0.3)]
        .into_iter()
        .map(|(shape, factor)| {
            Case::new(format!("{shape:?} by {factor}"), Scale(factor), vec![Input::random(shape, 31, 1.0)])
        })
        .collect()
}
