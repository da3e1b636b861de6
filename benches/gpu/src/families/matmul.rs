//! Matrix products and linear layers.

use crate::computation::{Computation, Source, Tensors, Work, named};
use engine::{DType, Result};
use kernels::{elementwise, matmul};
use serde::Deserialize;

/// `[M, K] x [K, N]`, either side stored transposed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matmul {
    m: usize,
    n: usize,
    k: usize,
    #[serde(default)]
    transpose_a: bool,
    #[serde(default)]
    transpose_b: bool,
}

/// Work of one product for elements of `size` bytes, by the family's formulas.
fn product(m: usize, n: usize, k: usize, size: usize) -> Work {
    let dtype = if size == 2 { DType::BF16 } else { DType::F32 };
    Work { bytes: matmul::bytes(m, n, k, dtype), flops: matmul::flops(m, n, k) }
}

impl Computation for Matmul {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let Matmul { m, n, k, transpose_a, transpose_b } = *self;
        let a = source.uniform(&if transpose_a { [k, m] } else { [m, k] })?;
        let b = source.uniform(&if transpose_b { [n, k] } else { [k, n] })?;
        Ok(named([("a", a), ("b", b)]))
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let out = matmul::matmul(&inputs[0].1, &inputs[1].1, self.transpose_a, self.transpose_b)?;
        Ok(named([("out", out)]))
    }

    fn work(&self, size: usize) -> Work {
        product(self.m, self.n, self.k, size)
    }
}

/// x [M, K], weight [N, K], bias [N].
fn layer(source: &mut Source, m: usize, n: usize, k: usize) -> Result<Tensors> {
    Ok(named([
        ("x", source.uniform(&[m, k])?),
        ("weight", source.uniform(&[n, k])?),
        ("bias", source.uniform(&[n])?),
    ]))
}

/// `x Wᵀ + b`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Linear {
    m: usize,
    n: usize,
    k: usize,
}

impl Computation for Linear {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        layer(source, self.m, self.n, self.k)
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        Ok(named([("out", matmul::linear(&inputs[0].1, &inputs[1].1, Some(&inputs[2].1))?)]))
    }

    fn work(&self, size: usize) -> Work {
        let Work { bytes, flops } = product(self.m, self.n, self.k, size);
        Work { bytes: bytes + (size * self.n) as f64, flops }
    }
}

/// `gelu(x Wᵀ + b)`, with what the GELU is of kept for the backward pass: the first half of a transformer's MLP.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinearGelu {
    m: usize,
    n: usize,
    k: usize,
}

impl Computation for LinearGelu {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        layer(source, self.m, self.n, self.k)
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let product = matmul::linear(&inputs[0].1, &inputs[1].1, None)?;
        let (out, kept) = elementwise::bias_gelu(&product, &inputs[2].1)?;
        Ok(named([("out", out), ("pre", kept)]))
    }

    /// Both results are written once: the product alone need not be.
    fn work(&self, size: usize) -> Work {
        let Work { bytes, flops } = product(self.m, self.n, self.k, size);
        Work { bytes: bytes + (size * (self.n + self.m * self.n)) as f64, flops }
    }
}
