//! Projection heads: linear layers with batch normalisation.

use crate::layers::{Activation, BatchNorm, Linear};
use crate::{Initializer, Mode};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var};
use engine::{Error, Result};

/// Sizes of a projection head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MlpSpec {
    /// Size of the features that come in.
    pub inputs: usize,
    /// Size of the hidden layers.
    pub hidden: usize,
    /// Size of what comes out.
    pub outputs: usize,
    /// Number of linear layers, at least 1.
    pub layers: usize,
}

/// SimCLR's projector (Chen et al. 2020; google-research/simclr): each linear layer, without a bias, is
/// followed by batch normalisation; hidden ones by ReLU too; the last normalisation has a scale, no shift.
///
/// Names are those of a PyTorch `Sequential`: linear layer i is `3i`, its normalisation `3i + 1`.
pub struct Mlp {
    layers: Vec<(Linear, BatchNorm)>,
}

impl Mlp {
    /// A head of the given sizes. Errors if one is zero.
    #[track_caller]
    pub fn new(spec: MlpSpec, init: &Initializer) -> Result<Mlp> {
        if [spec.inputs, spec.hidden, spec.outputs, spec.layers].contains(&0) {
            return Err(Error::value("projector", "every size and the number of layers must be at least 1")
                .with("spec", spec));
        }
        let layer = |i: usize| {
            let last = i + 1 == spec.layers;
            let inputs = if i == 0 { spec.inputs } else { spec.hidden };
            let outputs = if last { spec.outputs } else { spec.hidden };
            let linear = Linear::new(inputs, outputs, false, &init.child(3 * i))?;
            let norm = if last { BatchNorm::without_bias(outputs)? } else { BatchNorm::new(outputs)? };
            Ok((linear, norm))
        };
        Ok(Mlp { layers: (0..spec.layers).map(layer).collect::<Result<_>>()? })
    }

    /// Projections [B, outputs] of features [B, inputs].
    #[track_caller]
    pub fn forward(&mut self, x: &Var, mode: Mode) -> Result<Var> {
        let count = self.layers.len();
        let mut x = x.clone();
        for (i, (linear, norm)) in self.layers.iter_mut().enumerate() {
            let activation = if i + 1 == count { Activation::None } else { Activation::Relu };
            x = norm.forward(&linear.forward(&x)?, None, activation, mode)?;
        }
        Ok(x)
    }
}

impl Module for Mlp {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        for (i, (linear, norm)) in self.layers.iter_mut().enumerate() {
            linear.visit(&path.child(3 * i), visitor);
            norm.visit(&path.child(3 * i + 1), visitor);
        }
    }
}
