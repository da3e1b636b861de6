//! One result element from the same element of each input: sums, products, ReLU, GELU, SwiGLU.
//!
//! All are bound by memory: [`bytes`] is what must move, and each element costs a few FLOPs (GELU about 40,
//! still below the time of its bytes on a CPU with wide vectors and two or more threads on its memory).

pub mod cases;
pub(crate) mod check;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
mod fused;
pub mod reference;
mod swiglu;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod workloads;

pub use fused::{bias_gelu, bias_relu, residual_scale, residual_scale_backward};
pub use swiglu::{swiglu, swiglu_backward};

use crate::cuda::{Typed, require_float};
use engine::device::common;
use engine::{DType, Device, Result, Tensor, memory};

/// Bytes that must move for `elements` results from `inputs` inputs of f32: each read once, the result
/// written once.
pub fn bytes(elements: usize, inputs: usize) -> usize {
    4 * elements * (inputs + 1)
}

#[track_caller]
fn unary(
    name: &'static str,
    x: &Tensor,
    on_cpu: impl Fn(&[f32], &mut [f32]),
    on_cuda: &'static Typed,
    s: f32,
) -> Result<Tensor> {
    let _op = memory::operation(name);
    require_float(name, "x", x)?;
    match x.device() {
        Device::Cpu => {
            let values = x.as_slice::<f32>()?;
            let mut out = Tensor::empty(x.shape(), DType::F32, x.device())?;
            on_cpu(values, out.as_mut_slice()?);
            Ok(out)
        }
        Device::Cuda(_) => cuda::unary(name, on_cuda, x, s),
    }
}

#[track_caller]
fn binary(
    name: &'static str,
    names: [&str; 2],
    a: &Tensor,
    b: &Tensor,
    on_cpu: impl Fn(&[f32], &[f32], &mut [f32]),
    on_cuda: &'static Typed,
    s: f32,
) -> Result<Tensor> {
    let _op = memory::operation(name);
    require_float(name, names[0], a)?;
    b.require_dtype(name, names[1], a.dtype())?;
    b.require_shape(name, names[1], a.shape())?;
    match common(name, &names, &[a, b])? {
        Device::Cpu => {
            let (left, right) = (a.as_slice::<f32>()?, b.as_slice::<f32>()?);
            let mut out = Tensor::empty(a.shape(), DType::F32, a.device())?;
            on_cpu(left, right, out.as_mut_slice()?);
            Ok(out)
        }
        Device::Cuda(_) => cuda::binary(name, on_cuda, a, b, s),
    }
}

/// a + b. Shapes must be equal; f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary("add", ["a", "b"], a, b, cpu::add, &cuda::ADD, 0.0)
}

/// a - b. Shapes must be equal; f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn sub(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary("sub", ["a", "b"], a, b, cpu::sub, &cuda::SUB, 0.0)
}

/// a * b, element by element. Shapes must be equal; f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary("mul", ["a", "b"], a, b, cpu::mul, &cuda::MUL, 0.0)
}

/// s * x. f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn scale(x: &Tensor, s: f32) -> Result<Tensor> {
    unary("scale", x, |x, out| cpu::scale(x, s, out), &cuda::SCALE, s)
}

/// a + s * b. Shapes must be equal; f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn add_scaled(a: &Tensor, b: &Tensor, s: f32) -> Result<Tensor> {
    let on_cpu = |a: &[f32], b: &[f32], out: &mut [f32]| cpu::add_scaled(a, b, s, out);
    binary("add_scaled", ["a", "b"], a, b, on_cpu, &cuda::ADD_SCALED, s)
}

/// max(x, 0); NaN stays NaN. f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn relu(x: &Tensor) -> Result<Tensor> {
    unary("relu", x, cpu::relu, &cuda::RELU, 0.0)
}

/// Gradient of [`relu`] from its result: dy where y > 0, else 0. Shapes must be equal; f32 (on CUDA devices bf16 too),
/// contiguous.
#[track_caller]
pub fn relu_backward(dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    binary("relu_backward", ["dy", "y"], dy, y, cpu::relu_backward, &cuda::RELU_BWD, 0.0)
}

