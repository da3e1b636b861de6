//! Launches of `color.cu`.

use super::Spread;
use crate::cuda::THREADS;
use engine::cuda::Launch;
use engine::{Error, Result, Tensor};

crate::cuda::kernels! {
    family: "color", file: "color.cu", options: [];
    LAB = "color_rgb_to_lab";
    ENCODE = "color_soft_encode";
    WEIGHTS = "color_pixel_weights";
}

/// Points of a block of `color_soft_encode`, a warp each.
const WARPS: usize = 8;
/// So that an index fits the kernels' u32.
const MOST: usize = 1 << 31;

#[track_caller]
fn count(operation: &str, n: usize) -> Result<u32> {
    match n < MOST {
        true => Ok(n as u32),
        false => Err(Error::shape(operation, format!("{n} points are more than CUDA kernels take"))),
    }
}

/// See [`super::rgb_to_lab`].
#[track_caller]
pub fn rgb_to_lab(x: &Tensor, lab: &mut Tensor) -> Result<()> {
    let pixels = x.len() / 3;
    if pixels == 0 {
        return Ok(());
    }
    Launch::new(&LAB, x.device())?
        .read(x)?
        .write(lab)?
        .value(count("rgb_to_lab", pixels)?)
        .flops(60.0 * pixels as f64)
        .grid(pixels.div_ceil(THREADS))
        .block(THREADS)
        .run()
}

/// See [`super::soft_encode`].
#[track_caller]
pub fn soft_encode(
    points: &Tensor,
    centres: &Tensor,
    spread: Spread,
    targets: &mut Tensor,
    nearest: &mut Tensor,
) -> Result<()> {
    let (n, q) = (points.shape()[0], centres.shape()[0]);
    if n == 0 {
        return Ok(());
    }
    Launch::new(&ENCODE, points.device())?
        .read(points)?
        .read(centres)?
        .write(targets)?
        .write(nearest)?
        .value(count("soft_encode", n)?)
        .value(q as u32)
        .value(spread.neighbours as u32)
        .value(-1.0 / (2.0 * spread.sigma * spread.sigma))
        .flops(5.0 * (n * q) as f64)
        .grid(n.div_ceil(WARPS))
        .block(32 * WARPS)
        .run()
}

/// See [`super::pixel_weights`].
#[track_caller]
pub fn pixel_weights(
    points: &Tensor,
    nearest: &Tensor,
    weights: &Tensor,
    least: f32,
    out: &mut Tensor,
) -> Result<()> {
    let [b, p] = [points.shape()[0], points.shape()[1]];
    if b * p == 0 {
        return Ok(());
    }
    count("pixel_weights", 2 * b * p)?;
    Launch::new(&WEIGHTS, points.device())?
        .read(points)?
        .read(nearest)?
        .read(weights)?
        .write(out)?
        .value(p as u32)
        .value(weights.len() as u32)
        .value(least)
        .grid(b)
        .block(THREADS)
        .run()
}
