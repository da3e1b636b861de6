//! Colour as colorization needs it (Zhang et al. 2016): CIE Lab, and soft targets over bins of its plane a, b.
//!
//! [`rgb_to_lab`] takes sRGB values in 0 to 1 to Lab under the illuminant D65 for 2 degrees with scikit-image's constants:
//! L in 0 to 100, a and b in about -110 to 110. [`lab_to_rgb`] goes back, on the host: it is for pictures.
//! [`soft_encode`] spreads each point (a, b) over the K bins nearest to it, with weights `exp(-d^2 / (2 sigma^2))` that add up
//! to 1; [`pixel_weights`] looks up the weight of the nearest bin, and leaves images without colour out.
//!
//! All in f32 on both devices. Bytes that must move: 24 a pixel for Lab, `8 + 4 Q + 4` a point for targets over Q bins.

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

use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

pub use cpu::lab_to_rgb;

/// Bins that [`soft_encode`] and [`pixel_weights`] take at most.
pub const MOST_BINS: usize = 512;

/// Lab [.., 3] of sRGB values [.., 3] in 0 to 1.
///
/// Errors: the last dimension is not 3, or x is not contiguous f32.
#[track_caller]
pub fn rgb_to_lab(x: &Tensor) -> Result<Tensor> {
    const OP: &str = "rgb_to_lab";
    let _op = memory::operation(OP);
    if x.shape().last() != Some(&3) {
        return Err(Error::shape(OP, "x must be [.., 3]: red, green, blue").argument("x", x));
    }
    x.require_dtype(OP, "x", DType::F32)?;
    let mut lab = Tensor::empty(x.shape(), DType::F32, x.device())?;
    match x.device() {
        Device::Cpu => cpu::rgb_to_lab(x.as_slice()?, lab.as_mut_slice()?),
        Device::Cuda(_) => cuda::rgb_to_lab(x, &mut lab)?,
    }
    Ok(lab)
}

/// How [`soft_encode`] spreads a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Bins that get a weight, at least 1.
    pub neighbours: usize,
    /// Deviation of the weights, in the units of the points.
    pub sigma: f32,
}

/// Targets [N, Q] and the nearest bin i32 [N] of points [N, 2], for bins with centres [Q, 2].
///
/// Each row of the targets has `neighbours` values that are not zero (but for underflow) and add up to 1; the nearest bin,
/// the first of several, has the largest. Errors: shapes, types or devices that do not fit, Q above [`MOST_BINS`] or below
/// `neighbours`, a sigma that is not positive.
#[track_caller]
pub fn soft_encode(points: &Tensor, centres: &Tensor, spread: Spread) -> Result<(Tensor, Tensor)> {
    const OP: &str = "soft_encode";
    let _op = memory::operation(OP);
    let device = common(OP, &["points", "centres"], &[points, centres])?;
    let (&[n, 2], &[q, 2]) = (points.shape(), centres.shape()) else {
        let error = Error::shape(OP, "points must be [N, 2] and centres [Q, 2]");
        return Err(error.argument("points", points).argument("centres", centres));
    };
    points.require_dtype(OP, "points", DType::F32)?;
    centres.require_dtype(OP, "centres", DType::F32)?;
    if spread.neighbours == 0 || spread.neighbours > q || q > MOST_BINS {
        let rule = format!("1 <= neighbours <= Q <= {MOST_BINS} must hold");
        return Err(Error::value(OP, rule)
            .with("neighbours", spread.neighbours)
            .argument("centres", centres));
    }
    if !(spread.sigma > 0.0 && spread.sigma.is_finite()) {
        return Err(Error::value(OP, "sigma must be positive").with("sigma", spread.sigma));
    }
    let mut targets = Tensor::empty(&[n, q], DType::F32, device)?;
    let mut nearest = Tensor::empty(&[n], DType::I32, device)?;
    match device {
        Device::Cpu => cpu::soft_encode(
            points.as_slice()?,
            centres.as_slice()?,
            spread,
            targets.as_mut_slice()?,
            nearest.as_mut_slice()?,
        ),
        Device::Cuda(_) => cuda::soft_encode(points, centres, spread, &mut targets, &mut nearest)?,
    }
    Ok((targets, nearest))
}

/// The weight [B P] of each point of images [B, P, 2]: `weights[nearest]`, or 0 for all points of an image in which no
/// coordinate's magnitude is above `least`: it is grey. `weights` is [Q], `nearest` i32 [B P].
///
/// Errors if shapes, types or devices do not fit, or Q is above [`MOST_BINS`]; on the CPU if a bin is outside 0 .. Q, which on a CUDA device makes the
/// point's weight NaN.
#[track_caller]
pub fn pixel_weights(points: &Tensor, nearest: &Tensor, weights: &Tensor, least: f32) -> Result<Tensor> {
    const OP: &str = "pixel_weights";
    let _op = memory::operation(OP);
    let device = common(OP, &["points", "nearest", "weights"], &[points, nearest, weights])?;
    let (&[b, p, 2], &[q]) = (points.shape(), weights.shape()) else {
        let error = Error::shape(OP, "points must be [B, P, 2] and weights [Q]");
        return Err(error.argument("points", points).argument("weights", weights));
    };
    points.require_dtype(OP, "points", DType::F32)?;
    weights.require_dtype(OP, "weights", DType::F32)?;
    nearest.require_dtype(OP, "nearest", DType::I32)?;
    nearest.require_shape(OP, "nearest", &[b * p])?;
    if q > MOST_BINS {
        let rule = format!("there may be {MOST_BINS} weights at most");
        return Err(Error::value(OP, rule).argument("weights", weights));
    }
    let mut out = Tensor::empty(&[b * p], DType::F32, device)?;
    match device {
        Device::Cpu => {
            let bins = nearest.as_slice::<i32>()?;
            if let Some(at) = bins.iter().position(|&bin| bin < 0 || bin as usize >= q) {
                return Err(Error::value(OP, format!("bin {} of point {at} is not one of {q}", bins[at])));
            }
            cpu::pixel_weights(points.as_slice()?, bins, weights.as_slice()?, least, p, out.as_mut_slice()?);
        }
        Device::Cuda(_) => cuda::pixel_weights(points, nearest, weights, least, &mut out)?,
    }
    Ok(out)
}
