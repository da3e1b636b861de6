//! Networks as encoders: with the description that they are built again from.

use crate::{Arch, Encoder, ImageShape, Mode, ResNet};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var};
use engine::Result;

/// A ResNet without its last linear layer.
pub(crate) struct ResNetEncoder {
    pub network: ResNet,
    pub arch: Arch,
    pub image: ImageShape,
}

impl Module for ResNetEncoder {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.network.visit(path, visitor);
    }
}

impl Encoder for ResNetEncoder {
    fn features(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        self.network.features(images, mode)
    }

    fn dim(&self) -> usize {
        self.network.dim()
    }

    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn image(&self) -> ImageShape {
        self.image
    }

    fn layers(&self) -> usize {
        self.network.layers()
    }

    fn layer_of(&self, parameter: &str) -> usize {
        self.network.layer_of(parameter)
    }
}
