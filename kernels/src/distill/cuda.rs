//! Launches of `softmax.cu`, `sinkhorn.cu`, `scaling.cu` and `koleo.cu`.

use crate::cuda::{THREADS, access};
use crate::optim::Scalar;
use crate::optim::cuda::number;
use engine::cuda::Launch;
use engine::{DType, Error, Result, Tensor};

/// Kernels of `softmax.cu`.
pub(crate) mod softmax {
    crate::cuda::typed_kernels! {
        family: "distill", file: "softmax.cu", options: [];
        SOFTMAX = "distill_softmax";
    }
}

/// Kernels of `sinkhorn.cu`.
pub(crate) mod sinkhorn {
    crate::cuda::typed_kernels! {
        family: "distill", file: "sinkhorn.cu", options: [];
        MAXIMUM = "distill_sinkhorn_maximum";
        COLUMNS = "distill_sinkhorn_columns";
        ROWS = "distill_sinkhorn_rows";
        LAST = "distill_sinkhorn_last";
    }
}

/// Kernels of `scaling.cu`.
pub(crate) mod scaling {
    crate::cuda::kernels! {
        family: "distill", file: "scaling.cu", options: [];
        START = "distill_sinkhorn_start";
        COLUMN_FACTORS = "distill_sinkhorn_column_factors";
    }
}

/// Kernels of `koleo.cu`.
pub(crate) mod koleo {
    crate::cuda::kernels! {
        family: "distill", file: "koleo.cu", options: [];
        KOLEO = "distill_koleo";
        FACTORS = "distill_koleo_factors";
        BACKWARD = "distill_koleo_bwd";
    }
}

/// Elements of a thread at a time.
const FOUR: usize = 4;
/// Threads at most of a block that has a row.
pub(super) const MANY: usize = 1024;
/// Threads of a block that has columns.
const COLUMN_THREADS: usize = 128;
/// Blocks that the sums of columns want at least: two for each processor of the largest devices. A fixed number, so that
/// the bits do not depend on the device.
const BLOCKS: usize = 264;
/// Rows of a chunk at least.
const LEAST_ROWS: usize = 16;
/// So that an index and a stride over a row, and the number of rows, fit an i32.
pub(super) const MOST: usize = 1 << 30;

/// Rows [N, K] and how a launch reads them.
struct Rows<'a> {
    x: &'a Tensor,
    n: usize,
    k: usize,
    access: u32,
}

