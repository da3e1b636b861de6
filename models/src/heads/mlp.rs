//! Projection and prediction heads: linear layers with normalisations and ReLU between them.

use crate::layers::{Activation, BatchNorm, Linear};
use crate::{Initializer, Mode};
use autograd::module::{Path, Visitor};
use autograd::ops::HiddenActivation;
use autograd::{Module, Var, ops};
use engine::{Error, Result};

/// How the last layer's output is batch-normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputNorm {
    /// It is not.
    None,
    /// With a scale, without a shift.
    Scale,
    /// With neither.
    Plain,
}

/// Sizes and parts of a head. Hidden layers end in ReLU, the last does not.
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
    /// Whether hidden linear layers have a bias.
    pub hidden_bias: bool,
    /// Whether hidden layers are batch-normalised, before ReLU.
    pub hidden_norm: bool,
    /// Whether the last linear layer has a bias.
    pub output_bias: bool,
    /// How its output is normalised.
    pub output_norm: OutputNorm,
}

impl MlpSpec {
    /// SimCLR's projector (Chen et al. 2020; google-research/simclr): every layer is normalised, the last without a shift.
    pub fn simclr(inputs: usize, hidden: usize, outputs: usize, layers: usize) -> MlpSpec {
        MlpSpec {
            inputs,
            hidden,
            outputs,
            layers,
            hidden_bias: false,
            hidden_norm: true,
            output_bias: false,
            output_norm: OutputNorm::Scale,
        }
    }

    /// MoCo's first projector (He et al. 2020; facebookresearch/moco): one linear layer.
    pub fn moco_v1(inputs: usize, outputs: usize) -> MlpSpec {
        MlpSpec { layers: 1, ..MlpSpec::moco_v2(inputs, outputs) }
    }

    /// MoCo v2's projector (Chen et al. 2020; facebookresearch/moco --mlp): two linear layers, nothing normalised.
    pub fn moco_v2(inputs: usize, outputs: usize) -> MlpSpec {
        MlpSpec {
            inputs,
            hidden: inputs,
            outputs,
            layers: 2,
            hidden_bias: true,
            hidden_norm: false,
            output_bias: true,
            output_norm: OutputNorm::None,
        }
    }

    /// MoCo v3's projector and predictor (Chen et al. 2021; facebookresearch/moco-v3): no biases, hidden layers normalised,
    /// the output, if at all, without scale and shift.
    pub fn moco_v3(
        inputs: usize,
        hidden: usize,
        outputs: usize,
        layers: usize,
        output_norm: bool,
    ) -> MlpSpec {
        let output_norm = if output_norm { OutputNorm::Plain } else { OutputNorm::None };
        MlpSpec { output_norm, ..MlpSpec::simclr(inputs, hidden, outputs, layers) }
    }

    /// BYOL's projector and predictor (Grill et al. 2020; deepmind-research/byol): a hidden layer with a bias and a
    /// normalisation, an output with neither.
    pub fn byol(inputs: usize, hidden: usize, outputs: usize) -> MlpSpec {
        let spec = MlpSpec::simclr(inputs, hidden, outputs, 2);
        MlpSpec { hidden_bias: true, output_norm: OutputNorm::None, ..spec }
    }
}

/// A head.
///
/// Names are those of a PyTorch `Sequential`: linear layer i is `3i` and its normalisation `3i + 1`, or, where hidden layers
/// are not normalised, linear layer i is `2i`.
pub struct Mlp {
    layers: Vec<(Linear, Option<BatchNorm>)>,
    /// Places of a layer in the `Sequential`.
    stride: usize,
}

impl Mlp {
    /// A head as `spec` says. Errors if a size is zero.
    #[track_caller]
    pub fn new(spec: MlpSpec, init: &Initializer) -> Result<Mlp> {
        if [spec.inputs, spec.hidden, spec.outputs, spec.layers].contains(&0) {
            return Err(Error::value("projector", "every size and the number of layers must be at least 1")
                .with("spec", spec));
        }
        let stride = if spec.hidden_norm { 3 } else { 2 };
        let layer = |i: usize| {
            let last = i + 1 == spec.layers;
            let inputs = if i == 0 { spec.inputs } else { spec.hidden };
            let outputs = if last { spec.outputs } else { spec.hidden };
            let bias = if last { spec.output_bias } else { spec.hidden_bias };
            let linear = Linear::new(inputs, outputs, bias, &init.child(stride * i))?;
            let norm = match (last, spec.output_norm) {
                (false, _) => spec.hidden_norm.then(|| BatchNorm::new(outputs)).transpose()?,
                (true, OutputNorm::None) => None,
                (true, OutputNorm::Scale) => Some(BatchNorm::without_bias(outputs)?),
                (true, OutputNorm::Plain) => Some(BatchNorm::plain(outputs)?),
            };
            Ok((linear, norm))
        };
        Ok(Mlp { layers: (0..spec.layers).map(layer).collect::<Result<_>>()?, stride })
    }

    /// What the head makes of features [B, inputs]: [B, outputs].
    #[track_caller]
    pub fn forward(&mut self, x: &Var, mode: Mode) -> Result<Var> {
        if let [(first, None), (second, None)] = &self.layers[..] {
            let dtype = x.value().dtype();
            if let ((weight1, Some(bias1)), (weight2, Some(bias2))) =
                (first.vars_as(dtype)?, second.vars_as(dtype)?)
            {
                let (first, second) = ([&weight1, &bias1], [&weight2, &bias2]);
                return ops::mlp(x, first, second, HiddenActivation::Relu);
            }
        }
        let count = self.layers.len();
        let mut x = x.clone();
        for (i, (linear, norm)) in self.layers.iter_mut().enumerate() {
            let last = i + 1 == count;
            let y = linear.forward(&x)?;
            x = match norm {
                Some(norm) => {
                    let activation = if last { Activation::None } else { Activation::Relu };
                    norm.forward(&y, None, activation, mode)?
                }
                None if last => y,
                None => ops::relu(&y)?,
            };
        }
        Ok(x)
    }
}

impl Module for Mlp {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        let stride = self.stride;
        for (i, (linear, norm)) in self.layers.iter_mut().enumerate() {
            linear.visit(&path.child(stride * i), visitor);
            if let Some(norm) = norm {
                norm.visit(&path.child(stride * i + 1), visitor);
            }
        }
    }
}
