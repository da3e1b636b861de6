//! What learning without labels did before neural networks: principal components and k-means, on pixels.
//!
//! Self-supervised features are worth their training if they beat these, which take seconds.

pub mod kmeans;
pub mod pca;

use super::Labelled;

/// The mean of each column, in double precision.
fn mean(set: &Labelled) -> Vec<f64> {
    let mut mean = vec![0f64; set.dim];
    for row in set.features.chunks_exact(set.dim.max(1)) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
    }
    mean.iter_mut().for_each(|m| *m /= set.len().max(1) as f64);
    mean
}

/// The set with other features: `dim` values a row.
fn with_features(set: &Labelled, features: Vec<f32>, dim: usize) -> Labelled {
    Labelled { features, dim, labels: set.labels.clone() }
}
