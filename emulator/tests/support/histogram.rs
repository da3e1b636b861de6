//! Histograms by integer atomics, extrema by atomics and by compare-and-swap.

use super::case::{Case, Contents};
use super::compare::{Bytes, Expected};
use super::random::Stream;

const LOW: f32 = -2.0;
const HIGH: f32 = 3.0;

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 1, 1), (255, 7, 1), (257, 64, 2), (1000, 256, 3), (5003, 10, 4)];
    shapes.map(|(count, bins, blocks)| case(count, bins, blocks)).to_vec()
}

fn case(count: usize, bins: usize, blocks: usize) -> Case {
    let values = Stream::new((count * 10_007 + bins) as u64).floats(count, 1.7);
    // Counts are added to what is there.
    let before: Vec<u32> = (0..bins as u32).map(|bin| 3 * bin).collect();
    let mut counts = before.clone();
    let scale = bins as f32 / (HIGH - LOW);
    for value in &values {
        let bin = ((value - LOW) * scale).floor() as i32;
        counts[bin.clamp(0, bins as i32 - 1) as usize] += 1;
    }
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Case::new(
        "histogram.cu",
        include_str!("../kernels/histogram.cu"),
        "histogram",
        format!("count {count} bins {bins} blocks {blocks}"),
    )
    .launch([blocks as u32, 1, 1], [256, 1, 1])
    .input("values", &values)
    .buffer("counts", Contents::Bytes(before.bytes()), Expected::Exact(counts.bytes()))
    .buffer("least", Contents::Bytes(f32::INFINITY.bytes()), Expected::Exact(least.bytes()))
    .buffer("greatest", Contents::Bytes(0u32.bytes()), Expected::Exact(ordered(greatest).bytes()))
    .value(&(count as i32))
    .value(&(bins as i32))
    .value(&LOW)
    .value(&HIGH)
    .barriers(2 * blocks)
}

/// An unsigned integer whose order is that of floats.
fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}
