//! Matrix products on the CPU: B packed in panels, A read where it lies, blocks of the inner dimension so that
//! a panel's block stays in the first-level cache.

use super::micro::{self, Panel, Shared, Walk};
use super::pack::{self, Panels};
use crate::parallel;
use crate::simd::{self, Level};
use engine::memory::Scratch;
use engine::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

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

    /// An error unless the elements of a `rows x columns` matrix exist.
    #[track_caller]
    fn require(&self, name: &str, rows: usize, columns: usize) -> Result<()> {
        let last = match (rows, columns) {
            (0, _) | (_, 0) => return Ok(()),
            (m, n) => (m - 1) * self.row_stride + (n - 1) * self.column_stride,
        };
        if last < self.data.len() {
            return Ok(());
        }
        let (length, strides) = (self.data.len(), (self.row_stride, self.column_stride));
        Err(Error::shape("gemm", format!("{name} is too short: {length} elements for {rows} x {columns}"))
            .with("strides", strides))
    }
}

/// Most steps of the inner dimension between two visits of the output.
const INNER: usize = 256;
/// The same where B is read in place: few enough rows of B for the hardware to follow each as a stream.
const INNER_DIRECT: usize = 32;
/// Rows of the output that one task computes.
const ROWS: usize = 112;
/// Operations below which the calling thread works alone.
const SERIAL: usize = 1 << 18;

/// `out (+)= a b` for a `[m, k]`, b `[k, n]`, out `[m, n]` with rows `out_row_stride` apart; parallel.
///
/// With `accumulate` the product is added to `out`, otherwise `out` is overwritten and may hold anything.
/// Elements of `out` between the rows are not touched. Any strides are correct; fast are row-major and
/// transposed views. The result does not depend on the number of threads. Errors if a view is too short
/// for the sizes.
#[track_caller]
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
    let job = Job::new(simd::level(), m, n, k, a, b, accumulate, out, out_row_stride)?;
    if m.saturating_mul(n).saturating_mul(k) < SERIAL { job.serial(out) } else { job.parallel(out) }
}

/// [`gemm`] on the calling thread alone, for tiles inside another kernel's parallel tasks. The same bits.
///
/// B is packed at every call (`k n` elements), so `m` should be 32 or more for speed.
#[track_caller]
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
    Job::new(simd::level(), m, n, k, a, b, accumulate, out, out_row_stride)?.serial(out)
}

/// One checked product.
pub(crate) struct Job<'a> {
    level: Level,
    m: usize,
    n: usize,
    k: usize,
    a: Mat<'a>,
    b: Mat<'a>,
    accumulate: bool,
    out_row: usize,
    panels: Panels,
    /// Whether B is read where it lies: it has few uses, and its rows are whole vectors.
    direct: bool,
}

/// Rows of B that a task packs.
const PACKED_ROWS: usize = 64;

/// Rows of the output below which packing B costs more than it gains.
const FEW_ROWS: usize = 28;

