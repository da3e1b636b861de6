//! Naive augmentation of HWC arrays in any precision: one output value at a time, no separable passes, colour
//! through an explicit HSV.

use super::{Crop, Interpolation};
use crate::array::{Array, Real};

fn weight<T: Real>(interpolation: Interpolation, x: T) -> T {
    let (x, n) = (x.abs(), T::of);
    match interpolation {
        Interpolation::Bilinear => (n(1.0) - x).max(n(0.0)),
        Interpolation::Bicubic if x < n(1.0) => n(1.5) * x * x * x - n(2.5) * x * x + n(1.0),
        Interpolation::Bicubic if x < n(2.0) => n(-0.5) * x * x * x + n(2.5) * x * x - n(4.0) * x + n(2.0),
        Interpolation::Bicubic => n(0.0),
    }
}

/// Each output pixel is the mean of all pixels of the crop, weighted by the filter in both directions.
pub fn resized_crop<T: Real>(x: &Array<T>, crop: Crop, size: [usize; 2], by: Interpolation) -> Array<T> {
    let channels = x.shape[2];
    let mut out = Array::zeros(&[size[0], size[1], channels]);
    let scale = [crop.height as f64 / size[0] as f64, crop.width as f64 / size[1] as f64];
    let along = |d: usize, to: usize, from: usize| {
        let distance = T::of(from as f64 + 0.5) - T::of(to as f64 + 0.5) * T::of(scale[d]);
        weight(by, distance / T::of(scale[d].max(1.0)))
    };
    for row in 0..size[0] {
        for column in 0..size[1] {
            for c in 0..channels {
                let (mut sum, mut total) = (T::ZERO, T::ZERO);
                for j in 0..crop.height {
                    for i in 0..crop.width {
                        let w = along(0, row, j) * along(1, column, i);
                        sum += w * x.get(&[crop.top + j, crop.left + i, c]);
                        total += w;
                    }
                }
                let at = out.at(&[row, column, c]);
                out.data[at] = sum / total;
            }
        }
    }
    out
}

/// The image mirrored left to right.
pub fn horizontal_flip<T: Real>(x: &Array<T>) -> Array<T> {
    let mut out = x.clone();
    for j in 0..x.shape[0] {
        for i in 0..x.shape[1] {
            for c in 0..x.shape[2] {
                let at = out.at(&[j, i, c]);
                out.data[at] = x.get(&[j, x.shape[1] - 1 - i, c]);
            }
        }
    }
    out
}

fn unit<T: Real>(x: T) -> T {
    let x = x.max(T::ZERO);
    if x > T::ONE { T::ONE } else { x }
}

/// The grey value of each pixel; one channel is its own.
fn grey<T: Real>(pixel: &[T]) -> T {
    match pixel {
        [r, g, b] => T::of(0.2989) * *r + T::of(0.587) * *g + T::of(0.114) * *b,
        _ => pixel[0],
    }
}

fn by_pixel<T: Real>(x: &Array<T>, f: impl Fn(&[T]) -> Vec<T>) -> Array<T> {
    Array::new(&x.shape, x.data.chunks_exact(x.shape[2]).flat_map(f).collect())
}

/// See [`super::brightness`].
pub fn brightness<T: Real>(x: &Array<T>, factor: f32) -> Array<T> {
    x.map(|v| unit(v * T::of(f64::from(factor))))
}

/// See [`super::contrast`].
pub fn contrast<T: Real>(x: &Array<T>, factor: f32) -> Array<T> {
    let factor = T::of(f64::from(factor));
    let mut mean = T::ZERO;
    for pixel in x.data.chunks_exact(x.shape[2]) {
        mean += grey(pixel);
    }
    let mean = mean / T::of((x.shape[0] * x.shape[1]) as f64);
    x.map(|v| unit(v * factor + mean * (T::ONE - factor)))
}

