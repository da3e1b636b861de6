//! Convolution in groups as ordinary convolutions, one a group: its channels are copied out, convolved, copied back.

use super::{Sizes, forward_at, input_gradient_at, weight_gradient_at};
use crate::parallel;
use crate::simd::Level;
use engine::Result;
use engine::memory::Scratch;

/// Pixels of a task that copies channels.
const PIXELS: usize = 1024;

/// One group's convolution.
fn one(z: &Sizes) -> Sizes {
    Sizes { c: z.c / z.groups, o: z.o / z.groups, groups: 1, ..*z }
}

/// The channels of a group out of pixels that have `all`.
fn take(images: &[f32], all: usize, group: usize, own: &mut [f32], each: usize) {
    parallel::chunks(own, PIXELS * each.max(1), |start, own| {
        let pixels = images[start / each * all..].chunks_exact(all);
        for (to, from) in own.chunks_exact_mut(each).zip(pixels) {
            to.copy_from_slice(&from[group * each..][..each]);
        }
    });
}

/// The reverse of [`take`].
fn put(own: &[f32], each: usize, images: &mut [f32], all: usize, group: usize) {
    parallel::chunks(images, PIXELS * all.max(1), |start, images| {
        let pixels = own[start / all * each..].chunks_exact(each);
        for (to, from) in images.chunks_exact_mut(all).zip(pixels) {
            to[group * each..][..each].copy_from_slice(from);
        }
    });
}

/// See [`crate::conv2d::forward`].
pub(super) fn forward(level: Level, z: &Sizes, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
    if y.is_empty() || z.c == 0 {
        y.fill(0.0);
        return Ok(());
    }
    let each = one(z);
    let mut own_x = Scratch::<f32>::new(x.len() / z.groups)?;
    let mut own_y = Scratch::<f32>::new(y.len() / z.groups)?;
    for (group, w) in w.chunks_exact(w.len() / z.groups).enumerate() {
        take(x, z.c, group, &mut own_x, each.c);
        forward_at(level, &each, &own_x, w, &mut own_y)?;
        put(&own_y, each.o, y, z.o, group);
    }
    Ok(())
}

/// See [`crate::conv2d::input_gradient`].
pub(super) fn input_gradient(level: Level, z: &Sizes, dy: &[f32], w: &[f32], dx: &mut [f32]) -> Result<()> {
    if dx.is_empty() || z.o == 0 {
        dx.fill(0.0);
        return Ok(());
    }
    let each = one(z);
    let mut own_dy = Scratch::<f32>::new(dy.len() / z.groups)?;
    let mut own_dx = Scratch::<f32>::new(dx.len() / z.groups)?;
    for (group, w) in w.chunks_exact(w.len() / z.groups).enumerate() {
        take(dy, z.o, group, &mut own_dy, each.o);
        input_gradient_at(level, &each, &own_dy, w, &mut own_dx)?;
        put(&own_dx, each.c, dx, z.c, group);
    }
    Ok(())
}

/// See [`crate::conv2d::weight_gradient`].
pub(super) fn weight_gradient(level: Level, z: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
    if dw.is_empty() {
        return Ok(());
    }
    let each = one(z);
    let mut own_x = Scratch::<f32>::new(x.len() / z.groups)?;
    let mut own_dy = Scratch::<f32>::new(dy.len() / z.groups)?;
    for (group, dw) in dw.chunks_exact_mut(z.weight().iter().product::<usize>() / z.groups).enumerate() {
        take(x, z.c, group, &mut own_x, each.c);
        take(dy, z.o, group, &mut own_dy, each.o);
        weight_gradient_at(level, &each, &own_x, &own_dy, dw)?;
    }
    Ok(())
}
