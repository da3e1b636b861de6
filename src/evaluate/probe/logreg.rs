//! Multinomial logistic regression with an L2 penalty, in float64, by L-BFGS: the mean cross-entropy of N samples plus
//! |W|^2 / (2 C N), the bias free. That is scikit-learn's `LogisticRegression(C=C)`, divided by C N.

use super::{Labelled, Linear};
use crate::evaluate::lbfgs::{self, Minimum, Options};
use rayon::prelude::*;

/// Doubles that are added at once: classes are padded to a multiple.
const LANES: usize = 8;
/// Rows that share a pass over the weights.
const ROWS: usize = 4;
/// Parts that threads share, whatever their number: sums are of parts in order.
const PARTS: usize = 32;

/// The samples of a regression.
pub struct Problem {
    /// [N, D]
    rows: Vec<f64>,
    labels: Vec<i32>,
    dim: usize,
    classes: usize,
    /// Classes, padded.
    padded: usize,
}

impl Problem {
    /// Samples of `classes` classes; their labels must be below that.
    pub fn new(samples: &Labelled, classes: usize) -> Problem {
        Problem {
            rows: samples.features.iter().map(|v| f64::from(*v)).collect(),
            labels: samples.labels.clone(),
            dim: samples.dim,
            classes,
            padded: classes.next_multiple_of(LANES),
        }
    }

    /// Weights to start from: zeros. A row a feature and one for the bias, each of as many values as padded classes.
    pub fn start(&self) -> Vec<f64> {
        vec![0.0; (self.dim + 1) * self.padded]
    }

    /// Moves `weights` to the minimum for the penalty `c`.
    pub fn fit(&self, weights: &mut [f64], c: f64, options: &Options) -> Minimum {
        let n = self.labels.len() as f64;
        let penalty = 1.0 / (c * n);
        let bias = self.dim * self.padded;
        lbfgs::minimise(weights, options, |w, gradient| {
            let mut value = self.cross_entropy(w, gradient) / n;
            gradient.iter_mut().for_each(|g| *g /= n);
            for (g, w) in gradient[..bias].iter_mut().zip(&w[..bias]) {
                *g += penalty * w;
                value += 0.5 * penalty * w * w;
            }
            value
        })
    }

    /// The summed cross-entropy and its gradient.
    fn cross_entropy(&self, weights: &[f64], gradient: &mut [f64]) -> f64 {
        let part = self.labels.len().div_ceil(PARTS).max(1);
        let parts: Vec<(f64, Vec<f64>)> = self
            .labels
            .par_chunks(part)
            .zip(self.rows.par_chunks(part * self.dim.max(1)))
            .map(|(labels, rows)| {
                let mut gradient = vec![0.0; weights.len()];
                let sizes = [self.dim, self.classes, self.padded];
                let mut scratch = vec![0.0; ROWS * (self.padded + self.dim)];
                let value = entropy_of_part(rows, labels, sizes, weights, &mut scratch, &mut gradient);
                (value, gradient)
            })
            .collect();
        gradient.fill(0.0);
        let mut value = 0.0;
        for (part, partial) in parts {
            value += part;
            gradient.iter_mut().zip(partial).for_each(|(g, p)| *g += p);
        }
        value
    }

    /// The weights as a linear layer.
    pub fn linear(&self, weights: &[f64]) -> Linear {
        let at = |d: usize, v: usize| weights[d * self.padded + v];
        let weight = (0..self.classes).flat_map(|v| (0..self.dim).map(move |d| (d, v)));
        Linear::Double {
            weight: weight.map(|(d, v)| at(d, v)).collect(),
            bias: (0..self.classes).map(|v| at(self.dim, v)).collect(),
        }
    }
}

