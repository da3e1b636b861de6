//! One number after another from [`Philox`] streams.

use engine::Philox;
use engine::random::{Purpose, philox4x32_10};

/// The first `n` of the stream's uniform numbers in [low, high).
pub fn uniform(n: usize, low: f32, high: f32, seed: u64, purpose: Purpose, index: u64) -> Vec<f32> {
    let mut stream = Philox::new(seed, purpose, index);
    (0..n).map(|_| stream.range(low, high)).collect()
}

/// Box-Muller pairs from the stream's uniform numbers.
pub fn normal(n: usize, mean: f32, std: f32, seed: u64, purpose: Purpose, index: u64) -> Vec<f32> {
    let mut stream = Philox::new(seed, purpose, index);
    let mut out = Vec::new();
    while out.len() < n {
        let (u, v) = (1.0 - stream.uniform(), stream.uniform());
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f32::consts::TAU * v);
        out.extend([mean + std * (radius * angle.cos()), mean + std * (radius * angle.sin())]);
    }
    out.truncate(n);
    out
}

/// Element `i` of a truncated normal tensor with a bound of at least 1.
pub fn truncated_normal(i: u32, std: f32, bound: f32, seed: u64, purpose: Purpose, index: u64) -> f32 {
    for attempt in 0u32.. {
        let counter = [i, index as u32, (index >> 32) as u32, purpose as u32 + (attempt << 16)];
        let words = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
        let unit = |w: u32| (w >> 8) as f32 / (1 << 24) as f32;
        for pair in words.chunks(2) {
            let radius = (-2.0 * (1.0 - unit(pair[0])).ln()).sqrt();
            let angle = std::f32::consts::TAU * unit(pair[1]);
            for z in [radius * angle.cos(), radius * angle.sin()] {
                if z.abs() <= bound {
                    return std * z;
                }
            }
        }
    }
    0.0
}
