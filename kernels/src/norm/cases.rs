//! Shapes and values that tests and benchmarks share.

use crate::array::Array;

/// What the values are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Normal, each column of its own scale and mean.
    Mixed,
    /// Mean 1000, deviation 0.1: sums of squares without a shift lose all digits.
    Offset,
    /// Every column constant (variance 0), the columns different.
    Constant,
    /// Every row constant.
    ConstantRows,
    /// Magnitude 1e15: squares are near the end of f32's range.
    Large,
    /// The first row 1e4 times the rest.
    Outlier,
}

/// One case: rows of channels (or of elements).
#[derive(Debug, Clone)]
pub struct Case {
    /// Rows.
    pub rows: usize,
    /// Channels, or elements of a row.
    pub channels: usize,
    /// What x is like.
    pub values: Values,
}

impl Case {
    /// x [rows, channels], exact in f32.
    pub fn input(&self) -> Array<f64> {
        let mut x = Array::<f64>::random(&[self.rows, self.channels], self.rows as u64, 1.0);
        for (i, v) in x.data.iter_mut().enumerate() {
            let (r, c) = (i / self.channels, i % self.channels);
            let value = match self.values {
                Values::Mixed => *v * [1.0, 1e-3, 20.0][c % 3] + [0.0, 3.0, -0.1, 7.0][c % 4],
                Values::Offset => 1e3 + 0.1 * *v,
                Values::Constant => 0.1 + c as f64,
                Values::ConstantRows => 0.1 + r as f64,
                Values::Large => *v * 1e15,
                Values::Outlier => *v * if r == 0 { 1e4 } else { 1.0 },
            };
            *v = f64::from(value as f32);
        }
        x
    }

    /// Another operand of x's shape, of ordinary normal values.
    pub fn operand(&self, which: u64) -> Array<f64> {
        Array::random(&[self.rows, self.channels], 100 + which, 1.0)
    }

    /// Weight and bias [channels].
    pub fn affine(&self) -> (Array<f64>, Array<f64>) {
        let weight = Array::<f64>::random(&[self.channels], 7, 1.0);
        (weight, Array::random(&[self.channels], 8, 1.0))
    }
}

/// Cases for the CUDA kernels, small enough to be emulated: each way to cut rows into packs and blocks, the widest rows
/// that a warp holds and their neighbours, every kind of value.
pub fn device_cases() -> Vec<Case> {
    use Values::{Constant, ConstantRows, Large, Mixed, Offset, Outlier};
    let shapes = [
        (1, 1, Mixed),
        (1, 17, Mixed),
        (2, 3, Mixed),
        (5, 16, Offset),
        (33, 15, Mixed),
        (257, 16, Constant),
        (31, 64, ConstantRows),
        (513, 1, Offset),
        (8_195, 1, Mixed),
        (5_003, 3, Offset),
        (519, 17, Mixed),
        (1_031, 16, Outlier),
        (131, 128, Large),
        (67, 72, Mixed),
        (37, 144, Offset),
        (35, 256, Constant),
        (33, 257, Offset),
        (17, 384, Outlier),
        (9, 768, Mixed),
        (5, 1_024, Offset),
        (5, 1_025, Mixed),
        (3, 1_032, ConstantRows),
        (5, 2_048, Offset),
        (2, 4_099, Mixed),
    ];
    shapes.iter().map(|&(rows, channels, values)| Case { rows, channels, values }).collect()
}

/// One row, one channel, primes, powers of two and neighbours, several pieces; every kind of value.
pub fn cases() -> Vec<Case> {
    use Values::{Constant, ConstantRows, Large, Mixed, Offset, Outlier};
    let shapes = [
        (1, 1, Mixed),
        (1, 17, Mixed),
        (2, 3, Mixed),
        (5, 16, Offset),
        (33, 15, Mixed),
        (257, 16, Constant),
        (31, 64, ConstantRows),
        (513, 1, Offset),
        (70_001, 1, Mixed),
        (50_021, 3, Offset),
        (8_209, 17, Mixed),
        (12_289, 16, Outlier),
        (1_031, 128, Large),
        (300, 255, Mixed),
        (301, 256, Constant),
        (299, 257, Offset),
        (67, 1_000, Mixed),
        (65, 2_048, Offset),
    ];
    shapes.iter().map(|&(rows, channels, values)| Case { rows, channels, values }).collect()
}

/// Random shapes and kinds of values.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use Values::{Constant, ConstantRows, Large, Mixed, Offset, Outlier};
    use proptest::prelude::*;
    let values = prop::sample::select(vec![Mixed, Offset, Constant, ConstantRows, Large, Outlier]);
    (1usize..200, 1usize..70, values).prop_map(|(rows, channels, values)| Case { rows, channels, values })
}
