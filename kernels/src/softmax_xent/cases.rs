//! Shapes and values that tests and benchmarks share.

use super::Target;
use crate::array::Array;
use engine::random::Purpose;
use engine::{Philox, Tensor};

/// What the logits look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Normal with this scale.
    Normal(f32),
    /// All equal.
    Constant(f32),
    /// One logit of 1e4 among -1e4.
    Dominant,
    /// A third of the logits minus infinity, the first finite.
    Masked,
}

/// One problem.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Rows.
    pub m: usize,
    /// Classes.
    pub v: usize,
    /// Soft targets instead of labels.
    pub soft: bool,
    /// Label smoothing.
    pub smoothing: f32,
    /// Logits.
    pub values: Values,
}

impl Case {
    /// Logits [M, V].
    pub fn logits(&self) -> Array<f64> {
        let shape = [self.m, self.v];
        let mut x = match self.values {
            Values::Normal(scale) => Array::random(&shape, 1, scale),
            Values::Constant(value) => Array::zeros(&shape).map(|_: f64| f64::from(value)),
            Values::Dominant => Array::zeros(&shape).map(|_: f64| -1e4),
            Values::Masked => Array::random(&shape, 2, 3.0),
        };
        for i in 0..self.m {
            match self.values {
                Values::Dominant => x.data[i * self.v + (7 * i) % self.v] = 1e4,
                Values::Masked => {
                    for j in (1..self.v).filter(|j| (i + j) % 3 == 0) {
                        x.data[i * self.v + j] = f64::NEG_INFINITY;
                    }
                }
                Values::Normal(_) | Values::Constant(_) => {}
            }
        }
        x
    }

    /// Labels [M]; of a masked case all zero, since other classes may be impossible.
    pub fn labels(&self) -> Vec<i32> {
        let mut g = Philox::new(3, Purpose::Test, 0);
        let classes = if self.values == Values::Masked { 1 } else { self.v };
        (0..self.m).map(|_| g.below(classes) as i32).collect()
    }

    /// Soft targets [M, V], exact in f32: mostly not adding up to one, zero at impossible classes.
    pub fn probabilities(&self) -> Array<f64> {
        let mut g = Philox::new(4, Purpose::Test, 0);
        let mut t = self.logits();
        for x in &mut t.data {
            let weight = f64::from(g.uniform()) / 2f64.powi(self.v.ilog2() as i32);
            *x = if *x == f64::NEG_INFINITY || g.chance(0.2) { 0.0 } else { weight };
        }
        t
    }

    /// The launchers' target from the tensor of what the case has, labels or probabilities.
    pub fn target<'a>(&self, t: &'a Tensor) -> Target<'a> {
        if self.soft { Target::Probabilities(t) } else { Target::Labels(t) }
    }

    /// Upstream gradient [M].
    pub fn dloss(&self) -> Array<f64> {
        Array::random(&[self.m], 5, 1.0)
    }

    /// Floats that must be read and written, forward and backward together.
    pub fn floats(&self) -> usize {
        let target = if self.soft { self.m * self.v } else { self.m };
        3 * self.m * self.v + 2 * target
    }
}

/// Hand-picked: every path and its neighbours.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let shapes =
        [(1, 1), (1, 2), (3, 15), (5, 16), (2, 17), (33, 63), (7, 65), (64, 10), (4, 1000), (3, 8193)];
    for (m, v) in shapes {
        for soft in [false, true] {
            for smoothing in [0.0, 0.1, 1.0] {
                all.push(Case { m, v, soft, smoothing, values: Values::Normal(2.0) });
            }
        }
    }
    for soft in [false, true] {
        for values in [
            Values::Normal(100.0),
            Values::Normal(1e4),
            Values::Constant(0.0),
            Values::Constant(-3e4),
            Values::Dominant,
            Values::Masked,
        ] {
            all.push(Case { m: 5, v: 37, soft, smoothing: 0.0, values });
            if values != Values::Masked {
                all.push(Case { m: 3, v: 9001, soft, smoothing: 0.2, values });
            }
        }
        all.push(Case { m: 2, v: 131_072, soft, smoothing: 0.0, values: Values::Normal(4.0) });
    }
    all
}

/// Random problems.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (0..40usize, 1..300usize, any::<bool>(), 0..=4u8, 0..4u8).prop_map(|(m, v, soft, smoothing, scale)| {
        Case {
            m,
            v,
            soft,
            smoothing: f32::from(smoothing) / 4.0,
            values: Values::Normal(10f32.powi(i32::from(scale) - 1)),
        }
    })
}
