//! Shapes and values that tests and benchmarks share.

use super::{Positive, Spec, reference};
use crate::array::Array;
use engine::random::Purpose;
use engine::{Philox, Result, Tensor};

/// What the vectors look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Random directions of length one.
    Unit,
    /// Normal with this scale: inner products of any size.
    Normal(f32),
    /// All the same vector of length one.
    Identical,
    /// Zeros.
    Zero,
}

/// One problem.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Rows.
    pub r: usize,
    /// Columns.
    pub c: usize,
    /// Length of a vector.
    pub d: usize,
    /// The positives are vectors of their own.
    pub vector: bool,
    /// Temperature and mask.
    pub spec: Spec,
    /// Vectors.
    pub values: Values,
}

/// A case's arrays.
#[derive(Debug, Clone)]
pub struct Data {
    /// [R, D]
    pub rows: Array<f64>,
    /// [C, D]
    pub columns: Array<f64>,
    /// The positives.
    pub positive: reference::Positive<f64>,
    /// [R]
    pub dloss: Array<f64>,
}

impl Case {
    /// SimCLR's: 2 `n` views against themselves, the other view of each pair `n` further.
    pub fn simclr(n: usize, d: usize, temperature: f32, values: Values) -> Case {
        let spec = Spec { temperature, self_column: Some(0) };
        Case { r: 2 * n, c: 2 * n, d, vector: false, spec, values }
    }

    fn vectors(&self, n: usize, seed: u64) -> Array<f64> {
        let shape = [n, self.d];
        let x = match self.values {
            Values::Unit => Array::random(&shape, seed, 1.0),
            Values::Normal(scale) => return Array::random(&shape, seed, scale),
            Values::Identical => Array::zeros(&shape).map(|_: f64| 1.0),
            Values::Zero => return Array::zeros(&shape),
        };
        let mut x = x;
        for row in x.data.chunks_mut(self.d.max(1)) {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut().for_each(|x| *x = f64::from((*x / norm) as f32));
        }
        x
    }

    /// The arrays, all exact in f32. If rows and columns are equally many and mask each other they are equal,
    /// as SimCLR's are, with the positive half way round where there is one.
    pub fn data(&self) -> Data {
        let rows = self.vectors(self.r, 1);
        let same = self.r == self.c && self.spec.self_column == Some(0);
        let columns = if same { rows.clone() } else { self.vectors(self.c, 2) };
        let mut g = Philox::new(3, Purpose::Test, 0);
        let choose = |i: usize, g: &mut Philox| {
            let hidden = self.spec.self_column.map(|offset| i + offset);
            let wanted = if same { (i + self.r / 2) % self.c } else { g.below(self.c) };
            if Some(wanted) == hidden { (wanted + 1) % self.c } else { wanted }
        };
        let positive = match self.vector {
            true => reference::Positive::Vector(self.vectors(self.r, 4)),
            false => reference::Positive::Column((0..self.r).map(|i| choose(i, &mut g)).collect()),
        };
        Data { rows, columns, positive, dloss: Array::random(&[self.r], 5, 1.0) }
    }

    /// Operations of one matrix product of the case's size: forward is one, backward four, or three where rows
    /// and columns are the same tensor.
    pub fn product_flops(&self) -> f64 {
        2.0 * self.r as f64 * self.c as f64 * self.d as f64
    }
}

impl Data {
    /// The positives as a tensor, and whether they are columns.
    pub fn positive_tensor(&self) -> Result<(Tensor, bool)> {
        match &self.positive {
            reference::Positive::Vector(v) => Ok((v.to_tensor()?, false)),
            reference::Positive::Column(index) => {
                let index: Vec<i32> = index.iter().map(|&i| i as i32).collect();
                Ok((Tensor::from_slice(&index, &[index.len()])?, true))
            }
        }
    }
}

/// The launchers' positive from [`Data::positive_tensor`].
pub fn positive(of: &(Tensor, bool)) -> Positive<'_> {
    if of.1 { Positive::Column(&of.0) } else { Positive::Vector(&of.0) }
}

/// Hand-picked: one, tile sizes and their neighbours, every temperature, every kind of value.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for temperature in [0.01, 0.05, 0.1, 0.5, 1.0] {
        for values in [Values::Unit, Values::Identical] {
            all.push(Case::simclr(9, 31, temperature, values));
        }
        all.push(Case::simclr(2, 8, temperature, Values::Unit));
    }
    for n in [1, 2, 3, 63, 64, 65, 129, 193] {
        all.push(Case::simclr(n, 17, 0.2, Values::Unit));
    }
    for d in [1, 63, 64, 128, 256] {
        all.push(Case::simclr(20, d, 0.5, Values::Normal(1.0)));
    }
    for values in [Values::Normal(30.0), Values::Normal(1e-3), Values::Zero] {
        all.push(Case::simclr(12, 24, 0.1, values));
    }
    let shapes = [(1, 1), (1, 2), (1, 385), (385, 1), (16, 384), (17, 383), (7, 770), (600, 5)];
    for (r, c) in shapes {
        for vector in [false, true] {
            for self_column in [None, Some(0), Some(3)] {
                // A single column that is hidden leaves no positive.
                if vector || c > 1 || self_column.is_none() {
                    let spec = Spec { temperature: 0.07, self_column };
                    all.push(Case { r, c, d: 13, vector, spec, values: Values::Unit });
                }
            }
        }
    }
    all
}

/// Random problems.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    let spec = (1..100u8, prop::option::of(0..4usize));
    (0..80usize, 2..90usize, 1..40usize, any::<bool>(), spec, 0..3u8).prop_map(
        |(r, c, d, vector, spec, v)| {
            let values = [Values::Unit, Values::Normal(1.0), Values::Identical][usize::from(v)];
            let spec = Spec { temperature: f32::from(spec.0) / 100.0, self_column: spec.1 };
            Case { r, c, d, vector, spec, values }
        },
    )
}
