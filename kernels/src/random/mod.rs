//! Tensors of random numbers, made in parallel.
//!
//! Element i depends on (seed, purpose, index, i) alone: it is a function of Philox4x32-10 blocks whose counters
//! are known from i, so that any number of threads, or another device, gives the same numbers. On CUDA devices [`words`]
//! and [`uniform`] are the CPU's bits; the others agree but for the last bits of the device's logarithms, sines, cosines and
//! exponentials, and a candidate of [`truncated_normal`] that lies that near its bound may be decided otherwise.
//! [`uniform`] and the even elements of [`normal`] are the numbers that [`engine::Philox`] gives one after another.
//! Bound by computing: 4 bytes an element are written, nothing is read.

pub mod cases;
pub(crate) mod check;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use engine::random::Purpose;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// Bytes that must move: each element written once.
pub fn bytes(elements: usize) -> usize {
    4 * elements
}

/// An empty tensor if its elements need at most 2^32 Philox blocks of `per_block` elements each.
#[track_caller]
fn prepare(
    name: &'static str,
    shape: &[usize],
    per_block: u128,
    dtype: DType,
    device: Device,
) -> Result<Tensor> {
    let elements = shape.iter().fold(1u128, |n, &s| n.saturating_mul(s as u128));
    let limit = per_block << 32;
    if elements > limit {
        let text = format!("at most {limit} elements have numbers of their own: make several tensors");
        return Err(Error::value(name, text).with("shape", shape));
    }
    Tensor::empty(shape, dtype, device)
}

#[track_caller]
fn finite(name: &'static str, values: &[(&'static str, f32)]) -> Result<()> {
    match values.iter().find(|v| !v.1.is_finite()) {
        None => Ok(()),
        Some(v) => Err(Error::value(name, format!("{} must be finite", v.0)).with(v.0, v.1)),
    }
}

/// The words of the stream (seed, purpose, index) as they are, in i32: element i is the i-th
/// [`engine::Philox::next_u32`]. At most 2^34 elements.
#[track_caller]
pub fn words(shape: &[usize], seed: u64, purpose: Purpose, index: u64, device: Device) -> Result<Tensor> {
    let name = "words";
    let _op = memory::operation(name);
    let mut out = prepare(name, shape, 4, DType::I32, device)?;
    let stream = cpu::Stream { seed, purpose: purpose as u32, index };
    match device {
        Device::Cpu => cpu::words(out.as_mut_slice()?, stream),
        Device::Cuda(_) => cuda::words(&mut out, stream)?,
    }
    Ok(out)
}

/// Uniform in [low, high), in f32 on any device: element i is low + (high - low) u, u the i-th
/// [`engine::Philox::uniform`] of the stream (seed, purpose, index). At most 2^34 elements.
#[track_caller]
pub fn uniform(
    shape: &[usize],
    low: f32,
    high: f32,
    seed: u64,
    purpose: Purpose,
    index: u64,
    device: Device,
) -> Result<Tensor> {
    let name = "uniform";
    let _op = memory::operation(name);
    finite(name, &[("low", low), ("high", high), ("high - low", high - low)])?;
    let mut out = prepare(name, shape, 4, DType::F32, device)?;
    let stream = cpu::Stream { seed, purpose: purpose as u32, index };
    match device {
        Device::Cpu => cpu::uniform(out.as_mut_slice()?, low, high, stream),
        Device::Cuda(_) => cuda::uniform(&mut out, low, high, stream)?,
    }
    Ok(out)
}

/// Normal with mean `mean` and standard deviation `std` (Box and Muller, 1958): with u and v the uniforms 2p and
/// 2p + 1 of the stream and r = sqrt(-2 ln(1 - u)), element 2p is mean + std r cos(2 pi v) and element 2p + 1 is
/// mean + std r sin(2 pi v). At most 2^34 elements.
#[track_caller]
pub fn normal(
    shape: &[usize],
    mean: f32,
    std: f32,
    seed: u64,
    purpose: Purpose,
    index: u64,
    device: Device,
) -> Result<Tensor> {
    let name = "normal";
    let _op = memory::operation(name);
    finite(name, &[("mean", mean), ("std", std)])?;
    let mut out = prepare(name, shape, 4, DType::F32, device)?;
    let stream = cpu::Stream { seed, purpose: purpose as u32, index };
    match device {
        Device::Cpu => cpu::normal(out.as_mut_slice()?, mean, std, stream),
        Device::Cuda(_) => cuda::normal(&mut out, mean, std, stream)?,
    }
    Ok(out)
}

/// std z, z normal with mean 0 and variance 1 under the condition |z| <= `bound_in_std`, by rejection.
///
/// Element i has its own candidates: block i of the stream in which the attempt is added to the purpose from bit
/// 16 on. From a bound of 1 on, a block's four words make four normal values (two pairs as in [`normal`]) and the
/// first inside the bound is taken; below, its two pairs of uniforms (u, v) make z = (2u - 1) bound, accepted if
/// v < exp(-z^2 / 2). At most 2^32 elements. An error unless the bound is above 0.
#[track_caller]
pub fn truncated_normal(
    shape: &[usize],
    std: f32,
    bound_in_std: f32,
    seed: u64,
    purpose: Purpose,
    index: u64,
    device: Device,
) -> Result<Tensor> {
    let name = "truncated_normal";
    let _op = memory::operation(name);
    finite(name, &[("std", std), ("bound_in_std", bound_in_std)])?;
    if bound_in_std <= 0.0 {
        return Err(Error::value(name, "the bound must be above 0").with("bound_in_std", bound_in_std));
    }
    let mut out = prepare(name, shape, 1, DType::F32, device)?;
    let stream = cpu::Stream { seed, purpose: purpose as u32, index };
    match device {
        Device::Cpu => cpu::truncated_normal(out.as_mut_slice()?, std, bound_in_std, stream),
        Device::Cuda(_) => cuda::truncated_normal(&mut out, std, bound_in_std, stream)?,
    }
    Ok(out)
}
