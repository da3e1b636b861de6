//! Facts about whole datasets: pixel mean and deviation, images that two datasets share.

use crate::Dataset;
use engine::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Mean and (biased) standard deviation of the pixels of every channel, on the scale 0 ..= 1.
///
/// Sums are of integers, so the result does not depend on the number of threads. Errors: no image, an image that
/// cannot be read, or a channel whose pixels are all equal (no normalisation exists).
#[track_caller]
pub fn pixel_statistics(dataset: &dyn Dataset) -> Result<(Vec<f32>, Vec<f32>)> {
    let channels = dataset.channels();
    let zero = || vec![[0u128; 3]; channels];
    let sums = (0..dataset.len())
        .into_par_iter()
        .map(|i| {
            let image = dataset.image(i)?;
            let mut sums = vec![[0u64; 3]; channels];
            for pixel in image.pixels.chunks_exact(channels) {
                for (sum, &v) in sums.iter_mut().zip(pixel) {
                    let v = u64::from(v);
                    *sum = [sum[0] + 1, sum[1] + v, sum[2] + v * v];
                }
            }
            Ok(sums.into_iter().map(|s| s.map(u128::from)).collect::<Vec<_>>())
        })
        .try_reduce(zero, |a, b| {
            Ok(a.iter().zip(&b).map(|(a, b)| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]).collect())
        })?;
    let (mut mean, mut deviation) = (Vec::new(), Vec::new());
    for [count, sum, squares] in sums {
        // n^2 variance = n sum(v^2) - sum(v)^2, exactly.
        let variance = count * squares - sum * sum;
        if variance == 0 {
            let text = format!("{}: {count} pixels of a channel are all equal", dataset.name());
            return Err(Error::value("pixel_statistics", text));
        }
        mean.push((sum as f64 / (255.0 * count as f64)) as f32);
        deviation.push(((variance as f64).sqrt() / (255.0 * count as f64)) as f32);
    }
    Ok((mean, deviation))
}

/// Pairs (i, j) where image i of `a` equals image j of `b`, in size and every byte; in order of j.
///
/// Found by hash and confirmed by comparing. Train and test must share no image (an inflated score is what comes
/// of it), nor may the bank of a nearest-neighbour search hold the query.
#[track_caller]
pub fn overlap(a: &dyn Dataset, b: &dyn Dataset) -> Result<Vec<(usize, usize)>> {
    let hash = |set: &dyn Dataset, i: usize| -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        set.image(i)?.hash(&mut hasher);
        Ok(hasher.finish())
    };
    let mut known: HashMap<u64, Vec<usize>> = HashMap::new();
    for i in 0..a.len() {
        known.entry(hash(a, i)?).or_default().push(i);
    }
    let mut pairs = Vec::new();
    for j in 0..b.len() {
        for &i in known.get(&hash(b, j)?).into_iter().flatten() {
            if a.image(i)? == b.image(j)? {
                pairs.push((i, j));
            }
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InMemory, Subset};
    use std::sync::Arc;

    #[test]
    fn statistics_by_channel() {
        let pixels = vec![0, 10, 255, 255, 20, 255, 0, 30, 0, 255, 40, 0];
        let set = InMemory::new("x", pixels, [1, 2, 3], vec![], vec![]).unwrap();
        let (mean, deviation) = pixel_statistics(&set).unwrap();
        assert_eq!(mean, [0.5, 25.0 / 255.0, 0.5]);
        assert_eq!(deviation, [0.5, (125f64.sqrt() / 255.0) as f32, 0.5]);
        let flat = InMemory::new("x", vec![7; 8], [2, 2, 1], vec![], vec![]).unwrap();
        assert!(pixel_statistics(&flat).unwrap_err().message().contains("all equal"));
        let none = InMemory::new("x", vec![], [2, 2, 1], vec![], vec![]).unwrap();
        assert!(pixel_statistics(&none).is_err());
    }

    #[test]
    fn a_planted_overlap_is_found() {
        let pixels = (0..200u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let all: Arc<dyn Dataset> = Arc::new(InMemory::new("x", pixels, [2, 5, 1], vec![], vec![]).unwrap());
        let part = |indices: Vec<usize>| Subset::new(all.clone(), indices).unwrap();
        assert_eq!(overlap(&part(vec![0, 1, 2]), &part(vec![3, 4])).unwrap(), []);
        assert_eq!(overlap(&part(vec![0, 1, 2]), &part(vec![3, 2, 0])).unwrap(), [(2, 1), (0, 2)]);
    }
}
