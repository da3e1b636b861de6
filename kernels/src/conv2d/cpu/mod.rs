//! Convolution on the CPU: direct, without im2col, on the microkernel of [`crate::matmul`].
//!
//! [`pass`] is one dense convolution over images that hold their own zero border; [`dense`] makes the forward
//! convolution and the input gradient of such passes; [`weight`] is the weight gradient; [`pad`] copies images
//! into their border; [`dilated`] makes a dilated convolution of ordinary ones, [`grouped`] one in groups; [`depthwise`] is for groups
//! of one channel.

mod dense;
mod depthwise;
mod dilated;
mod grouped;
mod pad;
mod pass;
mod weight;

use super::Sizes;
use crate::simd::{self, Level};
use engine::Result;

/// Bytes of images that a task works on at a time: they and the weights stay in the second-level cache.
const GROUP_BYTES: usize = 256 << 10;
/// Bytes of padded images that exist at a time when all threads share them.
const SHARED_BYTES: usize = 8 << 20;
/// Bytes of weights above which threads share out the weights rather than the images.
const LARGE_WEIGHTS: usize = 400 << 10;

/// See [`super::forward`].
pub fn forward(z: &Sizes, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
    forward_at(simd::level(), z, x, w, y)
}

/// See [`super::input_gradient`].
pub fn input_gradient(z: &Sizes, dy: &[f32], w: &[f32], dx: &mut [f32]) -> Result<()> {
    input_gradient_at(simd::level(), z, dy, w, dx)
}

/// See [`super::weight_gradient`].
pub fn weight_gradient(z: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
    weight_gradient_at(simd::level(), z, x, dy, dw)
}

pub(super) fn forward_at(level: Level, z: &Sizes, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
    if z.groups > 1 {
        return if z.is_depthwise() {
            depthwise::forward(z, x, w, y)
        } else {
            grouped::forward(level, z, x, w, y)
        };
    }
    let pass = if z.dilation > 1 { dilated::forward_at } else { dense::forward_at };
    pass(level, z, x, w, y)
}

pub(super) fn input_gradient_at(
    level: Level,
    z: &Sizes,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    if z.groups > 1 {
        return match z.is_depthwise() {
            true => depthwise::input_gradient(z, dy, w, dx),
            false => grouped::input_gradient(level, z, dy, w, dx),
        };
    }
    let pass = if z.dilation > 1 { dilated::input_gradient_at } else { dense::input_gradient_at };
    pass(level, z, dy, w, dx)
}

pub(super) fn weight_gradient_at(
    level: Level,
    z: &Sizes,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) -> Result<()> {
    if z.groups > 1 {
        return match z.is_depthwise() {
            true => depthwise::weight_gradient(z, x, dy, dw),
            false => grouped::weight_gradient(level, z, x, dy, dw),
        };
    }
    let pass = if z.dilation > 1 { dilated::weight_gradient_at } else { weight::weight_gradient_at };
    pass(level, z, x, dy, dw)
}
