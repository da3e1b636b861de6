//! Shapes and values that tests and benchmarks share.

use crate::array::Array;

/// One case: a shape, the dimensions to sum, and a mean that makes naive sums lose digits.
#[derive(Debug, Clone)]
pub struct Case {
    /// Shape of x.
    pub shape: Vec<usize>,
    /// Dimensions to sum.
    pub dims: Vec<usize>,
    /// Added to every element.
    pub mean: f64,
}

impl Case {
    /// The input: normal values about the mean, exact in f32.
    pub fn input(&self) -> Array<f64> {
        let mean = self.mean;
        Array::<f64>::random(&self.shape, self.shape.len() as u64, 1.0).map(|v| f64::from((v + mean) as f32))
    }

    fn new(shape: &[usize], dims: &[usize], mean: f64) -> Case {
        Case { shape: shape.to_vec(), dims: dims.to_vec(), mean }
    }
}

/// Rows, columns, the middle, alternating groups, sizes around a vector, a piece and its neighbours, nothing at all.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new(&[], &[], 0.0),
        Case::new(&[1], &[0], 0.0),
        Case::new(&[0], &[0], 0.0),
        Case::new(&[3, 0, 2], &[1], 0.0),
        Case::new(&[0, 3], &[1], 0.0),
        Case::new(&[17], &[0], 1e3),
        Case::new(&[131_073], &[0], 1e3),
        Case::new(&[200_001, 1], &[0], 0.0),
        Case::new(&[70_001, 3], &[0], 1e3),
        Case::new(&[4_111, 64], &[0], 0.0),
        Case::new(&[131, 1_021], &[0], 1e3),
        Case::new(&[5, 300], &[1], 0.0),
        Case::new(&[3, 140_003], &[1], 1e3),
        Case::new(&[2, 77_777, 2], &[1], 0.0),
        Case::new(&[7, 13, 17], &[0, 2], 0.0),
        Case::new(&[7, 13, 17], &[2, 1], 0.0),
        Case::new(&[2, 3, 5, 7, 11], &[0, 2, 4], 0.0),
        Case::new(&[5, 7, 7, 19], &[0, 1, 2], -50.0),
        Case::new(&[9, 2, 31], &[], 0.0),
    ]
}

/// Random shapes, each dimension summed or not.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (proptest::collection::vec((1usize..20, any::<bool>()), 1..5), -100i32..100).prop_map(|(d, mean)| Case {
        shape: d.iter().map(|d| d.0).collect(),
        dims: (0..d.len()).filter(|&i| d[i].1).collect(),
        mean: f64::from(mean),
    })
}
