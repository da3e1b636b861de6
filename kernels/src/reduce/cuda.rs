//! Launches of `sum.cu` and `argmax.cu`, and how sums are cut.

use crate::cuda::{THREADS, Typed, access};
use engine::cuda::{Kernel, Launch};
use engine::{DType, Result, Tensor};

pub(crate) mod sums {
    crate::cuda::typed_kernels! {
        family: "reduce", file: "sum.cu", options: [];
        COLUMNS = "reduce_columns";
        COLUMNS_PARTIAL = "reduce_columns_partial";
        COLUMNS_FINISH = "reduce_columns_finish";
        ROWS = "reduce_rows";
        ROWS_PARTIAL = "reduce_rows_partial";
        ROWS_FINISH = "reduce_rows_finish";
    }
}
pub(crate) mod argmax {
    crate::cuda::typed_kernels! {
        family: "reduce", file: "argmax.cu", options: [];
        ARGMAX = "reduce_argmax";
    }
}

/// Threads of a warp.
const WARP: usize = 32;
/// Blocks that keep a large device busy: about four on each of 132 multiprocessors. A constant, so that the order of a
/// sum is the same on every device.
const BLOCKS: usize = 512;
/// Elements of a row from which on a whole block reads it.
const LONG: usize = 2048;

/// One kernel in its three variants.
struct Variants {
    whole: &'static Typed,
    partial: &'static Typed,
    finish: &'static Typed,
}

const COLUMNS: Variants =
    Variants { whole: &sums::COLUMNS, partial: &sums::COLUMNS_PARTIAL, finish: &sums::COLUMNS_FINISH };
const ROWS: Variants =
    Variants { whole: &sums::ROWS, partial: &sums::ROWS_PARTIAL, finish: &sums::ROWS_FINISH };

impl Variants {
    /// The kernel from one element type to another, for the first or a later pass over the data.
    #[track_caller]
    fn of(&self, name: &str, from: DType, to: DType, first: bool, last: bool) -> Result<&'static Kernel> {
        match (from, to) {
            (DType::BF16, DType::BF16) => self.whole.of(name, from),
            (DType::BF16, _) => self.partial.of(name, from),
            (_, DType::BF16) => self.finish.of(name, to),
            _ if first && last => self.whole.of(name, from),
            _ if last => self.finish.of(name, to),
            _ => self.partial.of(name, from),
        }
    }
}

/// How the middle of `[outer, reduced, inner]` is cut in pieces.
struct Cut {
    /// Rows (or elements of a row) of a piece.
    step: usize,
    pieces: usize,
}

impl Cut {
    /// `blocks` are there without cutting; a piece has at least `least` of `reduced` and is a multiple of `unit`.
    fn new(reduced: usize, blocks: usize, least: usize, unit: usize) -> Cut {
        let wanted = (BLOCKS / blocks.max(1)).min(reduced / least).max(1);
        let step = reduced.div_ceil(wanted).next_multiple_of(unit);
        Cut { step, pieces: reduced.div_ceil(step) }
    }
}

/// What a column launch is given: see `sum.cu`.
struct Columns {
    /// How x is read (`common/element.cuh`).
    access: u32,
    lanes: usize,
    tiles: usize,
    warps: usize,
    cut: Cut,
}

impl Columns {
    fn new(x: &Tensor, [outer, reduced, inner]: [usize; 3]) -> Columns {
        let pack = 16 / x.dtype().size();
        let whole = inner.is_multiple_of(pack);
        let packs = if whole { inner / pack } else { inner };
        let lanes = packs.next_power_of_two().min(WARP);
        let tiles = packs.div_ceil(lanes);
        let rows = WARP / lanes;
        let warps = reduced.div_ceil(4 * rows).clamp(1, 8);
        let cut = Cut::new(reduced, outer * tiles, 8 * rows * warps, 1);
        Columns { access: access(whole, x.is_aligned(16)), lanes, tiles, warps, cut }
    }
}

/// What a row launch is given: see `sum.cu`.
struct Rows {
    /// How x is read (`common/element.cuh`).
    access: u32,
    /// Threads that take one piece of one row.
    threads: usize,
    cut: Cut,
}

impl Rows {
    fn new(x: &Tensor, rows: usize, length: usize) -> Rows {
        let pack = 16 / x.dtype().size();
        let whole = rows == 1 || length.is_multiple_of(pack);
        let width = if whole { pack } else { 1 };
        let access = access(whole, x.is_aligned(16));
        match length <= LONG {
            true => {
                let threads = length.div_ceil(width).next_power_of_two().min(WARP);
                Rows { access, threads, cut: Cut { step: length, pieces: 1 } }
            }
            false => Rows { access, threads: THREADS, cut: Cut::new(length, rows, 4 * pack * THREADS, pack) },
        }
    }
}