/// x Phi(x), Phi the normal distribution function: GELU in its exact form (Hendrycks and Gimpel, "Gaussian
/// error linear units", 2016). f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    unary("gelu", x, cpu::gelu, &cuda::GELU, 0.0)
}

/// Gradient of [`gelu`] from its input: dy (Phi(x) + x phi(x)), phi the normal density. Shapes must be equal;
/// f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn gelu_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    binary("gelu_backward", ["dy", "x"], dy, x, cpu::gelu_backward, &cuda::GELU_BWD, 0.0)
}

/// tanh(x). f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    unary("tanh", x, cpu::tanh, &cuda::TANH, 0.0)
}

/// Gradient of [`tanh`] from its input: dy (1 - tanh(x)^2), without cancellation. Shapes must be equal; f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn tanh_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    binary("tanh_backward", ["dy", "x"], dy, x, cpu::tanh_backward, &cuda::TANH_BWD, 0.0)
}

/// The natural logarithm; minus infinity at 0, NaN below. f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn ln(x: &Tensor) -> Result<Tensor> {
    unary("ln", x, cpu::ln, &cuda::LN, 0.0)
}

/// a := a + b in place. Shapes must be equal; f32 (on CUDA devices bf16 too), contiguous.
///
/// Other tensors that share a's storage keep the old values (see [`Tensor`]).
#[track_caller]
pub fn add_assign(a: &mut Tensor, b: &Tensor) -> Result<()> {
    let name = "add_assign";
    let _op = memory::operation(name);
    require_float(name, "a", a)?;
    b.require_dtype(name, "b", a.dtype())?;
    b.require_shape(name, "b", a.shape())?;
    match common(name, &["a", "b"], &[a, b])? {
        Device::Cpu => {
            let right = b.as_slice::<f32>()?;
            cpu::add_assign(a.as_mut_slice()?, right);
            Ok(())
        }
        Device::Cuda(_) => cuda::add_assign(a, b),
    }
}

/// a := keep a + factor b in place, for running averages. Shapes must be equal; f32 (on CUDA devices bf16 too),
/// contiguous.
///
/// Other tensors that share a's storage keep the old values (see [`Tensor`]); while a graph is captured there must be
/// none, or it would write to a copy.
#[track_caller]
pub fn blend_assign(a: &mut Tensor, keep: f32, b: &Tensor, factor: f32) -> Result<()> {
    let name = "blend_assign";
    let _op = memory::operation(name);
    require_float(name, "a", a)?;
    b.require_dtype(name, "b", a.dtype())?;
    b.require_shape(name, "b", a.shape())?;
    match common(name, &["a", "b"], &[a, b])? {
        Device::Cpu => {
            let right = b.as_slice::<f32>()?;
            cpu::blend_assign(a.as_mut_slice()?, keep, right, factor);
            Ok(())
        }
        Device::Cuda(_) => cuda::blend_assign(a, keep, b, factor),
    }
}

/// x + bias for every row: x [.., N], bias [N] -> [.., N]. f32 (on CUDA devices bf16 too), contiguous.
#[track_caller]
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let name = "add_bias";
    let _op = memory::operation(name);
    require_float(name, "x", x)?;
    bias.require_dtype(name, "bias", x.dtype())?;
    let Some(&n) = x.shape().last() else {
        return Err(engine::Error::shape(name, "x needs at least one dimension").argument("x", x));
    };
    bias.require_shape(name, "bias", &[n])?;
    match common(name, &["x", "bias"], &[x, bias])? {
        Device::Cpu => {
            let (values, row) = (x.as_slice::<f32>()?, bias.as_slice::<f32>()?);
            let mut out = Tensor::empty(x.shape(), DType::F32, x.device())?;
            cpu::add_bias(values, row, out.as_mut_slice()?);
            Ok(out)
        }
        Device::Cuda(_) => cuda::add_bias(x, bias),
    }
}
