//! Depthwise convolution: a group has one input channel and `multiplier` output channels. Loops over neighbouring channels, which
//! are contiguous, so that they are vectorised; weights are turned to [R, S, O] first. Tasks are rows of the result, for the weight
//! gradient chunks of images whose sums are added in order.

use super::Sizes;
use crate::multiversion;
use crate::parallel;
use engine::Result;
use engine::memory::Scratch;
use rayon::prelude::*;

/// Images of a task of the weight gradient: few enough for many tasks, and a fixed number, so that threads change no bit.
const IMAGES: usize = 4;

multiversion! {
    /// y += x w, channel by channel; of x each element `multiplier` times.
    fn add_products(y: &mut [f32], x: &[f32], w: &[f32], multiplier: usize) {
        if multiplier == 1 {
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y += x * w;
            }
            return;
        }
        for ((y, &x), w) in y.chunks_exact_mut(multiplier).zip(x).zip(w.chunks_exact(multiplier)) {
            for (y, &w) in y.iter_mut().zip(w) {
                *y += x * w;
            }
        }
    }
}

multiversion! {
    /// x += the sums of y w over the `multiplier` outputs of each channel.
    fn add_sums(x: &mut [f32], y: &[f32], w: &[f32], multiplier: usize) {
        if multiplier == 1 {
            for ((x, &y), &w) in x.iter_mut().zip(y).zip(w) {
                *x += y * w;
            }
            return;
        }
        for ((x, y), w) in x.iter_mut().zip(y.chunks_exact(multiplier)).zip(w.chunks_exact(multiplier)) {
            for (&y, &w) in y.iter().zip(w) {
                *x += y * w;
            }
        }
    }
}

/// Weights [O, R, S] as [R, S, O].
fn by_tap(z: &Sizes, w: &[f32]) -> Result<Scratch<f32>> {
    let window = z.r * z.s;
    let mut turned = Scratch::<f32>::new(w.len())?;
    for (o, w) in w.chunks_exact(window).enumerate() {
        w.iter().enumerate().for_each(|(tap, &w)| turned[tap * z.o + o] = w);
    }
    Ok(turned)
}

/// The input coordinate that kernel element `tap` meets at output `at`, if it lies in the image.
fn meets(z: &Sizes, at: usize, tap: usize, size: usize) -> Option<usize> {
    (at * z.stride + tap * z.dilation).checked_sub(z.padding).filter(|&i| i < size)
}

/// See [`crate::conv2d::forward`].
pub(super) fn forward(z: &Sizes, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
    let (w, m) = (by_tap(z, w)?, z.o / z.c.max(1));
    parallel::chunks(y, z.q * z.o, |start, y| {
        y.fill(0.0);
        let (image, row) = (start / (z.q * z.o) / z.p, start / (z.q * z.o) % z.p);
        for r in 0..z.r {
            let Some(i) = meets(z, row, r, z.h) else { continue };
            for (q, y) in y.chunks_exact_mut(z.o).enumerate() {
                for s in 0..z.s {
                    let Some(j) = meets(z, q, s, z.w) else { continue };
                    let x = &x[((image * z.h + i) * z.w + j) * z.c..][..z.c];
                    add_products(y, x, &w[(r * z.s + s) * z.o..][..z.o], m);
                }
            }
        }
    });
    Ok(())
}

/// See [`crate::conv2d::input_gradient`].
pub(super) fn input_gradient(z: &Sizes, dy: &[f32], w: &[f32], dx: &mut [f32]) -> Result<()> {
    let (w, m) = (by_tap(z, w)?, z.o / z.c.max(1));
    // The output that meets a pixel with a kernel element, if there is one.
    let output = |at: usize, tap: usize, outputs: usize| {
        let scaled = (at + z.padding).checked_sub(tap * z.dilation)?;
        (scaled.is_multiple_of(z.stride) && scaled / z.stride < outputs).then_some(scaled / z.stride)
    };
    parallel::chunks(dx, z.w * z.c, |start, dx| {
        dx.fill(0.0);
        let (image, row) = (start / (z.w * z.c) / z.h, start / (z.w * z.c) % z.h);
        for r in 0..z.r {
            let Some(p) = output(row, r, z.p) else { continue };
            for (j, dx) in dx.chunks_exact_mut(z.c).enumerate() {
                for s in 0..z.s {
                    let Some(q) = output(j, s, z.q) else { continue };
                    let dy = &dy[((image * z.p + p) * z.q + q) * z.o..][..z.o];
                    add_sums(dx, dy, &w[(r * z.s + s) * z.o..][..z.o], m);
                }
            }
        }
    });
    Ok(())
}

/// See [`crate::conv2d::weight_gradient`].
pub(super) fn weight_gradient(z: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
    let (window, m) = (z.r * z.s, z.o / z.c.max(1));
    // [R, S, O] of some images: rows in float32, their sums in float64.
    let of_images = |images: std::ops::Range<usize>| {
        let (mut sums, mut row) = (vec![0f64; window * z.o], vec![0f32; z.o]);
        for (image, p) in images.flat_map(|image| (0..z.p).map(move |p| (image, p))) {
            for r in 0..z.r {
                let Some(i) = meets(z, p, r, z.h) else { continue };
                for s in 0..z.s {
                    row.fill(0.0);
                    for q in 0..z.q {
                        let Some(j) = meets(z, q, s, z.w) else { continue };
                        let x = &x[((image * z.h + i) * z.w + j) * z.c..][..z.c];
                        add_products(&mut row, x, &dy[((image * z.p + p) * z.q + q) * z.o..][..z.o], m);
                    }
                    let sums = &mut sums[(r * z.s + s) * z.o..][..z.o];
                    sums.iter_mut().zip(&row).for_each(|(sum, &row)| *sum += f64::from(row));
                }
            }
        }
        sums
    };
    let parts: Vec<Vec<f64>> = parallel::pieces(z.n, IMAGES).map(of_images).collect();
    for (o, dw) in dw.chunks_exact_mut(window).enumerate() {
        for (tap, dw) in dw.iter_mut().enumerate() {
            *dw = parts.iter().map(|part| part[tap * z.o + o]).sum::<f64>() as f32;
        }
    }
    Ok(())
}
