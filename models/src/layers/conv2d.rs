//! Convolution without a bias: in these networks a normalisation follows, which would take it away.

use crate::Initializer;
use autograd::module::{Path, Visitor};
use autograd::{Module, Param, Var, ops};
use engine::{Error, Result};
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
        let geometry = Geometry { dilation, ..Geometry::new(1, kernel / 2 * dilation) };
        Ok(Conv2d { weight, geometry })
    }

    /// `kernel` x `kernel` taps in `groups` groups, which must divide `inputs` and `outputs`; depthwise where there are as many groups
    /// as inputs. Weights as [`Conv2d::new`]'s, of a fan-out of all outputs, as PyTorch counts it.
    pub fn grouped(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        groups: usize,
        init: &Initializer,
    ) -> Result<Conv2d> {
        if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            let text = "groups must be at least 1 and divide both inputs and outputs";
            let error = Error::value("Conv2d::grouped", text);
            return Err(error.with("groups", groups).with("inputs", inputs).with("outputs", outputs));
        }
        let Conv2d { weight, geometry } =
            Conv2d::new(inputs / groups, outputs, kernel, stride, padding, init)?;
        Ok(Conv2d { weight, geometry: geometry.in_groups(groups) })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use autograd::module::parts;
    use engine::Tensor;
    use kernels::array::Array;

    /// Group 0's outputs see input channels 0 and 1 alone, group 1's 2 and 3; and there is one kernel an output.
    #[test]
    fn groups_see_their_own_channels() {
        let mut layer = Conv2d::grouped(4, 6, 3, 1, 1, 2, &Initializer::new(1)).unwrap();
        assert_eq!(parts(&mut layer).params[0].1.value().shape(), [6, 3, 3, 2]);
        let x = Array::<f32>::random(&[1, 5, 5, 4], 1, 1.0);
        let mut other = x.clone();
        other.data.iter_mut().skip(3).step_by(4).for_each(|v| *v += 1.0);
        let out = |x: &Array<f32>| {
            let y: Tensor = layer.forward(&Var::constant(x.to_tensor().unwrap())).unwrap().into_value();
            y.to_vec::<f32>().unwrap()
        };
        for (i, (a, b)) in out(&x).into_iter().zip(out(&other)).enumerate() {
            assert_eq!(a != b, i % 6 >= 3, "output channel {}", i % 6);
        }
        for (inputs, outputs, groups) in [(4, 6, 0), (4, 6, 3), (4, 5, 2)] {
            let error =
                Conv2d::grouped(inputs, outputs, 3, 1, 1, groups, &Initializer::new(1)).err().unwrap();
            assert!(error.message().contains("divide both inputs and outputs"), "{error}");
        }
    }
}
