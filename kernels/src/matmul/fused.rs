//! Products with what comes before or behind them in the same pass: activations and their gradients, the end of a residual
//! branch, a bias's gradient.
//!
//! On CUDA devices, for bf16 that tensor cores take, each is one launch (and a second one where a long sum is cut in
//! parts) that gives the same bits as the steps one by one; everywhere else it is those steps.

use super::cuda::Sizes;
use super::mma::{self, Beside};
use super::{linear, matmul};
use crate::{elementwise, reduce};
use engine::{DType, Device, Error, Result, Tensor, memory};

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
    if let Some(layer) = Layer::on_tensor_cores(x, weight, bias)
        && let Some(tile) = Beside::Gelu(None).tile(x.device(), &layer.sizes)
    {
        let _op = memory::operation(name);
        let mut y = layer.empty()?;
        let mut pre = keep.then(|| layer.empty()).transpose()?;
        let beside = Beside::Gelu(pre.as_mut());
        mma::product_by(name, tile, layer.sizes, x, weight, bias, &mut y, beside)?;
        return Ok((y, pre));
    }
    let pre = linear(x, weight, bias)?;
    Ok((elementwise::gelu(&pre)?, keep.then_some(pre)))
}

/// `max(x Wᵀ + b, 0)`; NaN stays NaN. Shapes and types as [`linear`]. Its gradient needs the result alone.
#[track_caller]
pub fn linear_relu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let name = "linear_relu";
    if let Some(layer) = Layer::on_tensor_cores(x, weight, bias)
        && let Some(tile) = Beside::Relu.tile(x.device(), &layer.sizes)
    {
        let _op = memory::operation(name);
        let mut y = layer.empty()?;
        mma::product_by(name, tile, layer.sizes, x, weight, bias, &mut y, Beside::Relu)?;
        return Ok(y);
    }
    elementwise::relu(&linear(x, weight, bias)?)
}

/// What the branch of a residual block is added to, and how: `x + scale keep branch`, as
/// [`elementwise::residual_scale`] has it.
#[derive(Debug, Clone, Copy)]
pub struct Residual<'a> {
    /// `[N, .., C]` of rank 2 or more.
    pub x: &'a Tensor,
    /// f32 `[C]`: a factor a channel; 1 if there is none.
    pub scale: Option<&'a Tensor>,
    /// f32 `[N]`: a factor a sample; 1 if there is none.
    pub keep: Option<&'a Tensor>,
}

/// A residual block's end with the layer before it: the branch `x Wᵀ + b` and `residual.x + scale keep branch`, the latter
/// first; the branch only where it is wanted, as the gradient of the scale needs it. x `[N, .., K]`, weight `[C, K]`, bias
/// `[C]` and results `[N, .., C]`; types as [`linear`].
#[track_caller]
pub fn linear_residual(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Residual<'_>,
    keep_branch: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let name = "linear_residual";
    if let Some(layer) = Layer::on_tensor_cores(x, weight, bias)
        && layer.takes(&residual)
        && let Some(tile) = Beside::Residual(residual, None).tile(x.device(), &layer.sizes)
    {
        let _op = memory::operation(name);
        let mut out = layer.empty()?;
        let mut branch = keep_branch.then(|| layer.empty()).transpose()?;
        let beside = Beside::Residual(residual, branch.as_mut());
        mma::product_by(name, tile, layer.sizes, x, weight, bias, &mut out, beside)?;
        return Ok((out, branch));
    }
    let branch = linear(x, weight, bias)?;
    let out = elementwise::residual_scale(residual.x, &branch, residual.scale, residual.keep)?;
    Ok((out, keep_branch.then_some(branch)))
}

/// `(dy W) gelu'(pre)`: the gradient of `pre` where `y = gelu(pre) Wᵀ`; dy `[M, N]`, weight `[N, K]`, pre and the
/// result `[M, K]`. Types as [`matmul`].
#[track_caller]
pub fn matmul_gelu_backward(dy: &Tensor, weight: &Tensor, pre: &Tensor) -> Result<Tensor> {
    through(
        "matmul_gelu_backward",
        ["dy", "weight", "pre"],
        [dy, weight, pre],
        Beside::GeluBackward(pre),
        elementwise::gelu_backward,
    )
}

