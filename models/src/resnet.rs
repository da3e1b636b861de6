//! Residual networks (He et al. 2016) in torchvision's form: its names, its v1.5 bottleneck.

use crate::encoder::require_block;
use crate::layers::{Activation, BatchNorm, Conv2d, Linear, conv_norms};
use crate::{Initializer, Mode};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::{Error, Result};

/// The residual block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1 down to the planes, 3x3 (with the stride), 1x1 up to four times the planes.
    Bottleneck,
}

impl Block {
    /// Output channels for each plane.
    pub fn expansion(self) -> usize {
        match self {
            Block::Basic => 1,
            Block::Bottleneck => 4,
        }
    }
}

/// What comes before the first stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stem {
    /// 3x3 convolution, stride 1: for images of about 32 pixels.
    Cifar,
    /// 7x7 convolution, stride 2, then 3x3 max-pooling, stride 2.
    ImageNet,
}

/// Everything that a ResNet's structure depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResNetSpec {
    /// The block of all stages.
    pub block: Block,
    /// Blocks in each stage; every stage after the first halves the image and doubles the planes.
    pub stages: Vec<usize>,
    /// Planes of the first stage.
    pub width: usize,
    /// Channels of the stem.
    pub stem_width: usize,
    /// The stem.
    pub stem: Stem,
    /// Channels of the images.
    pub channels: usize,
    /// Outputs of the last linear layer `fc`; `None` leaves it out.
    pub classes: Option<usize>,
    /// Whether blocks start as the identity: the scale of each one's last normalisation is zero at first.
    pub zero_init_residual: bool,
    /// Parts of a training batch that are normalised apart; see [`BatchNorm::in_splits`].
    pub norm_splits: usize,
}

impl ResNetSpec {
    /// Size of a feature vector.
    pub fn dim(&self) -> usize {
        (self.width << self.stages.len().saturating_sub(1)) * self.block.expansion()
    }

    /// A normalisation of this network.
    fn norm(&self, channels: usize, zero: bool) -> Result<BatchNorm> {
        let norm = if zero { BatchNorm::zero_scale(channels)? } else { BatchNorm::new(channels)? };
        Ok(norm.in_splits(self.norm_splits))
    }
}

