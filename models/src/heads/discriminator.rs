//! DCGAN's discriminator (Radford et al. 2016): real or made, from an image alone.

use crate::layers::{Activation, BatchNorm, Conv2d, Linear};
use crate::{Initializer, Mode};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::{Error, Result};

/// Slope of LeakyReLU below 0.
const SLOPE: f32 = 0.2;
/// Rows and columns at which halving ends.
const LAST: usize = 4;

/// 4 x 4 convolutions of stride 2 (`width` channels, doubled each time up to 8 times) down to 4 places a side or fewer, each
/// with LeakyReLU of slope 0.2 and, but for the first, batch norm; then a linear layer to one logit.
pub struct Discriminator {
    layers: Vec<(Conv2d, Option<BatchNorm>)>,
    out: Linear,
}

/// x where it is positive, else a fifth of it.
fn leaky_relu(x: &Var) -> Result<Var> {
    ops::add(&ops::scale(x, SLOPE)?, &ops::scale(&ops::relu(x)?, 1.0 - SLOPE)?)
}

impl Discriminator {
    /// For images of `height` x `width` pixels. Errors if a size is 0.
    #[track_caller]
    pub fn new(
        [height, width, channels]: [usize; 3],
        features: usize,
        init: &Initializer,
    ) -> Result<Discriminator> {
        if [height, width, channels, features].contains(&0) {
            return Err(Error::value("discriminator", "sizes must be at least 1"));
        }
        let (mut size, mut inputs, mut outputs) = ([height, width], channels, features);
        let mut layers = Vec::new();
        while size[0].max(size[1]) > LAST && size[0].min(size[1]) >= 2 {
            let conv = Conv2d::new(inputs, outputs, 4, 2, 1, &init.child("conv").child(layers.len()))?;
            let norm = if layers.is_empty() { None } else { Some(BatchNorm::new(outputs)?) };
            layers.push((conv, norm));
            size = size.map(|n| n / 2);
            (inputs, outputs) = (outputs, (2 * outputs).min(8 * features));
        }
        let out = Linear::new(size[0] * size[1] * inputs, 1, true, &init.child("out"))?;
        Ok(Discriminator { layers, out })
    }

    /// The logit [B, 1] that each image [B, H, W, C] is real.
    #[track_caller]
    pub fn forward(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        let mut x = images.clone();
        for (conv, norm) in &mut self.layers {
            x = match norm {
                Some(norm) => norm.forward_of(conv, &x, Activation::None, mode)?,
                None => conv.forward(&x)?,
            };
            x = leaky_relu(&x)?;
        }
        let batch = x.shape()[0];
        let values = x.value().len() / batch.max(1);
        self.out.forward(&ops::reshape(&x, &[batch, values])?)
    }
}

impl Module for Discriminator {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        for (i, (conv, norm)) in self.layers.iter_mut().enumerate() {
            let path = path.child("conv").child(i);
            conv.visit(&path, visitor);
            if let Some(norm) = norm {
                norm.visit(&path.child("norm"), visitor);
            }
        }
        self.out.visit(&path.child("out"), visitor);
    }
}
