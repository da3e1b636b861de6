//! Images cut into patches, each a token.

use super::spec::VitSpec;
use crate::init::zeros;
use crate::{Init, Initializer};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use engine::{Error, Result};
use kernels::conv2d::Geometry;

/// A linear map of the pixels of each square patch: a convolution whose stride is its kernel's size.
pub struct PatchEmbed {
    weight: Param,
    bias: Param,
    patch: usize,
    channels: usize,
}

impl PatchEmbed {
    pub(super) fn new(spec: &VitSpec, init: &Initializer) -> Result<PatchEmbed> {
        let init = init.child("proj");
        let (patch, channels, width) = (spec.patch, spec.image.channels, spec.width);
        let (shape, inputs) = ([width, patch, patch, channels], patch * patch * channels);
        let weight = match spec.init {
            Init::Normal => init.uniform_fan_in("weight", &shape, inputs)?,
            Init::Xavier | Init::XavierSplit => init.xavier_uniform("weight", &shape, inputs, width)?,
        };
        let bias = Param::new(zeros(width)?, Role::Bias);
        Ok(PatchEmbed { weight: Param::kernel(weight), bias, patch, channels })
    }

    /// Rows and columns of patches of images [B, H, W, C]. Errors unless H and W are multiples of the patch.
    #[track_caller]
    pub fn grid(&self, images: &Var) -> Result<[usize; 2]> {
        let patch = self.patch;
        match *images.shape() {
            [_, h, w, c] if c == self.channels && h * w > 0 && h % patch == 0 && w % patch == 0 => {
                Ok([h / patch, w / patch])
            }
            _ => {
                let rule = format!(
                    "images must be [B, H, W, {}], channels last, with H and W multiples of the patch, {patch}",
                    self.channels
                );
                Err(Error::shape("vit", rule).argument("images", images.value()))
            }
        }
    }

    /// Embeddings [B L, D] of the L patches of each of images [B, H, W, C], row by row.
    #[track_caller]
    pub fn forward(&self, images: &Var) -> Result<Var> {
        let dtype = images.value().dtype();
        let geometry = Geometry::new(self.patch, 0);
        let map = ops::conv2d(images, &self.weight.var_as(dtype)?, geometry)?;
        let [b, h, w, d] = [0, 1, 2, 3].map(|i| map.shape()[i]);
        ops::add_bias(&ops::reshape(&map, &[b * h * w, d])?, &self.bias.var_as(dtype)?)
    }
}

impl Module for PatchEmbed {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        let path = path.child("proj");
        visitor.param(path.name("weight"), &mut self.weight);
        visitor.param(path.name("bias"), &mut self.bias);
    }
}