/// See [`super::saturation`].
pub fn saturation<T: Real>(x: &Array<T>, factor: f32) -> Array<T> {
    let factor = T::of(f64::from(factor));
    by_pixel(x, |p| match p.len() {
        3 => p.iter().map(|&v| unit(v * factor + grey(p) * (T::ONE - factor))).collect(),
        _ => p.to_vec(),
    })
}

/// See [`super::grayscale`].
pub fn grayscale<T: Real>(x: &Array<T>) -> Array<T> {
    by_pixel(x, |p| vec![grey(p); p.len()])
}

/// See [`super::hue`].
pub fn hue<T: Real>(x: &Array<T>, shift: f32) -> Array<T> {
    by_pixel(x, |p| match p {
        [r, g, b] => {
            let (h, s, v) = to_hsv(*r, *g, *b);
            from_hsv(fraction(h + T::of(f64::from(shift))), s, v).to_vec()
        }
        _ => p.to_vec(),
    })
}

fn fraction<T: Real>(x: T) -> T {
    x - T::of(x.get().floor())
}

/// Hue as a part of the circle, saturation, value.
fn to_hsv<T: Real>(r: T, g: T, b: T) -> (T, T, T) {
    let n = T::of;
    let high = r.max(g).max(b);
    let low = -(-r).max(-g).max(-b);
    let range = high - low;
    if range == T::ZERO {
        return (T::ZERO, T::ZERO, high);
    }
    let sixths = match () {
        _ if r == high => (g - b) / range,
        _ if g == high => n(2.0) + (b - r) / range,
        _ => n(4.0) + (r - g) / range,
    };
    (fraction(sixths / n(6.0) + n(1.0)), range / high, high)
}

/// The six sectors of the circle, one by one.
fn from_hsv<T: Real>(h: T, s: T, v: T) -> [T; 3] {
    let sixths = h * T::of(6.0);
    let f = fraction(sixths);
    let p = unit(v * (T::ONE - s));
    let q = unit(v * (T::ONE - s * f));
    let t = unit(v * (T::ONE - s * (T::ONE - f)));
    match sixths.get() as usize % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// A two-dimensional convolution with the outer product of the Gaussian, see [`super::gaussian_blur`].
pub fn gaussian_blur<T: Real>(x: &Array<T>, kernel: usize, sigma: f32) -> Array<T> {
    let half = (kernel / 2) as isize;
    let at =
        |d: isize| (T::of(-0.5 * (d * d) as f64) / T::of(f64::from(sigma)) / T::of(f64::from(sigma))).exp();
    let reflected = |mut i: isize, n: usize| {
        let last = n as isize - 1;
        while i < 0 || i > last {
            i = if last == 0 {
                0
            } else if i < 0 {
                -i
            } else {
                2 * last - i
            };
        }
        i as usize
    };
    let mut out = Array::zeros(&x.shape);
    for j in 0..x.shape[0] {
        for i in 0..x.shape[1] {
            for c in 0..x.shape[2] {
                let (mut sum, mut total) = (T::ZERO, T::ZERO);
                for dy in -half..=half {
                    for dx in -half..=half {
                        let (y, z) =
                            (reflected(j as isize + dy, x.shape[0]), reflected(i as isize + dx, x.shape[1]));
                        sum += at(dy) * at(dx) * x.get(&[y, z, c]);
                        total += at(dy) * at(dx);
                    }
                }
                let to = out.at(&[j, i, c]);
                out.data[to] = sum / total;
            }
        }
    }
    out
}

/// See [`super::solarize`].
pub fn solarize<T: Real>(x: &Array<T>, threshold: f32) -> Array<T> {
    x.map(|v| if v >= T::of(f64::from(threshold)) { T::ONE - v } else { v })
}

/// See [`super::normalize`].
pub fn normalize<T: Real>(x: &Array<T>, mean: &[f32], std: &[f32]) -> Array<T> {
    let n = |v: f32| T::of(f64::from(v));
    by_pixel(x, |p| p.iter().zip(mean.iter().zip(std)).map(|(&v, (&m, &s))| (v - n(m)) / n(s)).collect())
}
