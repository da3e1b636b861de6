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

/// A sample of the bank, and its cosine with a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its place in the bank.
    pub index: usize,
    /// -1 to 1.
    pub similarity: f32,
}

/// The `k` nearest of `bank` (all of it, if it has fewer) to each of `queries`, nearest first: exact, by comparing all.
///
/// Ties go to the earlier sample. At most a block of queries for each thread is compared at a time; the result
/// does not depend on how many there are. With `centre` the bank's mean is subtracted before rows are normalised.
pub fn neighbours(
    bank: &Labelled,
    queries: &Labelled,
    k: usize,
    centre: bool,
) -> Result<Vec<Vec<Neighbour>>> {
    bank.require_match(queries, "knn")?;
    if k == 0 {
        return Err(Error::value("knn", "k must be at least 1"));
    }
    let (n, dim, k) = (bank.len(), bank.dim, k.min(bank.len()));
    let mut mean = vec![0f32; dim];
    if centre {
        for (j, m) in mean.iter_mut().enumerate() {
            *m = ((0..n).map(|i| f64::from(bank.row(i)[j])).sum::<f64>() / n as f64) as f32;
        }
    }
    let (keys, queries) = (normalised(bank, &mean), normalised(queries, &mean));
    let blocks = queries.par_chunks(BLOCK * dim.max(1));
    let found = blocks
        .map(|block| -> Result<Vec<Vec<Neighbour>>> {
            let rows = block.len() / dim.max(1);
            let mut similarity = vec![0f32; rows * n];
            let q = Mat { data: block, row_stride: dim, column_stride: 1 };
            let b = Mat { data: &keys, row_stride: 1, column_stride: dim };
            gemm_serial(rows, n, dim, q, b, false, &mut similarity, n)?;
            Ok(similarity.chunks_exact(n).map(|row| nearest(row, k)).collect())
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(found.concat())
}

/// The `k` largest, largest first; of equals the first.
fn nearest(similarity: &[f32], k: usize) -> Vec<Neighbour> {
    let mut order: Vec<u32> = (0..similarity.len() as u32).collect();
    let nearer =
        |a: &u32, b: &u32| similarity[*b as usize].total_cmp(&similarity[*a as usize]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, nearer);
        order.truncate(k);
    }
    order.sort_unstable_by(nearer);
    let neighbour = |i: u32| Neighbour { index: i as usize, similarity: similarity[i as usize] };
    order.into_iter().map(neighbour).collect()
}

/// The predicted class of every query, by its nearest neighbours in `bank`. Ties in the vote go to the smaller class.
pub fn predict(bank: &Labelled, queries: &Labelled, settings: Settings) -> Result<Vec<i32>> {
    let Settings { k, temperature, centre } = settings;
    if temperature.is_nan() || temperature <= 0.0 {
        return Err(Error::value("knn", "the temperature must be positive").with("temperature", temperature));
    }
    let classes = bank.classes();
    let found = neighbours(bank, queries, k, centre)?;
    Ok(found.iter().map(|near| vote(near, &bank.labels, classes, temperature)).collect())
}

/// The class with the heaviest votes.
fn vote(neighbours: &[Neighbour], labels: &[i32], classes: usize, temperature: f32) -> i32 {
    let mut votes = vec![0f64; classes];
    for near in neighbours {
        // Relative to the largest possible similarity: no overflow, however small the temperature.
        let weight = ((f64::from(near.similarity) - 1.0) / f64::from(temperature)).exp();
        if let Some(v) = usize::try_from(labels[near.index]).ok().and_then(|c| votes.get_mut(c)) {
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

    /// More queries than a block has, against every pair by hand; and with the mean taken out first.
    #[test]
    fn neighbours_are_exact_and_do_not_depend_on_threads() {
        use engine::{Philox, random::Purpose};
        let mut g = Philox::new(1, Purpose::Test, 0);
        let mut random = |n: usize| {
            let features = (0..3 * n).map(|_| 2.0 + g.normal()).collect();
            Labelled { features, dim: 3, labels: vec![0; n] }
        };
        let (bank, queries) = (random(101), random(2 * BLOCK + 3));
        let mean: Vec<f64> =
            (0..3).map(|j| (0..101).map(|i| f64::from(bank.row(i)[j])).sum::<f64>() / 101.0).collect();
        for centre in [false, true] {
            let minus = |row: &[f32]| -> Vec<f64> {
                row.iter().zip(&mean).map(|(v, m)| f64::from(*v) - if centre { *m } else { 0.0 }).collect()
            };
            let cosine = |a: &[f64], b: &[f64]| {
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
                dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
            };
            let found = neighbours(&bank, &queries, 4, centre).unwrap();
            for (q, near) in found.iter().enumerate() {
                let all = (0..101).map(|i| cosine(&minus(bank.row(i)), &minus(queries.row(q))));
                let mut all: Vec<(usize, f64)> = all.enumerate().collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1));
                for (near, (index, similarity)) in near.iter().zip(all) {
                    assert!((f64::from(near.similarity) - similarity).abs() < 1e-6);
                    assert_eq!(near.index, index);
                }
            }
            for threads in [1, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| neighbours(&bank, &queries, 4, centre)).unwrap(), found);
            }
        }
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
