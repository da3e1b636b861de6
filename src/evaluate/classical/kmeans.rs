//! k-means (Lloyd 1982), with k-means++ for a start (Arthur and Vassilvitskii 2007), and what it gives for features.

use super::with_features;
use crate::evaluate::Labelled;
use engine::random::Purpose;
use engine::{Error, Philox, Result};
use kernels::matmul::cpu::{Mat, gemm};

/// Centres of clusters.
pub struct KMeans {
    /// One a row of `dim` values.
    pub centres: Vec<f32>,
    dim: usize,
    /// The mean squared distance of a training sample to its centre.
    pub inertia: f64,
}

/// Rounds of assignment and averaging at most; fewer once no sample changes its cluster.
const ROUNDS: usize = 100;

impl KMeans {
    /// `clusters` centres of `set`, started from `seed`. Errors if there are fewer samples than clusters, or none.
    pub fn fit(set: &Labelled, clusters: usize, seed: u64) -> Result<KMeans> {
        let (n, dim) = (set.len(), set.dim);
        if clusters == 0 || clusters > n {
            let rule = "needs at least one cluster, and as many samples as clusters";
            return Err(Error::value("k-means", rule).with("clusters", clusters).with("samples", n));
        }
        let mut found = KMeans { centres: plus_plus(set, clusters, seed), dim, inertia: f64::INFINITY };
        let mut assigned = vec![usize::MAX; n];
        for _ in 0..ROUNDS {
            let distances = found.squared_distances(set)?;
            let rows = distances.chunks_exact(clusters);
            let nearest: Vec<usize> = rows.clone().map(smallest).collect();
            let total: f64 = rows.zip(&nearest).map(|(row, &k)| f64::from(row[k])).sum();
            found.inertia = total / n as f64;
            if nearest == assigned {
                break;
            }
            assigned = nearest;
            let (mut sums, mut counts) = (vec![0f64; clusters * dim], vec![0usize; clusters]);
            for (i, &k) in assigned.iter().enumerate() {
                counts[k] += 1;
                sums[k * dim..][..dim].iter_mut().zip(set.row(i)).for_each(|(s, &v)| *s += f64::from(v));
            }
            // A cluster that lost all samples keeps its centre.
            for k in (0..clusters).filter(|&k| counts[k] > 0) {
                let sums = &sums[k * dim..][..dim];
                let centre = found.centres[k * dim..][..dim].iter_mut();
                centre.zip(sums).for_each(|(c, s)| *c = (s / counts[k] as f64) as f32);
            }
        }
        Ok(found)
    }

    /// Number of clusters.
    pub fn clusters(&self) -> usize {
        self.centres.len() / self.dim.max(1)
    }

    /// The squared distance of every sample to every centre, a row a sample.
    fn squared_distances(&self, set: &Labelled) -> Result<Vec<f32>> {
        if set.dim != self.dim {
            let rule = "samples have another number of values than those that it was fitted on";
            return Err(Error::shape("k-means", rule).with("fitted", self.dim).with("given", set.dim));
        }
        let (n, k, dim) = (set.len(), self.clusters(), self.dim);
        let mut out = vec![0f32; n * k];
        let centres = Mat { data: &self.centres, row_stride: 1, column_stride: dim };
        gemm(n, k, dim, Mat::rows(&set.features, dim), centres, false, &mut out, k)?;
        let square = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>();
        let own: Vec<f32> = self.centres.chunks_exact(dim.max(1)).map(square).collect();
        for (i, row) in out.chunks_exact_mut(k).enumerate() {
            let length = square(set.row(i));
            row.iter_mut().zip(&own).for_each(|(v, c)| *v = (length + c - 2.0 * *v).max(0.0));
        }
        Ok(out)
    }

    /// Each sample's nearest centre.
    pub fn assign(&self, set: &Labelled) -> Result<Vec<usize>> {
        Ok(self.squared_distances(set)?.chunks_exact(self.clusters()).map(smallest).collect())
    }

    /// Soft assignments, `max(0, mean distance - distance)` to every centre: the "triangle" of Coates, Lee and Ng 2011.
    pub fn triangle(&self, set: &Labelled) -> Result<Labelled> {
        let k = self.clusters();
        let mut out = self.squared_distances(set)?;
        for row in out.chunks_exact_mut(k) {
            row.iter_mut().for_each(|v| *v = v.sqrt());
            let mean = row.iter().sum::<f32>() / k as f32;
            row.iter_mut().for_each(|v| *v = (mean - *v).max(0.0));
        }
        Ok(with_features(set, out, k))
    }

