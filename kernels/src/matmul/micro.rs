//! The microkernel of every matrix product and convolution: a tile of sums kept in registers.
//!
//! A tile is `G` groups of `P` rows times `NV` vectors of columns. Each step broadcasts one scalar a row
//! from `a`, loads `NV` vectors from `b` and does `G P NV` fused multiply-adds. What the rows, columns and
//! steps are is a matter of strides alone ([`Walk`]):
//!
//! - matrix product: rows of A, columns of B, the inner dimension;
//! - convolution: output pixels, output channels, and for each kernel row one run over (column, channel),
//!   which is contiguous in an NHWC image;
//! - weight gradient: output channels, (column, channel) of one kernel row, and all output pixels.
//!
//! Inside a group rows are equally far apart. x86 addresses hold one index times 1, 2, 4 or 8, so the odd
//! multiples of the distance (1, 3, .. 13) in registers reach 14 rows from one pointer.

#[cfg(target_arch = "x86_64")]
use super::vectors::{Avx2, Avx512};
use super::vectors::{Portable, Simd};
use crate::simd::Level;

/// Most groups of a tile.
pub(crate) const GROUPS: usize = 3;
/// Most rows of a group.
pub(crate) const GROUP_ROWS: usize = 14;

/// Distances in elements that all tiles of one computation share. Steps run over `outer`, then `segments`,
/// then `len`; each level has its own distance in `a` and in `b`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walk {
    /// Odd multiples, in bytes, of the distance from row to row of a group in `a` ([`row_multiples`]).
    pub a_rows: [usize; 7],
    pub outer: usize,
    pub a_outer: usize,
    pub b_outer: usize,
    pub segments: usize,
    pub a_segment: usize,
    pub b_segment: usize,
    pub len: usize,
    pub a_step: usize,
    pub b_step: usize,
    /// From row to row of a group in the output.
    pub out_row: usize,
    /// Whether sums are added to the output rather than stored.
    pub accumulate: bool,
}

/// Where one tile lies: the first row of each group in `a` and in the output, the first column in `b`, and
/// how many columns are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    pub a: [*const f32; GROUPS],
    pub b: *const f32,
    pub out: [*mut f32; GROUPS],
    pub columns: usize,
}

/// The microkernel for one tile shape.
///
/// # Safety
/// For every group, row, step and column the addresses that [`Walk`] makes from [`Tile`] must be valid: one
/// element of `a`, whole vectors of `b`, `columns` elements of the output, which nothing else accesses.
pub(crate) type Kernel = unsafe fn(&Walk, &Tile);

/// Address of row `p`: `a + p row`, where `steps[i]` is `(2 i + 1) row` in bytes.
#[inline(always)]
fn row(a: *const f32, p: usize, steps: &[usize; 7]) -> *const f32 {
    if p == 0 {
        return a;
    }
    let twos = p.trailing_zeros();
    a.wrapping_byte_add(steps[(p >> twos) / 2] << twos)
}

/// Runs a block once for each row, group or vector with its index as a constant, so that every sum has a
/// register: a loop that is unrolled late leaves the sums in memory.
macro_rules! each {
    ($i:ident < $n:ident, [$($at:literal)*] $block:block) => {
        $({
            const $i: usize = $at;
            if $i < $n $block
        })*
    };
}

/// The same pointer, of which the compiler knows nothing more. Without it the loop gets one induction
/// variable a row, which do not fit in the registers.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", allow(clippy::pointers_in_nomem_asm_block))] // The block has no instruction.
fn opaque(pointer: *const f32) -> *const f32 {
    #[cfg(target_arch = "x86_64")]
    let pointer = {
        let mut pointer = pointer;
        // SAFETY: no instruction.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
        }
        pointer
    };
    pointer
}

