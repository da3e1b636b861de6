//! The head of DINO (Caron et al. 2021) and DINOv2: an MLP to a bottleneck of unit length, and prototypes.

use crate::layers::{Activation, BatchNorm};
use crate::vit::weights;
use crate::{Init, Initializer, Linear, Mode};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use engine::{Device, Error, Result, Tensor};

/// Least length that a vector is divided by.
const EPS: f32 = 1e-12;

/// Sizes and parts of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DinoHeadSpec {
    /// Size of the features that come in.
    pub inputs: usize,
    /// Size of the hidden layers.
    pub hidden: usize,
    /// Size of the vector of unit length.
    pub bottleneck: usize,
    /// Number of prototypes.
    pub outputs: usize,
    /// Linear layers of the MLP, at least 1.
    pub layers: usize,
    /// Whether hidden layers are batch-normalised in front of GELU (DINO's choice for convolutional networks).
    pub norm: bool,
    /// Whether prototypes keep length 1 (DINO's `norm_last_layer`); else their lengths are trained.
    pub fixed_lengths: bool,
}

/// A linear layer of the MLP, and the normalisation behind it.
type Layer = (Linear, Option<BatchNorm>);

/// DINO's head, with its names: `mlp.{i}` as in a PyTorch `Sequential`, and the weight-normed last layer's directions
/// `last_layer.weight_v` [outputs, bottleneck] and lengths `last_layer.weight_g` [outputs, 1].
pub struct DinoHead {
    mlp: Vec<Layer>,
    /// Places of a hidden layer in the `Sequential`.
    stride: usize,
    directions: Param,
    lengths: Param,
}

impl DinoHead {
    /// Weights of the MLP normal with deviation 0.02, biases 0; directions uniform within 1 / sqrt(bottleneck), lengths 1, as
    /// the reference code has them. Errors if a size is zero.
    #[track_caller]
    pub fn new(spec: DinoHeadSpec, init: &Initializer) -> Result<DinoHead> {
        let sizes = [spec.inputs, spec.hidden, spec.bottleneck, spec.outputs, spec.layers];
        if sizes.contains(&0) {
            let text = "every size and the number of layers must be at least 1";
            return Err(Error::value("dino_head", text).with("spec", spec));
        }
        let stride = if spec.norm { 3 } else { 2 };
        let layer = |i: usize| -> Result<Layer> {
            let last = i + 1 == spec.layers;
            let inputs = if i == 0 { spec.inputs } else { spec.hidden };
            let outputs = if last { spec.bottleneck } else { spec.hidden };
            let init = init.child("mlp").child(stride * i);
            let linear = weights::linear(Init::Normal, inputs, outputs, 1, &init)?;
            let norm = (spec.norm && !last).then(|| BatchNorm::new(outputs)).transpose()?;
            Ok((linear, norm))
        };
        let shape = [spec.outputs, spec.bottleneck];
        let directions = init.child("last_layer").uniform_fan_in("weight_v", &shape, spec.bottleneck)?;
        let mut lengths = Param::new(Tensor::full(&[spec.outputs, 1], 1.0, Device::Cpu)?, Role::Norm);
        lengths.set_trainable(!spec.fixed_lengths);
        Ok(DinoHead {
            mlp: (0..spec.layers).map(layer).collect::<Result<_>>()?,
            stride,
            directions: Param::new(directions, Role::Weight),
            lengths,
        })
    }

    /// Scores [B, outputs] of features [B, inputs]: products of the unit vector that the MLP makes with the prototypes.
    #[track_caller]
    pub fn forward(&mut self, x: &Var, mode: Mode) -> Result<Var> {
        let count = self.mlp.len();
        let mut x = x.clone();
        for (i, (linear, norm)) in self.mlp.iter_mut().enumerate() {
            x = linear.forward(&x)?;
            if let Some(norm) = norm {
                x = norm.forward(&x, None, Activation::None, mode)?;
            }
            if i + 1 < count {
                x = ops::gelu(&x)?;
            }
        }
        let dtype = x.value().dtype();
        let x = ops::l2_normalize(&x, EPS)?;
        let directions = ops::l2_normalize(&self.directions.var_as(dtype)?, EPS)?;
        let lengths = ops::cast(&self.lengths.var(), dtype)?;
        ops::linear(&x, &ops::mul(&directions, &ops::expand(&lengths, directions.shape())?)?, None)
    }
}

impl Module for DinoHead {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        let stride = self.stride;
        for (i, (linear, norm)) in self.mlp.iter_mut().enumerate() {
            let path = path.child("mlp");
            linear.visit(&path.child(stride * i), visitor);
            if let Some(norm) = norm {
                norm.visit(&path.child(stride * i + 1), visitor);
            }
        }
        let path = path.child("last_layer");
        visitor.param(path.name("weight_g"), &mut self.lengths);
        visitor.param(path.name("weight_v"), &mut self.directions);
    }
}
