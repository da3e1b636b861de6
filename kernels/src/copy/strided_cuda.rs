//! Launches of `view.cu`: strided views to contiguous tensors, and concatenation.

use super::cuda::{UNITS, unit};
use crate::cuda::THREADS;
use crate::divisor::Divisor;
use engine::cuda::{Kernel, Launch};
use engine::{Error, Result, Tensor};

pub(crate) mod view {
    crate::cuda::kernels! {
        family: "copy", file: "view.cu", options: [];
        UNITS_16 = "copy_units_16";
        UNITS_8 = "copy_units_8";
        UNITS_4 = "copy_units_4";
        UNITS_2 = "copy_units_2";
        UNITS_1 = "copy_units_1";
        TILES_4 = "copy_tiles_4";
        TILES_2 = "copy_tiles_2";
        TILES_1 = "copy_tiles_1";
        PAIRS_2 = "copy_pairs_2";
    }
}

/// Elements of a tile of `view.cu`, as a power of two.
const LOG_TILE: u32 = 10;
/// Side of a tile of pairs, in elements.
const PAIRS: usize = 64;
/// Dimensions of a view at most.
const RANK: usize = engine::MAX_RANK;

/// A dimension: how many, and how far apart in the source and in the result.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    size: usize,
    from: usize,
    to: usize,
}

/// `Dim` of `view.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct Dim {
    size: Divisor,
    unused: u32,
    from: u64,
    to: u64,
}

/// `View` of `view.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct View {
    from: u64,
    to: u64,
    units: u64,
    rank: u32,
    wide: u32,
    dims: [Dim; RANK],
}

const _: () = assert!(size_of::<View>() == 32 + 32 * RANK);

/// `Plane` of `view.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct Plane {
    near_from: u64,
    near_to: u64,
    last_from: u64,
    near: u32,
    last: u32,
    near_tiles: Divisor,
    last_tiles: Divisor,
    log_near: u32,
    log_last: u32,
    run: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Plane>() == 72);

/// `RUN_OF_RESULT` and `RUN_OF_SOURCE` of `view.cu`.
const RUN_OF_RESULT: u32 = 1;
const RUN_OF_SOURCE: u32 = 2;

impl View {
    /// From steps, outermost first, and the first elements' places; all are divided by `unit`, the elements of a unit.
    #[track_caller]
    fn new(name: &str, steps: &[Step], from: usize, to: usize, unit: usize) -> Result<View> {
        let none = Dim { size: Divisor::new(name, 1)?, unused: 0, from: 0, to: 0 };
        let mut view = View {
            from: (from / unit) as u64,
            to: (to / unit) as u64,
            units: steps.iter().map(|s| s.size as u64).product::<u64>() / unit as u64,
            rank: steps.len() as u32,
            wide: 0,
            dims: [none; RANK],
        };
        view.wide = u32::from(view.units >> 31 != 0);
        for (i, (dim, step)) in view.dims.iter_mut().zip(steps.iter().rev()).enumerate() {
            // The innermost unit takes the place of `unit` elements.
            let by = if i == 0 { unit } else { 1 };
            *dim = Dim {
                size: Divisor::new(name, step.size / by)?,
                unused: 0,
                from: (step.from * by / unit) as u64,
                to: (step.to * by / unit) as u64,
            };
        }
        Ok(view)
    }
}

/// Dimensions of more than one element, neighbours that step together merged, outermost first.
fn merged(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut merged: Vec<Step> = Vec::with_capacity(RANK);
    for step in steps {
        let together = |outer: usize, inner: usize| outer == step.size * inner;
        match merged.last_mut() {
            _ if step.size == 1 => {}
            Some(last) if together(last.from, step.from) && together(last.to, step.to) => {
                *last = Step { size: last.size * step.size, ..step };
            }
            _ => merged.push(step),
        }
    }
    if merged.is_empty() {
        merged.push(Step { size: 1, from: 1, to: 1 });
    }
    merged
}

/// Copies elements of x's storage, from number `from` on, to elements of `out`, from number `to` on, along `steps`.
#[track_caller]
fn copy(name: &str, x: &Tensor, out: &mut Tensor, from: usize, to: usize, steps: &[Step]) -> Result<()> {
    let size = x.dtype().size();
    let Some((&last, leading)) = steps.split_last() else { return Ok(()) };
    let elements: usize = steps.iter().map(|s| s.size).product();
    let near = (0..leading.len()).rev().filter(|&d| leading[d].from > 0).min_by_key(|&d| leading[d].from);
    if let Some(near) = near.filter(|&d| last.from > 1 && last.to == 1 && leading[d].from < last.from) {
        return transpose(name, x, out, from, to, steps, near);
    }
    let n = unit(size, &[x, &*out], |n| {
        let stepping = leading.iter().all(|s| s.from.is_multiple_of(n) && s.to.is_multiple_of(n));
        let runs = (last.from, last.to) == (1, 1) && last.size.is_multiple_of(n);
        stepping && runs && from.is_multiple_of(n) && to.is_multiple_of(n)
    });
    let kernel: &'static Kernel = match n * size {
        16 => &view::UNITS_16,
        8 => &view::UNITS_8,
        4 => &view::UNITS_4,
        2 => &view::UNITS_2,
        _ => &view::UNITS_1,
    };
    let view = View::new(name, steps, from, to, n)?;
    Launch::new(kernel, x.device())?
        .read_storage(x)?
        .write(out)?
        .value(view)
        .bytes(super::bytes(elements, size))
        .grid((view.units as usize).div_ceil(UNITS * THREADS))
        .block(THREADS)
        .run()
}

