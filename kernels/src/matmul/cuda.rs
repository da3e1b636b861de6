//! Launches of `matmul.cu` and `sum_parts.cu`: products on the ordinary cores, in f32 and of bf16 operands whose rows are
//! not aligned. Other products of bf16 are launches of [`mma`].

use super::mma::{self, Beside};
use super::tf32::{self, Float32Products};
use super::tile::{Tile, parts};
use crate::cuda::{THREADS, Typed, typed_kernels};
use crate::divisor::{Divisor, side};
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

/// The kernel of one tile size: a module compiled when it is first used.
macro_rules! tile {
    ($module:ident, $entry:literal, $m:literal, $n:literal) => {
        pub(crate) mod $module {
            crate::cuda::typed_kernels! {
                family: "matmul", file: "matmul.cu", options: [$m, $n];
                MATMUL = $entry;
            }
        }
    };
}
tile!(large, "matmul_64x64", "--define-macro=TILE_M=64", "--define-macro=TILE_N=64");
tile!(tall, "matmul_64x16", "--define-macro=TILE_M=64", "--define-macro=TILE_N=16");
tile!(wide, "matmul_16x64", "--define-macro=TILE_M=16", "--define-macro=TILE_N=64");
tile!(small, "matmul_16x16", "--define-macro=TILE_M=16", "--define-macro=TILE_N=16");

typed_kernels! {
    family: "matmul", file: "sum_parts.cu", options: [];
    SUM_PARTS = "matmul_sum_parts";
}

fn kernel(tile: Tile) -> &'static Typed {
    match tile {
        Tile::Large => &large::MATMUL,
        Tile::Tall => &tall::MATMUL,
        Tile::Wide => &wide::MATMUL,
        Tile::Small => &small::MATMUL,
    }
}

/// Results that a thread stores at once, at most.
pub(crate) const TOGETHER: usize = 4;

/// `Matrix` of `common/tile.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
pub(crate) struct Matrix {
    stride: u64,
    along_k: u32,
    packs: u32,
}
const _: () = assert!(size_of::<Matrix>() == 16);

impl Matrix {
    /// A tensor as an operand whose contiguous direction has `stride` elements: the steps of the sum, or the rows.
    pub(crate) fn new(tensor: &Tensor, stride: usize, along_k: bool) -> Matrix {
        let whole = stride.is_multiple_of(16 / tensor.dtype().size()) && tensor.is_aligned(16);
        Matrix { stride: stride as u64, along_k: u32::from(along_k), packs: u32::from(whole) }
    }

    /// Whether every 16 bytes of the contiguous direction are aligned and whole.
    pub(crate) fn has_whole_packs(&self) -> bool {
        self.packs == 1
    }

    /// Elements from one to the next in the direction that is not contiguous.
    pub(crate) fn stride(&self) -> u64 {
        self.stride
    }
}

/// `Product` of `matmul.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Product {
    m: u32,
    n: u32,
    k: u32,
    part: u32,
    a: Matrix,
    b: Matrix,
    a_batch: u64,
    b_batch: u64,
    results: u64,
    tiles_n: Divisor,
    tiles_m: Divisor,
    parts: Divisor,
    together: u32,
}
const _: () = assert!(size_of::<Product>() == 112);

/// Sizes of `batch` products of `[m, k]` and `[k, n]`, either given transposed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) transpose_a: bool,
    pub(crate) transpose_b: bool,
}

/// Whether tensor cores compute a product: of bf16 where they can, of f32 where besides they are to.
fn is_on_tensor_cores(sizes: &Sizes, a: &Tensor, b: &Tensor) -> bool {
    mma::applies(sizes, a, b)
        || (tf32::float32_products() == Float32Products::Tf32 && tf32::applies(sizes, a, b))
}

/// out = a b + bias for every product of a batch; the tensors may have any shapes of these sizes.
#[track_caller]
pub(crate) fn product(
    name: &str,
    sizes: Sizes,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    out: &mut Tensor,
) -> Result<()> {
    match is_on_tensor_cores(&sizes, a, b) {
        true => mma::product(name, sizes, a, b, bias, out),
        false => on_ordinary_cores(name, sizes, a, b, bias, out, false),
    }
}

