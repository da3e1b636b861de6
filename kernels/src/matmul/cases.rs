//! Shapes for tests and benchmarks of matrix products.

/// One product's sizes and which sides are transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Products.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Inner size.
    pub k: usize,
    /// Whether a is given as `[K, M]`.
    pub transpose_a: bool,
    /// Whether b is given as `[N, K]`.
    pub transpose_b: bool,
}

impl Case {
    /// Shape of a.
    pub fn a(&self) -> [usize; 3] {
        if self.transpose_a { [self.batch, self.k, self.m] } else { [self.batch, self.m, self.k] }
    }

    /// Shape of b.
    pub fn b(&self) -> [usize; 3] {
        if self.transpose_b { [self.batch, self.n, self.k] } else { [self.batch, self.k, self.n] }
    }
}

/// batch, m, n, k: one, primes, tile sizes and their neighbours, skinny, several blocks of the inner size.
const SIZES: &[[usize; 4]] = &[
    [1, 1, 1, 1],
    [2, 3, 5, 7],
    [1, 13, 31, 17],
    [1, 14, 32, 16],
    [1, 15, 33, 15],
    [1, 28, 16, 64],
    [1, 29, 17, 65],
    [3, 64, 48, 20],
    [1, 1, 300, 40],
    [1, 300, 1, 40],
    [1, 200, 10, 784],
    [1, 10, 300, 500],
    [1, 113, 97, 385],
    [1, 130, 70, 801],
];

/// Every size with every combination of transposed sides.
pub fn cases() -> Vec<Case> {
    let both = [false, true];
    SIZES
        .iter()
        .flat_map(|&[batch, m, n, k]| both.map(|ta| both.map(|tb| (batch, m, n, k, ta, tb))))
        .flatten()
        .map(|(batch, m, n, k, transpose_a, transpose_b)| Case { batch, m, n, k, transpose_a, transpose_b })
        .collect()
}

/// Random sizes.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (1..3usize, 1..70usize, 1..70usize, 1..450usize, any::<(bool, bool)>()).prop_map(
        |(batch, m, n, k, (transpose_a, transpose_b))| Case { batch, m, n, k, transpose_a, transpose_b },
    )
}