impl<'a> Job<'a> {
    #[track_caller]
    pub(crate) fn new(
        level: Level,
        m: usize,
        n: usize,
        k: usize,
        a: Mat<'a>,
        b: Mat<'a>,
        accumulate: bool,
        out: &[f32],
        out_row: usize,
    ) -> Result<Job<'a>> {
        a.require("a", m, k)?;
        b.require("b", k, n)?;
        if m > 0 && n > 0 && (out_row < n && m > 1 || (m - 1) * out_row + n > out.len()) {
            return Err(Error::shape("gemm", "the output is too short, or its rows overlap")
                .with("m, n", (m, n))
                .with("out_row_stride", out_row)
                .with("elements", out.len()));
        }
        let panels = Panels::new(level, n);
        let direct = m <= FEW_ROWS && b.column_stride == 1 && n.is_multiple_of(panels.lanes);
        Ok(Job { level, m, n, k, a, b, accumulate, out_row, panels, direct })
    }

    pub(crate) fn serial(&self, out: &mut [f32]) -> Result<()> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        let mut packed = Scratch::<f32>::new(self.packed_len())?;
        for i in 0..self.pieces() {
            // SAFETY: one piece after another.
            unsafe { self.pack(i, Shared::new(&mut packed)) };
        }
        self.block(0..self.m, 0..self.panels.count(), &packed, Shared::new(out))
    }

    pub(crate) fn parallel(&self, out: &mut [f32]) -> Result<()> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        let count = self.panels.count();
        let mut packed = Scratch::<f32>::new(self.packed_len())?;
        let shared = Shared::new(&mut packed);
        // SAFETY: pieces are disjoint.
        (0..self.pieces()).into_par_iter().for_each(|i| unsafe { self.pack(i, shared) });
        // Row blocks of nearly equal size; few rows leave the panels to be shared out.
        let blocks = self.m.div_ceil(ROWS).max(self.m.div_ceil(28).min(4));
        let rows = self.m.div_ceil(blocks).next_multiple_of(2);
        let blocks = self.m.div_ceil(rows);
        let groups = (8usize.div_ceil(blocks)).min(count);
        let width = count.div_ceil(groups);
        let groups = count.div_ceil(width);
        let (packed, out) = (&packed[..], Shared::new(out));
        (0..blocks * groups).into_par_iter().try_for_each(|i| {
            let (block, group) = (i / groups, i % groups);
            let panels = group * width..((group + 1) * width).min(count);
            self.block(block * rows..((block + 1) * rows).min(self.m), panels, packed, out)
        })
    }

    fn packed_len(&self) -> usize {
        if self.direct { 0 } else { self.k * self.panels.padded() }
    }

    /// Where panel `i` lies among the packed ones.
    fn packed_range(&self, i: usize) -> (usize, usize) {
        let start = self.k * self.panels.start(i);
        (start, start + self.k * self.panels.vectors(i) * self.panels.lanes)
    }

    /// Pieces in which B is packed: blocks of whole rows if it is row-major, for a panel alone would touch a
    /// new page at every row; otherwise panels.
    fn pieces(&self) -> usize {
        match (self.direct, self.b.column_stride) {
            (true, _) => 0,
            (false, 1) => self.k.div_ceil(PACKED_ROWS),
            (false, _) => self.panels.count(),
        }
    }

    /// Packs piece `piece` into `out`, which has room for all of B.
    ///
    /// # Safety
    /// No other thread may access this piece meanwhile.
    unsafe fn pack(&self, piece: usize, out: Shared) {
        let Mat { data, row_stride, column_stride } = self.b;
        let (rows, panels) = match column_stride {
            1 => (piece * PACKED_ROWS..((piece + 1) * PACKED_ROWS).min(self.k), 0..self.panels.count()),
            _ => (0..self.k, piece..piece + 1),
        };
        let step = if column_stride == 1 { 1 } else { rows.len() };
        for start in rows.clone().step_by(step.max(1)) {
            for i in panels.clone() {
                let padded = self.panels.vectors(i) * self.panels.lanes;
                let first = start * row_stride + self.panels.start(i) * column_stride;
                let to = out.get().wrapping_add(self.packed_range(i).0 + start * padded);
                // SAFETY: panels hold `k` rows of `padded` elements each, and the caller vouches for the rest.
                let to = unsafe { std::slice::from_raw_parts_mut(to, step * padded) };
                let width = self.panels.width(i);
                pack::pack(self.level, data, |k| first + k * row_stride, column_stride, width, padded, to);
            }
        }
    }

    /// Computes some rows and panels of the output; no other thread may touch them meanwhile. An empty
    /// `packed` says that B is read where it lies.
    fn block(&self, rows: Range<usize>, panels: Range<usize>, packed: &[f32], out: Shared) -> Result<()> {
        let blocks = self.k.div_ceil(if self.direct { INNER_DIRECT } else { INNER }).max(1);
        let inner = self.k.div_ceil(blocks);
        let copies = panels.len() > 2;
        let mut copy = Scratch::<f32>::new(if copies { rows.len() * inner } else { 0 })?;
        for block in 0..blocks {
            let k = block * inner..((block + 1) * inner).min(self.k);
            let start = rows.start * self.a.row_stride + k.start * self.a.column_stride;
            let first = &self.a.data[start.min(self.a.data.len())..];
            let (a, a_row, a_step) = if copies {
                let copy = &mut copy[..rows.len() * k.len()];
                let (a_row, a_step) = self.copy_rows(first, rows.len(), k.len(), copy);
                (copy.as_ptr(), a_row, a_step)
            } else {
                (first.as_ptr(), self.a.row_stride, self.a.column_stride)
            };
            for i in panels.clone() {
                let vectors = self.panels.vectors(i);
                let b_step = if self.direct { self.b.row_stride } else { vectors * self.panels.lanes };
                let b = match self.direct {
                    true => self.b.data[(self.panels.start(i) + k.start * b_step).min(self.b.data.len())..]
                        .as_ptr(),
                    false => packed[self.packed_range(i).0 + k.start * b_step..].as_ptr(),
                };
                let walk = Walk {
                    a_rows: micro::row_multiples(a_row),
                    outer: 1,
                    segments: 1,
                    len: k.len(),
                    a_step,
                    b_step,
                    out_row: self.out_row,
                    accumulate: self.accumulate || block > 0,
                    ..Walk::default()
                };
                let columns = self.panels.width(i);
                let panel = Panel { level: self.level, vectors, columns, rows: rows.len(), a_row };
                let out = out.get().wrapping_add(rows.start * self.out_row + self.panels.start(i));
                // SAFETY: `new` checked that the views hold m x k, k x n and m x n elements; `packed` holds
                // whole vectors, as does b if it is read directly; nobody else writes these rows and panels.
                unsafe { panel.run(&walk, a, b, out) };
            }
        }
        Ok(())
    }

    /// Copies a block of A to one place, so that its rows neither share cache sets nor lie on a page each.
    /// Returns the distances of rows and of columns in the copy.
    fn copy_rows(&self, a: &[f32], rows: usize, columns: usize, out: &mut [f32]) -> (usize, usize) {
        let Mat { row_stride, column_stride, .. } = self.a;
        if column_stride == 1 {
            pack::pack(self.level, a, |i| i * row_stride, 1, columns, columns, out);
            (columns, 1)
        } else {
            pack::pack(self.level, a, |k| k * column_stride, row_stride, rows, rows, out);
            (1, rows)
        }
    }
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

