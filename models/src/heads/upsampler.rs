//! A decoder that grows an encoder's map: dilated convolutions, transposed convolutions that double it, then values for each
//! place.

use crate::layers::{Activation, BatchNorm, Conv2d, ConvTranspose2d, Linear};
use crate::{Initializer, Mode};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::{Error, Result};

/// Sizes of an [`Upsampler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpsamplerSpec {
    /// Channels of the map that comes in.
    pub inputs: usize,
    /// 3 x 3 convolutions of dilation 2 in front: they see 4 more rows and columns each, and keep the map's size.
    pub dilated: usize,
    /// Channels of the first layers; each doubling after the first halves them, down to 8.
    pub width: usize,
    /// How often rows and columns are doubled.
    pub doublings: usize,
    /// Values a place.
    pub outputs: usize,
}

/// [B, h, w, inputs] to [B, h 2^d, w 2^d, outputs]: dilated 3 x 3 convolutions, d times a transposed 4 x 4 convolution of stride 2
/// (or one 3 x 3 convolution where d is 0), each with batch norm and ReLU; then a 3 x 3 convolution with the same, then a linear
/// layer.
pub struct Upsampler {
    dilated: Vec<(Conv2d, BatchNorm)>,
    grow: Vec<(Grow, BatchNorm)>,
    smooth: (Conv2d, BatchNorm),
    out: Linear,
}

enum Grow {
    Double(ConvTranspose2d),
    Keep(Conv2d),
}

impl Upsampler {
    /// A decoder with initial weights. Errors if a size is 0.
    #[track_caller]
    pub fn new(spec: &UpsamplerSpec, init: &Initializer) -> Result<Upsampler> {
        if [spec.inputs, spec.width, spec.outputs].contains(&0) {
            return Err(Error::value("upsampler", "sizes must be at least 1").with("spec", spec));
        }
        let (mut inputs, mut width) = (spec.inputs, spec.width);
        let mut dilated = Vec::new();
        for i in 0..spec.dilated {
            let layer = Conv2d::dilated(inputs, width, 3, 2, &init.child("dilated").child(i))?;
            dilated.push((layer, BatchNorm::new(width)?));
            inputs = width;
        }
        let mut grow = Vec::new();
        for i in 0..spec.doublings.max(1) {
            let init = init.child("grow").child(i);
            if i > 0 {
                width = (width / 2).max(width.min(8));
            }
            let layer = match spec.doublings {
                0 => Grow::Keep(Conv2d::new(inputs, width, 3, 1, 1, &init)?),
                _ => Grow::Double(ConvTranspose2d::doubling(inputs, width, &init)?),
            };
            grow.push((layer, BatchNorm::new(width)?));
            inputs = width;
        }
        let smooth = (Conv2d::new(width, width, 3, 1, 1, &init.child("smooth"))?, BatchNorm::new(width)?);
        Ok(Upsampler {
            dilated,
            grow,
            smooth,
            out: Linear::new(width, spec.outputs, true, &init.child("out"))?,
        })
    }

    /// The values of all places.
    #[track_caller]
    pub fn forward(&mut self, map: &Var, mode: Mode) -> Result<Var> {
        let mut x = map.clone();
        for (layer, norm) in &mut self.dilated {
            x = norm.forward_of(layer, &x, Activation::Relu, mode)?;
        }
        for (layer, norm) in &mut self.grow {
            x = match layer {
                Grow::Double(layer) => norm.forward(&layer.forward(&x)?, None, Activation::Relu, mode)?,
                Grow::Keep(layer) => norm.forward_of(layer, &x, Activation::Relu, mode)?,
            };
        }
        let (conv, norm) = &mut self.smooth;
        x = norm.forward_of(conv, &x, Activation::Relu, mode)?;
        let &[b, h, w, c] = x.shape() else {
            return Err(
                Error::shape("upsampler", "the map must be [B, H, W, C]").argument("map", map.value())
            );
        };
        let values = self.out.forward(&ops::reshape(&x, &[b * h * w, c])?)?;
        let outputs = values.shape()[1];
        ops::reshape(&values, &[b, h, w, outputs])
    }
}

impl Module for Upsampler {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        for (i, (layer, norm)) in self.dilated.iter_mut().enumerate() {
            let path = path.child("dilated").child(i);
            layer.visit(&path, visitor);
            norm.visit(&path.child("norm"), visitor);
        }
        for (i, (layer, norm)) in self.grow.iter_mut().enumerate() {
            let path = path.child("grow").child(i);
            match layer {
                Grow::Double(layer) => layer.visit(&path, visitor),
                Grow::Keep(layer) => layer.visit(&path, visitor),
            }
            norm.visit(&path.child("norm"), visitor);
        }
        self.smooth.0.visit(&path.child("smooth"), visitor);
        self.smooth.1.visit(&path.child("smooth").child("norm"), visitor);
        self.out.visit(&path.child("out"), visitor);
    }
}