/// One pass: the middle of x `[outer, reduced, inner]` to one sum a piece, `[outer, pieces, inner]`, each divided by
/// `divisor` if there is but one piece. In f32 if there are more. Also gives the number of pieces.
#[track_caller]
fn pass(
    name: &str,
    x: &Tensor,
    sizes: [usize; 3],
    divisor: f32,
    (shape, dtype): (&[usize], DType),
    first: bool,
) -> Result<(Tensor, usize)> {
    let [outer, reduced, inner] = sizes;
    let output = |pieces: usize| match pieces {
        1 => Ok((Tensor::empty(shape, dtype, x.device())?, divisor)),
        _ => Ok((Tensor::empty(&[outer, pieces, inner], DType::F32, x.device())?, 1.0)),
    };
    if inner == 1 {
        let Rows { access, threads, cut: Cut { step, pieces } } = Rows::new(x, outer, reduced);
        let (mut out, divisor) = output(pieces)?;
        Launch::new(ROWS.of(name, x.dtype(), out.dtype(), first, pieces == 1)?, x.device())?
            .read(x)?
            .write(&mut out)?
            .value(outer as u64)
            .value(reduced as u64)
            .value(step as u64)
            .value(pieces as u64)
            .value(threads.trailing_zeros())
            .value(divisor)
            .value(access)
            .grid((outer * pieces).div_ceil(THREADS / threads))
            .block(THREADS)
            .flops(x.len() as f64)
            .run()?;
        return Ok((out, pieces));
    }
    let Columns { access, lanes, tiles, warps, cut: Cut { step, pieces } } = Columns::new(x, sizes);
    let (mut out, divisor) = output(pieces)?;
    Launch::new(COLUMNS.of(name, x.dtype(), out.dtype(), first, pieces == 1)?, x.device())?
        .read(x)?
        .write(&mut out)?
        .value(reduced as u64)
        .value(inner as u64)
        .value(step as u64)
        .value(pieces as u32)
        .value(tiles as u32)
        .value(lanes.trailing_zeros())
        .value(divisor)
        .value(access)
        .grid(outer * pieces * tiles)
        .block(warps * WARP)
        .flops(x.len() as f64)
        .run()?;
    Ok((out, pieces))
}

/// The sum over the middle of x, seen as `[outer, reduced, inner]`, divided by `divisor`, as a tensor of `shape` and
/// element type `dtype`. x is f32 or bf16 and contiguous; no size is 0.
#[track_caller]
pub(crate) fn sum_middle(
    name: &str,
    x: &Tensor,
    sizes: [usize; 3],
    divisor: f32,
    shape: &[usize],
    dtype: DType,
) -> Result<Tensor> {
    let [outer, _, inner] = sizes;
    let (mut sums, mut pieces) = pass(name, x, sizes, divisor, (shape, dtype), true)?;
    while pieces > 1 {
        (sums, pieces) = pass(name, &sums, [outer, pieces, inner], divisor, (shape, dtype), false)?;
    }
    Ok(sums)
}

/// Sum of x over the dimensions `dims`; `kept` are the sizes of the others.
#[track_caller]
pub fn sum(name: &str, x: &Tensor, dims: &[usize], kept: &[usize]) -> Result<Tensor> {
    if dims.is_empty() {
        return Ok(x.clone());
    }
    if x.is_empty() {
        return Tensor::zeros(kept, x.dtype(), x.device());
    }
    let mut groups = super::groups(x.shape(), dims);
    let summed: Vec<usize> = (0..groups.len()).filter(|&g| groups[g].1).collect();
    let mut held: Option<Tensor> = None;
    for (step, &g) in summed.iter().enumerate() {
        let reduced = std::mem::replace(&mut groups[g].0, 1);
        let outer: usize = groups[..g].iter().map(|group| group.0).product();
        let inner: usize = groups[g + 1..].iter().map(|group| group.0).product();
        let from = held.as_ref().unwrap_or(x);
        let last = step + 1 == summed.len();
        let flat = [outer * inner];
        let (shape, dtype) = if last { (kept, x.dtype()) } else { (&flat[..], DType::F32) };
        held = Some(sum_middle(name, from, [outer, reduced, inner], 1.0, shape, dtype)?);
    }
    match held {
        Some(sums) => Ok(sums),
        None => Ok(x.clone()),
    }
}

/// Position of the maximum of every row of `n` elements, as a tensor of `shape`.
#[track_caller]
pub fn argmax(name: &str, x: &Tensor, n: usize, shape: &[usize]) -> Result<Tensor> {
    let mut out = Tensor::empty(shape, DType::I32, x.device())?;
    let rows = out.len();
    if rows == 0 {
        return Ok(out);
    }
    let Rows { access, threads, .. } = Rows::new(x, rows, n);
    Launch::new(argmax::ARGMAX.of(name, x.dtype())?, x.device())?
        .read(x)?
        .write(&mut out)?
        .value(rows as u64)
        .value(n as u32)
        .value(threads.trailing_zeros())
        .value(u32::from(access == crate::cuda::access(true, true)))
        .grid(rows.div_ceil(THREADS / threads))
        .block(THREADS)
        .run()?;
    Ok(out)
}
