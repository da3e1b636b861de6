//! One element at a time, in f32 (naive) or f64 (oracle).

use crate::array::{Array, Real};

/// The error function, accurate to f64 rounding times a few: a series of positive terms below 3
/// (Abramowitz and Stegun 7.1.6), a continued fraction for 1 - erf above (7.1.14).
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let t = x.abs();
    let value = if t < 3.0 {
        let (mut term, mut sum, mut n) = (t, t, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * t * t / (2.0 * n + 1.0);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-t * t).exp() * sum
    } else {
        let mut tail = t;
        for n in (1..=60).rev() {
            tail = t + f64::from(n) * 0.5 / tail;
        }
        1.0 - (-t * t).exp() / tail * std::f64::consts::FRAC_2_SQRT_PI * 0.5
    };
    value.copysign(x)
}

fn normal_cdf<T: Real>(x: T) -> T {
    let half = T::of(0.5);
    half * (T::ONE + T::of(erf((x * T::of(0.5f64.sqrt())).get())))
}

/// x Phi(x).
pub fn gelu<T: Real>(x: &Array<T>) -> Array<T> {
    x.map(|x| x * normal_cdf(x))
}

/// dy (Phi(x) + x phi(x)).
pub fn gelu_backward<T: Real>(dy: &Array<T>, x: &Array<T>) -> Array<T> {
    dy.zip(x, |dy, x| {
        let density = (-(x * x) * T::of(0.5)).exp() / T::of(std::f64::consts::TAU.sqrt());
        dy * (normal_cdf(x) + x * density)
    })
}

/// silu(a) b of both halves of each row of x [.., 2 H].
pub fn swiglu<T: Real>(x: &Array<T>) -> Array<T> {
    let (shape, half) = halved(&x.shape);
    let data = (0..x.len() / 2).map(|i| {
        let (a, b) = halves(x, i, half);
        a / (T::ONE + (-a).exp()) * b
    });
    Array::new(&shape, data.collect())
}

/// Its gradient.
pub fn swiglu_backward<T: Real>(dy: &Array<T>, x: &Array<T>) -> Array<T> {
    let half = halved(&x.shape).1;
    let mut dx = Array::zeros(&x.shape);
    for (i, &dy) in dy.data.iter().enumerate() {
        let (a, b) = halves(x, i, half);
        let s = T::ONE / (T::ONE + (-a).exp());
        let at = i / half * 2 * half + i % half;
        dx.data[at] = dy * b * s * (T::ONE + a * (T::ONE - s));
        dx.data[at + half] = dy * a * s;
    }
    dx
}

fn halved(shape: &[usize]) -> (Vec<usize>, usize) {
    let half = shape[shape.len() - 1] / 2;
    ([&shape[..shape.len() - 1], &[half]].concat(), half)
}

/// The a and the b of element `i` of the result.
fn halves<T: Real>(x: &Array<T>, i: usize, half: usize) -> (T, T) {
    let at = i / half * 2 * half + i % half;
    (x.data[at], x.data[at + half])
}

/// tanh(x).
pub fn tanh<T: Real>(x: &Array<T>) -> Array<T> {
    x.map(|x| {
        let e = (T::of(2.0) * x).exp();
        T::ONE - T::of(2.0) / (e + T::ONE)
    })
}

/// Gradient of [`tanh`] from its input.
pub fn tanh_backward<T: Real>(dy: &Array<T>, x: &Array<T>) -> Array<T> {
    dy.zip(&tanh(x), |dy, y| dy * (T::ONE - y * y))
}

/// The natural logarithm.
pub fn ln<T: Real>(x: &Array<T>) -> Array<T> {
    x.map(T::ln)
}

/// max(x, 0).
pub fn relu<T: Real>(x: &Array<T>) -> Array<T> {
    x.map(|x| if x < T::ZERO { T::ZERO } else { x })
}

/// dy where y > 0.
pub fn relu_backward<T: Real>(dy: &Array<T>, y: &Array<T>) -> Array<T> {
    dy.zip(y, |dy, y| if y > T::ZERO { dy } else { T::ZERO })
}

/// x + bias for every row.
pub fn add_bias<T: Real>(x: &Array<T>, bias: &Array<T>) -> Array<T> {
    let n = bias.len();
    Array::new(&x.shape, x.data.iter().enumerate().map(|(i, &v)| v + bias.data[i % n]).collect())
}

/// x + scale[c] keep[n] branch, [N, .., C]; no scale or keep is 1.
pub fn residual_scale<T: Real>(
    x: &Array<T>,
    branch: &Array<T>,
    scale: Option<&Array<T>>,
    keep: Option<&Array<T>>,
) -> Array<T> {
    let factors = residual_factors(&x.shape, scale, keep);
    let data = (0..x.len()).map(|i| x.data[i] + factors[i].0 * factors[i].1 * branch.data[i]).collect();
    Array::new(&x.shape, data)
}

/// Gradients of the branch and of the scale, the latter [C] whether there is a scale or not.
pub fn residual_scale_backward<T: Real>(
    dy: &Array<T>,
    branch: &Array<T>,
    scale: Option<&Array<T>>,
    keep: Option<&Array<T>>,
) -> (Array<T>, Array<T>) {
    let factors = residual_factors(&dy.shape, scale, keep);
    let width = dy.shape[dy.shape.len() - 1];
    let mut dscale = Array::zeros(&[width]);
    for (i, (&dy, &b)) in dy.data.iter().zip(&branch.data).enumerate() {
        dscale.data[i % width] += factors[i].1 * dy * b;
    }
    let data = (0..dy.len()).map(|i| factors[i].0 * factors[i].1 * dy.data[i]).collect();
    (Array::new(&dy.shape, data), dscale)
}

/// The scale and the keep of each element.
fn residual_factors<T: Real>(
    shape: &[usize],
    scale: Option<&Array<T>>,
    keep: Option<&Array<T>>,
) -> Vec<(T, T)> {
    let (n, width) = (shape.iter().product::<usize>(), shape[shape.len() - 1]);
    let sample = n / shape[0].max(1);
    let of = |factor: Option<&Array<T>>, i: usize| factor.map_or(T::ONE, |f| f.data[i]);
    (0..n).map(|i| (of(scale, i % width), of(keep, i / sample))).collect()
}
