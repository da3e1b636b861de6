//! `conv2d_batch_norm`: convolutions, each with the batch normalisation behind it and ReLUs between them: the branch of a
//! residual block (He et al. 2016, sections 3.2 and 3.3) with the addition of the shortcut at its end.
//!
//! Results are those of `conv2d` and `batch_norm` one after another. As one operation, a device can sum the channels where
//! a convolution ends, and normalise what the next one reads on the way, so that the normalised maps between them are
//! neither stored nor kept for the backward pass.

use super::batch_norm::{BatchNorm, around, normalise, statistics};
use super::check::{arity, element_type, floats, shape};
use super::conv2d::{Conv2d, Geometry};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply};
use crate::{Op, Spec, Var};
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::{conv2d, norm};

/// A convolution and its normalisation.
#[derive(Debug, Clone, Copy)]
pub struct ConvNorm<'a> {
    /// [O, R, S, I].
    pub weight: &'a Var,
    /// Stride, padding and dilation.
    pub geometry: Geometry,
    /// Scale of the normalised value [O], f32.
    pub scale: &'a Var,
    /// What is added to that [O], f32.
    pub shift: &'a Var,
}

/// Result of [`conv2d_batch_norm`].
#[derive(Debug)]
pub struct Conv2dBatchNormOutput {
    /// The last normalised value.
    pub y: Var,
    /// Mean and biased variance of each layer's channels [O]. No gradient flows into them.
    pub statistics: Vec<[Tensor; 2]>,
}

/// The operation of [`conv2d_batch_norm`]. Inputs are x, the residual if there is one, then weight, scale and shift of each
/// layer.
#[derive(Clone)]
pub struct Conv2dBatchNorm {
    geometries: Vec<Geometry>,
    settings: BatchNorm,
    residual: bool,
}

/// `normalised(conv2d(x, weight)) * scale + shift` for each layer, of the ReLU of the layer before; at the end the residual
/// is added, and `settings.relu` says whether a ReLU follows. Statistics are those of this batch.
///
/// x [N, H, W, I] -> [N, P, Q, O] of the last layer, which is the residual's shape too. An error if there is no layer.
#[track_caller]
pub fn conv2d_batch_norm(
    x: &Var,
    layers: &[ConvNorm<'_>],
    residual: Option<&Var>,
    settings: BatchNorm,
) -> Result<Conv2dBatchNormOutput> {
    let geometries = layers.iter().map(|layer| layer.geometry).collect();
    let op = Conv2dBatchNorm { geometries, settings, residual: residual.is_some() };
    let parameters = layers.iter().flat_map(|layer| [layer.weight, layer.scale, layer.shift]);
    let inputs: Vec<&Var> = [x].into_iter().chain(residual).chain(parameters).collect();
    let mut outputs = apply(op, &inputs)?.into_iter();
    let Some(y) = outputs.next() else {
        return Err(Error::new(ErrorKind::Graph, "conv2d_batch_norm", "has no output"));
    };
    let mut statistics = Vec::with_capacity(layers.len());
    while let (Some(mean), Some(variance)) = (outputs.next(), outputs.next()) {
        statistics.push([mean.into_value(), variance.into_value()]);
    }
    Ok(Conv2dBatchNormOutput { y, statistics })
}

/// What a layer's convolution reads.
enum Source {
    /// A stored map.
    Stored(Tensor),
    /// The result of the convolution before, and the map of its channels that normalises it.
    Normalised { convolved: Tensor, map: Tensor },
}

/// What the forward pass saved of a layer.
struct Kept<'a> {
    /// What the convolution read: a map [N, H, W, I], or numbers [3, I] that make it of the result of the layer before. Of
    /// the first layer only if the gradient of its weight is needed.
    source: Option<&'a Tensor>,
    weight: &'a Tensor,
    convolved: &'a Tensor,
    mean: &'a Tensor,
    variance: &'a Tensor,
    scale: &'a Tensor,
}

