//! Batch normalisation (Ioffe and Szegedy 2015) with running statistics, fused with what follows it.

use super::Conv2d;
use crate::Mode;
use crate::init::{ones, zeros};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Buffer, Module, Param, Var, ops};
use engine::{Error, Result, Tensor};
use kernels::conv2d::output_shape;
use kernels::elementwise;

/// Weight of the newest batch in the running statistics (PyTorch's `momentum`), unless another is asked for.
const MOMENTUM: f32 = 0.1;
/// Added to variances.
const EPS: f32 = 1e-5;

/// What happens to the normalised value, in the same pass over memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// Nothing.
    None,
    /// The positive part, after the residual is added.
    Relu,
}

/// Normalises the last dimension's channels over all others: images [B, H, W, C] or vectors [B, C].
pub struct BatchNorm {
    weight: Option<Param>,
    bias: Option<Param>,
    running_mean: Buffer,
    running_var: Buffer,
    momentum: f32,
    splits: usize,
}

impl BatchNorm {
    /// Scale 1, shift 0, running mean 0 and variance 1.
    pub fn new(channels: usize) -> Result<BatchNorm> {
        Ok(BatchNorm {
            weight: Some(Param::new(ones(channels)?, Role::Norm)),
            bias: Some(Param::new(zeros(channels)?, Role::Norm)),
            running_mean: Buffer::new(zeros(channels)?),
            running_var: Buffer::new(ones(channels)?),
            momentum: MOMENTUM,
            splits: 1,
        })
    }

    /// With a scale of zero: a residual block that ends so starts as the identity (Goyal et al. 2017, 5.1).
    pub fn zero_scale(channels: usize) -> Result<BatchNorm> {
        let weight = Some(Param::new(zeros(channels)?, Role::Norm));
        Ok(BatchNorm { weight, ..BatchNorm::new(channels)? })
    }

    /// With a scale but no shift, as at the end of SimCLR's projector.
    pub fn without_bias(channels: usize) -> Result<BatchNorm> {
        Ok(BatchNorm { bias: None, ..BatchNorm::new(channels)? })
    }

    /// With neither scale nor shift, as at the end of MoCo v3's projector and in front of MAE's linear probe.
    pub fn plain(channels: usize) -> Result<BatchNorm> {
        Ok(BatchNorm { weight: None, bias: None, ..BatchNorm::new(channels)? })
    }

    /// The same with another weight of the newest batch in the running statistics.
    pub fn with_momentum(self, momentum: f32) -> BatchNorm {
        BatchNorm { momentum, ..self }
    }

    /// The same, which in training cuts a batch into `splits` runs of successive samples and normalises each by its own
    /// statistics, as that many devices would do: a batch that is shuffled cannot tell through them which key belongs to
    /// which query (He et al. 2020, section 3.3). The running statistics move to the average of the parts'.
    pub fn in_splits(self, splits: usize) -> BatchNorm {
        BatchNorm { splits, ..self }
    }

    /// `activation(scale normalised(x) + shift + residual)`.
    ///
    /// In training mode the running statistics move by `momentum` (a tenth of the way unless set) to the batch's, the
    /// variance taken without bias (n - 1), as PyTorch does. Errors there if a channel has fewer than two values, or the
    /// batch is no multiple of the splits.
    #[track_caller]
    pub fn forward(
        &mut self,
        x: &Var,
        residual: Option<&Var>,
        activation: Activation,
        mode: Mode,
    ) -> Result<Var> {
        let weight = self.weight.as_ref().map(Param::var);
        let bias = self.bias.as_ref().map(Param::var);
        let (weight, bias) = (weight.as_ref(), bias.as_ref());
        let relu = activation == Activation::Relu;
        match mode {
            Mode::Evaluate => {
                let (mean, variance) = (self.running_mean.value(), self.running_var.value());
                ops::batch_norm_eval(x, mean, variance, weight, bias, residual, relu, EPS)
            }
            Mode::Train => {
                let count = self.values_each(x.shape())?;
                let settings = ops::BatchNorm { relu, eps: EPS };
                let out = match self.splits {
                    1 => ops::batch_norm(x, weight, bias, residual, settings)?,
                    splits => ops::batch_norm_split(x, weight, bias, residual, settings, splits)?,
                };
                self.follow([&out.mean, &out.variance], count)?;
                Ok(out.y)
            }
        }
    }

