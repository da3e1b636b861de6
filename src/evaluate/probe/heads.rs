//! Linear layers that are trained together by SGD or LARS: one pass over the features serves all inputs and rates.

use super::protocol::{Recipe, Scaling};
use super::scale::{Affine, Scaler};
use super::{Labelled, Linear};
use engine::random::Purpose;
use engine::{DType, Device, Philox, Result, Tensor};
use kernels::optim::{self, Hold, LarsVariant, Slot, Step, StepCount};
use kernels::{copy, matmul, reduce, softmax_xent};

const MOMENTUM: f32 = 0.9;
/// LARS's trust coefficient in MAE.
const TRUST: f32 = 0.001;

/// A layer with its optimiser state.
struct Layer {
    rate: f32,
    weight: Tensor,
    bias: Tensor,
    weight_momentum: Tensor,
    bias_momentum: Tensor,
}

/// Layers on the same features.
struct Group {
    scaler: Scaler,
    layers: Vec<Layer>,
}

/// A trained layer and what is done to features before it.
pub(super) struct TrainedLayer {
    pub affine: Option<Affine>,
    pub linear: Linear,
}

/// Trains one layer for each input and each of `rates`: the outer list is of inputs, in which sample i is the same.
///
/// Layers do not know of each other, so that a layer becomes the same alone and among others (but for rounding).
pub(super) fn train(
    inputs: &[Labelled],
    classes: usize,
    rates: &[f32],
    recipe: &Recipe,
    seed: u64,
) -> Result<Vec<Vec<TrainedLayer>>> {
    let mut groups = Vec::with_capacity(inputs.len());
    for (i, input) in inputs.iter().enumerate() {
        // Layers on the same features start alike.
        let initial = initial(&[classes, input.dim], recipe.initial, seed, i)?;
        let layers = rates.iter().map(|&rate| Layer::new(rate, &initial)).collect::<Result<_>>()?;
        groups.push(Group { scaler: Scaler::new(recipe.scaling, input)?, layers });
    }
    let labels = inputs.first().map_or(&[][..], |input| &input.labels);
    let (n, batch) = (labels.len(), recipe.batch);
    // Statistics of a batch need a whole one.
    let whole = recipe.scaling == Scaling::BatchNorm && n >= batch;
    let steps_per_epoch = if whole { n / batch } else { n.div_ceil(batch) };
    let total = steps_per_epoch * recipe.epochs;
    let mut order = Vec::new();
    for step in 0..total {
        let (epoch, k) = (step / steps_per_epoch, step % steps_per_epoch);
        if k == 0 {
            order = Philox::new(seed, Purpose::Probe, epoch as u64).permutation(n);
        }
        let rows = &order[k * batch..((k + 1) * batch).min(n)];
        let index: Vec<i32> = rows.iter().map(|&i| i as i32).collect();
        let index = Tensor::from_slice(&index, &[rows.len()])?;
        let target: Vec<i32> =
            rows.iter().flat_map(|&i| std::iter::repeat_n(labels[i], rates.len())).collect();
        let target = Tensor::from_slice(&target, &[target.len()])?;
        let factor = recipe.schedule.factor(step, total) as f32;
        for group in &mut groups {
            group.step(&index, &target, classes, factor, step as u64, recipe.lars)?;
        }
    }
    groups.into_iter().map(Group::finish).collect()
}

/// Normal weights of deviation `deviation`, or zeros.
fn initial(shape: &[usize], deviation: f32, seed: u64, input: usize) -> Result<Tensor> {
    // Epochs count from 0; this stream is none of theirs.
    let mut random = Philox::new(seed, Purpose::Probe, u64::MAX - 1 - input as u64);
    let draw = |_| if deviation > 0.0 { deviation * random.normal() } else { 0.0 };
    let values: Vec<f32> = (0..shape.iter().product()).map(draw).collect();
    Tensor::from_slice(&values, shape)
}

impl Layer {
    fn new(rate: f32, weight: &Tensor) -> Result<Layer> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu);
        let classes = weight.shape()[0];
        Ok(Layer {
            rate,
            weight: weight.duplicate()?,
            bias: zeros(&[classes])?,
            weight_momentum: zeros(weight.shape())?,
            bias_momentum: zeros(&[classes])?,
        })
    }
}

impl Group {
    /// One step of all layers on the rows `index` [B] with `target` [B layers]; `factor` is the schedule's.
    fn step(
        &mut self,
        index: &Tensor,
        target: &Tensor,
        classes: usize,
        factor: f32,
        step: u64,
        lars: bool,
    ) -> Result<()> {
        let (x, count, rows) = (self.scaler.batch(index)?, self.layers.len(), index.len());
        let weights: Vec<&Tensor> = self.layers.iter().map(|layer| &layer.weight).collect();
        let biases: Vec<&Tensor> = self.layers.iter().map(|layer| &layer.bias).collect();
        // [B, layers V], which is [B layers, V].
        let logits = matmul::linear(&x, &copy::cat(&weights, 0)?, Some(&copy::cat(&biases, 0)?))?;
        let logits = logits.reshape(&[rows * count, classes])?;
        let target = softmax_xent::Target::Labels(target);
        let (_, lse) = softmax_xent::forward(&logits, target, 0.0)?;
        let upstream = Tensor::full(&[rows * count], 1.0 / rows as f32, Device::Cpu)?;
        let dlogits = softmax_xent::backward(&upstream, &logits, target, 0.0, &lse)?;
        let dlogits = dlogits.reshape(&[rows, count * classes])?;
        let (dw, db) = (matmul::matmul(&dlogits, &x, true, false)?, reduce::sum_rows(&dlogits)?);
        let part = |of: &Tensor, i: usize| copy::contiguous(&of.narrow(0, i * classes, classes)?);
        let gradients = (0..count).map(|i| Ok([part(&dw, i)?, part(&db, i)?])).collect::<Result<Vec<_>>>()?;
        let mut slots = Vec::with_capacity(2 * count);
        for (layer, [dw, db]) in self.layers.iter_mut().zip(&gradients) {
            let slot = |value, gradient, first, adapt| Slot {
                value,
                gradient,
                first,
                second: None,
                low: None,
                average: None,
                weight_decay: 0.0,
                rate_scale: layer.rate,
                adapt,
                hold: Hold::None,
            };
            slots.push(slot(&mut layer.weight, dw, &mut layer.weight_momentum, true));
            slots.push(slot(&mut layer.bias, db, &mut layer.bias_momentum, false));
        }
        let before = StepCount::Value(step);
        match lars {
            true => optim::lars(&mut slots, &Step::at(factor), MOMENTUM, TRUST, LarsVariant::Byol, before),
            false => optim::sgd(&mut slots, &Step::at(factor), MOMENTUM, false, before),
        }
    }

    fn finish(self) -> Result<Vec<TrainedLayer>> {
        let affine = self.scaler.finish();
        let layer = |layer: Layer| TrainedLayer {
            affine: affine.clone(),
            linear: Linear::Single { weight: layer.weight, bias: layer.bias },
        };
        Ok(self.layers.into_iter().map(layer).collect())
    }
}
