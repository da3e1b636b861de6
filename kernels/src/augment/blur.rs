//! Separable Gaussian blur with reflected borders.

use super::cpu::Workspace;
use crate::multiversion;

/// The least weight that counts.
const SMALLEST: f32 = 1.0 / (1u64 << 40) as f32;

/// See [`super::gaussian_blur`]; `shape` is height, width, channels; `kernel` is odd and `sigma` positive.
pub(super) fn gaussian(
    pixels: &mut [f32],
    shape: [usize; 3],
    kernel: usize,
    sigma: f32,
    workspace: &mut Workspace,
) {
    weights(kernel, sigma, &mut workspace.kernel);
    let between = Workspace::between(&mut workspace.between, pixels.len());
    let [height, width, channels] = shape;
    // Down the columns: whole rows are the unit. Along the rows: pixels are.
    pass(pixels, height, width * channels, &workspace.kernel, between);
    let (source, out) = (between.chunks_exact(width * channels), pixels.chunks_exact_mut(width * channels));
    for (source, out) in source.zip(out) {
        match channels {
            1 => row_1(source, width, &workspace.kernel, out),
            3 => row_3(source, width, &workspace.kernel, out),
            _ => pass(source, width, channels, &workspace.kernel, out),
        }
    }
}

/// `exp(-x^2 / 2 sigma^2)` at -half ..= half, normalised to sum 1, without the ends that are below 2^-40.
///
/// Those cannot change an f32 sum of values in \[0, 1\], and as f32 they would be subnormal for some sigma: an
/// operation with one costs the processor a hundred cycles.
pub(super) fn weights(kernel: usize, sigma: f32, out: &mut Vec<f32>) {
    let at = |x: usize| {
        let x = x as f64 / f64::from(sigma);
        (-0.5 * x * x).exp()
    };
    let half = kernel / 2;
    let total = 1.0 + 2.0 * (1..=half).map(at).sum::<f64>();
    let weight = |x: usize| (at(x) / total) as f32;
    let kept = (1..=half).take_while(|&x| weight(x) >= SMALLEST).count();
    out.clear();
    out.extend((0..=2 * kept).map(|i| weight(i.abs_diff(kept))));
}

/// Position `i` reflected into `0 .. n` about the first and last element, which are not repeated.
fn reflect(i: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let i = i.rem_euclid(period);
    (if i < n as isize { i } else { period - i }) as usize
}

multiversion! {
    /// Item y of `out` is the weighted sum of the items of `source` around y; an item is `step` values.
    fn pass(source: &[f32], count: usize, step: usize, kernel: &[f32], out: &mut [f32]) {
        let half = kernel.len() as isize / 2;
        for (y, out) in out.chunks_exact_mut(step).enumerate() {
            out.fill(0.0);
            for (k, &w) in kernel.iter().enumerate() {
                let from = reflect(y as isize + k as isize - half, count) * step;
                for (o, v) in out.iter_mut().zip(&source[from..from + step]) {
                    *o += w * v;
                }
            }
        }
    }
}

multiversion! {
    fn row_1(source: &[f32], width: usize, kernel: &[f32], out: &mut [f32]) {
        row(source, width, 1, kernel, out);
    }
}

multiversion! {
    fn row_3(source: &[f32], width: usize, kernel: &[f32], out: &mut [f32]) {
        row(source, width, 3, kernel, out);
    }
}

/// [`pass`] for items of one pixel: away from the borders the taps are the outer loop, so that each is one
/// long vector operation.
#[inline(always)]
fn row(source: &[f32], width: usize, channels: usize, kernel: &[f32], out: &mut [f32]) {
    let half = kernel.len() / 2;
    out.fill(0.0);
    let inner = half.min(width)..width.saturating_sub(half).max(half.min(width));
    if !inner.is_empty() {
        let target = &mut out[inner.start * channels..inner.end * channels];
        for (k, &w) in kernel.iter().enumerate() {
            let from = (inner.start + k - half) * channels;
            for (o, v) in target.iter_mut().zip(&source[from..]) {
                *o += w * v;
            }
        }
    }
    for x in (0..inner.start).chain(inner.end..width) {
        for (k, &w) in kernel.iter().enumerate() {
            let from = reflect(x as isize + k as isize - half as isize, width);
            for c in 0..channels {
                out[x * channels + c] += w * source[from * channels + c];
            }
        }
    }
}
