//! Pooling as its definition says, in any precision.

use super::Sizes;
use crate::array::{Array, Real};

/// Maximum of each window and its position in `H*W`: the first on ties; a NaN replaces what came before.
pub fn max_forward<T: Real>(z: &Sizes, x: &Array<T>) -> (Array<T>, Vec<i32>) {
    let mut y = Array::zeros(&[z.n, z.p, z.q, z.c]);
    let mut index = vec![0; y.len()];
    for at in 0..y.len() {
        let (c, q, p, n) = (at % z.c, at / z.c % z.q, at / z.c / z.q % z.p, at / z.c / z.q / z.p);
        let mut best: Option<T> = None;
        for i in p * z.stride..p * z.stride + z.kernel {
            for j in q * z.stride..q * z.stride + z.kernel {
                if i < z.padding || j < z.padding || i - z.padding >= z.h || j - z.padding >= z.w {
                    continue;
                }
                let (i, j) = (i - z.padding, j - z.padding);
                let v = x.get(&[n, i, j, c]);
                if best.is_none_or(|b| v > b || v.get().is_nan()) {
                    best = Some(v);
                    y.data[at] = v;
                    index[at] = (i * z.w + j) as i32;
                }
            }
        }
    }
    (y, index)
}

/// Adds each window's gradient at its maximum.
pub fn max_backward<T: Real>(dy: &Array<T>, index: &[i32], input_shape: &[usize]) -> Array<T> {
    let mut dx = Array::zeros(input_shape);
    let (pixels, c) = (input_shape[1] * input_shape[2], input_shape[3]);
    let windows = dy.shape[1] * dy.shape[2];
    for (at, &g) in dy.data.iter().enumerate() {
        let n = at / (windows * c);
        dx.data[(n * pixels + index[at] as usize) * c + at % c] += g;
    }
    dx
}

/// Average over all pixels.
pub fn global_average_forward<T: Real>(x: &Array<T>) -> Array<T> {
    let (pixels, c) = (x.shape[1] * x.shape[2], x.shape[3]);
    let mut y = Array::zeros(&[x.shape[0], c]);
    for (at, &v) in x.data.iter().enumerate() {
        y.data[at / (pixels * c) * c + at % c] += v;
    }
    y.map(|v| v / T::of(pixels as f64))
}

/// Each pixel gets an equal share.
pub fn global_average_backward<T: Real>(dy: &Array<T>, input_shape: &[usize]) -> Array<T> {
    let (pixels, c) = (input_shape[1] * input_shape[2], input_shape[3]);
    let mut dx = Array::zeros(input_shape);
    for (at, v) in dx.data.iter_mut().enumerate() {
        *v = dy.data[at / (pixels * c) * c + at % c] / T::of(pixels as f64);
    }
    dx
}
