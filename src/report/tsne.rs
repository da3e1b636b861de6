//! t-SNE (van der Maaten and Hinton, "Visualizing data using t-SNE", 2008): a map in which points that are near each other in
//! feature space stay near. Exact: all pairs, no tree.
//!
//! Joint probabilities are symmetric, with a Gaussian around each point whose width gives the wanted perplexity (equations 1 and
//! section 3.1). The gradient (equation 5) is followed with momentum and gains for each coordinate (section 3.4, and Jacobs 1988);
//! probabilities are exaggerated at first. Starts from the two principal components (Kobak and Berens 2019). What it
//! shows is who is whose neighbour: sizes of clusters and distances between them mean nothing.

use engine::Philox;
use engine::random::Purpose;
use rayon::prelude::*;

/// How a map is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Neighbours that a point effectively has; at most a third of the points.
    pub perplexity: f64,
    /// Steps of gradient descent.
    pub steps: usize,
    /// Of what separates points that start at one place.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { perplexity: 30.0, steps: 750, seed: 1 }
    }
}

/// Steps in which probabilities are exaggerated, and how much.
const EXAGGERATED: usize = 250;
const EXAGGERATION: f64 = 12.0;
/// Deviation of the first coordinate at the start.
const START: f64 = 1e-4;

/// The perplexity that is used for `n` points.
pub fn perplexity(n: usize, wanted: f64) -> f64 {
    wanted.min((n as f64 - 1.0) / 3.0).max(1.0)
}

