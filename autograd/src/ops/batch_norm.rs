//! `batch_norm`: batch normalisation (Ioffe and Szegedy, 2015) with the batch's statistics, channels last;
//! a residual and a ReLU after it are fused.

use super::check::{arity, element_type, float, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply};
use crate::{Op, Spec, Var};
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::norm;

/// Settings of [`batch_norm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// Whether the result is `max(.., 0)`.
    pub relu: bool,
    /// Added to the variance.
    pub eps: f32,
}

/// Result of [`batch_norm`].
#[derive(Debug)]
pub struct BatchNormOutput {
    /// The normalised value, shape of x.
    pub y: Var,
    /// Mean of each channel [C]. No gradient flows into it.
    pub mean: Tensor,
    /// Biased variance of each channel [C]. No gradient flows into it.
    pub variance: Tensor,
}

/// The operation of [`batch_norm`].
#[derive(Clone)]
pub struct BatchNormTrain {
    settings: BatchNorm,
    optional: Optional,
}

/// Which of the optional inputs of a normalisation follow the required ones, in this order.
#[derive(Clone, Copy)]
pub(super) struct Optional {
    pub weight: bool,
    pub bias: bool,
    pub residual: bool,
}

impl Optional {
    pub(super) fn of(weight: Option<&Var>, bias: Option<&Var>, residual: Option<&Var>) -> Optional {
        Optional { weight: weight.is_some(), bias: bias.is_some(), residual: residual.is_some() }
    }

    /// All eight combinations.
    fn all() -> impl Iterator<Item = Optional> {
        (0..8).map(|i| Optional { weight: i & 1 > 0, bias: i & 2 > 0, residual: i & 4 > 0 })
    }

    pub(super) fn count(self) -> usize {
        usize::from(self.weight) + usize::from(self.bias) + usize::from(self.residual)
    }

    /// Positions of weight, bias and residual when the first of them is input `first`.
    pub(super) fn positions(self, first: usize) -> [Option<usize>; 3] {
        let mut next = first;
        [self.weight, self.bias, self.residual].map(|there| {
            there.then(|| {
                next += 1;
                next - 1
            })
        })
    }

    /// Contiguous weight, bias and residual.
    pub(super) fn tensors(self, inputs: &[&Tensor], first: usize) -> Result<[Option<Tensor>; 3]> {
        let [weight, bias, residual] =
            self.positions(first).map(|at| at.map(|i| contiguous(inputs[i])).transpose());
        Ok([weight?, bias?, residual?])
    }

    /// Names of the inputs after `x`.
    pub(super) fn names(self) -> &'static [&'static str] {
        match (self.weight, self.bias, self.residual) {
            (true, true, _) => &["x", "weight", "bias", "residual"],
            (true, false, _) => &["x", "weight", "residual"],
            (false, true, _) => &["x", "bias", "residual"],
            (false, false, _) => &["x", "residual"],
        }
    }

    /// Checks `x`, which may be f32 or bf16, and the optional inputs against it. Weight and bias are f32, the residual
    /// is of the type of `x`.
    pub(super) fn infer(self, op: &dyn Op, inputs: &[Spec], first: usize) -> Result<()> {
        arity(op, inputs, first + self.count())?;
        float(op, 0, &inputs[0])?;
        let x = &inputs[0].shape;
        let Some(channels) = x.last() else {
            return Err(wrong_shapes(op, inputs, "x needs at least one dimension, the channels"));
        };
        let [weight, bias, residual] = self.positions(first);
        for i in [weight, bias].into_iter().flatten() {
            element_type(op, i, &inputs[i], DType::F32)?;
            shape(op, i, &inputs[i], &[*channels], "one value a channel [C]")?;
        }
        match residual {
            Some(i) => {
                element_type(op, i, &inputs[i], inputs[0].dtype)?;
                shape(op, i, &inputs[i], x, "of the shape of x")
            }
            None => Ok(()),
        }
    }
}

