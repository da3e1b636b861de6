//! The 313 bins of colour that colorization predicts (Zhang et al. 2016, section 2.1), their weights, and colour from a
//! distribution over them.

use engine::{Device, Error, Result, Tensor};

/// For each a, the least and greatest b of its centres; all lie on a grid of tens. These are the bins of
/// richzhang/colorization, which are not quite those of the sRGB gamut: 20 runs, 313 in all.
const RUNS: [(i32, i32, i32); 20] = [
    (-90, 50, 90),
    (-80, 20, 90),
    (-70, 0, 90),
    (-60, -20, 90),
    (-50, -30, 100),
    (-40, -40, 100),
    (-30, -50, 100),
    (-20, -50, 100),
    (-10, -60, 100),
    (0, -70, 100),
    (10, -80, 90),
    (20, -80, 90),
    (30, -90, 90),
    (40, -100, 90),
    (50, -100, 80),
    (60, -110, 80),
    (70, -110, 80),
    (80, -110, 70),
    (90, -110, 70),
    (100, -90, 0),
];

/// Number of bins.
pub const BINS: usize = 313;

/// The centres (a, b), by rising a, then b.
pub fn centres() -> Vec<[f32; 2]> {
    let run = |(a, low, high): (i32, i32, i32)| (low..=high).step_by(10).map(move |b| [a as f32, b as f32]);
    RUNS.into_iter().flat_map(run).collect()
}

/// The centres as a constant f32 [313, 2] of a device.
pub fn centres_on(device: Device) -> Result<Tensor> {
    Tensor::constant(&centres().concat(), &[BINS, 2], device)
}

/// The weights of bins for a prior p that adds up to 1 (eq. 4): 1 / ((1 - lambda) p + lambda / Q), scaled so that their mean
/// under the prior is 1.
///
/// The uniform part covers all Q bins, those that never occur too: every weight is finite for a positive lambda. (The
/// reference code spreads it over bins that occur alone, and divides by zero elsewhere.) Errors: lambda outside (0, 1\], a
/// prior that is no distribution.
#[track_caller]
pub fn rebalancing(prior: &[f64], lambda: f64) -> Result<Vec<f32>> {
    let total: f64 = prior.iter().sum();
    if !(lambda > 0.0 && lambda <= 1.0) {
        return Err(Error::value("colorization", "lambda must be in (0, 1]").with("lambda", lambda));
    }
    if prior.iter().any(|p| *p < 0.0) || (total - 1.0).abs() > 1e-6 {
        return Err(
            Error::value("colorization", "a prior must not be negative and add up to 1").with("sum", total)
        );
    }
    let q = prior.len() as f64;
    let raw: Vec<f64> = prior.iter().map(|p| 1.0 / ((1.0 - lambda) * p + lambda / q)).collect();
    let mean: f64 = raw.iter().zip(prior).map(|(w, p)| w * p).sum();
    Ok(raw.iter().map(|w| (w / mean) as f32).collect())
}

/// The annealed mean (eq. 5) of a row of logits over the bins: the centres' mean under softmax(logits / temperature). Towards
/// 0 it is the most probable centre, at 1 the mean.
pub fn annealed_mean(logits: &[f32], centres: &[[f32; 2]], temperature: f64) -> [f32; 2] {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut total, mut sum) = (0.0, [0.0; 2]);
    for (logit, centre) in logits.iter().zip(centres) {
        let weight = (f64::from(logit - most) / temperature).exp();
        total += weight;
        (0..2).for_each(|i| sum[i] += weight * f64::from(centre[i]));
    }
    sum.map(|v| (v / total) as f32)
}
