//! Weighted k nearest neighbours (Wu et al. 2018, "Unsupervised feature learning via non-parametric instance
//! discrimination"): cosine similarity, votes weighted by exp(similarity / temperature).

use super::Labelled;
use engine::{Error, Result};
use kernels::matmul::cpu::{Mat, gemm_serial};
use rayon::prelude::*;

/// Neighbours and vote temperature. DINO's convention is k = 20, temperature 0.07; lightly's and MoCo's is
/// k = 200, temperature 0.1. Their results are not comparable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Neighbours that vote.
    pub k: usize,
    /// Votes weigh exp(similarity / temperature).
    pub temperature: f32,
    /// Whether the training mean is subtracted before rows are normalised.
    pub centre: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { k: 20, temperature: 0.07, centre: false }
    }
}

/// Queries that are compared with the whole bank at once.
const BLOCK: usize = 64;

/// Rows scaled to length 1, after subtracting `centre`. A zero row stays zero.
fn normalised(set: &Labelled, centre: &[f32]) -> Vec<f32> {
    let mut out = set.features.clone();
    for row in out.chunks_exact_mut(set.dim.max(1)) {
        row.iter_mut().zip(centre).for_each(|(v, c)| *v -= c);
        let norm = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 };
        row.iter_mut().for_each(|v| *v *= scale);
    }
    out
}

/// The predicted class of every query, by its nearest neighbours in `bank`.
///
/// Ties in the vote go to the smaller class; ties in similarity to the earlier sample.
pub fn predict(bank: &Labelled, queries: &Labelled, settings: Settings) -> Result<Vec<i32>> {
    bank.require_match(queries, "knn")?;
    if settings.k == 0 || settings.temperature.is_nan() || settings.temperature <= 0.0 {
        return Err(Error::value("knn", "k must be at least 1 and the temperature positive")
            .with("k", settings.k)
            .with("temperature", settings.temperature));
    }
    let (n, dim, k) = (bank.len(), bank.dim, settings.k.min(bank.len()));
    let classes = bank.labels.iter().copied().max().unwrap_or(0).max(0) as usize + 1;
    let mut centre = vec![0f32; dim];
    if settings.centre {
        for (j, c) in centre.iter_mut().enumerate() {
            *c = ((0..n).map(|i| f64::from(bank.row(i)[j])).sum::<f64>() / n as f64) as f32;
        }
    }
    let (keys, queries_unit) = (normalised(bank, &centre), normalised(queries, &centre));
    let blocks = queries_unit.par_chunks(BLOCK * dim.max(1));
    let predictions = blocks
        .map(|block| -> Result<Vec<i32>> {
            let rows = block.len() / dim.max(1);
            let mut similarity = vec![0f32; rows * n];
            let q = Mat { data: block, row_stride: dim, column_stride: 1 };
            let b = Mat { data: &keys, row_stride: 1, column_stride: dim };
            gemm_serial(rows, n, dim, q, b, false, &mut similarity, n)?;
            let rows = similarity.chunks_exact(n);
            Ok(rows.map(|s| vote(s, &bank.labels, classes, k, settings.temperature)).collect())
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(predictions.concat())
}

/// The class with the heaviest votes among the `k` most similar samples.
fn vote(similarity: &[f32], labels: &[i32], classes: usize, k: usize, temperature: f32) -> i32 {
    let mut order: Vec<u32> = (0..similarity.len() as u32).collect();
    let nearer =
        |a: &u32, b: &u32| similarity[*b as usize].total_cmp(&similarity[*a as usize]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, nearer);
        order.truncate(k);
    }
    order.sort_unstable_by(nearer);
    let mut votes = vec![0f64; classes];
    for &i in &order {
        // Relative to the largest possible similarity: no overflow, however small the temperature.
        let weight = ((f64::from(similarity[i as usize]) - 1.0) / f64::from(temperature)).exp();
        if let Some(v) = usize::try_from(labels[i as usize]).ok().and_then(|c| votes.get_mut(c)) {
            *v += weight;
        }
    }
    let best = (0..classes).max_by(|&a, &b| votes[a].total_cmp(&votes[b]).then(b.cmp(&a)));
    best.unwrap_or(0) as i32
}

/// Share of `queries` (in percent) whose class is predicted rightly from `bank`.
pub fn accuracy(bank: &Labelled, queries: &Labelled, settings: Settings) -> Result<f32> {
    let predicted = predict(bank, queries, settings)?;
    Ok(super::probe::percent_equal(&predicted, &queries.labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[([f32; 2], i32)]) -> Labelled {
        Labelled {
            features: rows.iter().flat_map(|r| r.0).collect(),
            dim: 2,
            labels: rows.iter().map(|r| r.1).collect(),
        }
    }

    #[test]
    fn weights_decide_between_classes() {
        // One very near neighbour of class 1 against two far ones of class 0.
        let bank = set(&[([1.0, 0.0], 1), ([0.6, 0.8], 0), ([0.6, -0.8], 0)]);
        let query = set(&[([2.0, 0.0], 1)]);
        let sharp = Settings { k: 3, temperature: 0.07, centre: false };
        assert_eq!(predict(&bank, &query, sharp).unwrap(), [1]);
        let flat = Settings { temperature: 100.0, ..sharp };
        assert_eq!(predict(&bank, &query, flat).unwrap(), [0], "equal votes: two against one");
        // The closed form of the votes decides where the switch lies: exp(1/T) = 2 exp(0.6/T).
        let switch = 0.4 / 2f32.ln();
        for (t, want) in [(switch * 0.99, 1), (switch * 1.01, 0)] {
            assert_eq!(predict(&bank, &query, Settings { temperature: t, ..sharp }).unwrap(), [want]);
        }
    }

    #[test]
    fn a_sample_is_its_own_nearest_neighbour_only_if_it_is_in_the_bank() {
        let rows: Vec<([f32; 2], i32)> =
            (0..50).map(|i| ([(i as f32 * 0.7).cos(), (i as f32 * 0.7).sin()], i % 2)).collect();
        let all = set(&rows);
        let one = Settings { k: 1, ..Settings::default() };
        assert_eq!(accuracy(&all, &all, one).unwrap(), 100.0);
        let (a, b) = (all.select(&(0..25).collect::<Vec<_>>()), all.select(&(25..50).collect::<Vec<_>>()));
        assert!(accuracy(&a, &b, one).unwrap() < 100.0);
    }

    #[test]
    fn classes_come_from_the_bank_and_lengths_of_rows_do_not_matter() {
        let bank = set(&[([1.0, 0.0], 0), ([0.0, 5.0], 7)]);
        let queries = set(&[([0.0, 0.1], 7), ([9.0, 0.1], 0)]);
        assert_eq!(predict(&bank, &queries, Settings { k: 1, ..Settings::default() }).unwrap(), [7, 0]);
        let wrong = Labelled { features: vec![1.0], dim: 1, labels: vec![0] };
        assert!(predict(&bank, &wrong, Settings::default()).is_err());
        assert!(predict(&bank, &queries, Settings { k: 0, ..Settings::default() }).is_err());
    }
}
