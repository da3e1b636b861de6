//! `batch_norm_split`: batch normalisation of parts of a batch apart, each with its own statistics.

use super::batch_norm::{self, BatchNorm, BatchNormOutput, Optional, around, normalise, optional_inputs};
use super::check::wrong_shapes;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply};
use crate::{Op, Spec, Var};
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::{self, contiguous};
use kernels::{elementwise, norm, reduce};

/// The operation of [`batch_norm_split`].
#[derive(Clone)]
pub struct BatchNormSplit {
    settings: BatchNorm,
    optional: Optional,
    splits: usize,
}

/// As [`super::batch_norm()`] of each of `splits` runs of B / splits successive samples of x [B, .., C]; an error unless
/// B is a multiple of `splits`. The statistics of the result are averages over the runs.
#[track_caller]
pub fn batch_norm_split(
    x: &Var,
    weight: Option<&Var>,
    bias: Option<&Var>,
    residual: Option<&Var>,
    settings: BatchNorm,
    splits: usize,
) -> Result<BatchNormOutput> {
    let op = BatchNormSplit { settings, optional: Optional::of(weight, bias, residual), splits };
    let inputs: Vec<&Var> = [x].into_iter().chain(weight).chain(bias).chain(residual).collect();
    match <[Var; 3]>::try_from(apply(op, &inputs)?) {
        Ok([y, mean, variance]) => {
            Ok(BatchNormOutput { y, mean: mean.into_value(), variance: variance.into_value() })
        }
        Err(_) => Err(Error::new(ErrorKind::Graph, "batch_norm_split", "does not have three outputs")),
    }
}

impl BatchNormSplit {
    /// Run `i` of a tensor of whole batches.
    fn run(&self, x: &Tensor, i: usize) -> Result<Tensor> {
        let size = x.shape()[0] / self.splits;
        x.narrow(0, i * size, size)
    }

    /// `f` of each run.
    fn each<T>(&self, f: impl FnMut(usize) -> Result<T>) -> Result<Vec<T>> {
        (0..self.splits).map(f).collect()
    }
}

/// All parts one after another.
fn joined(parts: &[Tensor]) -> Result<Tensor> {
    copy::cat(&parts.iter().collect::<Vec<_>>(), 0)
}

/// The sum of equal shapes.
fn sum(parts: &[Tensor]) -> Result<Tensor> {
    let shape = [&[parts.len()], parts[0].shape()].concat();
    reduce::sum_rows(&joined(parts)?.reshape(&shape)?)
}