kernels::multiversion! {
    /// Summed cross-entropy of samples, and its gradient added to `gradient`. `sizes` are features, classes, padded classes.
    fn entropy_of_part(
        rows: &[f64],
        labels: &[i32],
        sizes: [usize; 3],
        weights: &[f64],
        scratch: &mut [f64],
        gradient: &mut [f64],
    ) -> f64 {
        let [dim, classes, padded] = sizes;
        let (scores, block) = scratch.split_at_mut(ROWS * padded);
        let mut value = 0.0;
        for (labels, given) in labels.chunks(ROWS).zip(rows.chunks(ROWS * dim)) {
            block.fill(0.0);
            block[..given.len()].copy_from_slice(given);
            for lane in (0..padded).step_by(LANES) {
                let mut sum = [[0.0; LANES]; ROWS];
                for d in 0..=dim {
                    let w = &weights[d * padded + lane..d * padded + lane + LANES];
                    for (r, sum) in sum.iter_mut().enumerate() {
                        let x = if d < dim { block[r * dim + d] } else { 1.0 };
                        for l in 0..LANES {
                            sum[l] += x * w[l];
                        }
                    }
                }
                for (r, sum) in sum.iter().enumerate() {
                    scores[r * padded + lane..r * padded + lane + LANES].copy_from_slice(sum);
                }
            }
            for (r, row) in scores.chunks_exact_mut(padded).enumerate() {
                let Some(&label) = labels.get(r) else {
                    row.fill(0.0);
                    continue;
                };
                let label = label as usize;
                let top = row[..classes].iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
                let right = row[label] - top;
                let mut total = 0.0;
                for s in &mut row[..classes] {
                    *s = (*s - top).exp();
                    total += *s;
                }
                value += total.ln() - right;
                for s in &mut row[..classes] {
                    *s /= total;
                }
                row[classes..].fill(0.0);
                row[label] -= 1.0;
            }
            for lane in (0..padded).step_by(LANES) {
                for d in 0..=dim {
                    let g = &mut gradient[d * padded + lane..d * padded + lane + LANES];
                    for r in 0..ROWS {
                        let x = if d < dim { block[r * dim + d] } else { 1.0 };
                        let p = &scores[r * padded + lane..r * padded + lane + LANES];
                        for l in 0..LANES {
                            g[l] += x * p[l];
                        }
                    }
                }
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Philox;
    use engine::random::Purpose;

    /// Samples of three classes that overlap.
    fn samples(n: usize, dim: usize) -> Labelled {
        let mut g = Philox::new(3, Purpose::Test, 0);
        let labels: Vec<i32> = (0..n).map(|_| g.below(3) as i32).collect();
        let features = labels.iter().flat_map(|l| vec![0.4 * *l as f32; dim]).map(|c| c + g.normal());
        let features = features.collect();
        Labelled { features, dim, labels }
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let problem = Problem::new(&samples(37, 5), 3);
        let mut g = Philox::new(4, Purpose::Test, 0);
        let mut w = problem.start();
        (0..6).for_each(|d| (0..3).for_each(|v| w[d * 8 + v] = f64::from(g.normal())));
        let mut gradient = problem.start();
        let mut unused = problem.start();
        problem.cross_entropy(&w, &mut gradient);
        for i in (0..w.len()).filter(|i| i % 8 < 3) {
            let mut at = |h: f64| {
                let mut w = w.clone();
                w[i] += h;
                problem.cross_entropy(&w, &mut unused)
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((numeric - gradient[i]).abs() < 1e-6 * gradient[i].abs().max(1.0), "{i}");
        }
        assert!((0..w.len()).filter(|i| i % 8 >= 3).all(|i| gradient[i] == 0.0), "padding has no gradient");
    }

    #[test]
    fn a_small_c_keeps_weights_small_and_the_bias_is_the_share_of_classes() {
        let samples = samples(300, 4);
        let problem = Problem::new(&samples, 3);
        let mut w = problem.start();
        assert!(problem.fit(&mut w, 1e-6, &Options::default()).converged);
        let Linear::Double { weight, bias } = problem.linear(&w) else { unreachable!() };
        assert!(weight.iter().all(|w| w.abs() < 1e-3));
        let share = |class| samples.labels.iter().filter(|l| **l == class).count() as f64 / 300.0;
        assert!((bias[1] - bias[0] - (share(1) / share(0)).ln()).abs() < 1e-2);
    }

    /// Parts are summed in order, so the bits do not depend on how many threads there are.
    #[test]
    fn threads_change_no_bit() {
        let problem = Problem::new(&samples(333, 7), 3);
        let fit = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut w = problem.start();
            pool.install(|| problem.fit(&mut w, 1.0, &Options::default()));
            w
        };
        let one = fit(1);
        assert!(one == fit(2) && one == fit(5));
    }
}
