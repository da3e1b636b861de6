//! A product that is added to what is there: weight gradients over micro-batches.

use super::cpu::{self, Mat};
use super::cuda::{self, Sizes};
use crate::cuda::require_float;
use engine::{DType, Device, Error, Result, Tensor, device, memory};

/// `out += a b`: a `[M, K]` and b `[K, N]`, or with `transpose_a` a `[K, M]` and with `transpose_b` b `[N, K]`; out
/// `[M, N]`, always f32.
///
/// a and b are f32; on CUDA devices bf16 too, without a rounding to bf16 between. Errors if shapes or types do not fit, or an
/// argument is not contiguous; `out` is then as it was.
#[track_caller]
pub fn matmul_accumulate(
    a: &Tensor,
    b: &Tensor,
    [transpose_a, transpose_b]: [bool; 2],
    out: &mut Tensor,
) -> Result<()> {
    let name = "matmul_accumulate";
    let _op = memory::operation(name);
    let device = device::common(name, &["a", "b", "out"], &[a, b, out])?;
    require_float(name, "a", a)?;
    b.require_dtype(name, "b", a.dtype())?;
    out.require_dtype(name, "out", DType::F32)?;
    let wrong = |rule: &str| {
        Err(Error::shape(name, rule)
            .argument("a", a)
            .argument("b", b)
            .with("transpose_a", transpose_a)
            .with("transpose_b", transpose_b))
    };
    let (&[a0, a1], &[b0, b1]) = (a.shape(), b.shape()) else {
        return wrong("both must have rank 2");
    };
    let (m, k) = if transpose_a { (a1, a0) } else { (a0, a1) };
    let (inner, n) = if transpose_b { (b1, b0) } else { (b0, b1) };
    if inner != k {
        return wrong("the inner sizes must be equal");
    }
    out.require_shape(name, "out", &[m, n])?;
    let sizes = Sizes { batch: 1, m, n, k, transpose_a, transpose_b };
    match device {
        Device::Cpu => {
            let view = |tensor, transposed: bool, columns: usize| -> Result<Mat<'_>> {
                let (row_stride, column_stride) = if transposed { (1, columns) } else { (columns, 1) };
                Ok(Mat { data: Tensor::as_slice::<f32>(tensor)?, row_stride, column_stride })
            };
            let (a, b) = (view(a, transpose_a, a1)?, view(b, transpose_b, b1)?);
            cpu::gemm(m, n, k, a, b, true, out.as_mut_slice()?, n)
        }
        Device::Cuda(_) => cuda::accumulate(name, sizes, a, b, out),
    }
}
