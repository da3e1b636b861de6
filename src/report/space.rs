//! Feature vectors of test and training images: what maps, neighbours and failures are made of.

use crate::evaluate::features::{self, Trained};
use crate::evaluate::inputs::Source;
use crate::evaluate::{Labelled, health, knn};
use data::{Dataset, Splits};
use engine::Result;
use kernels::matmul::cpu::{Mat, gemm_serial};
use std::sync::Arc;

/// Images that ask at most, and that answer at most.
const QUERIES: usize = 2000;
const BANK: usize = 10_000;

/// Images and their features, scaled to length 1.
pub struct Side {
    /// Where the images come from.
    pub images: Arc<dyn Dataset>,
    /// Rows of `dim` values.
    pub features: Vec<f32>,
    /// Values in a row.
    pub dim: usize,
    /// The class of each image, if every one has a label.
    pub labels: Option<Vec<i32>>,
}

/// Queries and the bank in which their neighbours are looked for. No image is in both.
pub struct Space {
    /// Images that ask.
    pub queries: Side,
    /// Training images that answer.
    pub bank: Side,
    /// Whether the queries are test images; else they are training images that are left out of the bank.
    pub tested: bool,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Spread and effective rank of the queries' features.
    pub health: health::Health,
}

impl Side {
    fn new(trained: &mut Trained, images: Arc<dyn Dataset>) -> Result<Side> {
        let seen = trained.sees(&images)?;
        let (mut features, mut width, mut labels) = (Vec::new(), 0, Some(Vec::new()));
        features::for_each_batch(
            trained.encoder.as_mut(),
            Source::Own,
            &trained.input,
            &seen,
            |rows, dim, given| {
                width = dim;
                for row in rows.chunks_exact(dim.max(1)) {
                    let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
                    features.extend(row.iter().map(|v| (f64::from(*v) * scale) as f32));
                }
                match (given, &mut labels) {
                    (Some(given), Some(all)) => all.extend_from_slice(given),
                    _ => labels = None,
                }
                Ok(())
            },
        )?;
        Ok(Side { images, features, dim: width, labels })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The features of image `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.features[i * self.dim..(i + 1) * self.dim]
    }

    /// The label of image `i`.
    pub fn label(&self, i: usize) -> Option<i32> {
        self.labels.as_ref().map(|l| l[i])
    }

    fn labelled(&self) -> Option<Labelled> {
        let labels = self.labels.clone()?;
        Some(Labelled { features: self.features.clone(), dim: self.dim, labels })
    }
}

impl Space {
    /// Features of evenly spread images of both splits. Without test images, every fifth training image asks.
    pub fn new(trained: &mut Trained, splits: &Splits) -> Result<Space> {
        let tested = !splits.test.is_empty();
        let (queries, bank) = match tested {
            true => (features::spread(&splits.test, QUERIES)?, features::spread(&splits.train, BANK)?),
            false => {
                let all = features::spread(&splits.train, BANK + QUERIES)?;
                let (ask, answer): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|i| i % 5 == 0);
                let part = |indices| data::Subset::new(all.clone(), indices);
                (Arc::new(part(ask)?) as Arc<dyn Dataset>, Arc::new(part(answer)?) as Arc<dyn Dataset>)
            }
        };
        let (queries, bank) = (Side::new(trained, queries)?, Side::new(trained, bank)?);
        let health = health::measure(&queries.features, queries.dim);
        Ok(Space { queries, bank, tested, classes: splits.train.classes().to_vec(), health })
    }

    /// The class of every query as its neighbours vote, with the table's own settings; `None` without labels.
    pub fn predictions(&self) -> Result<Option<Vec<i32>>> {
        let (Some(bank), Some(queries)) = (self.bank.labelled(), self.queries.labelled()) else {
            return Ok(None);
        };
        Ok(Some(knn::predict(&bank, &queries, knn::Settings::default())?))
    }

    /// The `count` images of the bank nearest to query `i`, nearest first, with their cosine. Of equals the first.
    pub fn neighbours(&self, i: usize, count: usize) -> Result<Vec<(usize, f32)>> {
        let (n, dim) = (self.bank.len(), self.bank.dim);
        let mut similarity = vec![0f32; n];
        let query = Mat { data: self.queries.row(i), row_stride: dim, column_stride: 1 };
        let bank = Mat { data: &self.bank.features, row_stride: 1, column_stride: dim };
        gemm_serial(1, n, dim, query, bank, false, &mut similarity, n)?;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| similarity[*b].total_cmp(&similarity[*a]).then(a.cmp(b)));
        Ok(order.into_iter().take(count).map(|j| (j, similarity[j])).collect())
    }

    /// What a class is called.
    pub fn class(&self, label: i32) -> String {
        let name = usize::try_from(label).ok().and_then(|i| self.classes.get(i));
        name.cloned().unwrap_or_else(|| format!("class {label}"))
    }
}
