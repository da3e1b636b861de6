//! `layer_norm`: layer normalisation (Ba, Kiros and Hinton, 2016) over the last dimension.

use super::batch_norm::{Optional, around, optional_inputs};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::norm;

/// The operation of [`layer_norm`].
#[derive(Clone)]
pub struct LayerNorm {
    eps: f32,
    optional: Optional,
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` with the statistics of each row of x [.., D].
///
/// weight and bias [D] are 1 and 0 if absent.
#[track_caller]
pub fn layer_norm(x: &Var, weight: Option<&Var>, bias: Option<&Var>, eps: f32) -> Result<Var> {
    let inputs: Vec<&Var> = [x].into_iter().chain(weight).chain(bias).collect();
    apply_one(LayerNorm { eps, optional: Optional::of(weight, bias, None) }, &inputs)
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn inputs(&self) -> &'static [&'static str] {
        if self.optional.weight { &["x", "weight", "bias"] } else { &["x", "bias"] }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.optional.infer(self, inputs, 1)?;
        Ok(vec![inputs[0].clone()])
    }

    /// Saves x, mean, 1 / deviation, then the weight if there is one.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        let [weight, bias, _] = self.optional.tensors(inputs, 1)?;
        let (y, mean, rstd) = norm::layer_forward(&x, weight.as_ref(), bias.as_ref(), self.eps)?;
        [Some(&x), Some(&mean), Some(&rstd), weight.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|t| save.save(t));
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let (x, mean, rstd) = (&at.saved[0], &at.saved[1], &at.saved[2]);
        let (dx, dweight, dbias) = norm::layer_backward(&dy, x, mean, rstd, at.saved.get(3))?;
        let [weight, bias, _] = self.optional.positions(1);
        let all = [Some(dx), weight.map(|_| dweight), bias.map(|_| dbias)];
        Ok(all.into_iter().flatten().zip(at.needs).map(|(g, &needed)| Some(g).filter(|_| needed)).collect())
    }
}

impl Reference for LayerNorm {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut y = inputs[0].clone();
        let d = y.shape[y.shape.len() - 1];
        let [weight, bias, _] = self.optional.positions(1).map(|at| at.map(|i| &inputs[i].data));
        for row in y.data.chunks_mut(d) {
            let average = |f: &dyn Fn(T) -> T| {
                let mut sum = T::ZERO;
                row.iter().for_each(|&v| sum += f(v));
                sum / T::of(d as f64)
            };
            let mean = average(&|v| v);
            let variance = average(&|v| (v - mean) * (v - mean));
            let deviation = (variance + T::of(f64::from(self.eps))).sqrt();
            for (i, value) in row.iter_mut().enumerate() {
                *value = (*value - mean) / deviation;
                *value = weight.map_or(*value, |w| *value * w[i]);
                *value = bias.map_or(*value, |b| *value + b[i]);
            }
        }
        vec![y]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, center, spread, eps) in [
        (&[1, 1][..], 0.5, 1.0, 0.1),
        (&[5], 0.5, 1.0, 1e-6),
        (&[4, 6], 0.5, 2.0, 1e-6),
        (&[3, 5], 0.5, 0.0, 0.1),
        (&[2, 3, 37], -2.0, 3.0, 1e-5),
        (&[9, 64], 1e3, 0.1, 1e-5),
    ] {
        for (weight, bias) in [(false, false), (false, true), (true, false), (true, true)] {
            let optional = Optional { weight, bias, residual: false };
            let mut inputs = optional_inputs(optional, shape, 122);
            inputs.insert(0, Input::new(around(shape, 121, center, spread)));
            let label = format!("{shape:?} around {center} by {spread} weight {weight} bias {bias}");
            cases
                .push(Case { gradient_factor: 3.0, ..Case::new(label, LayerNorm { eps, optional }, inputs) });
        }
    }
    cases
}
