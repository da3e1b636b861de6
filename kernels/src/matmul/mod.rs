//! Matrix products: `matmul` (batched, either side transposed) and `linear` (`x Wᵀ + b`).
//!
//! `[M, K] x [K, N]` costs `2 M N K` operations ([`flops`]) and moves at least `M K + K N + M N` elements
//! ([`bytes`]). The CPU backend ([`cpu`]) is one register-tiled microkernel that also computes every
//! convolution of [`crate::conv2d`]; so is each of the two
//! loops of the CUDA kernels, `common/tile.cuh` for the ordinary cores and `common/mma_tile.cuh` for tensor cores.

mod accumulate;
#[cfg(test)]
mod accumulate_tests;
pub mod cases;
pub(crate) mod check;
pub mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
mod fused;
#[cfg(test)]
mod fused_tests;
pub(crate) mod ladder;
pub(crate) mod micro;
pub(crate) mod mma;
#[cfg(test)]
mod mma_tests;
pub(crate) mod mma_tile;
pub(crate) mod pack;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod tf32;
#[cfg(test)]
mod tf32_tests;
pub(crate) mod tile;
mod vectors;
pub(crate) mod workloads;

pub use accumulate::matmul_accumulate;
pub use fused::{
    Residual, linear_gelu, linear_relu, linear_residual, matmul_gelu_backward, matmul_relu_backward,
    weight_and_bias_gradient,
};
pub use tf32::{Float32Products, float32_products, set_float32_products};

use crate::cuda::require_float;
use cpu::Mat;
use engine::{DType, Device, Error, Result, Tensor, device, memory};

/// Floating-point operations of one product.
pub fn flops(m: usize, n: usize, k: usize) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64
}

/// Bytes that one product must read and write.
pub fn bytes(m: usize, n: usize, k: usize, dtype: DType) -> f64 {
    dtype.size() as f64 * (m as f64 * k as f64 + k as f64 * n as f64 + m as f64 * n as f64)
}

/// Product over the last two dimensions: `[.., M, K] x [.., K, N] -> [.., M, N]`.
///
/// With `transpose_a`, `a` is `[.., K, M]`; with `transpose_b`, `b` is `[.., N, K]`. Leading dimensions must
/// be equal. f32; on CUDA devices bf16 too, with sums in float32 that are rounded once, and f32 exactly unless
/// [`set_float32_products`] chose otherwise. Errors if shapes or types do not fit, or an argument is not contiguous.
#[track_caller]
pub fn matmul(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
    let _op = memory::operation("matmul");
    let device = device::common("matmul", &["a", "b"], &[a, b])?;
    require_float("matmul", "a", a)?;
    b.require_dtype("matmul", "b", a.dtype())?;
    let wrong = |rule: &str| {
        Err(Error::shape("matmul", rule)
            .argument("a", a)
            .argument("b", b)
            .with("transpose_a", transpose_a)
            .with("transpose_b", transpose_b))
    };
    let rank = a.rank();
    if rank < 2 || b.rank() != rank {
        return wrong("both must have the same rank, at least 2");
    }
    let (batch, [a0, a1]) = (&a.shape()[..rank - 2], [a.shape()[rank - 2], a.shape()[rank - 1]]);
    let [b0, b1] = [b.shape()[rank - 2], b.shape()[rank - 1]];
    if b.shape()[..rank - 2] != *batch {
        return wrong("the leading dimensions must be equal");
    }
    let (m, k) = if transpose_a { (a1, a0) } else { (a0, a1) };
    let (inner, n) = if transpose_b { (b1, b0) } else { (b0, b1) };
    if inner != k {
        return wrong("the inner sizes must be equal");
    }
    let mut shape = batch.to_vec();
    shape.extend([m, n]);
    let mut out = Tensor::empty(&shape, a.dtype(), device)?;
    match device {
        Device::Cuda(_) => {
            let batch = batch.iter().product();
            let sizes = cuda::Sizes { batch, m, n, k, transpose_a, transpose_b };
            cuda::product("matmul", sizes, a, b, None, &mut out)?;
        }
        Device::Cpu => {
            let view = |transposed: bool, columns: usize| {
                if transposed { (1, columns) } else { (columns, 1) }
            };
            let (a_row, a_column) = view(transpose_a, a1);
            let (b_row, b_column) = view(transpose_b, b1);
            let (x, y, z) = (a.as_slice::<f32>()?, b.as_slice::<f32>()?, out.as_mut_slice::<f32>()?);
            for i in 0..batch.iter().product() {
                let a =
                    Mat { data: &x[i * m * k..(i + 1) * m * k], row_stride: a_row, column_stride: a_column };
                let b =
                    Mat { data: &y[i * k * n..(i + 1) * k * n], row_stride: b_row, column_stride: b_column };
                cpu::gemm(m, n, k, a, b, false, &mut z[i * m * n..(i + 1) * m * n], n)?;
            }
        }
    }
    Ok(out)
}

/// `x Wᵀ + b`: x `[.., K]`, weight `[N, K]`, bias `[N]`, result `[.., N]`.
///
/// Types as [`matmul`]; a bf16 result is rounded once, after the bias. Errors if shapes or types do not fit, or an argument
/// is not contiguous.
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let _op = memory::operation("linear");
    let device = device::common("linear", &["x", "weight", "bias"], &[x, weight, bias.unwrap_or(weight)])?;
    require_float("linear", "x", x)?;
    weight.require_dtype("linear", "weight", x.dtype())?;
    let k = match (x.shape().last(), weight.shape()) {
        (Some(&k), &[_, inner]) if inner == k => k,
        _ => {
            return Err(Error::shape("linear", "x must be [.., K] and weight [N, K]")
                .argument("x", x)
                .argument("weight", weight));
        }
    };
    let n = weight.shape()[0];
    if let Some(bias) = bias {
        bias.require_dtype("linear", "bias", x.dtype())?;
        bias.require_shape("linear", "bias", &[n])?;
    }
    let mut shape = x.shape().to_vec();
    shape.pop();
    let m: usize = shape.iter().product();
    shape.push(n);
    let mut out = Tensor::empty(&shape, x.dtype(), device)?;
    match device {
        Device::Cuda(_) => {
            let sizes = cuda::Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
            cuda::product("linear", sizes, x, weight, bias, &mut out)?;
        }
        Device::Cpu => {
            let a = Mat { data: x.as_slice::<f32>()?, row_stride: k, column_stride: 1 };
            let b = Mat { data: weight.as_slice::<f32>()?, row_stride: 1, column_stride: k };
            let out = out.as_mut_slice::<f32>()?;
            if let Some(bias) = bias {
                cpu::fill_rows(bias.as_slice::<f32>()?, out);
            }
            cpu::gemm(m, n, k, a, b, bias.is_some(), out, n)?;
        }
    }
    Ok(out)
}
