//! Principal components (Pearson 1901), by orthogonal iteration on the covariance.

use super::{mean, with_features};
use crate::evaluate::Labelled;
use engine::random::Purpose;
use engine::{Error, Philox, Result};
use kernels::matmul::cpu::{Mat, gemm};

/// The directions of largest variance of a training set.
pub struct Pca {
    mean: Vec<f64>,
    /// Unit vectors, one a row of `dim` values, of falling variance.
    pub directions: Vec<f32>,
    /// The variance along each.
    pub variances: Vec<f64>,
    /// The variance along all directions that there are.
    pub total: f64,
    dim: usize,
}

/// Rounds of multiplication by the covariance. With [`SPARE`] directions more than are asked for, those wanted are found as well as
/// f32 features need.
const ROUNDS: usize = 40;
const SPARE: usize = 8;

impl Pca {
    /// The first `components` of `set`. Errors if there are more than values in a row, or fewer than two samples.
    pub fn fit(set: &Labelled, components: usize) -> Result<Pca> {
        let (n, dim) = (set.len(), set.dim);
        if n < 2 || components == 0 || components > dim {
            let rule = "needs two samples, and between one component and as many as values in a row";
            return Err(Error::value("pca", rule)
                .with("samples", n)
                .with("components", components)
                .with("values", dim));
        }
        let mean = mean(set);
        let centred = centred(set, &mean);
        let mut covariance = vec![0f32; dim * dim];
        let columns = Mat { data: &centred, row_stride: 1, column_stride: dim };
        gemm(dim, dim, n, columns, Mat::rows(&centred, dim), false, &mut covariance, dim)?;
        let count = (components + SPARE).min(dim);
        let mut random = Philox::new(1, Purpose::Probe, 0);
        let mut basis: Vec<f64> = (0..count * dim).map(|_| f64::from(random.normal())).collect();
        let mut lengths = orthonormalise(&mut basis, dim);
        for _ in 0..ROUNDS {
            let low: Vec<f32> = basis.iter().map(|&v| v as f32).collect();
            let mut product = vec![0f32; count * dim];
            // Rows times a symmetric matrix.
            gemm(
                count,
                dim,
                dim,
                Mat::rows(&low, dim),
                Mat::rows(&covariance, dim),
                false,
                &mut product,
                dim,
            )?;
            basis = product.iter().map(|&v| f64::from(v)).collect();
            lengths = orthonormalise(&mut basis, dim);
        }
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
        order.truncate(components);
        let directions = order.iter().flat_map(|&i| oriented(&basis[i * dim..][..dim])).collect();
        let variances = order.iter().map(|&i| lengths[i] / (n - 1) as f64).collect();
        let total = (0..dim).map(|i| f64::from(covariance[i * dim + i])).sum::<f64>() / (n - 1) as f64;
        Ok(Pca { mean, directions, variances, total, dim })
    }

    /// The projections of `set`, one a direction; `whiten` divides each by its deviation in training.
    pub fn project(&self, set: &Labelled, whiten: bool) -> Result<Labelled> {
        if set.dim != self.dim {
            let rule = "samples have another number of values than those that it was fitted on";
            return Err(Error::shape("pca", rule).with("fitted", self.dim).with("given", set.dim));
        }
        let (n, count) = (set.len(), self.variances.len());
        let centred = centred(set, &self.mean);
        let mut out = vec![0f32; n * count];
        let directions = Mat { data: &self.directions, row_stride: 1, column_stride: self.dim };
        gemm(n, count, self.dim, Mat::rows(&centred, self.dim), directions, false, &mut out, count)?;
        if whiten {
            let scale: Vec<f32> = self.variances.iter().map(|v| (1.0 / v.sqrt().max(1e-6)) as f32).collect();
            for row in out.chunks_exact_mut(count) {
                row.iter_mut().zip(&scale).for_each(|(v, s)| *v *= s);
            }
        }
        Ok(with_features(set, out, count))
    }
}

