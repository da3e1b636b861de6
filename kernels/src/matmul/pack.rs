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

/// Packs rows: `out` is cut in rows of `padded` elements, of which the first `width` are copied and the rest
/// zero. `row(k)` is the index in `data` of row k's first element; elements are `column_stride` apart.
pub(crate) fn pack(
    level: Level,
    data: &[f32],
    row: impl Fn(usize) -> usize,
    column_stride: usize,
    width: usize,
    padded: usize,
    out: &mut [f32],
) {
    if column_stride == 1 && width == padded {
        match width {
            16 => return copy::<16>(data, row, out),
            32 => return copy::<32>(data, row, out),
            64 => return copy::<64>(data, row, out),
            _ => {}
        }
    }
    if column_stride == 1 {
        for (k, out) in out.chunks_exact_mut(padded.max(1)).enumerate() {
            let from = row(k);
            out[..width].copy_from_slice(&data[from..from + width]);
            out[width..].fill(0.0);
        }
        return;
    }
    for (block, out) in out.chunks_mut(BLOCK * padded.max(1)).enumerate() {
        let rows = out.len() / padded.max(1);
        let first = block * BLOCK;
        let at: [usize; BLOCK] = std::array::from_fn(|i| if i < rows { row(first + i) } else { 0 });
        // Blocks whose rows are neighbours in `data` are transposed in registers.
        let neighbours = rows == BLOCK && (1..BLOCK).all(|i| at[i] == at[0] + i);
        let whole = match (neighbours, level) {
            #[cfg(target_arch = "x86_64")]
            (true, Level::Avx2 | Level::Avx512) => width / BLOCK * BLOCK,
            _ => 0,
        };
        #[cfg(target_arch = "x86_64")]
        for j in (0..whole).step_by(BLOCK) {
            let (from, to) = (&data[at[0] + j * column_stride..], &mut out[j..]);
            assert!(from.len() >= 7 * column_stride + BLOCK && to.len() >= 7 * padded + BLOCK);
            // SAFETY: the level was detected, and the assertion gives both sides eight rows of eight.
            unsafe { transpose(from.as_ptr(), column_stride, to.as_mut_ptr(), padded) };
        }
        for j in whole..width {
            for i in 0..rows {
                out[i * padded + j] = data[at[i] + j * column_stride];
            }
        }
        for i in 0..rows {
            out[i * padded + width..(i + 1) * padded].fill(0.0);
        }
    }
}

/// Copies rows of a constant length, which needs no call a row.
fn copy<const N: usize>(data: &[f32], row: impl Fn(usize) -> usize, out: &mut [f32]) {
    for (k, out) in out.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        if let Some(from) = data[row(k)..].first_chunk::<N>() {
            *out = *from;
        }
    }
}

/// Rows that are transposed at a time.
const BLOCK: usize = 8;

/// `out[i out_row + j] = data[j row + i]` for i and j below eight.
///
/// # Safety
/// The processor must have AVX2; both sides must hold eight rows of eight elements.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose(data: *const f32, row: usize, out: *mut f32, out_row: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise.
    unsafe {
        // Rows j and j + 4 side by side, so that only shuffles inside 128-bit halves remain.
        let both = |j: usize, half: usize| {
            let low = _mm256_castps128_ps256(_mm_loadu_ps(data.wrapping_add(j * row + 4 * half)));
            _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(data.wrapping_add((j + 4) * row + 4 * half)))
        };
        for half in 0..2 {
            let (a, b, c, d) = (both(0, half), both(1, half), both(2, half), both(3, half));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let columns = [
                _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
                _mm256_shuffle_ps::<0xEE>(ab_low, cd_low),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xEE>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm256_storeu_ps(out.wrapping_add((4 * half + i) * out_row), column);
            }
        }
    }
}
