//! `linear`: a fully connected layer, x W^T + bias.

use super::check::{floats, reshaped, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::{matmul, reduce};

/// The operation of [`linear`].
#[derive(Clone)]
pub struct Linear {
    /// Whether the third input is there.
    pub has_bias: bool,
}

/// `x W^T + bias`: x [.., K] of rank 2 or more, weight [N, K], bias [N] -> [.., N].
#[track_caller]
pub fn linear(x: &Var, weight: &Var, bias: Option<&Var>) -> Result<Var> {
    let inputs: Vec<&Var> = [x, weight].into_iter().chain(bias).collect();
    apply_one(Linear { has_bias: bias.is_some() }, &inputs)
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "weight", "bias"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2 + usize::from(self.has_bias))?;
        match (&inputs[0].shape[..], &inputs[1].shape[..]) {
            ([rows @ .., k], &[n, inner]) if !rows.is_empty() && *k == inner => {
                if self.has_bias {
                    shape(self, 2, &inputs[2], &[n], "one value an output [N]")?;
                }
                Ok(vec![inputs[0].with_shape(&[rows, &[n]].concat())])
            }
            _ => Err(wrong_shapes(self, inputs, "x must be [.., K] of rank 2 or more and the weight [N, K]")),
        }
    }

    /// Saves the weight if the gradient of x is needed, then x if that of the weight is.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (x, weight) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        let bias = inputs.get(2).map(|b| contiguous(b)).transpose()?;
        if save.needs(0) {
            save.save(&weight);
        }
        if save.needs(1) {
            save.save(&x);
        }
        Ok(vec![matmul::linear(&x, &weight, bias.as_ref())?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let (n, k) = (at.inputs[1].shape[0], at.inputs[1].shape[1]);
        let rows = at.inputs[0].shape.iter().rev().skip(1).product();
        let dy = dy.reshape(&[rows, n])?;
        let dx =
            at.when(0, || reshaped(&matmul::matmul(&dy, &at.saved[0], false, false)?, &at.inputs[0].shape))?;
        let x = at.needs[1].then(|| &at.saved[usize::from(at.needs[0])]);
        let needs_bias = self.has_bias && at.needs[2];
        let [dweight, dbias] = parameter_gradients(&dy, x, k, needs_bias)?;
        let mut gradients = vec![dx, dweight];
        if self.has_bias {
            gradients.push(dbias);
        }
        Ok(gradients)
    }
}

/// The gradients of a layer's weight [N, K], where its input `x` [.., K] is given, and of its bias [N], where that is
/// needed, from its output's, dy [M, N].
pub(super) fn parameter_gradients(
    dy: &Tensor,
    x: Option<&Tensor>,
    k: usize,
    needs_bias: bool,
) -> Result<[Option<Tensor>; 2]> {
    let x = x.map(|x| x.reshape(&[dy.shape()[0], k])).transpose()?;
    Ok(match (x, needs_bias) {
        (Some(x), true) => matmul::weight_and_bias_gradient(dy, &x)?.map(Some),
        (Some(x), false) => [Some(matmul::matmul(dy, &x, true, false)?), None],
        (None, true) => [None, Some(reduce::sum_rows(dy)?)],
        (None, false) => [None, None],
    })
}

impl Reference for Linear {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![matmul::reference::linear(&inputs[0], &inputs[1], inputs.get(2))]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, k, n) in
        [(&[1][..], 1, 1), (&[4], 4, 4), (&[5], 3, 4), (&[2, 3], 4, 5), (&[2, 3, 5], 7, 11), (&[33], 65, 17), (&[41], 24, 16)]
    {
        for has_bias in [false, true] {
            let mut inputs =
                vec![Input::random(&[rows, &[k]].concat(), 61, 1.0), Input::random(&[n, k], 62, 0.3)];
            if has_bias {
                inputs.push(Input::random(&[n], 63, 2.0));
            }
            let label = format!("{rows:?} {k} to {n} bias {has_bias}");
            cases.push(Case { gradient_factor: 3.0, ..Case::new(label, Linear { has_bias }, inputs) });
        }
    }
    cases
}
