//! Multi-head scaled dot-product attention over packed queries, keys and values, as Vision Transformers use it.
//!
//! qkv is [B, T, 3, H, D]: the result of one linear layer from [B, T, C] to [B, T, 3 C], C = H D, seen under another
//! shape. For each sample, head and token t, over the keys s that are seen:
//!
//! ```text
//! x_ts = scale q_t . k_s      lse_t = log sum_s exp(x_ts)      p_ts = exp(x_ts - lse_t)      out_t = sum_s p_ts v_s
//! ```
//!
//! Keys from the sample's number of valid tokens on are not seen: the tokens behind are padding, whose values, NaN
//! included, reach nothing. Their own rows of the result are computed as all others. A mask is added to x; where it is minus
//! infinity the key is not seen. A row that sees no key, or whose scores are all minus infinity, has result 0, lse minus
//! infinity and gradients 0. NaN in a query stays in its row; in a key or a value it reaches all rows of its head.
//! On tensor cores scores below -3.7e8 are as minus infinity, and one above 3.7e8 makes its row NaN.
//!
//! Must move, in elements: forward 4 B T H D and B H T of lse; backward 8 B T H D (qkv, out, dout read, dqkv written)
//! and lse; and a mask. FLOPs: [`flops`]. bf16 in head sizes that are a multiple of 8 runs on tensor cores. On CUDA devices nothing
//! of size T x T is in global memory; the CPU has one head's matrix a thread.

pub mod cases;
pub(crate) mod check;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod ladder;
pub mod reference;
#[cfg(test)]
mod softmax_tests;
pub(crate) mod tensor_core;
#[cfg(test)]
mod tensor_core_tests;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// B, T, H and D of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// B
    pub samples: usize,
    /// T
    pub tokens: usize,
    /// H
    pub heads: usize,
    /// D
    pub size: usize,
}

impl Sizes {
    /// Samples times heads.
    pub fn pairs(&self) -> usize {
        self.samples * self.heads
    }

    /// Whether there is nothing to compute.
    fn is_empty(&self) -> bool {
        self.pairs() * self.tokens == 0
    }

    fn qkv(&self) -> [usize; 5] {
        [self.samples, self.tokens, 3, self.heads, self.size]
    }

    fn out(&self) -> [usize; 4] {
        [self.samples, self.tokens, self.heads, self.size]
    }

    fn lse(&self) -> [usize; 3] {
        [self.samples, self.heads, self.tokens]
    }

    /// FLOPs of `products` matrix products of T x D with D x T, or T x T with T x D, in each head.
    fn flops(&self, products: f64) -> f64 {
        products * 2.0 * (self.pairs() * self.size) as f64 * (self.tokens as f64).powi(2)
    }
}

/// FLOPs that attention needs where all keys are seen: two products of T x T x D a head forward, five backward.
pub fn flops(samples: usize, tokens: usize, heads: usize, size: usize) -> (f64, f64) {
    let sizes = Sizes { samples, tokens, heads, size };
    (sizes.flops(2.0), sizes.flops(5.0))
}

/// The scale that a call means: 1 / sqrt(D) unless one is given.
pub fn scale_of(scale: Option<f32>, size: usize) -> f32 {
    scale.unwrap_or((1.0 / (size as f64).sqrt()) as f32)
}

/// What a call's scores are made of beside queries and keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scores<'a> {
    /// How many tokens of each sample are keys: i32 [B]; all if absent.
    pub valid: Option<&'a Tensor>,
    /// Added to the scaled scores: f32 [1 or B, 1 or H, T, T], of queries and keys. It gets no gradient.
    pub mask: Option<&'a Tensor>,
    /// 1 / sqrt(D) if absent.
    pub scale: Option<f32>,
}

/// The sizes and the scale, if qkv and what is said of the scores are what they must be.
#[track_caller]
fn checked(operation: &str, qkv: &Tensor, scores: Scores) -> Result<(Sizes, f32)> {
    let Scores { valid, mask, scale } = scores;
    require_float(operation, "qkv", qkv)?;
    let &[samples, tokens, 3, heads, size] = qkv.shape() else {
        return Err(Error::shape(operation, "qkv must be [B, T, 3, H, D]").argument("qkv", qkv));
    };
    if size == 0 {
        return Err(Error::shape(operation, "the head size D must be at least 1").argument("qkv", qkv));
    }
    let scale = scale_of(scale, size);
    if !scale.is_finite() {
        return Err(Error::value(operation, "the scale must be finite").with("scale", scale));
    }
    if let Some(valid) = valid {
        valid.require_dtype(operation, "valid", DType::I32)?;
        valid.require_shape(operation, "valid", &[samples])?;
    }
    if let Some(mask) = mask {
        mask.require_dtype(operation, "mask", DType::F32)?;
        let fits = |n: usize, all: usize| n == 1 || n == all;
        match *mask.shape() {
            [b, h, t, s] if fits(b, samples) && fits(h, heads) && [t, s] == [tokens; 2] => {}
            _ => {
                let text = "the mask must be [1 or B, 1 or H, T, T]";
                return Err(Error::shape(operation, text).argument("mask", mask).argument("qkv", qkv));
            }
        }
    }
    Ok((Sizes { samples, tokens, heads, size }, scale))
}

