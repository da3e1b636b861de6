//! Shapes and values that tests and benchmarks share.

use super::Hold;
use super::reference::State;
use crate::array::{Array, Real};

/// One step over several parameters.
#[derive(Debug, Clone)]
pub struct Case {
    /// Elements of each parameter.
    pub sizes: Vec<usize>,
    /// Size of the gradients.
    pub scale: f32,
    /// Weight decay of the parameters that have any: those at even places.
    pub decay: f32,
    /// Whether the parameters at even places start at zero.
    pub zeros: bool,
    /// Number of steps.
    pub steps: usize,
    /// Whether parameters wait, in turn not at all, untouched and still, for one or two steps.
    pub holds: bool,
}

impl Case {
    /// Parameters before the first step, exact in f32. Those at odd places do not adapt and do not decay, as
    /// biases and norms; every third has half the rate.
    pub fn states<T: Real>(&self, rate: f32) -> Vec<State<T>> {
        let state = |(i, &n): (usize, &usize)| {
            let even = i % 2 == 0;
            let w = if self.zeros && even { Array::zeros(&[n]) } else { Array::random(&[n], i as u64, 1.0) };
            State {
                w: w.data,
                first: vec![T::ZERO; n],
                second: vec![T::ZERO; n],
                decay: T::of(if even { f64::from(self.decay) } else { 0.0 }),
                rate: T::of(f64::from(rate)) * T::of(self.rate_scale(i)),
                adapt: even,
            }
        };
        self.sizes.iter().enumerate().map(state).collect()
    }

    /// What multiplies the rate of parameter `i`.
    pub fn rate_scale(&self, i: usize) -> f64 {
        if i % 3 == 2 { 0.5 } else { 1.0 }
    }

    /// Whether parameter `i` waits.
    pub fn hold(&self, i: usize) -> Hold {
        match i % 5 {
            _ if !self.holds => Hold::None,
            0 => Hold::Untouched(1),
            1 => Hold::Still(1),
            2 => Hold::None,
            3 => Hold::Untouched(2),
            _ => Hold::Still(2),
        }
    }

    /// What multiplies all decays at a step, exact in f32.
    pub fn decay_scale(&self, step: usize) -> f32 {
        [1.0, 0.5, 0.0, 2.0][step % 4]
    }

    /// What multiplies the gradient of parameter `i`, exact in f32.
    pub fn gradient_scale(&self, i: usize) -> f32 {
        [1.0, 0.5, 0.25][i % 3]
    }

    /// The group of parameter `i`: numbers with gaps, whose members do not lie side by side.
    pub fn group(&self, i: usize) -> u32 {
        [7, 2, 7, 4_000_000_000][i % 4]
    }

    /// Gradients at a step, exact in f32.
    pub fn gradients<T: Real>(&self, step: usize) -> Vec<Vec<T>> {
        let one =
            |(i, &n): (usize, &usize)| Array::random(&[n], (1000 * (step + 1) + i) as u64, self.scale).data;
        self.sizes.iter().enumerate().map(one).collect()
    }

    /// Elements of all parameters.
    pub fn elements(&self) -> usize {
        self.sizes.iter().sum()
    }
}

/// Hand-picked: nothing, single elements, chunk sizes and their neighbours, gradients tiny and huge, zeros.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for sizes in [vec![], vec![0, 1, 0], vec![1, 2, 15, 16, 17, 1000], vec![16383, 16384, 16385, 7]] {
        all.push(Case { sizes, scale: 1.0, decay: 0.01, zeros: false, steps: 3, holds: false });
    }
    for scale in [0.0, 1e-10, 1e10] {
        all.push(Case { sizes: vec![7, 33, 129], scale, decay: 0.05, zeros: false, steps: 2, holds: false });
    }
    for scale in [0.0, 1.0] {
        all.push(Case { sizes: vec![7, 33, 129], scale, decay: 0.05, zeros: true, steps: 2, holds: false });
    }
    all.push(Case { sizes: vec![50, 20], scale: 1.0, decay: 0.0, zeros: false, steps: 4, holds: false });
    let sizes = vec![50, 20, 7, 16385, 33, 1];
    all.push(Case { sizes, scale: 1.0, decay: 0.05, zeros: false, steps: 4, holds: true });
    all.push(Case { sizes: vec![5, 3], scale: 1.0, decay: 0.05, zeros: true, steps: 3, holds: true });
    all
}

/// Random problems. Parameters of a few elements are among the hand-picked cases only: here chance would have all of
/// them cancel between two steps, and errors are measured against the largest.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    let sizes = prop::collection::vec((0..200usize).prop_map(|n| if n < 8 { 0 } else { n }), 0..8);
    let flags = any::<[bool; 2]>();
    (sizes, -3..3i32, 0..20u8, flags, 1..4usize).prop_map(|(sizes, scale, decay, [zeros, holds], steps)| {
        Case { sizes, scale: 10f32.powi(scale), decay: f32::from(decay) / 100.0, zeros, steps, holds }
    })
}
