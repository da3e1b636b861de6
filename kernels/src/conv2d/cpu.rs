//! Convolution on the CPU.

use super::Sizes;
use crate::parallel;
use engine::Result;

/// See [`super::forward`].
pub fn forward(z: &Sizes, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
    parallel::chunks(y, z.p * z.q * z.o, |start, y| {
        let n = start / (z.p * z.q * z.o).max(1);
        y.fill(0.0);
        each_tap(z, |pixel, input, tap| {
            for o in 0..z.o {
                let row = &w[(o * z.r * z.s + tap) * z.c..][..z.c];
                let x = &x[(n * z.h * z.w + input) * z.c..][..z.c];
                y[pixel * z.o + o] += row.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
            }
        });
    });
    Ok(())
}

/// See [`super::input_gradient`].
pub fn input_gradient(z: &Sizes, dy: &[f32], w: &[f32], dx: &mut [f32]) -> Result<()> {
    parallel::chunks(dx, z.h * z.w * z.c, |start, dx| {
        let n = start / (z.h * z.w * z.c).max(1);
        dx.fill(0.0);
        each_tap(z, |pixel, input, tap| {
            for o in 0..z.o {
                let g = dy[(n * z.p * z.q + pixel) * z.o + o];
                let row = &w[(o * z.r * z.s + tap) * z.c..][..z.c];
                dx[input * z.c..][..z.c].iter_mut().zip(row).for_each(|(d, w)| *d += g * w);
            }
        });
    });
    Ok(())
}

/// See [`super::weight_gradient`].
pub fn weight_gradient(z: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
    parallel::chunks(dw, z.r * z.s * z.c, |start, dw| {
        let o = start / (z.r * z.s * z.c).max(1);
        dw.fill(0.0);
        for n in 0..z.n {
            each_tap(z, |pixel, input, tap| {
                let g = dy[(n * z.p * z.q + pixel) * z.o + o];
                let x = &x[(n * z.h * z.w + input) * z.c..][..z.c];
                dw[tap * z.c..][..z.c].iter_mut().zip(x).for_each(|(d, x)| *d += g * x);
            });
        }
    });
    Ok(())
}

/// Calls `f(output pixel, input pixel, kernel position)` for all that meet in one image.
fn each_tap(z: &Sizes, mut f: impl FnMut(usize, usize, usize)) {
    for pixel in 0..z.p * z.q {
        for tap in 0..z.r * z.s {
            let i = (pixel / z.q * z.stride + tap / z.s).wrapping_sub(z.padding);
            let j = (pixel % z.q * z.stride + tap % z.s).wrapping_sub(z.padding);
            if i < z.h && j < z.w {
                f(pixel, i * z.w + j, tap);
            }
        }
    }
}
