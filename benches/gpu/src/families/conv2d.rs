//! The three passes of a convolution, NHWC.

use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::{DType, Result};
use kernels::conv2d::{self, Geometry, Sizes};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// Square images and kernels, padded so that stride 1 keeps the size.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conv2d {
    pass: Pass,
    images: usize,
    side: usize,
    channels: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
}

impl Conv2d {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.stride, self.kernel / 2)
    }

    fn input(&self) -> [usize; 4] {
        [self.images, self.side, self.side, self.channels]
    }

    fn weight(&self) -> [usize; 4] {
        [self.filters, self.kernel, self.kernel, self.channels]
    }
}

impl Computation for Conv2d {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let output = conv2d::output_shape(&self.input(), &self.weight(), self.geometry())?;
        Ok(match self.pass {
            Pass::Forward => {
                named([("x", source.uniform(&self.input())?), ("weight", source.uniform(&self.weight())?)])
            }
            Pass::InputGradient => {
                named([("dy", source.uniform(&output)?), ("weight", source.uniform(&self.weight())?)])
            }
            Pass::WeightGradient => {
                named([("x", source.uniform(&self.input())?), ("dy", source.uniform(&output)?)])
            }
        })
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let (a, b, g) = (&inputs[0].1, &inputs[1].1, self.geometry());
        Ok(match self.pass {
            Pass::Forward => named([("y", conv2d::forward(a, b, g)?)]),
            Pass::InputGradient => named([("dx", conv2d::input_gradient(a, b, &self.input(), g)?)]),
            Pass::WeightGradient => named([("dweight", conv2d::weight_gradient(a, b, &self.weight(), g)?)]),
        })
    }

    /// Sizes that do not fit count nothing; making inputs says what is wrong with them.
    fn work(&self, size: usize) -> Work {
        let dtype = if size == 2 { DType::BF16 } else { DType::F32 };
        match Sizes::new("conv2d", &self.input(), &self.weight(), self.geometry()) {
            Ok(sizes) => Work { bytes: conv2d::bytes(&sizes, dtype), flops: conv2d::flops(&sizes) },
            Err(_) => Work { bytes: 0.0, flops: 0.0 },
        }
    }
}
