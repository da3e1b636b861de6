//! `batch_norm_eval`: batch normalisation with given statistics, as in evaluation; residual and ReLU fused.

use super::batch_norm::{self, BatchNorm, Optional, around, combinations, normalise, optional_inputs};
use super::check::{element_type, shape};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::norm;

/// The operation of [`batch_norm_eval`].
#[derive(Clone)]
pub struct BatchNormEval {
    settings: BatchNorm,
    optional: Optional,
}

/// As [`super::batch_norm()`] with the statistics `mean` and `variance` [C], which are constants.
#[track_caller]
pub fn batch_norm_eval(
    x: &Var,
    mean: &Tensor,
    variance: &Tensor,
    weight: Option<&Var>,
    bias: Option<&Var>,
    residual: Option<&Var>,
    relu: bool,
    eps: f32,
) -> Result<Var> {
    let optional = Optional::of(weight, bias, residual);
    let op = BatchNormEval { settings: BatchNorm { relu, eps }, optional };
    let (mean, variance) = (Var::constant(mean.clone()), Var::constant(variance.clone()));
    let inputs: Vec<&Var> =
        [x, &mean, &variance].into_iter().chain(weight).chain(bias).chain(residual).collect();
    apply_one(op, &inputs)
}

impl Op for BatchNormEval {
    fn name(&self) -> &'static str {
        "batch_norm_eval"
    }

    fn inputs(&self) -> &'static [&'static str] {
        match (self.optional.weight, self.optional.bias) {
            (true, true) => &["x", "mean", "variance", "weight", "bias", "residual"],
            (true, false) => &["x", "mean", "variance", "weight", "residual"],
            (false, true) => &["x", "mean", "variance", "bias", "residual"],
            (false, false) => &["x", "mean", "variance", "residual"],
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.optional.infer(self, inputs, 3)?;
        let x = &inputs[0].shape;
        for i in [1, 2] {
            element_type(self, i, &inputs[i], DType::F32)?;
            shape(self, i, &inputs[i], &x[x.len() - 1..], "one value a channel [C]")?;
        }
        Ok(vec![inputs[0].clone()])
    }

    /// Saves x, mean, variance, then y if there is a ReLU, then the weight if there is one.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (x, mean, variance) = (contiguous(inputs[0])?, contiguous(inputs[1])?, contiguous(inputs[2])?);
        let [weight, bias, residual] = self.optional.tensors(inputs, 3)?;
        let BatchNorm { relu, eps } = self.settings;
        let (w, b, r) = (weight.as_ref(), bias.as_ref(), residual.as_ref());
        let y = norm::batch_apply(&x, &mean, &variance, w, b, r, relu, eps)?;
        [Some(&x), Some(&mean), Some(&variance), Some(&y).filter(|_| relu), w]
            .into_iter()
            .flatten()
            .for_each(|t| save.save(t));
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        batch_norm::gradients(at, self.settings, self.optional, 3, false)
    }

    fn has_gradient(&self, input: usize) -> bool {
        input != 1 && input != 2
    }
}

impl Reference for BatchNormEval {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let positions = self.optional.positions(3);
        vec![normalise(inputs, self.settings, positions, &inputs[1].data, &inputs[2].data)]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    combinations()
        .map(|(shape, optional, settings)| {
            let channels = &shape[shape.len() - 1..];
            let variance = Array::random(channels, 113, 1.0).map(|v: f64| f64::from((v * v) as f32));
            let mut inputs = vec![
                Input::new(around(shape, 118, 0.5, 2.0)),
                Input::constant(around(channels, 112, 0.5, 0.5)).in_f32(),
                Input::constant(variance).in_f32(),
            ];
            inputs.extend(optional_inputs(optional, shape, 114));
            let flags = (optional.weight, optional.bias, optional.residual, settings.relu);
            let label = format!("{shape:?} weight, bias, residual, relu: {flags:?}");
            Case { gradient_factor: 3.0, ..Case::new(label, BatchNormEval { settings, optional }, inputs) }
        })
        .collect()
}