/// out += a b, out in f32.
#[track_caller]
pub(crate) fn accumulate(name: &str, sizes: Sizes, a: &Tensor, b: &Tensor, out: &mut Tensor) -> Result<()> {
    if is_on_tensor_cores(&sizes, a, b) {
        let tile = mma::tile_of(&sizes, a);
        return mma::product_by(name, tile, sizes, a, b, None, out, Beside::Accumulate);
    }
    on_ordinary_cores(name, sizes, a, b, None, out, true)
}

#[track_caller]
fn on_ordinary_cores(
    name: &str,
    sizes: Sizes,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    out: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let Sizes { batch, m, n, k, transpose_a, transpose_b } = sizes;
    let tile = Tile::for_result(m, n);
    let (across, down) = (tile.across(n), tile.down(m));
    let (count, part) = parts(batch * across * down, k);
    let z = Product {
        m: side(name, m)?,
        n: side(name, n)?,
        k: side(name, k)?,
        part: side(name, part)?,
        a: Matrix::new(a, if transpose_a { m } else { k }, !transpose_a),
        b: Matrix::new(b, if transpose_b { k } else { n }, transpose_b),
        a_batch: (m * k) as u64,
        b_batch: (k * n) as u64,
        results: (batch * m * n) as u64,
        tiles_n: Divisor::new(name, across)?,
        tiles_m: Divisor::new(name, down)?,
        parts: Divisor::new(name, count)?,
        together: u32::from(n.is_multiple_of(TOGETHER) && bias.is_none_or(|b| b.is_aligned(16))),
    };
    let (dtype, device) = (a.dtype(), a.device());
    let launch = Launch::new(kernel(tile).of(name, dtype)?, device)?
        .grid(batch * across * down * count)
        .block(tile.threads())
        .flops(batch as f64 * super::flops(m, n, k));
    let launch = launch.read(a)?.read(b)?;
    if count == 1 && !accumulate {
        let bytes =
            batch as f64 * super::bytes(m, n, k, dtype) + (bias.map_or(0, Tensor::len) * dtype.size()) as f64;
        return launch.read_optional(bias)?.write(out)?.value(0u64).value(z).bytes(bytes as usize).run();
    }
    let mut partial = Tensor::empty(&[count, batch * m * n], DType::F32, device)?;
    launch.value(0u64).value(0u64).write(&mut partial)?.value(z).run()?;
    if accumulate {
        return add_parts(name, &partial, out);
    }
    sum_parts(name, &partial, bias, n, out)
}

/// out = the sum of `partial`'s rows, in order, + bias for every `columns` results.
#[track_caller]
pub(crate) fn sum_parts(
    name: &str,
    partial: &Tensor,
    bias: Option<&Tensor>,
    columns: usize,
    out: &mut Tensor,
) -> Result<()> {
    launch_sum_parts(name, partial, bias, columns, out, false)
}

/// out += the sum of `partial`'s rows, in order.
#[track_caller]
pub(crate) fn add_parts(name: &str, partial: &Tensor, out: &mut Tensor) -> Result<()> {
    launch_sum_parts(name, partial, None, out.len(), out, true)
}

#[track_caller]
fn launch_sum_parts(
    name: &str,
    partial: &Tensor,
    bias: Option<&Tensor>,
    columns: usize,
    out: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let (n, aligned) = (out.len(), out.is_aligned(16));
    let accesses = if accumulate { 2 } else { 1 }; // of each result
    let size = out.dtype().size();
    let bytes = 4 * partial.len() + size * (accesses * n + bias.map_or(0, Tensor::len));
    Launch::new(SUM_PARTS.of(name, out.dtype())?, out.device())?
        .read(partial)?
        .read_optional(bias)?
        .write(out)?
        .value(side(name, n)?)
        .value(side(name, partial.shape()[0])?)
        .value(Divisor::new(name, columns)?)
        .value(u32::from(n.is_multiple_of(TOGETHER) && aligned))
        .value(u32::from(accumulate))
        .grid(n.div_ceil(TOGETHER * THREADS))
        .block(THREADS)
        .flops((partial.len() + bias.map_or(0, |_| n)) as f64)
        .bytes(bytes)
        .run()
}
