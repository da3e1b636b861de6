//! Shapes and streams that tests and benchmarks share.

use engine::random::Purpose;

/// One case: a shape and the stream's seed and index.
#[derive(Debug, Clone)]
pub struct Case {
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Seed, both halves used.
    pub seed: u64,
    /// Index of the stream, both halves used.
    pub index: u64,
}

/// The purpose of every case.
pub const PURPOSE: Purpose = Purpose::Test;

/// Nothing, one, a block and its neighbours, several tasks.
pub fn cases() -> Vec<Case> {
    let shapes: [&[usize]; 8] = [&[], &[0], &[1], &[3], &[4], &[5], &[129, 127], &[3, 5461]];
    let streams = [(0, 0), (u64::MAX, u64::MAX), (1 << 32, 1), (1, 1 << 32)];
    shapes
        .iter()
        .zip(streams.iter().cycle())
        .map(|(s, &(seed, index))| Case { shape: s.to_vec(), seed, index })
        .collect()
}

/// Random shapes and streams.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (proptest::collection::vec(1usize..30, 1..3), any::<u64>(), any::<u64>())
        .prop_map(|(shape, seed, index)| Case { shape, seed, index })
}
