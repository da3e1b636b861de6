//! Shapes and values that tests and benchmarks share.

use crate::array::Array;

/// A matrix of logits or scores.
#[derive(Debug, Clone)]
pub struct Case {
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// Standard deviation of the scores.
    pub scale: f64,
    /// The temperature.
    pub temperature: f32,
    /// Whether there is a center; rows have offsets of its size too.
    pub center: bool,
    /// Sinkhorn-Knopp's iterations.
    pub iterations: usize,
    /// Rows that are no padding, if the rest is.
    pub valid: Option<usize>,
}

impl Case {
    fn new(n: usize, k: usize, scale: f64, temperature: f32) -> Case {
        Case { n, k, scale, temperature, center: true, iterations: 3, valid: None }
    }

    /// The scores [N, K], exact in f32: some rows lie above others.
    pub fn scores(&self) -> Array<f64> {
        let mut x = Array::random(&[self.n, self.k], 11, self.scale as f32);
        for (i, row) in x.data.chunks_mut(self.k).enumerate() {
            let offset = if self.center { 0.25 * (i % 5) as f64 * self.scale } else { 0.0 };
            row.iter_mut().for_each(|x| *x = f64::from((*x + offset) as f32));
        }
        x
    }

    /// The center [K], if there is one.
    pub fn center(&self) -> Option<Array<f64>> {
        self.center.then(|| Array::random(&[self.k], 12, self.scale as f32))
    }
}

/// Hand-picked: one, numbers around four and around a block's, temperatures of DINO and DINOv2, scores that leave one
/// probability in a row, padding.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for k in [1, 2, 3, 4, 5, 31, 32, 127, 128, 129, 256, 1000, 1028] {
        all.push(Case::new(5, k, 0.3, 0.07));
    }
    for n in [1, 2, 15, 16, 17, 33, 64] {
        all.push(Case::new(n, 36, 0.1, 0.04));
    }
    for temperature in [0.04, 0.1, 1.0, 10.0] {
        for scale in [0.05, 1.0] {
            all.push(Case { center: false, ..Case::new(9, 40, scale, temperature) });
        }
    }
    for iterations in [1, 2, 10] {
        all.push(Case { iterations, ..Case::new(12, 8, 0.2, 0.05) });
    }
    // Factors that grew by N / K or K / N an iteration would leave f32.
    for (n, k) in [(2, 64), (64, 2)] {
        all.push(Case { iterations: 40, ..Case::new(n, k, 0.1, 0.1) });
    }
    for valid in [0, 1, 7, 12] {
        all.push(Case { valid: Some(valid), ..Case::new(12, 24, 0.2, 0.05) });
    }
    all.push(Case::new(0, 7, 1.0, 1.0));
    all.push(Case::new(3, 9000, 0.3, 0.07));
    all
}

/// Random problems.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (1..40usize, 1..300usize, 1..20u8, any::<bool>(), 1..5usize, prop::option::of(0..40usize)).prop_map(
        |(n, k, temperature, center, iterations, valid)| {
            let valid = valid.map(|v| v % (n + 1));
            Case { center, iterations, valid, ..Case::new(n, k, 0.3, f32::from(temperature) / 50.0) }
        },
    )
}

/// Rows for KoLeo.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Rows.
    pub n: usize,
    /// Elements of a row.
    pub d: usize,
    /// Every how many rows are the same; 0: none.
    pub copies: usize,
}

impl Rows {
    /// Unit rows [N, D], exact in f32.
    pub fn x(&self) -> Array<f64> {
        let mut x = Array::<f64>::random(&[self.n, self.d], 13, 1.0);
        for row in x.data.chunks_mut(self.d) {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter_mut().for_each(|v| *v = f64::from((*v / norm) as f32));
        }
        if self.copies > 0 {
            for i in self.copies..self.n {
                x.data.copy_within((i - self.copies) * self.d..(i - self.copies + 1) * self.d, i * self.d);
            }
        }
        x
    }
}

/// Hand-picked: two rows, numbers around a warp's and a block's, short and long rows, rows that are equal.
pub fn rows() -> Vec<Rows> {
    let sizes = [
        (2, 1),
        (2, 3),
        (3, 2),
        (7, 12),
        (8, 31),
        (9, 32),
        (31, 33),
        (32, 64),
        (33, 127),
        (65, 129),
        (40, 300),
    ];
    let mut all: Vec<Rows> = sizes.iter().map(|&(n, d)| Rows { n, d, copies: 0 }).collect();
    all.push(Rows { n: 6, d: 384, copies: 3 });
    all.push(Rows { n: 40, d: 20, copies: 1 });
    all.push(Rows { n: 0, d: 5, copies: 0 });
    all
}
