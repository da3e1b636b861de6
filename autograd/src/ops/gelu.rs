//! `gelu`: x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, 2016), in its exact form.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`gelu`].
#[derive(Clone)]
pub struct Gelu;

/// `x Phi(x)`.
#[track_caller]
pub fn gelu(x: &Var) -> Result<Var> {
    apply_one(Gelu, &[x])
}

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        Ok(inputs.to_vec())
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        save.save(&x);
        Ok(vec![elementwise::gelu(&x)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || elementwise::gelu_backward(&dy, &at.saved[0]))?])
    }
}

impl Reference for Gelu {
    /// `erf` works on plain numbers; the added term is zero and carries its derivative `2 exp(-t^2) / sqrt(pi)`
    /// into a [`crate::dual::Dual`].
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|x| {
            let t = x * T::of(std::f64::consts::FRAC_1_SQRT_2);
            let value = t.get();
            let slope = std::f64::consts::FRAC_2_SQRT_PI * (-value * value).exp();
            let erf = T::of(elementwise::reference::erf(value)) + (t - T::of(value)) * T::of(slope);
            x * T::of(0.5) * (T::ONE + erf)
        })]
    }
}

/// Cases of the operation's checks. One element alone keeps away from the minimum near -0.75: the gradient is zero
/// there, and no relative error holds.
pub(crate) fn cases() -> Vec<Case> {
    [(&[1][..], 0.1), (&[7], 0.01), (&[3, 5], 1.0), (&[2, 3, 4, 5], 4.0)]
        .into_iter()
        .map(|(shape, scale)| {
            Case::new(format!("{shape:?} times {scale}"), Gelu, vec![Input::random(shape, 41, scale)])
        })
        .collect()
}
