//! Products with what comes before or behind them in the same pass: GELU, its gradient, a bias's gradient.
//!
//! On CUDA devices, for bf16 that tensor cores take, each is one launch (and a second one where a long sum is cut in
//! parts) that gives the same bits as the steps one by one; everywhere else it is those steps.

use super::cuda::Sizes;
use super::mma::{self, Beside};
use super::{linear, matmul};
use crate::{elementwise, reduce};
use engine::{Device, Error, Result, Tensor, memory};

/// `pre = x Wᵀ + b` and `gelu(pre)`, the latter first; `pre` only where it is kept, as backward needs it. Shapes and
/// types as [`linear`].
#[track_caller]
pub fn linear_gelu(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    keep: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let name = "linear_gelu";
    let (k, n) = match (x.shape().last(), weight.shape()) {
        (Some(&k), &[n, inner]) if inner == k => (k, n),
        _ => (0, 0), // the error is linear's
    };
    let m = x.len().checked_div(k).unwrap_or(0);
    let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
    let fits = weight.dtype() == x.dtype()
        && bias.is_none_or(|bias| bias.dtype() == x.dtype() && bias.shape() == [n]);
    if fits
        && is_on_cuda(&[x, weight, bias.unwrap_or(weight)])
        && mma::applies(&sizes, x, weight)
        && let Some(tile) = Beside::Gelu(None).tile(&sizes)
    {
        let _op = memory::operation(name);
        let mut shape = x.shape().to_vec();
        shape.pop();
        shape.push(n);
        let mut y = Tensor::empty(&shape, x.dtype(), x.device())?;
        let mut pre = keep.then(|| Tensor::empty(&shape, x.dtype(), x.device())).transpose()?;
        mma::product_by(name, tile, sizes, x, weight, bias, &mut y, Beside::Gelu(pre.as_mut()))?;
        return Ok((y, pre));
    }
    let pre = linear(x, weight, bias)?;
    Ok((elementwise::gelu(&pre)?, keep.then_some(pre)))
}

/// `(dy W) gelu'(pre)`: the gradient of `pre` where `y = gelu(pre) Wᵀ`; dy `[M, N]`, weight `[N, K]`, pre and the
/// result `[M, K]`. Types as [`matmul`].
#[track_caller]
pub fn matmul_gelu_backward(dy: &Tensor, weight: &Tensor, pre: &Tensor) -> Result<Tensor> {
    let name = "matmul_gelu_backward";
    let (&[m, inner], &[rows, n]) = (dy.shape(), weight.shape()) else {
        return Err(Error::shape(name, "dy and the weight must have rank 2")
            .argument("dy", dy)
            .argument("weight", weight));
    };
    if inner != rows || pre.shape() != [m, n] {
        return Err(Error::shape(name, "dy must be [M, N], the weight [N, K] and pre [M, K]")
            .argument("dy", dy)
            .argument("weight", weight)
            .argument("pre", pre));
    }
    let sizes = Sizes { batch: 1, m, n, k: inner, transpose_a: false, transpose_b: false };
    if is_on_cuda(&[dy, weight, pre])
        && weight.dtype() == dy.dtype()
        && pre.dtype() == dy.dtype()
        && mma::applies(&sizes, dy, weight)
        && let Some(tile) = Beside::GeluBackward(pre).tile(&sizes)
    {
        let _op = memory::operation(name);
        let mut out = Tensor::empty(&[m, n], dy.dtype(), dy.device())?;
        mma::product_by(name, tile, sizes, dy, weight, None, &mut out, Beside::GeluBackward(pre))?;
        return Ok(out);
    }
    elementwise::gelu_backward(&matmul(dy, weight, false, false)?, pre)
}

/// The gradients of a [`linear`]'s weight and bias, `dyᵀ x` and the sums of dy's columns: dy `[M, N]`, x `[M, K]`,
/// results `[N, K]` and `[N]`. Types as [`matmul`].
#[track_caller]
pub fn weight_and_bias_gradient(dy: &Tensor, x: &Tensor) -> Result<[Tensor; 2]> {
    let name = "weight_and_bias_gradient";
    let (&[k, m], &[rows, n]) = (dy.shape(), x.shape()) else {
        return Err(Error::shape(name, "dy and x must have rank 2").argument("dy", dy).argument("x", x));
    };
    let sizes = Sizes { batch: 1, m, n, k, transpose_a: true, transpose_b: false };
    if rows == k && is_on_cuda(&[dy, x]) && x.dtype() == dy.dtype() && mma::applies(&sizes, dy, x) {
        let _op = memory::operation(name);
        let mut dweight = Tensor::empty(&[m, n], dy.dtype(), dy.device())?;
        let mut dbias = Tensor::empty(&[m], dy.dtype(), dy.device())?;
        let beside = Beside::RowSums(&mut dbias);
        if let Some(tile) = beside.tile(&sizes) {
            mma::product_by(name, tile, sizes, dy, x, None, &mut dweight, beside)?;
            return Ok([dweight, dbias]);
        }
    }
    Ok([matmul(dy, x, true, false)?, reduce::sum_rows(dy)?])
}

/// Whether all are on one CUDA device.
fn is_on_cuda(tensors: &[&Tensor]) -> bool {
    let device = tensors[0].device();
    matches!(device, Device::Cuda(_)) && tensors.iter().all(|tensor| tensor.device() == device)
}
