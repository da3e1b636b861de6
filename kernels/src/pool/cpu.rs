//! Pooling on the CPU: parallel over output rows or images, vectorised over channels.

use super::Sizes;
use crate::{multiversion, parallel};
use engine::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum of windows; see [`super::max_forward`].
pub fn max_forward(z: &Sizes, x: &[f32], y: &mut [f32], index: &mut [i32]) {
    if y.is_empty() {
        return;
    }
    // One piece holds whole output rows.
    let row = z.q * z.c;
    let step = (parallel::GRAIN / (row * z.kernel * z.kernel)).max(1);
    parallel::chunks2(y, step * row, index, step * row, |piece, y, index| {
        for (i, (y, index)) in y.chunks_mut(row).zip(index.chunks_mut(row)).enumerate() {
            let (n, p) = ((piece * step + i) / z.p, (piece * step + i) % z.p);
            let image = &x[n * z.h * z.w * z.c..(n + 1) * z.h * z.w * z.c];
            max_row(z, p, image, y, index);
        }
    });
}

/// One row of windows. Padding at most half the kernel keeps every window's first row and column inside.
fn max_row(z: &Sizes, p: usize, image: &[f32], y: &mut [f32], index: &mut [i32]) {
    let rows = (p * z.stride).saturating_sub(z.padding)..(p * z.stride + z.kernel - z.padding).min(z.h);
    for (q, (y, index)) in y.chunks_mut(z.c).zip(index.chunks_mut(z.c)).enumerate() {
        let columns =
            (q * z.stride).saturating_sub(z.padding)..(q * z.stride + z.kernel - z.padding).min(z.w);
        let first = rows.start * z.w + columns.start;
        y.copy_from_slice(&image[first * z.c..][..z.c]);
        index.fill(first as i32);
        for i in rows.clone() {
            for j in columns.clone() {
                let at = i * z.w + j;
                keep_larger(&image[at * z.c..][..z.c], at as i32, y, index);
            }
        }
    }
}

multiversion! {
    fn keep_larger(x: &[f32], at: i32, y: &mut [f32], index: &mut [i32]) {
        for ((&x, y), index) in x.iter().zip(y.iter_mut()).zip(index.iter_mut()) {
            let take = (x > *y) | x.is_nan();
            *y = if take { x } else { *y };
            *index = if take { at } else { *index };
        }
    }
}

/// Gradient of the maximum, for images of `pixels` and outputs of `windows` positions with `c` channels.
///
/// Errors if an index is outside the image.
pub fn max_backward(
    pixels: usize,
    windows: usize,
    c: usize,
    dy: &[f32],
    index: &[i32],
    dx: &mut [f32],
) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    // Position in `index` of a wrong one, or none.
    let wrong = AtomicUsize::new(usize::MAX);
    parallel::chunks(dx, pixels * c, |start, dx| {
        dx.fill(0.0);
        let from = start / (pixels * c) * windows * c;
        let rows = dy[from..from + windows * c].chunks(c).zip(index[from..from + windows * c].chunks(c));
        for (row, (dy, index)) in rows.enumerate() {
            for (channel, (&g, &at)) in dy.iter().zip(index).enumerate() {
                match dx.get_mut((at as usize).wrapping_mul(c).wrapping_add(channel)) {
                    Some(v) if (at as usize) < pixels => *v += g,
                    _ => {
                        wrong.fetch_min(from + row * c + channel, Ordering::Relaxed);
                    }
                }
            }
        }
    });
    match wrong.into_inner() {
        usize::MAX => Ok(()),
        at => Err(Error::value(
            "max_pool_bwd",
            format!("index {} at element {at} is outside an image of {pixels} pixels", index[at]),
        )),
    }
}

multiversion! {
    fn add_assign(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// Pixels whose sum is taken before it is added to the image's sum, which bounds rounding.
const RUN: usize = 64;

/// Average over `pixels`; x is `[N, pixels, c]`, y `[N, c]`.
pub fn global_average_forward(pixels: usize, c: usize, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let images = (parallel::GRAIN / (pixels * c)).max(1);
    parallel::chunks(y, images * c, |start, y| {
        let mut partial = vec![0.0; if pixels > RUN { c } else { 0 }];
        for (i, y) in y.chunks_mut(c).enumerate() {
            let from = (start / c + i) * pixels * c;
            y.fill(0.0);
            for run in x[from..from + pixels * c].chunks(RUN * c) {
                if pixels <= RUN {
                    run.chunks(c).for_each(|x| add_assign(x, y));
                } else {
                    partial.fill(0.0);
                    run.chunks(c).for_each(|x| add_assign(x, &mut partial));
                    add_assign(&partial, y);
                }
            }
            y.iter_mut().for_each(|v| *v /= pixels as f32);
        }
    });
}

/// Gradient of the average; dy is `[N, c]`, dx `[N, pixels, c]`.
pub fn global_average_backward(pixels: usize, c: usize, dy: &[f32], dx: &mut [f32]) {
    if dx.is_empty() {
        return;
    }
    let images = (parallel::GRAIN / (pixels * c)).max(1);
    parallel::chunks(dx, images * pixels * c, |start, dx| {
        for (i, image) in dx.chunks_mut(pixels * c).enumerate() {
            let n = start / (pixels * c) + i;
            let (first, rest) = image.split_at_mut(c);
            for (v, &g) in first.iter_mut().zip(&dy[n * c..(n + 1) * c]) {
                *v = g / pixels as f32;
            }
            rest.chunks_mut(c).for_each(|row| row.copy_from_slice(first));
        }
    });
}