/// `y = relu?((x - mean) / sqrt(variance + eps) * weight + bias + residual)` over all but the last
/// dimension of x [.., C].
///
/// weight and bias [C] are 1 and 0 if absent; the residual has the shape of x.
#[track_caller]
pub fn batch_norm(
    x: &Var,
    weight: Option<&Var>,
    bias: Option<&Var>,
    residual: Option<&Var>,
    settings: BatchNorm,
) -> Result<BatchNormOutput> {
    let op = BatchNormTrain { settings, optional: Optional::of(weight, bias, residual) };
    let inputs: Vec<&Var> = [x].into_iter().chain(weight).chain(bias).chain(residual).collect();
    match <[Var; 3]>::try_from(apply(op, &inputs)?) {
        Ok([y, mean, variance]) => {
            Ok(BatchNormOutput { y, mean: mean.into_value(), variance: variance.into_value() })
        }
        Err(_) => Err(Error::new(ErrorKind::Graph, "batch_norm", "does not have three outputs")),
    }
}

impl Op for BatchNormTrain {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn inputs(&self) -> &'static [&'static str] {
        self.optional.names()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.optional.infer(self, inputs, 1)?;
        let x = &inputs[0].shape;
        let channels = Spec::f32(&x[x.len() - 1..]);
        Ok(vec![inputs[0].clone(), channels.clone(), channels])
    }

    /// Saves x, mean, variance, then y if there is a ReLU, then the weight if there is one.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        let [weight, bias, residual] = self.optional.tensors(inputs, 1)?;
        let BatchNorm { relu, eps } = self.settings;
        let out = norm::batch_forward(&x, weight.as_ref(), bias.as_ref(), residual.as_ref(), relu, eps)?;
        let y = Some(&out.y).filter(|_| relu);
        [Some(&x), Some(&out.mean), Some(&out.variance), y, weight.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|t| save.save(t));
        Ok(vec![out.y, out.mean, out.variance])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        gradients(at, self.settings, self.optional, 1, true)
    }

    fn is_differentiable(&self, output: usize) -> bool {
        output == 0
    }
}

/// The backward pass of both kinds of batch normalisation; optional inputs start at `first`.
pub(super) fn gradients(
    at: &Backward<'_>,
    settings: BatchNorm,
    optional: Optional,
    first: usize,
    training: bool,
) -> Result<Vec<Option<Tensor>>> {
    let dy = contiguous(at.gradient()?)?;
    let BatchNorm { relu, eps } = settings;
    let y = at.saved.get(3).filter(|_| relu);
    let weight = at.saved.get(3 + usize::from(relu)).filter(|_| optional.weight);
    let positions = optional.positions(first);
    let wants_residual = positions[2].is_some_and(|i| at.needs[i]);
    let (x, mean, variance) = (&at.saved[0], &at.saved[1], &at.saved[2]);
    let back = norm::batch_backward(&dy, x, y, mean, variance, weight, relu, wants_residual, training, eps)?;
    let mut all = vec![None; first + optional.count()];
    all[0] = Some(back.dx);
    for (position, gradient) in
        positions.into_iter().zip([Some(back.dweight), Some(back.dbias), back.dresidual])
    {
        if let Some(i) = position {
            all[i] = gradient;
        }
    }
    Ok(all.into_iter().zip(at.needs).map(|(gradient, &needed)| gradient.filter(|_| needed)).collect())
}

/// The definition, given statistics of each channel.
pub(super) fn normalise<T: Real>(
    inputs: &[Array<T>],
    settings: BatchNorm,
    positions: [Option<usize>; 3],
    mean: &[T],
    variance: &[T],
) -> Array<T> {
    let mut y = inputs[0].clone();
    let channels = mean.len();
    let [weight, bias, residual] = positions.map(|at| at.map(|i| &inputs[i].data));
    for (i, value) in y.data.iter_mut().enumerate() {
        let c = i % channels;
        *value = (*value - mean[c]) / (variance[c] + T::of(f64::from(settings.eps))).sqrt();
        *value = weight.map_or(*value, |w| *value * w[c]);
        *value = bias.map_or(*value, |b| *value + b[c]);
        *value = residual.map_or(*value, |r| *value + r[i]);
        if settings.relu {
            *value = value.max(T::ZERO);
        }
    }
    y
}