/// Coordinates of `rows` (row-major, `dim` values each) on a map, from their principal components in `start`. The same for any
/// number of threads. `start` itself for fewer than four points.
pub fn map(rows: &[f32], dim: usize, start: &[[f64; 2]], settings: Settings) -> Vec<[f64; 2]> {
    let n = start.len();
    if n < 4 || rows.len() != n * dim {
        return start.to_vec();
    }
    let joint = joint_probabilities(rows, dim, n, perplexity(n, settings.perplexity));
    let deviation = (start.iter().map(|p| p[0] * p[0]).sum::<f64>() / n as f64).sqrt().max(1e-300);
    let mut random = Philox::new(settings.seed, Purpose::Split, u64::MAX - 1);
    // A little noise: equal rows would stay together for ever, whatever their neighbours.
    let mut y: Vec<[f64; 2]> = start
        .iter()
        .map(|p| p.map(|v| START * (v / deviation + 1e-2 * f64::from(random.normal()))))
        .collect();
    let (mut velocity, mut gains) = (vec![[0.0; 2]; n], vec![[1.0f64; 2]; n]);
    // Belkina et al. 2019, "Automated optimized parameters for t-SNE": n / exaggeration.
    let rate = (n as f64 / EXAGGERATION).max(50.0);
    for step in 0..settings.steps {
        let early = step < EXAGGERATED.min(settings.steps / 3);
        let (factor, momentum) = if early { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
        let gradient = gradient(&joint, &y, factor);
        for i in 0..n {
            for c in 0..2 {
                let same = (gradient[i][c] > 0.0) == (velocity[i][c] > 0.0);
                gains[i][c] = if same { (gains[i][c] * 0.8).max(0.01) } else { gains[i][c] + 0.2 };
                velocity[i][c] = momentum * velocity[i][c] - rate * gains[i][c] * gradient[i][c];
                y[i][c] += velocity[i][c];
            }
        }
        for c in 0..2 {
            let mean = y.iter().map(|p| p[c]).sum::<f64>() / n as f64;
            y.iter_mut().for_each(|p| p[c] -= mean);
        }
    }
    y
}

/// p_ij, [n, n], which sum to 1.
fn joint_probabilities(rows: &[f32], dim: usize, n: usize, perplexity: f64) -> Vec<f64> {
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    let distance = |i: usize, j: usize| -> f64 {
        row(i).iter().zip(row(j)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    };
    let conditional: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|i| {
            let distances: Vec<f64> = (0..n).map(|j| distance(i, j)).collect();
            conditional(&distances, i, perplexity)
        })
        .collect();
    let pair = |k: usize| (conditional[k / n][k % n] + conditional[k % n][k / n]) / (2.0 * n as f64);
    (0..n * n).into_par_iter().map(pair).collect()
}

/// p_{j|i} of one row of squared distances, at the width whose entropy is ln(perplexity).
fn conditional(distances: &[f64], i: usize, perplexity: f64) -> Vec<f64> {
    let nearest =
        (0..distances.len()).filter(|&j| j != i).map(|j| distances[j]).fold(f64::INFINITY, f64::min);
    let at = |beta: f64| -> (Vec<f64>, f64) {
        // Relative to the nearest: at least one weight is 1.
        let weight = |j: usize| if j == i { 0.0 } else { (-beta * (distances[j] - nearest)).exp() };
        let mut p: Vec<f64> = (0..distances.len()).map(weight).collect();
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        let entropy = -p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        (p, entropy)
    };
    let wanted = perplexity.ln();
    let mean = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
    // The scale of the distances, if they are not all 0, bounds the search: between nearly uniform and nearly one neighbour.
    let scale = if mean > 1e-100 { mean } else { 1.0 };
    let (mut low, mut high) = (1e-6 / scale, 1e12 / scale);
    for _ in 0..100 {
        let middle = (low * high).sqrt();
        match at(middle).1 > wanted {
            true => low = middle,
            false => high = middle,
        }
    }
    at((low * high).sqrt()).0
}

/// 4 sum_j (factor p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2) for each i.
fn gradient(joint: &[f64], y: &[[f64; 2]], factor: f64) -> Vec<[f64; 2]> {
    let n = y.len();
    let near = |i: usize, j: usize| {
        let [a, b] = [y[i][0] - y[j][0], y[i][1] - y[j][1]];
        (1.0 / (1.0 + a * a + b * b), a, b)
    };
    // A row's attraction, its repulsion before division by the sum of all, and its part of that sum.
    let rows: Vec<([f64; 2], [f64; 2], f64)> = (0..n)
        .into_par_iter()
        .map(|i| {
            let (mut attract, mut repel, mut sum) = ([0.0; 2], [0.0; 2], 0.0);
            let p = &joint[i * n..(i + 1) * n];
            for j in 0..n {
                let (w, a, b) = near(i, j);
                let (pull, push) = (p[j] * w, w * w);
                attract[0] += pull * a;
                attract[1] += pull * b;
                repel[0] += push * a;
                repel[1] += push * b;
                sum += w;
            }
            (attract, repel, sum - 1.0)
        })
        .collect();
    let total: f64 = rows.iter().map(|r| r.2).sum();
    let both = |r: &([f64; 2], [f64; 2], f64)| [0, 1].map(|c| 4.0 * (factor * r.0[c] - r.1[c] / total));
    rows.iter().map(both).collect()
}

/// The divergence of the map from the probabilities (equation 2), and the probabilities' gradient, for tests.
#[cfg(test)]
fn divergence(joint: &[f64], y: &[[f64; 2]]) -> f64 {
    let n = y.len();
    let w = |i: usize, j: usize| 1.0 / (1.0 + (y[i][0] - y[j][0]).powi(2) + (y[i][1] - y[j][1]).powi(2));
    let pairs = || (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j);
    let total: f64 = pairs().map(|(i, j)| w(i, j)).sum();
    pairs()
        .map(|(i, j)| {
            let p = joint[i * n + j];
            if p > 0.0 { p * (p * total / w(i, j)).ln() } else { 0.0 }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::pca;

    fn clusters(each: usize, dim: usize) -> Vec<f32> {
        let mut g = Philox::new(2, Purpose::Test, 0);
        let centres: Vec<f32> = (0..3 * dim).map(|_| 6.0 * g.normal()).collect();
        (0..3 * each)
            .flat_map(|i| (0..dim).map(move |j| (i, j)))
            .map(|(i, j)| centres[i % 3 * dim + j] + g.normal())
            .collect()
    }

    #[test]
    fn probabilities_are_symmetric_and_have_the_perplexity() {
        let (rows, n) = (clusters(20, 5), 60);
        let joint = joint_probabilities(&rows, 5, n, 7.0);
        assert!((joint.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for k in 0..n * n {
            assert!(joint[k] == joint[k % n * n + k / n] && (k / n != k % n || joint[k] == 0.0));
        }
        let distances: Vec<f64> = (0..60).map(|j| f64::from(j) * 0.3).collect();
        let p = conditional(&distances, 4, 7.0);
        let entropy = -p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        assert!((entropy - 7f64.ln()).abs() < 1e-6 && p[4] == 0.0, "{entropy}");
    }

    #[test]
    fn the_gradient_is_that_of_the_divergence() {
        let joint = joint_probabilities(&clusters(4, 3), 3, 12, 3.0);
        let mut g = Philox::new(8, Purpose::Test, 0);
        let y: Vec<[f64; 2]> = (0..12).map(|_| [f64::from(g.normal()), f64::from(g.normal())]).collect();
        let exact = gradient(&joint, &y, 1.0);
        for i in 0..12 {
            for c in 0..2 {
                let moved = |by: f64| {
                    let mut y = y.clone();
                    y[i][c] += by;
                    divergence(&joint, &y)
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((numeric - exact[i][c]).abs() < 1e-8, "{i} {c}: {numeric} {}", exact[i][c]);
            }
        }
    }

    #[test]
    fn clusters_come_apart_the_same_way_each_time() {
        let rows = clusters(30, 10);
        let start = pca::project(&rows, 10).unwrap().points;
        let y = map(&rows, 10, &start, Settings::default());
        // Every point's five nearest on the map are of its cluster.
        for i in 0..90 {
            let mut order: Vec<usize> = (0..90).filter(|&j| j != i).collect();
            let d = |j: &usize| (y[i][0] - y[*j][0]).powi(2) + (y[i][1] - y[*j][1]).powi(2);
            order.sort_by(|a, b| d(a).total_cmp(&d(b)));
            assert!(order[..5].iter().all(|j| j % 3 == i % 3), "point {i}");
        }
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(alone.install(|| map(&rows, 10, &start, Settings::default())), y);
        let other = map(&rows, 10, &start, Settings { seed: 2, ..Settings::default() });
        assert_ne!(other, y);
    }

    #[test]
    fn few_and_equal_points_do_no_harm() {
        let three = [[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]];
        assert_eq!(map(&[0.0; 6], 2, &three, Settings::default()), three);
        let same = map(&[1.0; 20], 2, &[[0.0; 2]; 10], Settings::default());
        assert!(same.iter().flatten().all(|v| v.is_finite()), "{same:?}");
    }
}
