//! Shapes for tests and benchmarks of pooling.

use super::Sizes;
use engine::Result;

/// One pooling's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// `[N, H, W, C]`.
    pub input: [usize; 4],
    /// Height and width of a window.
    pub kernel: usize,
    /// Input pixels from one window to the next.
    pub stride: usize,
    /// Pixels around the image.
    pub padding: usize,
}

impl Case {
    /// All sizes; an error if the window does not fit.
    pub fn sizes(&self) -> Result<Sizes> {
        Sizes::new(&self.input, self.kernel, self.stride, self.padding)
    }
}

/// Hand-picked shapes: n, h, w, c, kernel, stride, padding.
pub fn cases() -> Vec<Case> {
    [
        [1, 1, 1, 1, 1, 1, 0],
        [2, 12, 10, 16, 3, 2, 1],
        [2, 11, 13, 5, 3, 2, 1],
        [2, 8, 8, 17, 2, 2, 0],
        [1, 9, 7, 3, 3, 3, 0],
        [3, 6, 5, 33, 3, 1, 1],
        [1, 5, 5, 64, 5, 1, 2],
        [1, 7, 9, 2, 2, 3, 1],
        [5, 40, 40, 8, 3, 2, 1],
    ]
    .map(|[n, h, w, c, kernel, stride, padding]| Case { input: [n, h, w, c], kernel, stride, padding })
    .to_vec()
}

/// Random shapes whose window fits.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    ((1..4usize, 1..14usize, 1..14usize, 1..36usize), (1..5usize, 1..4usize, 0..3usize))
        .prop_map(|((n, h, w, c), (kernel, stride, padding))| Case {
            input: [n, h, w, c],
            kernel,
            stride,
            padding,
        })
        .prop_filter("the window fits", |case| case.sizes().is_ok())
}
