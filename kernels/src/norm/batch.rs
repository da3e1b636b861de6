//! Launchers of batch normalisation (Ioffe and Szegedy, 2015).

use super::batch_backward_cuda::Mask;
use super::columns::stride;
use super::{
    TileSums, batch_backward_cuda, batch_cuda, cpu, one_device, require, require_parameter, rows_of, values,
};
use engine::{DType, Device, Error, Result, Tensor, memory};

/// Result of [`batch_forward`].
#[derive(Debug, Clone)]
pub struct BatchForward {
    /// The normalised tensor, shape of x.
    pub y: Tensor,
    /// Mean of each channel [C].
    pub mean: Tensor,
    /// Biased variance (divided by the number of rows) of each channel [C].
    pub variance: Tensor,
}

/// Result of [`batch_statistics`].
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean of each channel [C].
    pub mean: Tensor,
    /// Biased variance of each channel [C].
    pub variance: Tensor,
    /// What they make of each channel, in f32: mean, scale and offset, [3, C rounded up to a multiple of 4].
    pub map: Tensor,
}

/// Result of [`batch_backward`].
#[derive(Debug, Clone)]
pub struct BatchBackward {
    /// Gradient of x.
    pub dx: Tensor,
    /// Gradient of the weight [C].
    pub dweight: Tensor,
    /// Gradient of the bias [C].
    pub dbias: Tensor,
    /// Gradient of the residual, where there is one: dy behind the ReLU's mask. Without a ReLU it is dy itself.
    pub dresidual: Option<Tensor>,
}

/// y = relu?((x - mean) / sqrt(variance + eps) * weight + bias + residual?) with each channel's own mean and
/// biased variance over all rows.
///
/// x [.., C], weight and bias [C] (1 and 0 if absent), residual as x. An error if there is no row.
///
/// On the CPU all tensors are f32. On CUDA devices x, residual and y may be bf16; weight, bias and statistics are f32
/// always.
#[track_caller]
pub fn batch_forward(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    relu: bool,
    eps: f32,
) -> Result<BatchForward> {
    let name = "batch_norm";
    let _op = memory::operation(name);
    rows_of(name, x)?;
    if let Some(r) = residual {
        require(name, "residual", r, x.dtype(), x.shape())?;
        one_device(name, &[("x", Some(x)), ("residual", residual)])?;
    }
    let BatchStatistics { mean, variance, map } = batch_statistics(x, None, weight, bias, eps)?;
    let y = batch_map(x, &map, residual, relu)?;
    Ok(BatchForward { y, mean, variance })
}

