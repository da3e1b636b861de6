//! Packing a matrix into panels of columns, the order in which the microkernel reads it.
//!
//! A panel is two vectors wide (the last one may be one) and holds one row of the matrix after another; what
//! is missing of the last vector is zero. Panels follow each other.

use super::micro;
use crate::simd::Level;

/// Vectors of a whole panel.
pub(crate) const VECTORS: usize = 2;

/// How the columns of a matrix are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    /// Elements of a vector.
    pub lanes: usize,
    /// Columns of the matrix.
    pub columns: usize,
}

impl Panels {
    pub(crate) fn new(level: Level, columns: usize) -> Panels {
        Panels { lanes: micro::lanes(level), columns }
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.columns.div_ceil(VECTORS * self.lanes)
    }

    /// Columns with the zeros that fill the last vector.
    pub(crate) fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
    }

    /// First column of panel `i`.
    pub(crate) fn start(&self, i: usize) -> usize {
        i * VECTORS * self.lanes
    }

    /// Columns of panel `i` that are not filling.
    pub(crate) fn width(&self, i: usize) -> usize {
        (self.columns - self.start(i)).min(VECTORS * self.lanes)
    }

    /// Vectors of panel `i`.
    pub(crate) fn vectors(&self, i: usize) -> usize {
        self.width(i).div_ceil(self.lanes)
    }
}

/// Packs one panel, `vectors` vectors wide, of which `width` columns exist. `row(k)` is the index in `data`
/// of row k's first element in this panel; columns are `column_stride` apart.
pub(crate) fn pack(
    data: &[f32],
    row: impl Fn(usize) -> usize,
    column_stride: usize,
    width: usize,
    padded: usize,
    out: &mut [f32],
) {
    if column_stride == 1 {
        for (k, out) in out.chunks_exact_mut(padded).enumerate() {
            let from = row(k);
            out[..width].copy_from_slice(&data[from..from + width]);
            out[width..].fill(0.0);
        }
        return;
    }
    for (block, out) in out.chunks_mut(BLOCK * padded).enumerate() {
        let rows = out.len() / padded;
        let first = block * BLOCK;
        let at: [usize; BLOCK] = std::array::from_fn(|i| if i < rows { row(first + i) } else { 0 });
        for j in 0..width {
            for i in 0..rows {
                out[i * padded + j] = data[at[i] + j * column_stride];
            }
        }
        for i in 0..rows {
            out[i * padded + width..(i + 1) * padded].fill(0.0);
        }
    }
}

/// Rows that are transposed at a time: one cache line of each column.
const BLOCK: usize = 16;
