//! Shapes for tests and benchmarks of convolution.

use super::{Geometry, Sizes};
use engine::Result;

/// One convolution's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Images.
    pub n: usize,
    /// Input height and width.
    pub h: usize,
    /// See `h`.
    pub w: usize,
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel height and width.
    pub r: usize,
    /// See `r`.
    pub s: usize,
    /// Stride, padding, dilation and groups.
    pub g: Geometry,
}

impl Case {
    /// All sizes; an error if the kernel does not fit.
    pub fn sizes(&self) -> Result<Sizes> {
        let inner = self.c / self.g.groups.max(1);
        Sizes::new("case", &[self.n, self.h, self.w, self.c], &[self.o, self.r, self.s, inner], self.g)
    }
}

/// n, h, w, c, o, r, s, stride, padding.
const CASES: &[[usize; 9]] = &[
    [1, 1, 1, 1, 1, 1, 1, 1, 0],
    // The kernels of real networks: 3x3, its stride 2, projections, stems, patches.
    [2, 9, 7, 16, 16, 3, 3, 1, 1],
    [2, 8, 10, 16, 32, 3, 3, 2, 1],
    [3, 7, 9, 5, 6, 3, 3, 2, 1],
    [2, 7, 8, 16, 33, 1, 1, 2, 0],
    [2, 13, 5, 17, 31, 1, 1, 1, 0],
    [1, 21, 18, 3, 64, 7, 7, 2, 3],
    [2, 16, 12, 3, 20, 4, 4, 4, 0],
    [2, 9, 11, 4, 7, 5, 5, 1, 2],
    [2, 12, 14, 1, 16, 3, 3, 1, 1],
    [2, 32, 32, 3, 16, 3, 3, 1, 1],
    // Narrow maps, whose tiles span rows and images.
    [5, 4, 4, 32, 48, 3, 3, 1, 1],
    [3, 7, 7, 16, 64, 3, 3, 1, 1],
    [9, 2, 2, 16, 16, 3, 3, 1, 1],
    [7, 1, 1, 16, 40, 3, 3, 1, 1],
    [5, 5, 3, 16, 16, 3, 3, 1, 1],
    // Weights too large to be copied a task.
    [5, 4, 5, 128, 112, 3, 3, 1, 1],
    [2, 6, 6, 160, 112, 3, 3, 2, 1],
    [3, 5, 4, 384, 408, 1, 1, 1, 0],
    [21, 3, 5, 384, 408, 1, 1, 1, 0],
    // Rows that no window reaches, padding wider than the kernel, strides that skip pixels.
    [2, 9, 8, 4, 5, 2, 2, 3, 0],
    [2, 3, 4, 2, 3, 1, 1, 1, 3],
    [2, 5, 6, 3, 4, 1, 2, 3, 2],
    [1, 6, 5, 2, 3, 2, 5, 2, 3],
    [1, 17, 1, 3, 2, 5, 1, 1, 0],
    // Tile sizes and their neighbours.
    [1, 3, 27, 16, 15, 3, 3, 1, 1],
    [1, 3, 28, 15, 17, 3, 3, 1, 1],
    [1, 3, 29, 16, 32, 3, 3, 1, 1],
    [1, 2, 15, 31, 33, 1, 3, 1, 1],
    [40, 6, 6, 16, 16, 3, 3, 1, 1],
];

/// n, h, w, c, o, r, s, padding, dilation: padding that keeps the size, none, more; images smaller than the dilation; phases of
/// unequal sizes; one kernel element.
const DILATED: &[[usize; 9]] = &[
    [2, 8, 8, 16, 16, 3, 3, 2, 2],
    [1, 7, 9, 5, 6, 3, 3, 0, 2],
    [2, 11, 6, 8, 12, 3, 2, 4, 3],
    [1, 3, 4, 4, 8, 3, 3, 5, 5],
    [2, 5, 5, 3, 4, 1, 1, 1, 2],
    [3, 9, 10, 12, 8, 2, 4, 1, 2],
];