/// `dy W` where `hidden > 0`, else 0: the gradient of what ReLU made `hidden` of, where `y = hidden Wᵀ`; dy `[M, N]`,
/// weight `[N, K]`, hidden and the result `[M, K]`. Types as [`matmul`].
#[track_caller]
pub fn matmul_relu_backward(dy: &Tensor, weight: &Tensor, hidden: &Tensor) -> Result<Tensor> {
    through(
        "matmul_relu_backward",
        ["dy", "weight", "hidden"],
        [dy, weight, hidden],
        Beside::ReluBackward(hidden),
        elementwise::relu_backward,
    )
}

/// `dy W` [M, K] and an activation's gradient at `other` [M, K], which is `beside` the product or `after` it.
#[track_caller]
fn through(
    name: &'static str,
    names: [&'static str; 3],
    [dy, weight, other]: [&Tensor; 3],
    beside: Beside<'_>,
    after: fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let wrong = |rule: String| {
        Err(Error::shape(name, rule)
            .argument(names[0], dy)
            .argument(names[1], weight)
            .argument(names[2], other))
    };
    let (&[m, inner], &[rows, n]) = (dy.shape(), weight.shape()) else {
        return wrong("dy and the weight must have rank 2".into());
    };
    if inner != rows || other.shape() != [m, n] {
        return wrong(format!("dy must be [M, N], the weight [N, K] and {} [M, K]", names[2]));
    }
    let sizes = Sizes { batch: 1, m, n, k: inner, transpose_a: false, transpose_b: false };
    if is_on_cuda(&[dy, weight, other])
        && weight.dtype() == dy.dtype()
        && other.dtype() == dy.dtype()
        && mma::applies(&sizes, dy, weight)
        && let Some(tile) = beside.tile(dy.device(), &sizes)
    {
        let _op = memory::operation(name);
        let mut out = Tensor::empty(&[m, n], dy.dtype(), dy.device())?;
        mma::product_by(name, tile, sizes, dy, weight, None, &mut out, beside)?;
        return Ok(out);
    }
    after(&matmul(dy, weight, false, false)?, other)
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
        if let Some(tile) = beside.tile(dy.device(), &sizes) {
            mma::product_by(name, tile, sizes, dy, x, None, &mut dweight, beside)?;
            return Ok([dweight, dbias]);
        }
    }
    Ok([matmul(dy, x, true, false)?, reduce::sum_rows(dy)?])
}

/// A [`linear`] that tensor cores compute.
struct Layer<'a> {
    x: &'a Tensor,
    sizes: Sizes,
}

impl<'a> Layer<'a> {
    /// None for everything else, mistakes among it, which the steps one by one report.
    fn on_tensor_cores(x: &'a Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Option<Layer<'a>> {
        let (&k, &[n, inner]) = (x.shape().last()?, weight.shape()) else { return None };
        let m = x.len().checked_div(k)?;
        let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
        let fits = inner == k
            && weight.dtype() == x.dtype()
            && bias.is_none_or(|bias| bias.dtype() == x.dtype() && bias.shape() == [n])
            && is_on_cuda(&[x, weight, bias.unwrap_or(weight)])
            && mma::applies(&sizes, x, weight);
        fits.then_some(Layer { x, sizes })
    }

    fn shape(&self) -> Vec<usize> {
        let mut shape = self.x.shape().to_vec();
        shape.pop();
        shape.push(self.sizes.n);
        shape
    }

    #[track_caller]
    fn empty(&self) -> Result<Tensor> {
        Tensor::empty(&self.shape(), self.x.dtype(), self.x.device())
    }

    /// Whether its result can be the branch of this residual.
    fn takes(&self, residual: &Residual<'_>) -> bool {
        let shape = self.shape();
        let factor = |factor: Option<&Tensor>, size: usize| {
            factor.is_none_or(|f| {
                f.dtype() == DType::F32 && f.shape() == [size] && f.device() == self.x.device()
            })
        };
        shape.len() >= 2
            && residual.x.shape() == shape
            && residual.x.dtype() == self.x.dtype()
            && residual.x.device() == self.x.device()
            && factor(residual.scale, self.sizes.n)
            && factor(residual.keep, shape[0])
    }
}

/// Whether all are on one CUDA device.
fn is_on_cuda(tensors: &[&Tensor]) -> bool {
    let device = tensors[0].device();
    matches!(device, Device::Cuda(_)) && tensors.iter().all(|tensor| tensor.device() == device)
}
