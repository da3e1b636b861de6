//! Networks as encoders: with the description that they are built again from.

use crate::{Arch, Encoder, ImageShape, Mode, ResNet, VisionTransformer, VitInput};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::{Error, Result, Tensor};

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

    fn blocks(&self) -> usize {
        self.network.stages()
    }

    fn block_features(&mut self, images: &Var, block: usize) -> Result<Var> {
        self.network.stage_features(images, Mode::Evaluate, block)
    }

    fn map(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        self.network.map(images, mode)
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

/// A Vision Transformer without its last linear layer.
pub(crate) struct VitEncoder {
    pub network: VisionTransformer,
    pub arch: Arch,
}

impl Module for VitEncoder {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.network.visit(path, visitor);
    }
}

impl Encoder for VitEncoder {
    /// Nothing in it depends on the mode: branches are dropped by [`Encoder::dropped_features`] alone.
    fn features(&mut self, images: &Var, _mode: Mode) -> Result<Var> {
        self.network.features(&VitInput::whole(images))
    }

    fn blocks(&self) -> usize {
        self.network.spec().depth
    }

    fn block_features(&mut self, images: &Var, block: usize) -> Result<Var> {
        ops::mean(&self.network.block_tokens(images, block)?.patches()?, &[1])
    }

    fn map(&mut self, images: &Var, _mode: Mode) -> Result<Var> {
        let [rows, columns] = self.network.patch_embed().grid(images)?;
        let patches = self.network.forward(&VitInput::whole(images))?.patches()?;
        let &[batch, _, width] = patches.shape() else {
            return Err(
                Error::shape("vit", "patch tokens are [B, L, D]").argument("patches", patches.value())
            );
        };
        ops::reshape(&patches, &[batch, rows, columns, width])
    }

    fn dim(&self) -> usize {
        self.network.spec().width
    }

    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn image(&self) -> ImageShape {
        self.network.spec().image
    }

    fn vit(&mut self) -> Option<&mut VisionTransformer> {
        Some(&mut self.network)
    }

    fn drop_rates(&self) -> Vec<f32> {
        self.network.spec().drop_rates()
    }

    fn dropped_features(&mut self, images: &Var, keep: &Tensor) -> Result<Var> {
        self.network.features(&VitInput { keep: Some(keep), ..VitInput::whole(images) })
    }

    fn layers(&self) -> usize {
        self.network.layers()
    }

    fn layer_of(&self, parameter: &str) -> usize {
        self.network.layer_of(parameter)
    }
}