/// As [`copy`] where dimension `near` is the one along which the source lies together.
#[track_caller]
fn transpose(
    name: &str,
    x: &Tensor,
    out: &mut Tensor,
    from: usize,
    to: usize,
    steps: &[Step],
    near: usize,
) -> Result<()> {
    let size = x.dtype().size();
    let elements: usize = steps.iter().map(|s| s.size).product();
    let mut batch = steps.to_vec();
    let (dim, last) = (batch.remove(near), batch.remove(steps.len() - 2));
    let even = |n: usize| n.is_multiple_of(2);
    let pairs = size == 2
        && dim.from == 1
        && dim.size.min(last.size) >= PAIRS
        && x.is_aligned(4)
        && out.is_aligned(4)
        && [dim.size, dim.to, last.size, last.from, from, to].into_iter().all(even)
        && batch.iter().all(|s| even(s.from) && even(s.to));
    // 32 x 32, or a side as long as a short dimension (4 at least) and the other as long as that leaves.
    let log = |n: usize| n.next_power_of_two().trailing_zeros().max(2);
    let (log_near, log_last) = match (log(dim.size), log(last.size)) {
        _ if pairs => (log(PAIRS), log(PAIRS)),
        (_, last) if last < LOG_TILE / 2 => (LOG_TILE - last, last),
        (near, _) if near < LOG_TILE / 2 => (near, LOG_TILE - near),
        _ => (LOG_TILE / 2, LOG_TILE / 2),
    };
    // Lanes that walk across a run are a warp, and an odd number of elements apart.
    let run = |short: usize, apart: usize, log_across: u32| {
        short == apart && short % 2 == 1 && short < 1 << (LOG_TILE / 2) && log_across >= LOG_TILE / 2
    };
    let run = match () {
        () if run(last.size, dim.to, log_near) => RUN_OF_RESULT,
        () if dim.from == 1 && run(dim.size, last.from, log_last) => RUN_OF_SOURCE,
        () => 0,
    };
    let (near_tiles, last_tiles) = (dim.size.div_ceil(1 << log_near), last.size.div_ceil(1 << log_last));
    let plane = Plane {
        near_from: dim.from as u64,
        near_to: dim.to as u64,
        last_from: last.from as u64,
        // The sizes were checked to be below 2^31 by the division.
        near: Divisor::new(name, dim.size).map(|_| dim.size as u32)?,
        last: Divisor::new(name, last.size).map(|_| last.size as u32)?,
        near_tiles: Divisor::new(name, near_tiles)?,
        last_tiles: Divisor::new(name, last_tiles)?,
        log_near,
        log_last,
        run,
        unused: 0,
    };
    let kernel: &'static Kernel = match size {
        2 if pairs => &view::PAIRS_2,
        4 => &view::TILES_4,
        2 => &view::TILES_2,
        _ => &view::TILES_1,
    };
    let view = View::new(name, &batch, from, to, 1)?;
    Launch::new(kernel, x.device())?
        .read_storage(x)?
        .write(out)?
        .value(view)
        .value(plane)
        .bytes(super::bytes(elements, size))
        .grid(view.units as usize * near_tiles * last_tiles)
        .block(THREADS)
        .run()
}

/// Any view to a contiguous tensor.
#[track_caller]
pub fn contiguous(name: &str, x: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    if out.is_empty() {
        return Ok(out);
    }
    let (dims, strides) = (x.layout().dims(), x.layout().strides());
    let to = out.layout().strides().to_vec();
    let steps = (0..dims.len()).map(|d| Step { size: dims[d], from: strides[d], to: to[d] });
    copy(name, x, &mut out, x.layout().offset(), 0, &merged(steps))?;
    Ok(out)
}

/// Tensors one after another; each has runs of its size of dimension `dim` times `inner` elements, in a result of `shape`.
#[track_caller]
pub fn cat(name: &str, tensors: &[&Tensor], shape: &[usize], dim: usize, inner: usize) -> Result<Tensor> {
    let mut out = Tensor::empty(shape, tensors[0].dtype(), tensors[0].device())?;
    let (outer, total) = (shape[..dim].iter().product(), shape[dim] * inner);
    let mut to = 0;
    for x in tensors {
        if !x.is_contiguous() {
            return Err(Error::shape(name, "needs contiguous tensors: copy them first").argument("tensor", x));
        }
        let run = x.shape()[dim] * inner;
        if !x.is_empty() {
            let rows = Step { size: outer, from: run, to: total };
            let steps = merged([rows, Step { size: run, from: 1, to: 1 }].into_iter());
            copy(name, x, &mut out, x.layout().offset(), to, &steps)?;
        }
        to += run;
    }
    Ok(out)
}
