//! What happens to features before the linear layer: nothing, standardisation, batch norm without parameters.

use super::Labelled;
use super::protocol::Scaling;
use engine::{Result, Tensor};

/// `(x - mean) scale` by column.
#[derive(Debug, Clone)]
pub struct Affine {
    /// One a column.
    pub mean: Vec<f64>,
    /// One a column.
    pub scale: Vec<f64>,
}

/// MAE's batch norm: added to the variance; what a batch's statistics count for in the running ones.
const BATCH_NORM_EPS: f64 = 1e-6;
const MOMENTUM: f64 = 0.1;
/// Added to the deviation of standardised features, so that constant ones stay finite.
const DEVIATION_EPS: f64 = 1e-5;

impl Affine {
    /// What takes mean and deviation of `set` out, by column.
    pub fn standardising(set: &Labelled) -> Affine {
        let rows = || (0..set.len()).map(|i| set.row(i));
        let (mean, squares) = moments(rows, set.len(), set.dim);
        Affine { mean, scale: squares.iter().map(|s| 1.0 / (s.sqrt() + DEVIATION_EPS)).collect() }
    }

    /// The rows of a set, scaled: [N, D].
    pub fn apply(&self, rows: &[f32]) -> Result<Tensor> {
        let dim = self.mean.len();
        let values: Vec<f32> = rows
            .chunks_exact(dim.max(1))
            .flat_map(|row| {
                row.iter()
                    .zip(&self.mean)
                    .zip(&self.scale)
                    .map(|((&v, m), s)| ((f64::from(v) - m) * s) as f32)
            })
            .collect();
        Tensor::from_slice(&values, &[rows.len() / dim.max(1), dim])
    }
}

/// Mean and variance (biased) by column.
fn moments<'a, I: Iterator<Item = &'a [f32]>>(
    rows: impl Fn() -> I,
    n: usize,
    dim: usize,
) -> (Vec<f64>, Vec<f64>) {
    let mut mean = vec![0f64; dim];
    let mut squares = vec![0f64; dim];
    for row in rows() {
        for (m, &v) in mean.iter_mut().zip(row) {
            *m += f64::from(v) / n as f64;
        }
    }
    for row in rows() {
        for ((s, m), &v) in squares.iter_mut().zip(&mean).zip(row) {
            *s += (f64::from(v) - m).powi(2) / n as f64;
        }
    }
    (mean, squares)
}

/// Batch norm without parameters over rows of features.
pub(super) struct BatchNorm {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl BatchNorm {
    /// Running statistics of rows of `dim` values: mean 0, variance 1.
    pub fn new(dim: usize) -> BatchNorm {
        BatchNorm { mean: vec![0.0; dim], variance: vec![1.0; dim] }
    }

    /// A batch, normalised by its own statistics; the running ones move towards them (the variance unbiased, as PyTorch's).
    pub fn batch(&mut self, rows: &[f32]) -> Result<Tensor> {
        let dim = self.mean.len();
        let n = rows.len() / dim.max(1);
        let (mean, variance) = moments(|| rows.chunks_exact(dim.max(1)), n, dim);
        let unbiased = n as f64 / (n as f64 - 1.0).max(1.0);
        for (running, m) in self.mean.iter_mut().zip(&mean) {
            *running += MOMENTUM * (m - *running);
        }
        for (running, v) in self.variance.iter_mut().zip(&variance) {
            *running += MOMENTUM * (v * unbiased - *running);
        }
        Affine { mean, scale: inverse_deviation(&variance) }.apply(rows)
    }

    /// What it does to features after training.
    pub fn affine(self) -> Affine {
        Affine { scale: inverse_deviation(&self.variance), mean: self.mean }
    }
}

fn inverse_deviation(variance: &[f64]) -> Vec<f64> {
    variance.iter().map(|v| 1.0 / (v + BATCH_NORM_EPS).sqrt()).collect()
}

/// Features in training: what a batch of rows becomes, and what all rows become afterwards.
pub(super) enum Scaler {
    Fixed { rows: Tensor, affine: Option<Affine> },
    BatchNorm { rows: Tensor, norm: BatchNorm },
}

impl Scaler {
    /// For the features of `set`.
    pub fn new(scaling: Scaling, set: &Labelled) -> Result<Scaler> {
        let rows = || Tensor::from_slice(&set.features, &[set.len(), set.dim]);
        Ok(match scaling {
            Scaling::Raw => Scaler::Fixed { rows: rows()?, affine: None },
            Scaling::Standardised => {
                let affine = Affine::standardising(set);
                Scaler::Fixed { rows: affine.apply(&set.features)?, affine: Some(affine) }
            }
            Scaling::BatchNorm => Scaler::BatchNorm { rows: rows()?, norm: BatchNorm::new(set.dim) },
        })
    }

    /// The batch of rows that `index`, i32 [B], names.
    pub fn batch(&mut self, index: &Tensor) -> Result<Tensor> {
        match self {
            Scaler::Fixed { rows, .. } => kernels::copy::gather_rows(rows, index),
            Scaler::BatchNorm { rows, norm } => {
                norm.batch(kernels::copy::gather_rows(rows, index)?.as_slice::<f32>()?)
            }
        }
    }

    /// What is done to features after training.
    pub fn finish(self) -> Option<Affine> {
        match self {
            Scaler::Fixed { affine, .. } => affine,
            Scaler::BatchNorm { norm, .. } => Some(norm.affine()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One column with values 1, 2, 3, 6: mean 3, variance 3.5, unbiased 14 / 3.
    #[test]
    fn batch_norm_is_pytorchs_without_parameters() {
        let mut norm = BatchNorm::new(1);
        let out = norm.batch(&[1.0, 2.0, 3.0, 6.0]).unwrap().to_vec::<f32>().unwrap();
        let deviation = (3.5f64 + 1e-6).sqrt();
        for (got, x) in out.iter().zip([1.0, 2.0, 3.0, 6.0]) {
            assert!((f64::from(*got) - (x - 3.0) / deviation).abs() < 1e-6);
        }
        let after = norm.affine();
        let running = 0.9 + 0.1 * 14.0 / 3.0;
        assert!((after.mean[0] - 0.3).abs() < 1e-12);
        assert!((after.scale[0] - 1.0 / (running + 1e-6f64).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn constant_columns_stay_finite() {
        let set = Labelled { features: vec![2.0, 1.0, 2.0, 3.0], dim: 2, labels: vec![0, 1] };
        for scaling in [Scaling::Raw, Scaling::Standardised, Scaling::BatchNorm] {
            let mut scaler = Scaler::new(scaling, &set).unwrap();
            let batch = scaler.batch(&Tensor::from_slice(&[0i32, 1], &[2]).unwrap()).unwrap();
            assert!(batch.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));
        }
    }
}
