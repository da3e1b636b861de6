//! What moves memory and little else: the yardsticks for all that is bound by it.

use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::{DType, Result};
use kernels::{copy, elementwise};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// Each element times a number: a copy that computes.
    Scale,
    /// A matrix written transposed.
    Transpose,
    /// To the other of the two float types.
    Cast,
    /// GELU by the error function.
    Gelu,
}

/// Of a matrix [rows, columns].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Elementwise {
    what: What,
    rows: usize,
    columns: usize,
}

impl Computation for Elementwise {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        Ok(named([("x", source.uniform(&[self.rows, self.columns])?)]))
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let x = &inputs[0].1;
        let y = match self.what {
            What::Scale => elementwise::scale(x, 0.5)?,
            What::Transpose => copy::contiguous(&x.transpose(0, 1)?)?,
            What::Cast if x.dtype() == DType::BF16 => copy::cast(x, DType::F32)?,
            // On the CPU, where a cast's operand is f32 in either case, the result is rounded as the device's is.
            What::Cast => copy::cast(x, DType::BF16)?,
            What::Gelu => elementwise::gelu(x)?,
        };
        Ok(named([("y", y)]))
    }

    fn work(&self, size: usize) -> Work {
        let elements = (self.rows * self.columns) as f64;
        let written = if self.what == What::Cast { 6 - size } else { size };
        let flops = if self.what == What::Gelu { 10.0 } else { 1.0 };
        Work { bytes: elements * (size + written) as f64, flops: elements * flops }
    }
}