/// Convolutions with their normalisations, and how the input gets past them.
struct Residual {
    layers: Vec<(Conv2d, BatchNorm)>,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Residual {
    /// A block of `inputs` channels to `planes` times the expansion.
    fn new(
        spec: &ResNetSpec,
        inputs: usize,
        planes: usize,
        stride: usize,
        init: &Initializer,
    ) -> Result<Residual> {
        let outputs = planes * spec.block.expansion();
        // (inputs, outputs, kernel, stride); the padding keeps the size of the image at stride 1.
        let shapes = match spec.block {
            Block::Basic => vec![(inputs, planes, 3, stride), (planes, planes, 3, 1)],
            Block::Bottleneck => {
                vec![(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
            }
        };
        let mut layers = Vec::with_capacity(shapes.len());
        for (i, &(inputs, outputs, kernel, stride)) in shapes.iter().enumerate() {
            let init = init.child(format!("conv{}", i + 1));
            let conv = Conv2d::new(inputs, outputs, kernel, stride, kernel / 2, &init)?;
            let zero = spec.zero_init_residual && i + 1 == shapes.len();
            layers.push((conv, spec.norm(outputs, zero)?));
        }
        let downsample = match stride != 1 || inputs != outputs {
            true => {
                let conv = Conv2d::new(inputs, outputs, 1, stride, 0, &init.child("downsample").child(0))?;
                Some((conv, spec.norm(outputs, false)?))
            }
            false => None,
        };
        Ok(Residual { layers, downsample })
    }

    fn forward(&mut self, x: &Var, mode: Mode) -> Result<Var> {
        let shortcut = match &mut self.downsample {
            Some((conv, norm)) => norm.forward_of(conv, x, Activation::None, mode)?,
            None => x.clone(),
        };
        let mut layers: Vec<_> = self.layers.iter_mut().map(|(conv, norm)| (&*conv, norm)).collect();
        conv_norms(&mut layers, x, Some(&shortcut), Activation::Relu, mode)
    }
}

impl Module for Residual {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        for (i, (conv, norm)) in self.layers.iter_mut().enumerate() {
            conv.visit(&path.child(format!("conv{}", i + 1)), visitor);
            norm.visit(&path.child(format!("bn{}", i + 1)), visitor);
        }
        if let Some((conv, norm)) = &mut self.downsample {
            conv.visit(&path.child("downsample").child(0), visitor);
            norm.visit(&path.child("downsample").child(1), visitor);
        }
    }
}

/// A residual network.
pub struct ResNet {
    spec: ResNetSpec,
    conv1: Conv2d,
    bn1: BatchNorm,
    stages: Vec<Vec<Residual>>,
    fc: Option<Linear>,
}

impl ResNet {
    /// A network with initial weights. Errors if a size in `spec` is zero.
    #[track_caller]
    pub fn new(spec: ResNetSpec, init: &Initializer) -> Result<ResNet> {
        let sizes = [spec.width, spec.stem_width, spec.channels, spec.classes.unwrap_or(1), spec.norm_splits];
        if sizes.contains(&0) || spec.stages.is_empty() || spec.stages.contains(&0) {
            let text =
                "width, channels, classes, splits and the number of blocks in each stage must be at least 1";
            return Err(Error::value("resnet", text).with("spec", &spec));
        }
        let (kernel, stride) = match spec.stem {
            Stem::Cifar => (3, 1),
            Stem::ImageNet => (7, 2),
        };
        let conv1 =
            Conv2d::new(spec.channels, spec.stem_width, kernel, stride, kernel / 2, &init.child("conv1"))?;
        let mut stages = Vec::with_capacity(spec.stages.len());
        let mut inputs = spec.stem_width;
        for (s, &count) in spec.stages.iter().enumerate() {
            let init = init.child(format!("layer{}", s + 1));
            let planes = spec.width << s;
            let mut blocks = Vec::with_capacity(count);
            for b in 0..count {
                let stride = if s > 0 && b == 0 { 2 } else { 1 };
                blocks.push(Residual::new(&spec, inputs, planes, stride, &init.child(b))?);
                inputs = planes * spec.block.expansion();
            }
            stages.push(blocks);
        }
        let fc = match spec.classes {
            Some(classes) => Some(Linear::new(inputs, classes, true, &init.child("fc"))?),
            None => None,
        };
        let bn1 = spec.norm(spec.stem_width, false)?;
        Ok(ResNet { conv1, bn1, stages, fc, spec })
    }

    /// Class scores [B, classes] of images [B, H, W, C]; features where there is no `fc`.
    #[track_caller]
    pub fn forward(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        let features = self.features(images, mode)?;
        match &self.fc {
            Some(fc) => fc.forward(&features),
            None => Ok(features),
        }
    }

    /// Features [B, dim] of images [B, H, W, C]: averages over the last stage's map.
    #[track_caller]
    pub fn features(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        self.stage_features(images, mode, self.stages.len())
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// Averages [B, D] over the map behind stage `stage`, counted from 1; later stages are not computed. An error for a stage
    /// that is not there.
    #[track_caller]
    pub fn stage_features(&mut self, images: &Var, mode: Mode, stage: usize) -> Result<Var> {
        ops::global_avg_pool(&self.stage_map(images, mode, stage)?)
    }

    /// The last stage's map [B, rows, columns, dim] of images [B, H, W, C].
    #[track_caller]
    pub fn map(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        self.stage_map(images, mode, self.stages.len())
    }

    /// The map behind a stage.
    #[track_caller]
    fn stage_map(&mut self, images: &Var, mode: Mode, stage: usize) -> Result<Var> {
        require_block(stage, self.stages.len())?;
        let shape = images.shape();
        if shape.len() != 4 || shape[3] != self.spec.channels {
            let text = format!("images must be [B, H, W, {}], channels last", self.spec.channels);
            return Err(Error::shape("resnet", text).argument("images", images.value()));
        }
        let mut x = self.bn1.forward_of(&self.conv1, images, Activation::Relu, mode)?;
        if self.spec.stem == Stem::ImageNet {
            x = ops::max_pool2d(&x, 3, 2, 1)?;
        }
        for block in self.stages[..stage].iter_mut().flatten() {
            x = block.forward(&x, mode)?;
        }
        Ok(x)
    }

    /// Size of a feature vector.
    pub fn dim(&self) -> usize {
        self.spec.dim()
    }

    /// Layers for layer-wise decay of the learning rate: the stem, each stage, and the last linear layer if there is one.
    pub fn layers(&self) -> usize {
        1 + self.stages.len() + usize::from(self.fc.is_some())
    }

    /// The layer of the parameter with this name: 0 for the stem, s for `layer{s}`, the last for `fc`.
    pub fn layer_of(&self, parameter: &str) -> usize {
        let stage = parameter.strip_prefix("layer").and_then(|rest| rest.split('.').next());
        match stage.and_then(|number| number.parse().ok()) {
            Some(stage) => stage,
            None if parameter.starts_with("fc.") => self.stages.len() + 1,
            None => 0,
        }
    }
}

impl Module for ResNet {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.conv1.visit(&path.child("conv1"), visitor);
        self.bn1.visit(&path.child("bn1"), visitor);
        for (s, blocks) in self.stages.iter_mut().enumerate() {
            let path = path.child(format!("layer{}", s + 1));
            for (b, block) in blocks.iter_mut().enumerate() {
                block.visit(&path.child(b), visitor);
            }
        }
        if let Some(fc) = &mut self.fc {
            fc.visit(&path.child("fc"), visitor);
        }
    }
}