/// Whether what is kept are numbers of channels.
fn is_numbers(source: &Tensor) -> bool {
    source.shape().len() == 2
}

impl Conv2dBatchNorm {
    fn layers(&self) -> usize {
        self.geometries.len()
    }

    /// Position of a layer's weight among the inputs; scale and shift follow.
    fn weight(&self, layer: usize) -> usize {
        1 + usize::from(self.residual) + 3 * layer
    }

    /// What the convolution of a layer reads, from the result of the layer before and the map of its channels.
    fn source(&self, layer: usize, weight: &Tensor, convolved: &Tensor, map: Tensor) -> Result<Source> {
        match conv2d::takes_map(convolved, weight, self.geometries[layer]) {
            true => Ok(Source::Normalised { convolved: convolved.clone(), map }),
            false => Ok(Source::Stored(norm::batch_map(convolved, &map, None, true)?)),
        }
    }

    /// What was saved of each layer, and the result if there is a ReLU.
    fn kept<'a>(&self, at: &'a Backward<'_>) -> Result<(Vec<Kept<'a>>, Option<&'a Tensor>)> {
        let mut saved = at.saved.iter();
        let mut take = || {
            let error = || Error::new(ErrorKind::Graph, self.name(), "the forward pass has saved too little");
            saved.next().ok_or_else(error)
        };
        let mut layers = Vec::with_capacity(self.layers());
        for layer in 0..self.layers() {
            let has_source = layer > 0 || at.needs[self.weight(layer)];
            layers.push(Kept {
                source: if has_source { Some(take()?) } else { None },
                weight: take()?,
                convolved: take()?,
                mean: take()?,
                variance: take()?,
                scale: take()?,
            });
        }
        let y = if self.settings.relu { Some(take()?) } else { None };
        Ok((layers, y))
    }

    /// Gradients of a layer's convolution and affine map from that of its normalised value; `behind` is what tells where the
    /// ReLU behind it, if there is one, let values through.
    fn normalisation(
        &self,
        dy: &Tensor,
        kept: &Kept<'_>,
        behind: Option<&Tensor>,
        wants_residual: bool,
    ) -> Result<norm::BatchBackward> {
        let &Kept { convolved, mean, variance, scale, .. } = kept;
        let eps = self.settings.eps;
        match behind {
            Some(map) if is_numbers(map) => {
                norm::batch_backward_of_map(dy, convolved, map, (mean, variance), Some(scale), eps)
            }
            y => {
                let (scale, relu) = (Some(scale), y.is_some());
                norm::batch_backward(dy, convolved, y, mean, variance, scale, relu, wants_residual, true, eps)
            }
        }
    }
}

