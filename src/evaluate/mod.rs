//! What an encoder's features are worth: extraction, k nearest neighbours, linear probe, collapse signals,
//! and the floors that every table of accuracies carries.

pub mod classical;
pub mod features;
pub mod file;
pub mod floors;
pub mod health;
pub mod inputs;
pub mod knn;
pub mod lbfgs;
pub mod leak;
pub mod probe;
pub mod retrieve;
mod spectrum;

use engine::{Error, Result};
use std::ops::Range;

/// Features of a labelled set: one row a sample.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// Rows of `dim` values.
    pub features: Vec<f32>,
    /// Values in a row.
    pub dim: usize,
    /// The class of each row.
    pub labels: Vec<i32>,
}

impl Labelled {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One more than the greatest label.
    fn classes(&self) -> usize {
        self.labels.iter().copied().max().unwrap_or(0).max(0) as usize + 1
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.features[i * self.dim..(i + 1) * self.dim]
    }

    /// The samples at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Labelled {
        Labelled {
            features: indices.iter().flat_map(|&i| self.row(i).iter().copied()).collect(),
            dim: self.dim,
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// The values of `columns`, one range behind the other, of every row. An error for a column that is not there.
    pub fn columns(&self, columns: &[Range<usize>]) -> Result<Labelled> {
        if let Some(wrong) = columns.iter().find(|range| range.start > range.end || range.end > self.dim) {
            let text = format!("there are {} columns, not {wrong:?}", self.dim);
            return Err(Error::shape("features", text));
        }
        if columns == [0..self.dim] {
            return Ok(self.clone());
        }
        let row = |i| columns.iter().flat_map(move |range| self.row(i)[range.clone()].iter().copied());
        Ok(Labelled {
            features: (0..self.len()).flat_map(row).collect(),
            dim: columns.iter().map(|range| range.len()).sum(),
            labels: self.labels.clone(),
        })
    }

    /// An error unless there are samples and both sets have rows of equal length.
    fn require_match(&self, other: &Labelled, what: &str) -> Result<()> {
        if self.is_empty() || other.is_empty() {
            return Err(Error::value(
                what,
                "needs labelled training and test samples, and one of both is empty",
            ));
        }
        if self.dim != other.dim {
            return Err(Error::shape(what, "training and test features differ in length")
                .with("train", self.dim)
                .with("test", other.dim));
        }
        Ok(())
    }
}