    /// [`BatchNorm::forward`] of the convolution of `x`, as a [`conv_norms`] of one layer.
    #[track_caller]
    pub fn forward_of(&mut self, conv: &Conv2d, x: &Var, activation: Activation, mode: Mode) -> Result<Var> {
        conv_norms(&mut [(conv, self)], x, None, activation, mode)
    }

    /// Scale and shift of a normalisation that [`ops::conv2d_batch_norm`] does: it has both, and normalises a batch as one.
    fn affine(&self) -> Option<[Var; 2]> {
        match (self.splits, &self.weight, &self.bias) {
            (1, Some(scale), Some(shift)) => Some([scale.var(), shift.var()]),
            _ => None,
        }
    }

    /// Values that a channel of a training batch of this shape has in each split; an error if they are fewer than two.
    #[track_caller]
    fn values_each(&self, shape: &[usize]) -> Result<usize> {
        let channels = self.running_mean.value().len();
        let count = shape.iter().product::<usize>() / (channels * self.splits).max(1);
        if count < 2 {
            let text = "training needs at least two values a channel: take a larger batch or image";
            let error = Error::shape("batch_norm", text).with("x", shape);
            return Err(error.with("splits", self.splits));
        }
        Ok(count)
    }

    /// Moves the running statistics to mean and variance of a batch with `count` values a channel.
    fn follow(&mut self, [mean, variance]: [&Tensor; 2], count: usize) -> Result<()> {
        let unbiased = count as f32 / (count - 1) as f32;
        average(&mut self.running_mean, mean, self.momentum, 1.0)?;
        average(&mut self.running_var, variance, self.momentum, unbiased)
    }
}

/// Convolutions with their normalisations one after another, with ReLUs between them; at the end the residual is added and the
/// activation follows. In training mode they are one operation where all normalise whole batches, so that a device can leave
/// out passes over memory and need not keep what lies between; results are those of the layers one by one.
#[track_caller]
pub fn conv_norms(
    layers: &mut [(&Conv2d, &mut BatchNorm)],
    x: &Var,
    residual: Option<&Var>,
    activation: Activation,
    mode: Mode,
) -> Result<Var> {
    let affine: Option<Vec<_>> = layers.iter().map(|(_, norm)| norm.affine()).collect();
    let (Mode::Train, Some(affine)) = (mode, affine) else {
        let last = layers.len().saturating_sub(1);
        let mut y = x.clone();
        for (i, (conv, norm)) in layers.iter_mut().enumerate() {
            let (residual, activation) =
                if i == last { (residual, activation) } else { (None, Activation::Relu) };
            y = norm.forward(&conv.forward(&y)?, residual, activation, mode)?;
        }
        return Ok(y);
    };
    let weights = layers.iter().map(|(conv, _)| conv.weight_for(x)).collect::<Result<Vec<_>>>()?;
    let (mut shape, mut counts) = (x.shape().to_vec(), Vec::with_capacity(layers.len()));
    let mut fused = Vec::with_capacity(layers.len());
    for (((conv, norm), weight), [scale, shift]) in layers.iter().zip(&weights).zip(&affine) {
        let geometry = conv.geometry();
        shape = output_shape(&shape, weight.shape(), geometry)?.to_vec();
        counts.push(norm.values_each(&shape)?);
        fused.push(ops::ConvNorm { weight, geometry, scale, shift });
    }
    let settings = ops::BatchNorm { relu: activation == Activation::Relu, eps: EPS };
    let out = ops::conv2d_batch_norm(x, &fused, residual, settings)?;
    for (((_, norm), [mean, variance]), count) in layers.iter_mut().zip(&out.statistics).zip(counts) {
        norm.follow([mean, variance], count)?;
    }
    Ok(out.y)
}

/// `buffer = (1 - momentum) buffer + momentum factor batch`, in place: a captured step finds it where it was.
fn average(buffer: &mut Buffer, batch: &Tensor, momentum: f32, factor: f32) -> Result<()> {
    elementwise::blend_assign(buffer.value_mut(), 1.0 - momentum, batch, momentum * factor)
}

impl Module for BatchNorm {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        if let Some(weight) = &mut self.weight {
            visitor.param(path.name("weight"), weight);
        }
        if let Some(bias) = &mut self.bias {
            visitor.param(path.name("bias"), bias);
        }
        visitor.buffer(path.name("running_mean"), &mut self.running_mean);
        visitor.buffer(path.name("running_var"), &mut self.running_var);
    }
}