/// n, h, w, c, o, r, s, stride, padding, dilation, groups. Depthwise: 3x3, its strides, 5x5 and 7x7, kernels that no pass knows by
/// their size, rows and columns of other numbers, padding beyond the kernel, dilation, channels that are no packs, several outputs a
/// channel, one pixel, weight gradients in parts. Grouped: packs and not, residue classes, 1x1, tiles that groups do not fill, dilation.
const GROUPED: &[[usize; 11]] = &[
    [2, 6, 7, 16, 16, 3, 3, 1, 1, 1, 16],
    [1, 9, 8, 8, 8, 3, 3, 2, 1, 1, 8],
    [1, 8, 9, 24, 24, 5, 5, 1, 2, 1, 24],
    [1, 9, 7, 8, 8, 7, 7, 1, 3, 1, 8],
    [2, 7, 6, 5, 5, 3, 3, 1, 1, 1, 5],
    [1, 7, 9, 6, 18, 3, 2, 2, 1, 1, 6],
    [1, 5, 6, 8, 16, 2, 4, 1, 0, 1, 8],
    [1, 4, 5, 8, 8, 1, 1, 1, 2, 1, 8],
    [1, 8, 7, 16, 16, 3, 3, 1, 3, 2, 16],
    [3, 1, 1, 40, 40, 3, 3, 1, 1, 1, 40],
    [1, 9, 9, 264, 264, 3, 3, 3, 1, 1, 264],
    [5, 20, 18, 8, 8, 3, 2, 1, 1, 1, 8],
    [2, 6, 7, 16, 32, 3, 3, 1, 1, 1, 2],
    [1, 8, 7, 24, 48, 3, 3, 2, 1, 1, 3],
    [2, 5, 5, 6, 9, 3, 3, 1, 1, 1, 3],
    [1, 7, 7, 16, 16, 1, 1, 1, 0, 1, 4],
    [1, 6, 6, 32, 16, 1, 1, 2, 0, 1, 2],
    [1, 7, 9, 16, 24, 3, 2, 1, 2, 2, 4],
    [2, 9, 8, 16, 128, 3, 3, 1, 1, 1, 2],
    [1, 5, 6, 10, 4, 2, 3, 3, 2, 1, 2],
];

/// Hand-picked shapes.
pub fn cases() -> Vec<Case> {
    let case = |&[n, h, w, c, o, r, s, stride, padding]: &[usize; 9]| {
        let g = Geometry::new(stride, padding);
        Case { n, h, w, c, o, r, s, g }
    };
    let dilated = |&[n, h, w, c, o, r, s, padding, dilation]: &[usize; 9]| {
        let g = Geometry { dilation, ..Geometry::new(1, padding) };
        Case { n, h, w, c, o, r, s, g }
    };
    let grouped = |&[n, h, w, c, o, r, s, stride, padding, dilation, groups]: &[usize; 11]| {
        let g = Geometry { stride, padding, dilation, groups };
        Case { n, h, w, c, o, r, s, g }
    };
    let more = DILATED.iter().map(dilated).chain(GROUPED.iter().map(grouped));
    CASES.iter().map(case).chain(more).collect()
}

/// Random shapes whose kernel fits.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (
        (1..4usize, 1..18usize, 1..18usize),
        (1..41usize, 1..41usize, prop::sample::select(vec![1usize, 1, 1, 2, 3])),
        (1..6usize, 1..6usize),
        (1..4usize, 0..4usize, 1..4usize),
    )
        .prop_map(|((n, h, w), (c, o, groups), (r, s), (stride, padding, dilation))| Case {
            n,
            h,
            w,
            c: c.div_ceil(groups) * groups,
            o: o.div_ceil(groups) * groups,
            r,
            s,
            g: Geometry { stride, padding, dilation: if stride > 1 { 1 } else { dilation }, groups },
        })
        .prop_filter("the kernel fits", |case| case.sizes().is_ok())
}