/// The first half of [`batch_forward`], statistics; [`batch_map`] is the second.
///
/// Where the kernel that computed x left `sums` behind, x is not read. An error if they are not of x's shape, or if there is no
/// row; types as for [`batch_forward`].
#[track_caller]
pub fn batch_statistics(
    x: &Tensor,
    sums: Option<&TileSums>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<BatchStatistics> {
    let name = "batch_norm";
    let _op = memory::operation(name);
    let (rows, channels) = rows_of(name, x)?;
    if let Some(sums) = sums {
        sums.require(name, x, rows, channels)?;
    }
    if rows == 0 {
        return Err(Error::shape(name, "statistics need at least one row").argument("x", x));
    }
    require_parameter(name, "weight", weight, &[channels])?;
    require_parameter(name, "bias", bias, &[channels])?;
    let sums_of = sums.map(|sums| &sums.sums);
    let device = one_device(name, &[("x", Some(x)), ("sums", sums_of), ("weight", weight), ("bias", bias)])?;
    let mut mean = Tensor::empty(&[channels], DType::F32, device)?;
    let mut variance = Tensor::empty(&[channels], DType::F32, device)?;
    let mut map = Tensor::empty(&[3, stride(channels)], DType::F32, device)?;
    match device {
        Device::Cuda(_) => {
            let results = [&mut mean, &mut variance, &mut map];
            batch_cuda::statistics(name, x, channels, sums, (weight, bias), eps, results)?;
        }
        Device::Cpu => {
            let affine = cpu::Affine { weight: values(weight)?, bias: values(bias)? };
            let statistics = cpu::statistics(x.as_slice()?, channels)?;
            statistics.store(mean.as_mut_slice()?, variance.as_mut_slice()?);
            cpu::store_map(&statistics, affine, eps, map.as_mut_slice()?, stride(channels));
        }
    }
    Ok(BatchStatistics { mean, variance, map })
}

/// y = relu?((x - mean) * scale + offset + residual?) by the map of [`batch_statistics`]; x and types as for
/// [`batch_forward`].
#[track_caller]
pub fn batch_map(x: &Tensor, map: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let name = "batch_norm_map";
    let _op = memory::operation(name);
    let (_, channels) = rows_of(name, x)?;
    require_map(name, map, channels)?;
    if let Some(r) = residual {
        require(name, "residual", r, x.dtype(), x.shape())?;
    }
    match one_device(name, &[("x", Some(x)), ("map", Some(map)), ("residual", residual)])? {
        Device::Cuda(_) => batch_cuda::apply(name, x, channels, map, residual, relu),
        Device::Cpu => {
            let mut y = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let map = cpu::Map::stored(map.as_slice()?, channels, stride(channels))?;
            cpu::apply(x.as_slice()?, &map, values(residual)?, relu, y.as_mut_slice()?);
            Ok(y)
        }
    }
}

/// Checks a map of channels, as [`batch_statistics`] makes it.
#[track_caller]
pub(crate) fn require_map(name: &'static str, map: &Tensor, channels: usize) -> Result<()> {
    require(name, "map", map, DType::F32, &[3, stride(channels)])?;
    match map.device() == Device::Cpu || map.is_aligned(16) {
        true => Ok(()),
        false => Err(Error::value(name, "the map must be as it was made, not a part of another tensor")),
    }
}

/// [`batch_forward`] with given statistics (evaluation mode): mean, variance [C], f32; types as there.
#[track_caller]
pub fn batch_apply(
    x: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    relu: bool,
    eps: f32,
) -> Result<Tensor> {
    let name = "batch_norm_apply";
    let _op = memory::operation(name);
    let (_, channels) = rows_of(name, x)?;
    require(name, "mean", mean, DType::F32, &[channels])?;
    require(name, "variance", variance, DType::F32, &[channels])?;
    require_parameter(name, "weight", weight, &[channels])?;
    require_parameter(name, "bias", bias, &[channels])?;
    if let Some(r) = residual {
        require(name, "residual", r, x.dtype(), x.shape())?;
    }
    let all = [
        ("x", Some(x)),
        ("mean", Some(mean)),
        ("variance", Some(variance)),
        ("weight", weight),
        ("bias", bias),
        ("residual", residual),
    ];
    match one_device(name, &all)? {
        Device::Cuda(_) => {
            let map = batch_cuda::map_of(name, (mean, variance), (weight, bias), x.dtype(), eps)?;
            batch_cuda::apply(name, x, mean.len(), &map, residual, relu)
        }
        Device::Cpu => {
            let affine = cpu::Affine { weight: values(weight)?, bias: values(bias)? };
            let other = values(residual)?;
            let values = x.as_slice::<f32>()?;
            let mut y = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let map = cpu::Map::new(mean.as_slice()?, variance.as_slice()?, affine, eps)?;
            cpu::apply(values, &map, other, relu, y.as_mut_slice()?);
            Ok(y)
        }
    }
}

/// Gradients of [`batch_forward`] (`training`) or [`batch_apply`] (statistics are constants).
///
/// dy, x and, if `relu`, the result y, all of one shape [.., C]; mean and variance [C] as used forward.
/// `has_residual` asks for the residual's gradient.
///
/// On the CPU all tensors are f32. On CUDA devices dy, x, y and the gradients of x and the residual may be bf16; the
/// others are f32 always.
#[track_caller]
pub fn batch_backward(
    dy: &Tensor,
    x: &Tensor,
    y: Option<&Tensor>,
    mean: &Tensor,
    variance: &Tensor,
    weight: Option<&Tensor>,
    relu: bool,
    has_residual: bool,
    training: bool,
    eps: f32,
) -> Result<BatchBackward> {
    let name = "batch_norm_backward";
    let _op = memory::operation(name);
    let (rows, channels) = rows_of(name, x)?;
    require(name, "dy", dy, x.dtype(), x.shape())?;
    let y = y.filter(|_| relu);
    match (relu, y) {
        (false, _) => {}
        (true, Some(y)) => require(name, "y", y, x.dtype(), x.shape())?,
        (true, None) => return Err(Error::value(name, "the gradient of the ReLU needs y")),
    }
    if training && rows == 0 {
        return Err(Error::shape(name, "statistics need at least one row").argument("x", x));
    }
    require(name, "mean", mean, DType::F32, &[channels])?;
    require(name, "variance", variance, DType::F32, &[channels])?;
    require_parameter(name, "weight", weight, &[channels])?;
    let all = [
        ("dy", Some(dy)),
        ("x", Some(x)),
        ("y", y),
        ("mean", Some(mean)),
        ("variance", Some(variance)),
        ("weight", weight),
    ];
    match one_device(name, &all)? {
        Device::Cuda(_) => {
            let (mask, statistics) = (y.map(Mask::Result), (mean, variance));
            batch_backward_cuda::backward(
                name,
                (dy, x),
                mask,
                statistics,
                weight,
                has_residual,
                training,
                eps,
            )
        }
        Device::Cpu => {
            let gradient = dy.as_slice::<f32>()?;
            let (mask, weights) = (values(y)?, values(weight)?);
            let statistics = (mean.as_slice::<f32>()?, variance.as_slice::<f32>()?);
            let values = x.as_slice::<f32>()?;
            let mut masked = match (relu, has_residual) {
                (true, true) => Some(Tensor::empty(x.shape(), DType::F32, Device::Cpu)?),
                _ => None,
            };
            let mut dx = Tensor::empty(x.shape(), DType::F32, Device::Cpu)?;
            let mut dweight = Tensor::empty(&[channels], DType::F32, Device::Cpu)?;
            let mut dbias = Tensor::empty(&[channels], DType::F32, Device::Cpu)?;
            let store = match &mut masked {
                Some(t) => Some(t.as_mut_slice()?),
                None => None,
            };
            let sums = cpu::gradient_sums(gradient, values, mask, statistics.0, store)?;
            sums.store(statistics.1, eps, dweight.as_mut_slice()?, dbias.as_mut_slice()?);
            let map = cpu::GradientMap::new(&sums, statistics, weights, training, rows, eps)?;
            // The masked gradient, once written, spares reading dy and y again.
            match &masked {
                Some(g) => cpu::gradient_apply(g.as_slice()?, values, None, &map, dx.as_mut_slice()?),
                None => cpu::gradient_apply(gradient, values, mask, &map, dx.as_mut_slice()?),
            }
            let dresidual = match (has_residual, masked) {
                (false, _) => None,
                (true, Some(g)) => Some(g),
                (true, None) => Some(dy.clone()),
            };
            Ok(BatchBackward { dx, dweight, dbias, dresidual })
        }
    }
}

/// [`batch_backward`] of a batch with a ReLU and without a residual whose result was not kept: where the ReLU let values
/// through is found from x and the map of [`batch_statistics`], with the bits of [`batch_backward`].
///
/// dy and x of one shape [.., C], mean, variance and weight [C], as they were forward; types as for [`batch_backward`].
#[track_caller]
pub fn batch_backward_of_map(
    dy: &Tensor,
    x: &Tensor,
    map: &Tensor,
    (mean, variance): (&Tensor, &Tensor),
    weight: Option<&Tensor>,
    eps: f32,
) -> Result<BatchBackward> {
    let name = "batch_norm_backward";
    let (rows, channels) = rows_of(name, x)?;
    if x.device() == Device::Cpu {
        let y = batch_map(x, map, None, true)?;
        return batch_backward(dy, x, Some(&y), mean, variance, weight, true, false, true, eps);
    }
    let _op = memory::operation(name);
    require(name, "dy", dy, x.dtype(), x.shape())?;
    require_map(name, map, channels)?;
    require(name, "mean", mean, DType::F32, &[channels])?;
    require(name, "variance", variance, DType::F32, &[channels])?;
    require_parameter(name, "weight", weight, &[channels])?;
    if rows == 0 {
        return Err(Error::shape(name, "statistics need at least one row").argument("x", x));
    }
    let all =
        [("dy", Some(dy)), ("x", Some(x)), ("map", Some(map)), ("mean", Some(mean)), ("weight", weight)];
    one_device(name, &all)?;
    one_device(name, &[("x", Some(x)), ("variance", Some(variance))])?;
    let mask = Some(Mask::Map(map));
    batch_backward_cuda::backward(name, (dy, x), mask, (mean, variance), weight, false, true, eps)
}