#[inline(always)]
unsafe fn body<S: Simd, const G: usize, const P: usize, const NV: usize>(walk: &Walk, tile: &Tile) {
    // SAFETY: the contract of `Kernel`.
    unsafe {
        let odd = walk.a_rows;
        let mut sums = [[[S::zero(); NV]; P]; G];
        let (a_step, b_step) = (walk.a_step * 4, walk.b_step * 4);
        for outer in 0..walk.outer {
            for segment in 0..walk.segments {
                let shift = outer * walk.a_outer + segment * walk.a_segment;
                let mut a = [std::ptr::null(); G];
                each!(GROUP < G, [0 1 2] {
                    a[GROUP] = tile.a[GROUP].wrapping_add(shift);
                });
                let mut b = tile.b.wrapping_add(outer * walk.b_outer + segment * walk.b_segment);
                for _ in 0..walk.len {
                    let mut columns = [S::zero(); NV];
                    each!(VECTOR < NV, [0 1] {
                        columns[VECTOR] = S::load(b.wrapping_add(VECTOR * S::LANES));
                    });
                    each!(GROUP < G, [0 1 2] {
                        let first = opaque(a[GROUP]);
                        each!(ROW < P, [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
                            let x = S::splat(row(first, ROW, &odd));
                            each!(VECTOR < NV, [0 1] {
                                let sum = &mut sums[GROUP][ROW][VECTOR];
                                *sum = S::multiply_add(x, columns[VECTOR], *sum);
                            });
                        });
                        a[GROUP] = first.wrapping_byte_add(a_step);
                    });
                    b = b.wrapping_byte_add(b_step);
                }
            }
        }
        let whole = tile.columns >= NV * S::LANES;
        each!(GROUP < G, [0 1 2] {
            each!(ROW < P, [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
                let out = tile.out[GROUP].wrapping_add(ROW * walk.out_row);
                if whole && walk.accumulate {
                    each!(VECTOR < NV, [0 1] {
                        let out = out.wrapping_add(VECTOR * S::LANES);
                        S::store(out, S::add(S::load(out), sums[GROUP][ROW][VECTOR]));
                    });
                } else if whole {
                    each!(VECTOR < NV, [0 1] {
                        S::store(out.wrapping_add(VECTOR * S::LANES), sums[GROUP][ROW][VECTOR]);
                    });
                } else {
                    let mut lanes = [0f32; 32];
                    each!(VECTOR < NV, [0 1] {
                        S::store(lanes.as_mut_ptr().wrapping_add(VECTOR * S::LANES), sums[GROUP][ROW][VECTOR]);
                    });
                    store_part(&lanes, out, tile.columns, walk.accumulate);
                }
            });
        });
    }
}

/// Stores, or adds, the first `columns` sums of a row.
///
/// # Safety
/// `out` must be valid for `columns` elements.
#[inline(never)]
unsafe fn store_part(lanes: &[f32; 32], out: *mut f32, columns: usize, accumulate: bool) {
    for (i, &lane) in lanes.iter().enumerate().take(columns) {
        // SAFETY: the caller's promise.
        unsafe {
            let out = out.add(i);
            *out = if accumulate { *out + lane } else { lane };
        }
    }
}

/// The distance `row` between rows times 1, 3, .. 13, in bytes.
pub(crate) fn row_multiples(row: usize) -> [usize; 7] {
    [1, 3, 5, 7, 9, 11, 13].map(|odd| 4 * row * odd)
}

