//! Shapes and values that tests and benchmarks share.

use crate::array::Array;

/// One case: a shape whose last dimension is also a bias's, and a seed.
#[derive(Debug, Clone)]
pub struct Case {
    /// Shape of every operand.
    pub shape: Vec<usize>,
    /// Chooses the values.
    pub seed: u64,
}

impl Case {
    /// Operand number `which`: normal values of scale 4, with zeros of both signs, subnormals and large values
    /// in between.
    pub fn operand(&self, which: u64) -> Array<f64> {
        let mut x = Array::<f64>::random(&self.shape, self.seed + 1000 * which, 4.0);
        let odd = [0.0, -0.0, 1e-40f32, -1e-40, 30.0, -30.0];
        for (i, v) in x.data.iter_mut().enumerate().skip(which as usize) {
            if i % 7 == 3 {
                *v = f64::from(odd[i / 7 % odd.len()]);
            }
        }
        x
    }
}

/// No element, one, primes, a vector and its neighbours, the grain and its neighbours, several tasks.
pub fn cases() -> Vec<Case> {
    let shapes: [&[usize]; 12] = [
        &[],
        &[1],
        &[0, 3],
        &[7],
        &[15, 1],
        &[16, 3],
        &[17, 5],
        &[31, 67],
        &[127, 129],
        &[128, 128],
        &[1, 16385],
        &[3, 5, 7, 331],
    ];
    shapes.iter().enumerate().map(|(i, s)| Case { shape: s.to_vec(), seed: i as u64 }).collect()
}

/// Random shapes of one to three dimensions.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (proptest::collection::vec(1usize..40, 1..4), any::<u32>())
        .prop_map(|(shape, seed)| Case { shape, seed: u64::from(seed) })
}