/// Operations per second of the microkernel on `threads` threads when all operands are in the first-level
/// cache: the practical peak, for benchmarks.
pub fn peak(threads: usize) -> f64 {
    let level = simd::level();
    let (rows, vectors, len, repeats) = (micro::most_rows(level, 2), 2, 128, 200);
    let columns = vectors * micro::lanes(level);
    let once = || {
        let (a, b, mut out) = (vec![1.0; rows * len], vec![1.0; len * columns], vec![0.0; rows * columns]);
        let walk = Walk {
            a_rows: micro::row_multiples(len),
            outer: 1,
            segments: 1,
            len,
            a_step: 1,
            b_step: columns,
            out_row: columns,
            ..Walk::default()
        };
        let panel = Panel { level, vectors, columns, rows, a_row: len };
        let mut best = f64::INFINITY;
        for _ in 0..300 {
            let start = std::time::Instant::now();
            for _ in 0..repeats {
                // SAFETY: the three buffers hold rows x len, len x columns and rows x columns elements.
                unsafe { panel.run(&walk, a.as_ptr(), b.as_ptr(), out.as_mut_ptr()) };
                std::hint::black_box(&mut out);
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    };
    let slowest = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(once)).collect();
        all.into_iter().filter_map(|t| t.join().ok()).fold(0f64, f64::max)
    });
    (threads * repeats) as f64 * super::flops(rows, columns, len) / slowest
}