unsafe fn portable<const G: usize, const P: usize, const NV: usize>(walk: &Walk, tile: &Tile) {
    // SAFETY: the contract of `Kernel`; the portable level needs no special instructions.
    unsafe { body::<Portable, G, P, NV>(walk, tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const G: usize, const P: usize, const NV: usize>(walk: &Walk, tile: &Tile) {
    // SAFETY: the contract of `Kernel`; only called where the level was detected.
    unsafe { body::<Avx2, G, P, NV>(walk, tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512<const G: usize, const P: usize, const NV: usize>(walk: &Walk, tile: &Tile) {
    // SAFETY: the contract of `Kernel`; only called where the level was detected.
    unsafe { body::<Avx512, G, P, NV>(walk, tile) }
}

/// Elements of a vector.
pub(crate) fn lanes(level: Level) -> usize {
    match level {
        Level::Baseline => Portable::LANES,
        Level::Avx2 => 8,
        Level::Avx512 => 16,
    }
}

/// Most rows of a tile of `vectors` (1 or 2) vectors of columns: what leaves room for a broadcast and the
/// columns among 32 (AVX-512) or 16 registers.
pub(crate) fn most_rows(level: Level, vectors: usize) -> usize {
    match (level, vectors) {
        (Level::Avx512, 1) => 28,
        (Level::Avx512, _) => 14,
        (Level::Avx2, 1) => 12,
        (Level::Avx2, _) => 6,
        (Level::Baseline, 1) => 8,
        (Level::Baseline, _) => 4,
    }
}

/// Table of kernels by groups, rows of a group and vectors.
macro_rules! table {
    ($f:ident, $g:expr, $p:expr, $v:expr, $(($groups:literal, $vectors:literal): $($rows:literal)*;)*) => {
        match ($g, $p, $v) {
            $($(($groups, $rows, $vectors) => Some($f::<$groups, $rows, $vectors> as Kernel),)*)*
            _ => None,
        }
    };
}

/// The kernel for tiles of `groups x rows` rows and `vectors` vectors of columns; `None` for a shape that
/// [`tile_shape`] does not choose. The level must be at most that of this processor.
pub(crate) fn kernel(level: Level, groups: usize, rows: usize, vectors: usize) -> Option<Kernel> {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => table!(avx512, groups, rows, vectors,
            (1, 1): 1 2 3 4 5 6 7 8 9 10 11 12 13 14; (1, 2): 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            (2, 1): 1 2 3 4 5 6 7 8 9 10 11 12 13 14; (2, 2): 1 2 3 4 5 6 7;
            (3, 1): 1 2 3 4 5 6 7 8 9; (3, 2): 1 2 3 4;
        ),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => table!(avx2, groups, rows, vectors,
            (1, 1): 1 2 3 4 5 6 7 8 9 10 11 12; (1, 2): 1 2 3 4 5 6;
            (2, 1): 2 3 4 5 6; (2, 2): 1 2 3;
        ),
        _ => table!(portable, groups, rows, vectors, (1, 1): 1 2 3 4 5 6 7 8; (1, 2): 1 2 3 4;),
    }
}

/// Groups and rows of the next tile when `left` equally spaced rows remain: nearly equal tiles.
pub(crate) fn next_rows(level: Level, vectors: usize, left: usize) -> (usize, usize) {
    let most = most_rows(level, vectors);
    let rows = left.div_ceil(left.div_ceil(most).max(1));
    if rows > GROUP_ROWS { (2, rows / 2) } else { (1, rows) }
}

/// Rows that lie `row_stride` apart times one panel of columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub level: Level,
    /// Vectors of columns, 1 or 2.
    pub vectors: usize,
    /// Columns that are stored, at most `vectors` vectors.
    pub columns: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements from row to row in `a`. `Walk::a_rows` must hold its multiples.
    pub a_row: usize,
}

impl Panel {
    /// Computes all tiles of the panel.
    ///
    /// # Safety
    /// The contract of [`Kernel`] for `rows` rows from `a` and `out`.
    pub(crate) unsafe fn run(&self, walk: &Walk, a: *const f32, b: *const f32, out: *mut f32) {
        let mut done = 0;
        while done < self.rows {
            let (groups, rows) = next_rows(self.level, self.vectors, self.rows - done);
            let kernel = kernel(self.level, groups, rows, self.vectors);
            let (mut tile_a, mut tile_out) = ([a; GROUPS], [out; GROUPS]);
            for g in 0..groups {
                tile_a[g] = a.wrapping_add((done + g * rows) * self.a_row);
                tile_out[g] = out.wrapping_add((done + g * rows) * walk.out_row);
            }
            let tile = Tile { a: tile_a, b, out: tile_out, columns: self.columns };
            // SAFETY: the caller's promise.
            unsafe { call(kernel, walk, &tile) };
            done += groups * rows;
        }
    }
}

/// A pointer that parallel tasks share; each writes its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: the pointer itself is plain data; who writes through it vouches for disjoint elements.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(out: &mut [f32]) -> Shared {
        Shared(out.as_mut_ptr())
    }

    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

/// Calls a kernel of the table.
///
/// # Safety
/// The contract of [`Kernel`].
#[inline]
pub(crate) unsafe fn call(kernel: Option<Kernel>, walk: &Walk, tile: &Tile) {
    let Some(kernel) = kernel else {
        unreachable!("tile shapes are chosen from the table");
    };
    // SAFETY: the caller's promise.
    unsafe { kernel(walk, tile) }
}
