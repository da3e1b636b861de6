//! Signals of collapse: do embeddings still differ, and in how many directions?

use super::spectrum;

/// What the spread of a set of embeddings says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Health {
    /// Standard deviation of the normalised embeddings, averaged over dimensions. Healthy is about
    /// 1/sqrt(dim): .088 for 128 dimensions, .044 for 512. Constant embeddings have 0.
    pub std: f32,
    /// Effective rank: exp of the entropy of the singular values (Garrido et al. 2023, "RankMe", eq. 1).
    pub rank: f32,
    /// Number of dimensions.
    pub dim: usize,
}

/// Rows beyond this many are left out: the spread is an average, and the rank is at most this.
const ROWS: usize = 1024;

/// Measures `rows` (row-major, `dim` values each).
pub fn measure(rows: &[f32], dim: usize) -> Health {
    let n = (rows.len() / dim.max(1)).min(ROWS);
    let rows: Vec<Vec<f64>> = rows
        .chunks_exact(dim.max(1))
        .take(n)
        .map(|r| {
            let norm = r.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12);
            r.iter().map(|&v| f64::from(v) / norm).collect()
        })
        .collect();
    if n < 2 {
        return Health { std: 0.0, rank: n as f32, dim };
    }
    let count = n as f64;
    let mut std = 0.0;
    for j in 0..dim {
        let mean = rows.iter().map(|r| r[j]).sum::<f64>() / count;
        std += (rows.iter().map(|r| (r[j] - mean).powi(2)).sum::<f64>() / count).sqrt();
    }
    // Singular values squared are the eigenvalues of the smaller Gram matrix.
    let small = n.min(dim);
    let mut gram = vec![0.0; small * small];
    if dim <= n {
        for r in &rows {
            for i in 0..dim {
                for j in 0..dim {
                    gram[i * dim + j] += r[i] * r[j];
                }
            }
        }
    } else {
        for i in 0..n {
            for j in 0..n {
                gram[i * n + j] = rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum();
            }
        }
    }
    let singular: Vec<f64> =
        spectrum::eigenvalues(&mut gram, small).into_iter().map(|v| v.max(0.0).sqrt()).collect();
    let total: f64 = singular.iter().sum();
    let entropy: f64 = singular.iter().map(|s| s / total).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    Health { std: (std / dim.max(1) as f64) as f32, rank: entropy.exp() as f32, dim }
}

impl Health {
    /// A warning in words where a known signature of collapse shows.
    pub fn warning(&self) -> Option<String> {
        let healthy = 1.0 / (self.dim.max(1) as f32).sqrt();
        if self.std < healthy / 5.0 {
            return Some(format!(
                "collapse: embeddings hardly differ (deviation {:.4}, healthy about {healthy:.4}). The loss may \
                 look good all the same; lower the learning rate or check the loss's temperature",
                self.std
            ));
        }
        if self.rank < 0.1 * (self.dim.min(ROWS)) as f32 {
            return Some(format!(
                "dimensional collapse: embeddings use about {:.1} of {} directions",
                self.rank, self.dim
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Philox;
    use engine::random::Purpose;

    fn gaussian(n: usize, dim: usize, used: usize) -> Vec<f32> {
        let mut g = Philox::new(1, Purpose::Test, 0);
        (0..n * dim).map(|i| if i % dim < used { g.normal() } else { 1e-4 * g.normal() }).collect()
    }

    #[test]
    fn random_directions_are_healthy() {
        let h = measure(&gaussian(1000, 128, 128), 128);
        assert!((h.std - 0.088).abs() < 0.002, "{h:?}");
        assert!(h.rank > 110.0 && h.rank <= 128.0, "{h:?}");
        assert_eq!(h.warning(), None);
        let wide = measure(&gaussian(50, 128, 128), 128);
        assert!(wide.rank <= 50.0, "{wide:?}");
    }

    #[test]
    fn constant_embeddings_are_a_collapse() {
        let mut rows = vec![0.0; 64 * 128];
        rows.chunks_exact_mut(128).for_each(|r| r[3] = 2.0);
        let h = measure(&rows, 128);
        assert!(h.std < 1e-6 && h.warning().is_some_and(|w| w.starts_with("collapse")), "{h:?}");
    }

    /// Three unit vectors along one axis and one along another: singular values sqrt(3) and 1, not their squares and not those
    /// of centred rows; lengths do not count.
    #[test]
    fn the_rank_is_of_the_singular_values_of_unit_vectors() {
        for length in [1.0, 7.0] {
            let h = measure(&[length, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 1.0], 2);
            let p = 3f64.sqrt() / (3f64.sqrt() + 1.0);
            let rank = (-p * p.ln() - (1.0 - p) * (1.0 - p).ln()).exp();
            assert!((f64::from(h.rank) - rank).abs() < 1e-5, "{h:?} for {rank}");
            assert!((f64::from(h.std) - 3f64.sqrt() / 4.0).abs() < 1e-6, "{h:?}");
        }
    }

    /// The deviation alone does not show it: 8 of 128 directions still spread.
    #[test]
    fn few_directions_are_a_dimensional_collapse() {
        let h = measure(&gaussian(1000, 128, 8), 128);
        assert!(h.std > 0.088 / 5.0, "{h:?}");
        assert!(h.rank < 12.0 && h.warning().is_some_and(|w| w.starts_with("dimensional")), "{h:?}");
    }
}
