//! Transposed convolution without a bias: what decoders grow images by.

use crate::Initializer;
use autograd::module::{Path, Visitor};
use autograd::{Module, Param, Var, ops};
use engine::Result;
use kernels::conv2d::Geometry;

/// A square transposed convolution, [B, H, W, in] to [B, H', W', out] with H' = (H - 1) stride - 2 padding + kernel.
pub struct ConvTranspose2d {
    weight: Param,
    geometry: Geometry,
}

impl ConvTranspose2d {
    /// `kernel` x `kernel` taps, weights [in, kernel, kernel, out], normal with variance 2 / (inputs of an output pixel):
    /// kernel^2 / stride^2 of the taps meet it.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        init: &Initializer,
    ) -> Result<ConvTranspose2d> {
        let fan_in = (inputs * kernel * kernel) as f64 / (stride * stride) as f64;
        let weight =
            init.normal("weight", &[inputs, kernel, kernel, outputs], (2.0 / fan_in).sqrt() as f32)?;
        Ok(ConvTranspose2d { weight: Param::kernel(weight), geometry: Geometry::new(stride, padding) })
    }

    /// Twice as many rows and columns: 4 x 4 taps, stride 2.
    pub fn doubling(inputs: usize, outputs: usize, init: &Initializer) -> Result<ConvTranspose2d> {
        ConvTranspose2d::new(inputs, outputs, 4, 2, 1, init)
    }

    /// The transposed convolution of `x`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Result<Var> {
        ops::conv_transpose2d(x, &self.weight.var_as(x.value().dtype())?, self.geometry)
    }
}

impl Module for ConvTranspose2d {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("weight"), &mut self.weight);
    }
}