/// A direction with its largest weight positive.
fn oriented(direction: &[f64]) -> impl Iterator<Item = f32> + '_ {
    let largest = direction.iter().copied().fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
    direction.iter().map(move |&v| (v * largest.signum()) as f32)
}

fn centred(set: &Labelled, mean: &[f64]) -> Vec<f32> {
    let rows = set.features.chunks_exact(set.dim.max(1));
    rows.flat_map(|row| row.iter().zip(mean).map(|(&v, m)| (f64::from(v) - m) as f32)).collect()
}

/// Gram-Schmidt, twice, over rows of `dim` values. Gives their lengths before: once the rows are eigenvectors and were multiplied
/// by the matrix, its eigenvalues.
fn orthonormalise(rows: &mut [f64], dim: usize) -> Vec<f64> {
    let mut lengths = Vec::new();
    for i in 0..rows.len() / dim {
        let (before, rest) = rows.split_at_mut(i * dim);
        let row = &mut rest[..dim];
        for _ in 0..2 {
            for other in before.chunks_exact(dim) {
                let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        // A direction without variance: the zero vector, which projects everything to 0.
        let scale = if length > 1e-30 { 1.0 / length } else { 0.0 };
        row.iter_mut().for_each(|v| *v *= scale);
        lengths.push(length);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points with deviations 5, 2, 0.5 along known axes of four dimensions, and none along the fourth.
    fn points(n: usize, seed: u64) -> Labelled {
        let axes = [[0.6, 0.8, 0.0, 0.0], [-0.8, 0.6, 0.0, 0.0], [0.0, 0.0, 0.28, 0.96]];
        let mut g = Philox::new(seed, Purpose::Test, 0);
        let features = (0..n).flat_map(|_| {
            let z = [5.0 * g.normal(), 2.0 * g.normal(), 0.5 * g.normal()];
            std::array::from_fn::<f32, 4, _>(|j| 3.0 + (0..3).map(|i| z[i] * axes[i][j]).sum::<f32>())
        });
        Labelled { features: features.collect(), dim: 4, labels: vec![0; n] }
    }

    #[test]
    fn directions_and_variances_are_those_that_the_points_were_made_with() {
        let pca = Pca::fit(&points(20_000, 1), 3).unwrap();
        for (variance, expected) in pca.variances.iter().zip([25.0, 4.0, 0.25]) {
            assert!((variance / expected - 1.0).abs() < 0.05, "{:?}", pca.variances);
        }
        assert!((pca.total / 29.25 - 1.0).abs() < 0.05, "{}", pca.total);
        let first = &pca.directions[..4];
        assert!((first[0] * 0.6 + first[1] * 0.8).abs() > 0.999, "{first:?}");
        let white = pca.project(&points(20_000, 2), true).unwrap();
        for j in 0..3 {
            let column = (0..white.len()).map(|i| f64::from(white.row(i)[j]));
            let (mean, square) = column.fold((0.0, 0.0), |(m, s), v| (m + v, s + v * v));
            let n = white.len() as f64;
            assert!((mean / n).abs() < 0.05 && (square / n - 1.0).abs() < 0.05, "component {j}");
        }
    }

    #[test]
    fn the_projection_onto_all_directions_keeps_distances() {
        let set = points(50, 3);
        let all = Pca::fit(&set, 4).unwrap().project(&set, false).unwrap();
        let distance = |s: &Labelled, a, b| -> f32 {
            s.row(a).iter().zip(s.row(b)).map(|(x, y)| (x - y) * (x - y)).sum()
        };
        for i in 1..50 {
            let (a, b) = (distance(&set, 0, i), distance(&all, 0, i));
            assert!((a - b).abs() < 1e-3 * a.max(1.0), "{a} became {b}");
        }
        assert!(Pca::fit(&set, 5).is_err());
        assert!(Pca::fit(&set.select(&[0]), 1).is_err());
    }
}