impl Op for Conv2dBatchNorm {
    fn name(&self) -> &'static str {
        "conv2d_batch_norm"
    }

    fn inputs(&self) -> &'static [&'static str] {
        const NAMES: &[&str] = &[
            "x", "residual", "weight1", "scale1", "shift1", "weight2", "scale2", "shift2", "weight3", "scale3",
            "shift3", "parameter",
        ];
        const PLAIN: &[&str] = &[
            "x", "weight1", "scale1", "shift1", "weight2", "scale2", "shift2", "weight3", "scale3", "shift3",
            "parameter",
        ];
        if self.residual { NAMES } else { PLAIN }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        if self.layers() == 0 {
            return Err(Error::value(self.name(), "needs at least one layer"));
        }
        arity(self, inputs, self.weight(self.layers()))?;
        let mut y = inputs[0].clone();
        let mut statistics = Vec::new();
        for (layer, &geometry) in self.geometries.iter().enumerate() {
            let at = self.weight(layer);
            floats(self, &[y.clone(), inputs[at].clone()], 2)?;
            y = y.with_shape(&conv2d::output_shape(&y.shape, &inputs[at].shape, geometry)?);
            for i in [at + 1, at + 2] {
                element_type(self, i, &inputs[i], DType::F32)?;
                shape(self, i, &inputs[i], &y.shape[3..], "one value an output channel [O]")?;
            }
            statistics.extend([Spec::f32(&y.shape[3..]), Spec::f32(&y.shape[3..])]);
        }
        if self.residual {
            element_type(self, 1, &inputs[1], y.dtype)?;
            shape(self, 1, &inputs[1], &y.shape, "of the result's shape")?;
        }
        Ok([y].into_iter().chain(statistics).collect())
    }

    /// Saves of each layer its weight, its convolution's result, mean, variance and scale; of each but the first, before
    /// these, what its convolution reads: the normalised map, or the [3, C] numbers that make it of the result before. Of
    /// the first x, if the gradient of its weight is needed. At the end y, if there is a ReLU.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let inputs = inputs.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let BatchNorm { relu, eps } = self.settings;
        let mut source = Source::Stored(inputs[0].clone());
        let mut results = Vec::new();
        for (layer, &geometry) in self.geometries.iter().enumerate() {
            let at = self.weight(layer);
            let [weight, scale, shift] = [0, 1, 2].map(|i| &inputs[at + i]);
            let (convolved, sums) = match &source {
                Source::Stored(x) => {
                    if layer > 0 || save.needs(at) {
                        save.save(x);
                    }
                    conv2d::forward_with_sums(x, weight, geometry)?
                }
                Source::Normalised { convolved, map } => {
                    save.save(map);
                    conv2d::forward_of_map(convolved, map, weight, geometry)?
                }
            };
            let norm::BatchStatistics { mean, variance, map } =
                norm::batch_statistics(&convolved, sums.as_ref(), Some(scale), Some(shift), eps)?;
            for tensor in [weight, &convolved, &mean, &variance, scale] {
                save.save(tensor);
            }
            results.extend([mean, variance]);
            if layer + 1 < self.layers() {
                source = self.source(layer + 1, &inputs[self.weight(layer + 1)], &convolved, map)?;
                continue;
            }
            let residual = Some(&inputs[1]).filter(|_| self.residual);
            let y = norm::batch_map(&convolved, &map, residual, relu)?;
            if relu {
                save.save(&y);
            }
            results.insert(0, y);
        }
        Ok(results)
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (kept, y) = self.kept(at)?;
        let mut gradients = vec![None; at.inputs.len()];
        let mut dy = contiguous(at.gradient()?)?;
        for (layer, &geometry) in self.geometries.iter().enumerate().rev() {
            let position = self.weight(layer);
            let this = &kept[layer];
            let before = layer.checked_sub(1).map(|before| kept[before].convolved);
            let (behind, wants_residual) = match kept.get(layer + 1) {
                Some(next) => (next.source, false),
                None => (y, self.residual && at.needs[1]),
            };
            let back = self.normalisation(&dy, this, behind, wants_residual)?;
            let dconvolved = back.dx;
            if wants_residual {
                gradients[1] = back.dresidual;
            }
            for (i, gradient) in [(position + 1, back.dweight), (position + 2, back.dbias)] {
                gradients[i] = Some(gradient).filter(|_| at.needs[i]);
            }
            gradients[position] = at.when(position, || match (this.source, before) {
                (Some(map), Some(x)) if is_numbers(map) => {
                    conv2d::weight_gradient_of_map(x, map, &dconvolved, this.weight.shape(), geometry)
                }
                (Some(x), _) => conv2d::weight_gradient(x, &dconvolved, this.weight.shape(), geometry),
                (None, _) => Err(Error::new(ErrorKind::Graph, self.name(), "x was not saved")),
            })?;
            let first = self.weight(0);
            if !at.needs[0] && !at.needs[first..position].contains(&true) {
                return Ok(gradients);
            }
            let shape = before.map_or(&at.inputs[0].shape[..], Tensor::shape);
            dy = conv2d::input_gradient(&dconvolved, this.weight, shape, geometry)?;
        }
        gradients[0] = Some(dy);
        Ok(gradients)
    }

    fn is_differentiable(&self, output: usize) -> bool {
        output == 0
    }
}

