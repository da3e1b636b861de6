//! Sizes and values for tests and checks.

use super::Spread;
use crate::array::Array;

/// Points and bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// Points.
    pub n: usize,
    /// Bins.
    pub q: usize,
    /// Bins that get a weight.
    pub neighbours: usize,
    /// Whether all coordinates are multiples of 5, so that many bins are equally near.
    pub ties: bool,
}

impl Case {
    /// The points [n, 2], some far outside the bins.
    pub fn points(&self) -> Array<f64> {
        match self.ties {
            true => Array::<f64>::integers(&[self.n, 2], 5, 12).map(|v| 5.0 * v),
            false => Array::<f64>::random(&[self.n, 2], 1, 40.0),
        }
    }

    /// Bins on a grid of tens, as colorization has them.
    pub fn centres(&self) -> Array<f64> {
        let side = (self.q as f64).sqrt().ceil() as usize;
        let at = |i: usize| 10.0 * (i as f64 - (side / 2) as f64);
        Array::new(&[self.q, 2], (0..self.q).flat_map(|i| [at(i / side), at(i % side)]).collect())
    }

    /// How points are spread.
    pub fn spread(&self) -> Spread {
        Spread { neighbours: self.neighbours, sigma: 5.0 }
    }
}

/// Hand-picked cases: n, q, neighbours, with ties and without.
pub fn cases() -> Vec<Case> {
    let sizes = [(1, 1, 1), (7, 31, 5), (9, 32, 32), (33, 33, 1), (40, 313, 10), (5, 512, 5), (257, 100, 3)];
    let case = |(n, q, neighbours), ties| Case { n, q, neighbours, ties };
    sizes.into_iter().flat_map(|s| [case(s, false), case(s, true)]).collect()
}

/// sRGB values [n, 3]: random, all corners of the cube, dark ones on both sides of the curves' joints.
pub fn colours(n: usize) -> Array<f64> {
    let mut data: Vec<f64> = (0..8u8).flat_map(|i| [0, 1, 2].map(|c| f64::from(i >> c & 1))).collect();
    data.extend(
        [0.001, 0.04, 0.041, 0.0404, 0.0405, 0.05, 0.09, 0.1, 0.098].map(|v: f64| f64::from(v as f32)),
    );
    let random = Array::<f64>::random(&[3 * n], 3, 1.0).map(|v| f64::from((v.abs().fract()) as f32));
    data.extend(random.data);
    data.truncate(3 * n);
    Array::new(&[n, 3], data)
}