    /// The accuracy, in percent, on `test` of calling each cluster by the class that most training samples in it have.
    pub fn majority(&self, train: &Labelled, test: &Labelled) -> Result<f32> {
        let classes = train.classes();
        let mut votes = vec![0usize; self.clusters() * classes];
        for (k, &label) in self.assign(train)?.into_iter().zip(&train.labels) {
            votes[k * classes + label.max(0) as usize] += 1;
        }
        let name = |k: usize| {
            let votes = &votes[k * classes..][..classes];
            (0..classes).max_by_key(|&c| (votes[c], classes - c)).unwrap_or(0) as i32
        };
        let found: Vec<i32> = self.assign(test)?.into_iter().map(name).collect();
        Ok(crate::evaluate::probe::percent_equal(&found, &test.labels))
    }
}

/// The place of the smallest value, the first of equals.
fn smallest(row: &[f32]) -> usize {
    let place = row.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
    place.map_or(0, |(i, _)| i)
}

/// Samples as centres, each drawn with a chance that grows with its squared distance to those before.
fn plus_plus(set: &Labelled, clusters: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, Purpose::Probe, 1);
    let mut chosen = random.below(set.len());
    let mut nearest = vec![f64::INFINITY; set.len()];
    let mut centres = Vec::with_capacity(clusters * set.dim);
    loop {
        let centre = set.row(chosen);
        centres.extend_from_slice(centre);
        if centres.len() >= clusters * set.dim {
            return centres;
        }
        for (i, distance) in nearest.iter_mut().enumerate() {
            let to: f64 = set.row(i).iter().zip(centre).map(|(a, b)| f64::from((a - b) * (a - b))).sum();
            *distance = distance.min(to);
        }
        let total: f64 = nearest.iter().sum();
        let mut left = f64::from(random.uniform()) * total;
        // All samples may be equal to a centre: then any will do.
        chosen = nearest
            .iter()
            .position(|d| {
                left -= d;
                left < 0.0
            })
            .unwrap_or_else(|| random.below(set.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tight groups of a plane; the class is the group.
    fn groups(n: usize, seed: u64) -> Labelled {
        let middles = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let mut g = Philox::new(seed, Purpose::Test, 0);
        let mut set = Labelled { features: vec![], dim: 2, labels: vec![] };
        for i in 0..n {
            let middle = middles[i % 3];
            set.features.extend([middle[0] + 0.5 * g.normal(), middle[1] + 0.5 * g.normal()]);
            set.labels.push((i % 3) as i32);
        }
        set
    }

    #[test]
    fn groups_are_found_whatever_the_seed() {
        let (train, test) = (groups(300, 1), groups(90, 2));
        for seed in 0..5 {
            let found = KMeans::fit(&train, 3, seed).unwrap();
            assert_eq!(found.majority(&train, &test).unwrap(), 100.0);
            // The mean squared distance in two dimensions of deviation 0.5.
            assert!((found.inertia - 0.5).abs() < 0.1, "{}", found.inertia);
            let near = |x: f32, y: f32| {
                found.centres.chunks(2).any(|c| (c[0] - x).abs() < 0.2 && (c[1] - y).abs() < 0.2)
            };
            assert!(near(0.0, 0.0) && near(10.0, 0.0) && near(0.0, 10.0), "{:?}", found.centres);
        }
    }

    #[test]
    fn triangles_are_zero_for_what_is_further_than_the_mean() {
        let train = groups(300, 1);
        let found = KMeans::fit(&train, 3, 1).unwrap();
        let soft = found.triangle(&train).unwrap();
        let nearest = found.assign(&train).unwrap();
        for (i, &k) in nearest.iter().enumerate() {
            assert!(soft.row(i)[k] > 4.0, "near its centre, far from the others");
            assert!((0..3).filter(|&j| j != k).all(|j| soft.row(i)[j] < 1.5));
        }
    }

    #[test]
    fn equal_samples_and_wrong_numbers() {
        let same = Labelled { features: vec![1.0; 20], dim: 2, labels: vec![0; 10] };
        let found = KMeans::fit(&same, 3, 1).unwrap();
        assert_eq!(found.inertia, 0.0);
        assert!(KMeans::fit(&same, 11, 1).is_err());
        assert!(KMeans::fit(&same, 0, 1).is_err());
        let other = Labelled { features: vec![1.0; 3], dim: 3, labels: vec![0] };
        assert!(found.assign(&other).is_err());
    }
}