/// Mean and biased variance of each channel of x [.., C].
pub(super) fn statistics<T: Real>(x: &Array<T>) -> (Vec<T>, Vec<T>) {
    let channels = x.shape[x.shape.len() - 1];
    let rows = T::of((x.len() / channels) as f64);
    let average = |f: &dyn Fn(usize, T) -> T| {
        let mut sums = vec![T::ZERO; channels];
        x.data.iter().enumerate().for_each(|(i, &v)| sums[i % channels] += f(i % channels, v));
        sums.into_iter().map(|s| s / rows).collect::<Vec<T>>()
    };
    let mean = average(&|_, v| v);
    let variance = average(&|c, v| (v - mean[c]) * (v - mean[c]));
    (mean, variance)
}

impl Reference for BatchNormTrain {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let channels = inputs[0].shape[inputs[0].shape.len() - 1];
        let (mean, variance) = statistics(&inputs[0]);
        let y = normalise(inputs, self.settings, self.optional.positions(1), &mean, &variance);
        vec![y, Array::new(&[channels], mean), Array::new(&[channels], variance)]
    }
}

/// Values around `center`, exact in f32.
pub(super) fn around(shape: &[usize], seed: u64, center: f32, spread: f32) -> Array<f64> {
    Array::random(shape, seed, spread).map(|v: f64| f64::from(v as f32 + center))
}

/// The optional inputs of a case.
pub(super) fn optional_inputs(optional: Optional, shape: &[usize], seed: u64) -> Vec<Input> {
    let channels = &shape[shape.len() - 1..];
    let mut inputs = Vec::new();
    if optional.weight {
        inputs.push(Input::new(around(channels, seed, 1.0, 0.5)).in_f32());
    }
    if optional.bias {
        inputs.push(Input::random(channels, seed + 1, 0.5).in_f32());
    }
    if optional.residual {
        inputs.push(Input::random(shape, seed + 2, 1.0));
    }
    inputs
}

/// Shapes and every combination of optional inputs, with and without ReLU, for both kinds.
pub(super) fn combinations() -> impl Iterator<Item = (&'static [usize], Optional, BatchNorm)> {
    let shapes: [&[usize]; 3] = [&[5, 3], &[2, 3, 3, 7], &[33, 17]];
    shapes.into_iter().flat_map(|shape| {
        Optional::all().flat_map(move |optional| {
            [false, true].map(|relu| (shape, optional, BatchNorm { relu, eps: 1e-5 }))
        })
    })
}

/// Cases of the operation's checks; beside all combinations: one row, one channel, a constant channel, a mean
/// far larger than the deviation.
pub(crate) fn cases() -> Vec<Case> {
    let case = |label: String, x: Array<f64>, settings: BatchNorm, optional: Optional| {
        let mut inputs = optional_inputs(optional, &x.shape, 102);
        inputs.insert(0, Input::new(x));
        Case { gradient_factor: 3.0, ..Case::new(label, BatchNormTrain { settings, optional }, inputs) }
    };
    let full = Optional { weight: true, bias: true, residual: false };
    let plain = BatchNorm { relu: false, eps: 1e-5 };
    let mut cases: Vec<Case> = combinations()
        .map(|(shape, optional, settings)| {
            let flags = (optional.weight, optional.bias, optional.residual, settings.relu);
            let label = format!("{shape:?} weight, bias, residual, relu: {flags:?}");
            case(label, around(shape, 101, 0.5, 2.0), settings, optional)
        })
        .collect();
    cases.push(case("one row".into(), around(&[1, 3], 103, 1.0, 1.0), plain, full));
    cases.push(case("one channel".into(), around(&[8, 1], 104, 1.0, 1.0), plain, full));
    cases.push(case(
        "constant channel".into(),
        around(&[6, 1], 105, 0.5, 0.0),
        BatchNorm { eps: 0.1, ..plain },
        full,
    ));
    cases.push(case("large mean".into(), around(&[64, 5], 106, 1e3, 0.1), plain, full));
    cases
}