/// The numbers of valid tokens on the CPU; an error for one outside 0 ..= T.
#[track_caller]
fn lengths<'a>(operation: &str, valid: Option<&'a Tensor>, tokens: usize) -> Result<Option<&'a [i32]>> {
    let Some(valid) = valid else { return Ok(None) };
    let lengths = valid.as_slice::<i32>()?;
    match lengths.iter().position(|&n| n < 0 || n as usize > tokens) {
        None => Ok(Some(lengths)),
        Some(i) => Err(Error::value(
            operation,
            format!("sample {i} has {} valid tokens, which must lie in 0 to {tokens}", lengths[i]),
        )
        .argument("valid", valid)),
    }
}

/// Attention of qkv [B, T, 3, H, D]: `(out [B, T, H, D], lse [B, H, T])`.
///
/// qkv is f32 (on CUDA devices bf16 too), contiguous; out has its type, lse is f32.
///
/// Errors: shapes, types or devices that do not fit; on CUDA devices D above 128; on the CPU a number of valid tokens
/// outside 0 ..= T, which on CUDA devices makes the sample's results NaN.
#[track_caller]
pub fn forward(qkv: &Tensor, scores: Scores) -> Result<(Tensor, Tensor)> {
    const OP: &str = "attention";
    let _op = memory::operation(OP);
    let (sizes, scale) = checked(OP, qkv, scores)?;
    let Scores { valid, mask, .. } = scores;
    let device = common(OP, &["qkv", "valid", "mask"], &[qkv, valid.unwrap_or(qkv), mask.unwrap_or(qkv)])?;
    let mut out = Tensor::empty(&sizes.out(), qkv.dtype(), device)?;
    let mut lse = Tensor::empty(&sizes.lse(), DType::F32, device)?;
    match device {
        Device::Cpu => {
            let valid = lengths(OP, valid, sizes.tokens)?;
            let mask = mask.map(cpu::Mask::new).transpose()?;
            let problem = cpu::Problem { qkv: qkv.as_slice()?, sizes, valid, mask, scale };
            cpu::forward(&problem, out.as_mut_slice()?, lse.as_mut_slice()?)?;
        }
        Device::Cuda(_) => cuda::forward(qkv, scores, sizes, scale, &mut out, &mut lse)?,
    }
    Ok((out, lse))
}

/// What [`backward`] needs of the forward pass. The CPU, which has the weights again, needs neither out nor lse.
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    /// The input [B, T, 3, H, D].
    pub qkv: &'a Tensor,
    /// As given.
    pub scores: Scores<'a>,
    /// The result [B, T, H, D].
    pub out: &'a Tensor,
    /// f32 [B, H, T], as returned.
    pub lse: &'a Tensor,
}

/// Gradient of [`forward`]'s out with respect to qkv, times `dout` [B, T, H, D]: [B, T, 3, H, D].
///
/// Element types and errors as [`forward`]; dout has qkv's type. On CUDA devices the weights come from lse, whose
/// rounding is a relative error of |lse| 2^-24 in them; on the CPU it does not matter.
#[track_caller]
pub fn backward(dout: &Tensor, of: Forward) -> Result<Tensor> {
    const OP: &str = "attention_backward";
    let _op = memory::operation("attention");
    let Forward { qkv, scores, out, lse } = of;
    let (sizes, scale) = checked(OP, qkv, scores)?;
    let Scores { valid, mask, .. } = scores;
    for (name, x) in [("dout", dout), ("out", out)] {
        x.require_dtype(OP, name, qkv.dtype())?;
        x.require_shape(OP, name, &sizes.out())?;
    }
    lse.require_dtype(OP, "lse", DType::F32)?;
    lse.require_shape(OP, "lse", &sizes.lse())?;
    let names = ["dout", "qkv", "valid", "mask", "out", "lse"];
    let tensors = [dout, qkv, valid.unwrap_or(qkv), mask.unwrap_or(qkv), out, lse];
    let device = common(OP, &names, &tensors)?;
    let mut dqkv = Tensor::empty(&sizes.qkv(), qkv.dtype(), device)?;
    match device {
        Device::Cpu => {
            let valid = lengths(OP, valid, sizes.tokens)?;
            let mask = mask.map(cpu::Mask::new).transpose()?;
            let problem = cpu::Problem { qkv: qkv.as_slice()?, sizes, valid, mask, scale };
            cpu::backward(&problem, dout.as_slice()?, dqkv.as_mut_slice()?)?;
        }
        Device::Cuda(_) => cuda::backward(dout, of, sizes, scale, &mut dqkv)?,
    }
    Ok(dqkv)
}