impl Reference for Conv2dBatchNorm {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut y = inputs[0].clone();
        let mut results = Vec::new();
        for (layer, &geometry) in self.geometries.iter().enumerate() {
            let at = self.weight(layer);
            let convolved = Conv2d(geometry).reference(&[y, inputs[at].clone()]).swap_remove(0);
            let (mean, variance) = statistics(&convolved);
            let last = layer + 1 == self.layers();
            let mut normal = vec![convolved, inputs[at + 1].clone(), inputs[at + 2].clone()];
            normal.extend(inputs.get(1).filter(|_| last && self.residual).cloned());
            let positions = [Some(1), Some(2), (normal.len() > 3).then_some(3)];
            let settings = BatchNorm { relu: self.settings.relu || !last, ..self.settings };
            y = normalise(&normal, settings, positions, &mean, &variance);
            results.extend([mean, variance].map(|v| Array::new(&[v.len()], v)));
        }
        results.insert(0, y);
        results
    }
}

/// Cases of the operation's checks: one layer, and two and three as in residual blocks; what tensor cores take (whole packs
/// of channels) and what they do not, also one after the other; strides, dilation, one pixel to one pixel; with and without a
/// residual and a ReLU at the end.
pub(crate) fn cases() -> Vec<Case> {
    /// Outputs, kernel and geometry.
    type Layer = (usize, usize, Geometry);
    let dilated = Geometry { dilation: 2, ..Geometry::new(1, 2) };
    let plain = Geometry::new;
    let layers: [(_, &[Layer], _, _); 9] = [
        ([1, 2, 3, 2], &[(2, 2, plain(1, 1)), (3, 1, plain(2, 0))], true, true),
        ([2, 5, 4, 3], &[(4, 3, plain(2, 1))], true, true),
        ([2, 4, 4, 2], &[(5, 3, dilated)], false, false),
        ([2, 3, 4, 8], &[(8, 3, plain(1, 1))], false, true),
        ([2, 4, 4, 16], &[(24, 1, plain(1, 0))], true, false),
        ([2, 4, 3, 2], &[(3, 3, plain(1, 1)), (2, 3, plain(1, 1))], true, true),
        ([2, 5, 4, 8], &[(16, 3, plain(2, 1)), (8, 3, plain(1, 1))], false, false),
        ([2, 3, 4, 16], &[(8, 1, plain(1, 0)), (8, 3, plain(2, 1)), (16, 1, plain(1, 0))], true, true),
        ([2, 3, 3, 8], &[(8, 3, plain(1, 1)), (5, 1, plain(1, 0)), (8, 3, plain(1, 1))], false, true),
    ];
    layers
        .into_iter()
        .map(|(input, layers, residual, relu)| {
            let geometries = layers.iter().map(|layer| layer.2).collect();
            let op = Conv2dBatchNorm { geometries, settings: BatchNorm { relu, eps: 1e-5 }, residual };
            let mut inputs = vec![Input::random(&input, 151, 1.0)];
            let mut shape = input;
            for (i, &(outputs, kernel, geometry)) in (0u64..).zip(layers) {
                let weight = [outputs, kernel, kernel, shape[3]];
                inputs.push(Input::random(&weight, 152 + 10 * i, 0.3));
                inputs.push(Input::new(around(&[outputs], 153 + 10 * i, 1.0, 0.5)).in_f32());
                inputs.push(Input::random(&[outputs], 154 + 10 * i, 0.5).in_f32());
                shape = conv2d::output_shape(&shape, &weight, geometry).unwrap_or(shape);
            }
            if residual {
                inputs.insert(1, Input::random(&shape, 155, 1.0));
            }
            let label = format!("{input:?} to {shape:?}, {layers:?}, residual, relu: {residual}, {relu}");
            // Every convolution's result is rounded, and every normalised map but the last.
            let roundings = 2 * layers.len() - 1;
            Case { gradient_factor: 3.0, roundings, ..Case::new(label, op, inputs) }
        })
        .collect()
}
