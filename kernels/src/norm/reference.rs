//! One channel or row at a time, two passes, in f32 (naive) or f64 (oracle).

use crate::array::{Array, Real};
use engine::DType;

fn sizes<T: Real>(x: &Array<T>) -> (usize, usize) {
    let width = x.shape[x.shape.len() - 1];
    (x.len() / width.max(1), width)
}

/// Mean and biased variance of each channel.
pub fn batch_statistics<T: Real>(x: &Array<T>) -> (Array<T>, Array<T>) {
    let (rows, channels) = sizes(x);
    let n = T::of(rows as f64);
    let (mut mean, mut variance) = (Array::zeros(&[channels]), Array::zeros(&[channels]));
    for c in 0..channels {
        let column = || x.data.iter().skip(c).step_by(channels).copied();
        let m = column().fold(T::ZERO, |s, v| s + v) / n;
        mean.data[c] = m;
        variance.data[c] = column().fold(T::ZERO, |s, v| s + (v - m) * (v - m)) / n;
    }
    (mean, variance)
}

/// relu?((x - mean) / sqrt(variance + eps) * weight + bias + residual?).
pub fn batch_apply<T: Real>(
    x: &Array<T>,
    (mean, variance): (&Array<T>, &Array<T>),
    weight: Option<&Array<T>>,
    bias: Option<&Array<T>>,
    residual: Option<&Array<T>>,
    relu: bool,
    eps: f64,
) -> Array<T> {
    let (_, channels) = sizes(x);
    let mut y = x.clone();
    for (i, v) in y.data.iter_mut().enumerate() {
        let c = i % channels;
        let normal = (*v - mean.data[c]) / (variance.data[c] + T::of(eps)).sqrt();
        let mut value = normal * weight.map_or(T::ONE, |w| w.data[c]) + bias.map_or(T::ZERO, |b| b.data[c]);
        if let Some(r) = residual {
            value += r.data[i];
        }
        *v = if relu && value < T::ZERO { T::ZERO } else { value };
    }
    y
}

/// dx, dweight, dbias and the masked gradient.
pub fn batch_backward<T: Real>(
    dy: &Array<T>,
    x: &Array<T>,
    y: Option<&Array<T>>,
    (mean, variance): (&Array<T>, &Array<T>),
    weight: Option<&Array<T>>,
    training: bool,
    eps: f64,
) -> [Array<T>; 4] {
    let (rows, channels) = sizes(x);
    let n = T::of(rows as f64);
    let masked = match y {
        Some(y) => dy.zip(y, |dy, y| if y > T::ZERO { dy } else { T::ZERO }),
        None => dy.clone(),
    };
    let (mut dweight, mut dbias) = (Array::zeros(&[channels]), Array::zeros(&[channels]));
    let inverse = |c: usize| T::ONE / (variance.data[c] + T::of(eps)).sqrt();
    for (i, &g) in masked.data.iter().enumerate() {
        let c = i % channels;
        dweight.data[c] += g * ((x.data[i] - mean.data[c]) * inverse(c));
        dbias.data[c] += g;
    }
    let mut dx = x.clone();
    for (i, v) in dx.data.iter_mut().enumerate() {
        let c = i % channels;
        let normal = (x.data[i] - mean.data[c]) * inverse(c);
        let mut g = masked.data[i];
        if training {
            g = g - dbias.data[c] / n - normal * dweight.data[c] / n;
        }
        *v = g * weight.map_or(T::ONE, |w| w.data[c]) * inverse(c);
    }
    [dx, dweight, dbias, masked]
}

/// y, mean and 1 / sqrt(variance + eps) of each row.
pub fn layer_forward<T: Real>(
    x: &Array<T>,
    weight: Option<&Array<T>>,
    bias: Option<&Array<T>>,
    eps: f64,
) -> [Array<T>; 3] {
    let (_, width) = sizes(x);
    let n = T::of(width as f64);
    let leading = &x.shape[..x.shape.len() - 1];
    let (mut y, mut mean, mut rstd) = (x.clone(), Array::zeros(leading), Array::zeros(leading));
    for (r, row) in y.data.chunks_mut(width).enumerate() {
        let m = row.iter().fold(T::ZERO, |s, &v| s + v) / n;
        let variance = row.iter().fold(T::ZERO, |s, &v| s + (v - m) * (v - m)) / n;
        let inverse = T::ONE / (variance + T::of(eps)).sqrt();
        for (c, v) in row.iter_mut().enumerate() {
            *v = (*v - m) * inverse * weight.map_or(T::ONE, |w| w.data[c])
                + bias.map_or(T::ZERO, |b| b.data[c]);
        }
        mean.data[r] = m;
        rstd.data[r] = inverse;
    }
    [y, mean, rstd]
}

/// dx, dweight and dbias.
pub fn layer_backward<T: Real>(
    dy: &Array<T>,
    x: &Array<T>,
    mean: &Array<T>,
    rstd: &Array<T>,
    weight: Option<&Array<T>>,
) -> [Array<T>; 3] {
    let (rows, width) = sizes(x);
    let n = T::of(width as f64);
    let (mut dx, mut dweight, mut dbias) = (x.clone(), Array::zeros(&[width]), Array::zeros(&[width]));
    for r in 0..rows {
        let at = |c: usize| r * width + c;
        let normal = |c: usize| (x.data[at(c)] - mean.data[r]) * rstd.data[r];
        let inner = |c: usize| dy.data[at(c)] * weight.map_or(T::ONE, |w| w.data[c]);
        let (mut average, mut along) = (T::ZERO, T::ZERO);
        for c in 0..width {
            average += inner(c);
            along += inner(c) * normal(c);
            dweight.data[c] += dy.data[at(c)] * normal(c);
            dbias.data[c] += dy.data[at(c)];
        }
        for c in 0..width {
            dx.data[at(c)] = rstd.data[r] * (inner(c) - average / n - normal(c) * along / n);
        }
    }
    [dx, dweight, dbias]
}

/// x + branch, rounded to an element type: exactly what must be stored.
pub fn layer_sum(x: &Array<f64>, branch: &Array<f64>, dtype: DType) -> Array<f64> {
    x.zip(branch, |a, b| f64::from(a as f32 + b as f32)).rounded_to(dtype)
}

/// x / max(|x|, eps) and |x| of each row.
pub fn l2_forward<T: Real>(x: &Array<T>, eps: f64) -> (Array<T>, Array<T>) {
    let (rows, width) = sizes(x);
    let (mut y, mut norm) = (x.clone(), Array::zeros(&[rows]));
    for (r, row) in y.data.chunks_mut(width).enumerate() {
        norm.data[r] = row.iter().fold(T::ZERO, |s, &v| s + v * v).sqrt();
        row.iter_mut().for_each(|v| *v = *v / norm.data[r].max(T::of(eps)));
    }
    (y, norm)
}

/// (dy - y (y . dy)) / |x|, dy / eps for rows shorter than eps.
pub fn l2_backward<T: Real>(dy: &Array<T>, y: &Array<T>, norm: &Array<T>, eps: f64) -> Array<T> {
    let (rows, width) = sizes(y);
    let mut dx = dy.clone();
    for r in 0..rows {
        let along = (0..width).fold(T::ZERO, |s, c| s + dy.data[r * width + c] * y.data[r * width + c]);
        for v in r * width..(r + 1) * width {
            dx.data[v] = match norm.data[r] < T::of(eps) {
                true => dy.data[v] / T::of(eps),
                false => (dy.data[v] - y.data[v] * along) / norm.data[r],
            };
        }
    }
    dx
}