impl<'a> Rows<'a> {
    /// `others` are read and written at the same places, f32.
    #[track_caller]
    fn new(operation: &str, x: &'a Tensor, others: &[&Tensor]) -> Result<Rows<'a>> {
        let (n, k) = (x.shape()[0], x.shape()[1]);
        if n.max(k) > MOST {
            let text = format!("N and K are at most {MOST} on CUDA devices");
            return Err(Error::shape(operation, text).argument("x", x));
        }
        let quads = |t: &Tensor| t.is_aligned(FOUR * t.dtype().size());
        let aligned = quads(x) && others.iter().all(|t| quads(t));
        Ok(Rows { x, n, k, access: access(k.is_multiple_of(FOUR), aligned) })
    }

    /// Threads of a block that has a row, at least two loads each where the row is long.
    fn threads(&self) -> usize {
        let loads = if self.access == 0 { self.k } else { self.k / FOUR };
        loads.div_ceil(2).next_multiple_of(32).clamp(32, MANY)
    }

    /// Bytes of the scores and of as many elements of f32.
    fn sizes(&self) -> (usize, usize) {
        (self.n * self.k * self.x.dtype().size(), 4 * self.n * self.k)
    }
}

/// `p` [N, K] and `entropy` [N].
#[track_caller]
pub fn softmax(
    logits: &Tensor,
    center: Option<&Tensor>,
    temperature: Scalar,
    p: &mut Tensor,
    entropy: &mut Tensor,
) -> Result<()> {
    let name = "teacher_softmax";
    let rows = Rows::new(name, logits, &[Some(&*p), center].into_iter().flatten().collect::<Vec<_>>())?;
    Launch::new(softmax::SOFTMAX.of(name, logits.dtype())?, logits.device())?
        .read(logits)?
        .read_optional(center)?
        .write(p)?
        .write(entropy)?
        .value(rows.k as u32)
        .value(number(name, temperature)?)
        .value(rows.access)
        .flops(8.0 * rows.n as f64 * rows.k as f64)
        .grid(rows.n)
        .block(rows.threads())
        .run()
}

/// Parts that the rows of [N, K] are summed in, and rows of each but the last.
fn chunks(n: usize, k: usize) -> (usize, usize) {
    let tiles = k.div_ceil(FOUR * COLUMN_THREADS).max(1);
    let wanted = BLOCKS.div_ceil(tiles);
    let step = n.div_ceil(wanted).max(LEAST_ROWS);
    (n.div_ceil(step), step)
}

/// Targets [N, K] of scores [N, K].
#[track_caller]
pub fn sinkhorn(
    scores: &Tensor,
    temperature: Scalar,
    iterations: usize,
    valid: Option<&Tensor>,
) -> Result<Tensor> {
    let name = "sinkhorn";
    let (dtype, device) = (scores.dtype(), scores.device());
    let (n, k) = (scores.shape()[0], scores.shape()[1]);
    let mut out = Tensor::empty(&[n, k], DType::F32, device)?;
    if n == 0 {
        return Ok(out);
    }
    let (chunks, step) = chunks(n, k);
    let floats = |shape: &[usize]| Tensor::empty(shape, DType::F32, device);
    let (mut maximum, mut row_factors) = (floats(&[n])?, floats(&[n])?);
    let (mut partial, mut column_factors) = (floats(&[chunks, k])?, floats(&[k])?);
    let rows = Rows::new(name, scores, &[&out, &partial, &column_factors])?;
    let temperature = number(name, temperature)?;
    let (size, size_f32) = rows.sizes();
    let flops = 6.0 * n as f64 * k as f64;

    Launch::new(sinkhorn::MAXIMUM.of(name, dtype)?, device)?
        .read(scores)?
        .read_optional(valid)?
        .write(&mut maximum)?
        .value(k as u32)
        .value(rows.access)
        .grid(n)
        .block(rows.threads())
        .run()?;
    Launch::new(&scaling::START, device)?
        .read(&maximum)?
        .read_optional(valid)?
        .write(&mut row_factors)?
        .value(n as u32)
        .value(temperature)
        .grid(1)
        .block(n.next_multiple_of(32).min(MANY))
        .run()?;
    for iteration in 1..=iterations {
        let columns = if rows.access == 0 { COLUMN_THREADS } else { FOUR * COLUMN_THREADS };
        Launch::new(sinkhorn::COLUMNS.of(name, dtype)?, device)?
            .read(scores)?
            .read_optional(valid)?
            .read(&maximum)?
            .read(&row_factors)?
            .write(&mut partial)?
            .value(n as u32)
            .value(k as u32)
            .value(step as u32)
            .value(temperature)
            .value(rows.access)
            .bytes(size + 8 * n + 4 * partial.len())
            .flops(flops)
            .grid3([k.div_ceil(columns), chunks, 1])
            .block(COLUMN_THREADS)
            .run()?;
        Launch::new(&scaling::COLUMN_FACTORS, device)?
            .read(&partial)?
            .read_optional(valid)?
            .write(&mut column_factors)?
            .value(chunks as u32)
            .value(n as u32)
            .value(k as u32)
            .grid(k.div_ceil(THREADS))
            .block(THREADS)
            .run()?;
        let last = iteration == iterations;
        let kernel = if last { &sinkhorn::LAST } else { &sinkhorn::ROWS };
        let launch = Launch::new(kernel.of(name, dtype)?, device)?
            .read(scores)?
            .read_optional(valid)?
            .read(&maximum)?
            .read(&column_factors)?;
        let launch = if last { launch.write(&mut out)? } else { launch.write(&mut row_factors)? };
        let written = if last { size_f32 } else { 4 * n };
        launch
            .value(k as u32)
            .value(temperature)
            .value(rows.access)
            .bytes(size + 4 * n + 4 * k + written)
            .flops(flops)
            .grid(n)
            .block(rows.threads())
            .run()?;
    }
    Ok(out)
}

/// Warps, each with a row of its own, in a block.
const WARPS: usize = THREADS / 32;

/// N and D as kernels take them.
#[track_caller]
fn koleo_sizes(operation: &str, x: &Tensor) -> Result<[u32; 2]> {
    let (n, d) = (x.shape()[0], x.shape()[1]);
    if n.max(d) > MOST {
        let text = format!("N and D are at most {MOST} on CUDA devices");
        return Err(Error::shape(operation, text).argument("x", x));
    }
    Ok([n as u32, d as u32])
}

/// KoLeo's `loss` [N] and `nearest` [N] from the inner products of the rows of x.
#[track_caller]
pub fn koleo(similar: &Tensor, x: &Tensor, eps: f32, loss: &mut Tensor, nearest: &mut Tensor) -> Result<()> {
    let [n, d] = koleo_sizes("koleo", x)?;
    Launch::new(&koleo::KOLEO, x.device())?
        .read(similar)?
        .read(x)?
        .write(loss)?
        .write(nearest)?
        .value(n)
        .value(d)
        .value(eps)
        .flops(4.0 * x.len() as f64)
        .grid((n as usize).div_ceil(WARPS))
        .block(THREADS)
        .run()
}

/// Columns of a block of `distill_koleo_bwd`.
const COLUMNS: usize = 128;

/// KoLeo's gradient.
#[track_caller]
pub fn koleo_backward(dloss: &Tensor, x: &Tensor, nearest: &Tensor, eps: f32, dx: &mut Tensor) -> Result<()> {
    let name = "koleo_backward";
    let device = x.device();
    let [n, d] = koleo_sizes(name, x)?;
    let mut factors = Tensor::empty(&[n as usize], DType::F32, device)?;
    Launch::new(&koleo::FACTORS, device)?
        .read(dloss)?
        .read(x)?
        .read(nearest)?
        .write(&mut factors)?
        .value(n)
        .value(d)
        .value(eps)
        .flops(4.0 * x.len() as f64)
        .grid((n as usize).div_ceil(WARPS))
        .block(THREADS)
        .run()?;
    Launch::new(&koleo::BACKWARD, device)?
        .read(x)?
        .read(nearest)?
        .read(&factors)?
        .write(dx)?
        .value(n)
        .value(d)
        .value(eps)
        .flops(8.0 * x.len() as f64)
        .grid3([n as usize, (d as usize).div_ceil(COLUMNS), 1])
        .block(COLUMNS)
        .run()
}