impl Op for BatchNormSplit {
    fn name(&self) -> &'static str {
        "batch_norm_split"
    }

    fn inputs(&self) -> &'static [&'static str] {
        self.optional.names()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.optional.infer(self, inputs, 1)?;
        let x = &inputs[0].shape;
        if x.len() < 2 || self.splits == 0 || !x[0].is_multiple_of(self.splits) {
            let rule = "x must be [B, .., C] where B is a multiple of the number of splits";
            return Err(wrong_shapes(self, inputs, rule).with("splits", self.splits));
        }
        let channels = Spec::f32(&x[x.len() - 1..]);
        Ok(vec![inputs[0].clone(), channels.clone(), channels])
    }

    /// Saves x, then the runs' means, then their variances, then y if there is a ReLU, then the weight if there is one.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        let [weight, bias, residual] = self.optional.tensors(inputs, 1)?;
        let BatchNorm { relu, eps } = self.settings;
        let outs = self.each(|i| {
            let residual = residual.as_ref().map(|r| self.run(r, i)).transpose()?;
            let (w, b) = (weight.as_ref(), bias.as_ref());
            norm::batch_forward(&self.run(&x, i)?, w, b, residual.as_ref(), relu, eps)
        })?;
        let (mut parts, mut means, mut variances) = (Vec::new(), Vec::new(), Vec::new());
        for out in outs {
            parts.push(out.y);
            means.push(out.mean);
            variances.push(out.variance);
        }
        let y = joined(&parts)?;
        save.save(&x);
        means.iter().chain(&variances).for_each(|t| save.save(t));
        [Some(&y).filter(|_| relu), weight.as_ref()].into_iter().flatten().for_each(|t| save.save(t));
        let average = |parts: &[Tensor]| elementwise::scale(&sum(parts)?, 1.0 / self.splits as f32);
        Ok(vec![y, average(&means)?, average(&variances)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let BatchNorm { relu, eps } = self.settings;
        let after = 1 + 2 * self.splits;
        let y = at.saved.get(after).filter(|_| relu);
        let weight = at.saved.get(after + usize::from(relu)).filter(|_| self.optional.weight);
        let [weight_at, bias_at, residual_at] = self.optional.positions(1);
        let wants_residual = residual_at.is_some_and(|i| at.needs[i]);
        let backs = self.each(|i| {
            let (mean, variance) = (&at.saved[1 + i], &at.saved[1 + self.splits + i]);
            let y = y.map(|y| self.run(y, i)).transpose()?;
            let (dy, x) = (self.run(&dy, i)?, self.run(&at.saved[0], i)?);
            norm::batch_backward(&dy, &x, y.as_ref(), mean, variance, weight, relu, wants_residual, true, eps)
        })?;
        let (mut dx, mut dweight, mut dbias, mut dresidual) = (vec![], vec![], vec![], vec![]);
        for back in backs {
            dx.push(back.dx);
            dweight.push(back.dweight);
            dbias.push(back.dbias);
            dresidual.extend(back.dresidual);
        }
        let mut all = vec![None; 1 + self.optional.count()];
        all[0] = at.when(0, || joined(&dx))?;
        if let Some(i) = weight_at {
            all[i] = at.when(i, || sum(&dweight))?;
        }
        if let Some(i) = bias_at {
            all[i] = at.when(i, || sum(&dbias))?;
        }
        if let Some(i) = residual_at {
            all[i] = at.when(i, || joined(&dresidual))?;
        }
        Ok(all)
    }

    fn is_differentiable(&self, output: usize) -> bool {
        output == 0
    }
}

impl Reference for BatchNormSplit {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let channels = x.shape[x.shape.len() - 1];
        let run = x.len() / self.splits;
        let positions = self.optional.positions(1);
        let (mut y, mut means, mut variances) = (Vec::new(), vec![T::ZERO; channels], vec![T::ZERO; channels]);
        for split in 0..self.splits {
            let part = |x: &Array<T>| {
                let shape = [&[x.shape[0] / self.splits], &x.shape[1..]].concat();
                Array::new(&shape, x.data[split * run..][..run].to_vec())
            };
            let mut inputs = inputs.to_vec();
            inputs[0] = part(x);
            if let Some(i) = positions[2] {
                inputs[i] = part(&inputs[i]);
            }
            let (mean, variance) = batch_norm::statistics(&inputs[0]);
            y.extend(normalise(&inputs, self.settings, positions, &mean, &variance).data);
            let add = |sums: &mut [T], values: &[T]| {
                sums.iter_mut().zip(values).for_each(|(s, &v)| *s += v / T::of(self.splits as f64));
            };
            add(&mut means, &mean);
            add(&mut variances, &variance);
        }
        vec![Array::new(&x.shape, y), Array::new(&[channels], means), Array::new(&[channels], variances)]
    }
}

/// Cases of the operation's checks: one run, as many as samples, images and vectors.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, splits) in
        [(&[4, 3][..], 1), (&[6, 3], 2), (&[4, 3, 3, 7], 2), (&[3, 2, 5, 4], 3), (&[32, 17], 4)]
    {
        for (optional, relu) in [(0, false), (1, true), (3, false), (7, true)].map(|(bits, relu)| {
            (Optional { weight: bits & 1 > 0, bias: bits & 2 > 0, residual: bits & 4 > 0 }, relu)
        }) {
            let op = BatchNormSplit { settings: BatchNorm { relu, eps: 1e-5 }, optional, splits };
            let mut inputs = optional_inputs(optional, shape, 142);
            inputs.insert(0, Input::new(around(shape, 141, 0.5, 2.0)));
            let flags = (optional.weight, optional.bias, optional.residual, relu);
            let label = format!("{shape:?} in {splits}, weight, bias, residual, relu: {flags:?}");
            cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
        }
    }
    cases
}
