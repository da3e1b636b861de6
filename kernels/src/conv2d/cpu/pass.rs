//! One dense convolution over images that hold their own zero border.

use crate::matmul::micro::{self, GROUP_ROWS, GROUPS, Shared, Tile, Walk};
use crate::matmul::pack::Panels;
use crate::simd::Level;
use std::ops::Range;

/// Output pixel `(i, j)`, channel `o`, is the sum over `segments` kernel rows and `len` contiguous inputs of
/// each, from `offset + i line + j pixel` on. All distances are in elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    /// Output pixels of an image.
    pub rows: usize,
    pub columns: usize,
    /// First input of the first output pixel.
    pub offset: usize,
    /// Input distance of output rows and of output pixels.
    pub line: usize,
    pub pixel: usize,
    /// Kernel rows and their distance in the input.
    pub segments: usize,
    pub segment: usize,
    /// Kernel columns times input channels.
    pub len: usize,
    /// First output element, distance of output rows and of output pixels.
    pub out_offset: usize,
    pub out_line: usize,
    pub out_pixel: usize,
    /// Where this pass's packed weights begin.
    pub weights: usize,
}

/// Images and their output for [`Pass::run`].
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub input: &'a [f32],
    /// Elements from one input image to the next.
    pub input_step: usize,
    pub count: usize,
    /// The first image's output.
    pub out: Shared,
    pub out_start: usize,
    pub out_step: usize,
}

/// Groups, rows of a group and pieces of an output row: the largest tile, counting what pieces overlap.
fn tile_shape(level: Level, vectors: usize, columns: usize) -> (usize, usize, usize) {
    let most = micro::most_rows(level, vectors);
    let mut best = (1, 1, columns);
    let mut best_score = 0.0;
    for groups in 1..=GROUPS {
        for rows in 1..=GROUP_ROWS.min(columns).min(most / groups) {
            let pieces = columns.div_ceil(rows);
            let score = (groups * rows * columns) as f64 / (pieces * rows) as f64;
            if score > best_score && micro::kernel(level, groups, rows, vectors).is_some() {
                (best, best_score) = ((groups, rows, pieces), score);
            }
        }
    }
    best
}

impl Pass {
    /// Sums of products of one output value.
    pub(super) fn taps(&self) -> usize {
        self.segments * self.len
    }

    /// Computes output rows `rows` and panels `which` of all images.
    ///
    /// # Safety
    /// No other thread may access these outputs meanwhile, and they must exist for every image.
    pub(super) unsafe fn run(
        &self,
        level: Level,
        panels: &Panels,
        packed: &[f32],
        images: Images,
        rows: Range<usize>,
        which: Range<usize>,
    ) {
        if images.count == 0 || rows.is_empty() || self.columns == 0 {
            return;
        }
        // The last input that any output pixel reads.
        let last = (images.count - 1) * images.input_step
            + self.offset
            + (rows.end - 1) * self.line
            + (self.columns - 1) * self.pixel
            + self.segments.saturating_sub(1) * self.segment
            + self.len.saturating_sub(1);
        assert!(self.taps() == 0 || last < images.input.len(), "the windows hold every input");
        for i in which {
            let vectors = panels.vectors(i);
            let step = vectors * panels.lanes;
            let weights = &packed[self.weights + self.taps() * panels.start(i)..][..self.taps() * step];
            let walk = Walk {
                a_rows: micro::row_multiples(self.pixel),
                outer: 1,
                segments: self.segments,
                a_segment: self.segment,
                b_segment: self.len * step,
                len: self.len,
                a_step: 1,
                b_step: step,
                out_row: self.out_pixel,
                ..Walk::default()
            };
            let mut tile = Tile {
                a: [std::ptr::null(); GROUPS],
                b: weights.as_ptr(),
                out: [std::ptr::null_mut(); GROUPS],
                columns: panels.width(i),
            };
            let (groups, length, pieces) = tile_shape(level, vectors, self.columns);
            let kernels: [_; GROUPS] = std::array::from_fn(|g| micro::kernel(level, g + 1, length, vectors));
            let mut filled = 0;
            for image in 0..images.count {
                let input = images.input.as_ptr().wrapping_add(image * images.input_step + self.offset);
                let out = images.out.get().wrapping_add(
                    images.out_start + image * images.out_step + self.out_offset + panels.start(i),
                );
                for row in rows.clone() {
                    for piece in 0..pieces {
                        // The last piece of a row reaches back over the one before it.
                        let column = (piece * length).min(self.columns - length);
                        tile.a[filled] = input.wrapping_add(row * self.line + column * self.pixel);
                        tile.out[filled] = out.wrapping_add(row * self.out_line + column * self.out_pixel);
                        filled += 1;
                        if filled == groups {
                            // SAFETY: `last` is inside the input, `weights` holds all taps of whole vectors,
                            // and the caller vouches for the output.
                            unsafe { micro::call(kernels[filled - 1], &walk, &tile) };
                            filled = 0;
                        }
                    }
                }
            }
            if filled > 0 {
                // SAFETY: as above.
                unsafe { micro::call(kernels[filled - 1], &walk, &tile) };
            }
        }
    }
}
