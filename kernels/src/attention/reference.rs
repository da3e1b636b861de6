//! The definition, score by score, in any precision.

use crate::array::{Array, Real};

/// One problem: qkv [B, T, 3, H, D], the number of keys of each sample (all if absent), what is added to scores, their scale.
#[derive(Clone, Copy)]
pub struct Problem<'a, T> {
    /// [B, T, 3, H, D]
    pub qkv: &'a Array<T>,
    /// [B]
    pub valid: Option<&'a [usize]>,
    /// [1 or B, 1 or H, T, T]
    pub mask: Option<&'a Array<T>>,
    /// See [`super::scale_of`].
    pub scale: f32,
}

impl<T: Real> Problem<'_, T> {
    /// B, T, H, D
    fn sizes(&self) -> [usize; 4] {
        let shape = &self.qkv.shape;
        [shape[0], shape[1], shape[3], shape[4]]
    }

    fn keys(&self, b: usize) -> usize {
        self.valid.map_or(self.qkv.shape[1], |valid| valid[b])
    }

    /// The vector of a token: part 0 is its query, 1 its key, 2 its value.
    fn vector(&self, b: usize, t: usize, part: usize, h: usize) -> &[T] {
        let [_, _, _, d] = self.sizes();
        let at = self.qkv.at(&[b, t, part, h, 0]);
        &self.qkv.data[at..at + d]
    }

    /// Weights of a row over the keys that it sees, and its lse.
    fn weights(&self, b: usize, t: usize, h: usize) -> (Vec<T>, T) {
        let query = self.vector(b, t, 0, h);
        let scale = T::of(f64::from(self.scale));
        let mut row: Vec<T> =
            (0..self.keys(b)).map(|s| dot(query, self.vector(b, s, 1, h)) * scale).collect();
        if let Some(mask) = self.mask {
            for (s, x) in row.iter_mut().enumerate() {
                *x += mask.get(&[b % mask.shape[0], h % mask.shape[1], t, s]);
            }
        }
        let lowest = T::of(f64::NEG_INFINITY);
        let max = row.iter().fold(lowest, |m, &x| m.max(x));
        if max == lowest {
            return (vec![T::ZERO; row.len()], lowest);
        }
        let mut sum = T::ZERO;
        for x in &mut row {
            *x = (*x - max).exp();
            sum += *x;
        }
        (row.into_iter().map(|x| x / sum).collect(), max + sum.ln())
    }
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sum = T::ZERO;
    for (&a, &b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

/// to += weight * x.
fn add<T: Real>(to: &mut [T], weight: T, x: &[T]) {
    for (to, &x) in to.iter_mut().zip(x) {
        *to += weight * x;
    }
}

/// `(out [B, T, H, D], lse [B, H, T])`.
pub fn forward<T: Real>(p: Problem<T>) -> (Array<T>, Array<T>) {
    let [samples, tokens, heads, size] = p.sizes();
    let mut out = Array::zeros(&[samples, tokens, heads, size]);
    let mut lse = Array::zeros(&[samples, heads, tokens]);
    for b in 0..samples {
        for h in 0..heads {
            for t in 0..tokens {
                let (weights, log_sum) = p.weights(b, t, h);
                let (at, row) = (lse.at(&[b, h, t]), out.at(&[b, t, h, 0]));
                lse.data[at] = log_sum;
                for (s, &weight) in weights.iter().enumerate() {
                    add(&mut out.data[row..row + size], weight, p.vector(b, s, 2, h));
                }
            }
        }
    }
    (out, lse)
}

/// Gradient [B, T, 3, H, D] of out times `dout` [B, T, H, D].
pub fn backward<T: Real>(dout: &Array<T>, p: Problem<T>) -> Array<T> {
    let [samples, tokens, heads, size] = p.sizes();
    let mut dqkv = Array::zeros(&p.qkv.shape);
    let scale = T::of(f64::from(p.scale));
    for b in 0..samples {
        for h in 0..heads {
            for t in 0..tokens {
                let (weights, _) = p.weights(b, t, h);
                let row = dout.at(&[b, t, h, 0]);
                let upstream = &dout.data[row..row + size];
                let dweights: Vec<T> =
                    (0..weights.len()).map(|s| dot(upstream, p.vector(b, s, 2, h))).collect();
                let mean = dot(&weights, &dweights);
                for (s, (&weight, &dweight)) in weights.iter().zip(&dweights).enumerate() {
                    let dscore = weight * (dweight - mean) * scale;
                    for (token, part, factor, x) in [
                        (t, 0, dscore, p.vector(b, s, 1, h)),
                        (s, 1, dscore, p.vector(b, t, 0, h)),
                        (s, 2, weight, upstream),
                    ] {
                        let at = dqkv.at(&[b, token, part, h, 0]);
                        add(&mut dqkv.data[at..at + size], factor, x);
                    }
                }
            }
        }
    }
    dqkv
}
