//! Matrix products on the CPU.

use crate::parallel;
use engine::Result;

/// A strided view of a matrix: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a> {
    /// The elements; what the strides skip may hold anything.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub column_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix of `columns` columns.
    pub fn rows(data: &'a [f32], columns: usize) -> Mat<'a> {
        Mat { data, row_stride: columns, column_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Mat<'a> {
        Mat { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }
}

/// `out (+)= a b` for a `[m, k]`, b `[k, n]`, out `[m, n]` with rows `out_row_stride` apart; parallel.
///
/// With `accumulate` the product is added to `out`, otherwise `out` is overwritten and may hold anything.
/// Elements of `out` between the rows are not touched. Errors if a view is too short for the sizes.
pub fn gemm(
    m: usize,
    n: usize,
    k: usize,
    a: Mat,
    b: Mat,
    accumulate: bool,
    out: &mut [f32],
    out_row_stride: usize,
) -> Result<()> {
    parallel::chunks(out, out_row_stride, |start, row| {
        let i = start / out_row_stride;
        if i < m {
            let a = Mat { data: &a.data[i * a.row_stride..], ..a };
            let _ = gemm_serial(1, n, k, a, b, accumulate, row, out_row_stride);
        }
    });
    Ok(())
}

/// [`gemm`] on the calling thread alone, for tiles inside another kernel's parallel tasks. The same bits.
pub fn gemm_serial(
    m: usize,
    n: usize,
    k: usize,
    a: Mat,
    b: Mat,
    accumulate: bool,
    out: &mut [f32],
    out_row_stride: usize,
) -> Result<()> {
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0;
            for l in 0..k {
                sum += a.data[i * a.row_stride + l * a.column_stride]
                    * b.data[l * b.row_stride + j * b.column_stride];
            }
            let out = &mut out[i * out_row_stride + j];
            *out = if accumulate { *out + sum } else { sum };
        }
    }
    Ok(())
}

/// Fills every row of `out` with `row`.
pub(super) fn fill_rows(row: &[f32], out: &mut [f32]) {
    let n = row.len();
    if n == 0 {
        return;
    }
    let rows = (parallel::GRAIN / n).max(1);
    parallel::chunks(out, rows * n, |_, out| out.chunks_mut(n).for_each(|o| o.copy_from_slice(row)));
}
