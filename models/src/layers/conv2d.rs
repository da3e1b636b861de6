//! Convolution without a bias: in these networks a normalisation follows, which would take it away.

use crate::Initializer;
use autograd::module::{Path, Visitor};
use autograd::{Module, Param, Var, ops};
use engine::Result;
use kernels::conv2d::Geometry;

/// A square convolution, [B, H, W, in] to [B, H', W', out].
pub struct Conv2d {
    weight: Param,
    geometry: Geometry,
}

impl Conv2d {
    /// `kernel` x `kernel` taps, Kaiming-normal weights.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        init: &Initializer,
    ) -> Result<Conv2d> {
        let weight = init.kaiming_normal_fan_out("weight", [outputs, kernel, kernel, inputs])?;
        Ok(Conv2d { weight: Param::kernel(weight), geometry: Geometry::new(stride, padding) })
    }

    /// `kernel` x `kernel` taps (an odd number), `dilation` pixels apart, with stride 1 and padding that keeps the size.
    pub fn dilated(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        dilation: usize,
        init: &Initializer,
    ) -> Result<Conv2d> {
        let Conv2d { weight, .. } = Conv2d::new(inputs, outputs, kernel, 1, 0, init)?;
        let geometry = Geometry { stride: 1, padding: kernel / 2 * dilation, dilation };
        Ok(Conv2d { weight, geometry })
    }

    /// The convolution of `x`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Result<Var> {
        ops::conv2d(x, &self.weight_for(x)?, self.geometry)
    }

    /// The weight in the element type of `x`.
    pub(super) fn weight_for(&self, x: &Var) -> Result<Var> {
        self.weight.var_as(x.value().dtype())
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }
}

impl Module for Conv2d {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("weight"), &mut self.weight);
    }
}
