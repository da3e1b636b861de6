//! Launches of `conv2d.cu`: f32, and bf16 that tensor cores do not take. Other convolutions of bf16 are launches of
//! [`mma`], few channels by way of [`fold`]; those whose groups have one input channel of [`depthwise`]; convolutions of one
//! pixel to one pixel of [`crate::matmul`]. Groups are blocks in y.

use super::mma::{self, Pass as On};
use super::{Sizes, depthwise, fold};
use crate::cuda::Typed;
use crate::divisor::{Divisor, side};
use crate::matmul::cuda::{Sizes as Product, TOGETHER, product, sum_parts};
use crate::matmul::mma::{self as matmul_mma, Beside};
use crate::matmul::tile::{Tile, parts};
use crate::norm::TileSums;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

/// The kernels of one tile size: a module compiled when it is first used.
macro_rules! tile {
    ($module:ident, $fwd:literal, $dgrad:literal, $wgrad:literal, $m:literal, $n:literal) => {
        pub(crate) mod $module {
            crate::cuda::typed_kernels! {
                family: "conv2d", file: "conv2d.cu", options: [$m, $n];
                FWD = $fwd;
                DGRAD = $dgrad;
                WGRAD = $wgrad;
            }
        }
    };
}
#[rustfmt::skip]
tile!(large, "conv2d_fwd_64x64", "conv2d_dgrad_64x64", "conv2d_wgrad_64x64",
      "--define-macro=TILE_M=64", "--define-macro=TILE_N=64");
#[rustfmt::skip]
tile!(tall, "conv2d_fwd_64x16", "conv2d_dgrad_64x16", "conv2d_wgrad_64x16",
      "--define-macro=TILE_M=64", "--define-macro=TILE_N=16");
#[rustfmt::skip]
tile!(wide, "conv2d_fwd_16x64", "conv2d_dgrad_16x64", "conv2d_wgrad_16x64",
      "--define-macro=TILE_M=16", "--define-macro=TILE_N=64");
#[rustfmt::skip]
tile!(small, "conv2d_fwd_16x16", "conv2d_dgrad_16x16", "conv2d_wgrad_16x16",
      "--define-macro=TILE_M=16", "--define-macro=TILE_N=16");

/// The kernel of a pass, in the order large, tall, wide, small.
fn kernel(tile: Tile, pass: [&'static Typed; 4]) -> &'static Typed {
    match tile {
        Tile::Large => pass[0],
        Tile::Tall => pass[1],
        Tile::Wide => pass[2],
        Tile::Small => pass[3],
    }
}

/// `Convolution` of `conv2d.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Convolution {
    /// N, H, W, a group's C, R, S, a group's O, P, Q, stride, padding, dilation, all C, all O.
    sizes: [u32; 14],
    part: u32,
    packs_a: u32,
    packs_b: u32,
    together: u32,
    tiles_n: Divisor,
    tiles_m: Divisor,
    outer: Divisor,
    rows: Divisor,
    columns: Divisor,
    channels: Divisor,
}
const _: () = assert!(size_of::<Convolution>() == 144);

/// What tells one pass's launch from another's.
struct Pass<'a> {
    tile: Tile,
    /// Rows and columns of the result.
    result: [usize; 2],
    /// The operands, with the size of their contiguous direction.
    a: (&'a Tensor, usize),
    b: (&'a Tensor, usize),
    /// Steps of a sum that a block takes.
    part: usize,
    outer: usize,
    /// Rows and columns of the pixels that are counted.
    pixels: [usize; 2],
    channels: usize,
}

impl Convolution {
    #[track_caller]
    fn new(name: &str, z: &Sizes, pass: &Pass) -> Result<Convolution> {
        let [c, o] = [z.inner(), z.outer()];
        let sizes = [z.n, z.h, z.w, c, z.r, z.s, o, z.p, z.q, z.stride, z.padding, z.dilation, z.c, z.o];
        // What kernels count in 32 bits: pixels, the steps of a window, and a padded image's coordinates.
        side(name, (z.n * z.p * z.q).max(z.n * z.h * z.w))?;
        side(
            name,
            (z.r * z.s * z.c.max(z.o))
                .max(2 * (z.h.max(z.w) + 2 * z.padding + 2 * z.stride + z.dilation * z.r.max(z.s))),
        )?;
        let packs = |(tensor, contiguous): (&Tensor, usize)| {
            u32::from(contiguous.is_multiple_of(16 / tensor.dtype().size()) && tensor.is_aligned(16))
        };
        let mut small = [0; 14];
        for (small, size) in small.iter_mut().zip(sizes) {
            *small = side(name, size)?;
        }
        Ok(Convolution {
            sizes: small,
            part: side(name, pass.part)?,
            packs_a: packs(pass.a),
            packs_b: packs(pass.b),
            together: u32::from(pass.result[1].is_multiple_of(TOGETHER)),
            tiles_n: Divisor::new(name, pass.tile.across(pass.result[1]))?,
            tiles_m: Divisor::new(name, pass.tile.down(pass.result[0]))?,
            outer: Divisor::new(name, pass.outer)?,
            rows: Divisor::new(name, pass.pixels[0])?,
            columns: Divisor::new(name, pass.pixels[1])?,
            channels: Divisor::new(name, pass.channels)?,
        })
    }
}

/// Blocks that cover a result once.
fn blocks(tile: Tile, [rows, columns]: [usize; 2]) -> usize {
    tile.down(rows) * tile.across(columns)
}

/// y = x * w.
#[track_caller]
pub(crate) fn forward(z: &Sizes, x: &Tensor, w: &Tensor, y: &mut Tensor) -> Result<()> {
    let name = "conv2d";
    let (m, n, k) = (z.n * z.p * z.q, z.outer(), z.r * z.s * z.inner());
    if z.is_depthwise() {
        return depthwise::forward(z, x, w, y);
    }
    if z.is_product() {
        let sizes = Product { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
        return product(name, sizes, x, w, None, y);
    }
    if mma::applies(z, On::Forward, [x, w]) {
        return mma::run(name, z, On::Forward, [x, w], y);
    }
    if fold::applies(z, On::Forward, [x, w]) {
        return fold::forward(name, z, x, w, |z, x, w| forward(z, x, w, y));
    }
    let tile = Tile::for_result(m, n);
    let pass = Pass {
        tile,
        result: [m, n],
        a: (x, z.inner()),
        b: (w, k),
        part: k,
        outer: 1,
        pixels: [z.p, z.q],
        channels: z.inner(),
    };
    let kernel = kernel(tile, [&large::FWD, &tall::FWD, &wide::FWD, &small::FWD]);
    Launch::new(kernel.of(name, x.dtype())?, x.device())?
        .read(x)?
        .read(w)?
        .write(y)?
        .value(Convolution::new(name, z, &pass)?)
        .grid3([blocks(tile, pass.result), z.groups, 1])
        .block(tile.threads())
        .flops(super::flops(z))
        .bytes(super::bytes(z, x.dtype()) as usize)
        .run()
}

/// y = x * w, and sums of the columns of its tiles where the kernel that computes it leaves them: of bf16 on tensor cores,
/// with output channels in packs of 8, where no sum is cut in parts.
#[track_caller]
pub(crate) fn forward_with_sums(
    z: &Sizes,
    x: &Tensor,
    w: &Tensor,
    y: &mut Tensor,
) -> Result<Option<TileSums>> {
    let name = "conv2d";
    if fold::applies(z, On::Forward, [x, w]) {
        return fold::forward(name, z, x, w, |z, x, w| forward_with_sums(z, x, w, y));
    }
    if z.o.is_multiple_of(8) && z.is_product() {
        let (m, n) = (z.n * z.p * z.q, z.o);
        let sizes = Product { batch: 1, m, n, k: z.c, transpose_a: false, transpose_b: true };
        if matmul_mma::applies(&sizes, x, w)
            && let Some(tile) = Beside::tile_without_parts(x.device(), &sizes)
        {
            let mut sums = TileSums::new(m, n, tile.rows(), x.device())?;
            let beside = Beside::Statistics(&mut sums.sums);
            matmul_mma::product_by(name, tile, sizes, x, w, None, y, beside)?;
            return Ok(Some(sums));
        }
    } else if z.o.is_multiple_of(8) && z.groups == 1 && mma::applies(z, On::Forward, [x, w]) {
        return mma::forward_with_sums(name, mma::tile(x.device(), z, On::Forward), z, [x, w], None, y)
            .map(Some);
    }
    forward(z, x, w, y)?;
    Ok(None)
}

/// dx from dy: a product for each residue class of input pixels, in one launch.
#[track_caller]
pub(crate) fn input_gradient(z: &Sizes, dy: &Tensor, w: &Tensor, dx: &mut Tensor) -> Result<()> {
    let name = "conv2d_dgrad";
    if z.is_depthwise() {
        return depthwise::input_gradient(z, dy, w, dx);
    }
    if z.is_product() {
        let sizes =
            Product { batch: 1, m: z.n * z.h * z.w, n: z.c, k: z.o, transpose_a: false, transpose_b: false };
        return product(name, sizes, dy, w, None, dx);
    }
    if mma::applies(z, On::InputGradient, [dy, w]) {
        return mma::run(name, z, On::InputGradient, [dy, w], dx);
    }
    // Pixels of a class.
    let [rows, columns] = [z.h.div_ceil(z.stride), z.w.div_ceil(z.stride)];
    let m = z.n * rows * columns;
    let tile = Tile::for_result(m, z.inner());
    let pass = Pass {
        tile,
        result: [m, z.inner()],
        a: (dy, z.outer()),
        b: (w, z.inner()),
        part: 0,
        outer: z.stride,
        pixels: [rows, columns],
        channels: z.outer(),
    };
    let kernel = kernel(tile, [&large::DGRAD, &tall::DGRAD, &wide::DGRAD, &small::DGRAD]);
    Launch::new(kernel.of(name, dy.dtype())?, dy.device())?
        .read(dy)?
        .read(w)?
        .write(dx)?
        .value(Convolution::new(name, z, &pass)?)
        .grid3([blocks(tile, pass.result) * z.stride * z.stride, z.groups, 1])
        .block(tile.threads())
        .flops(super::flops(z))
        .bytes(super::bytes(z, dy.dtype()) as usize)
        .run()
}

/// dw from x and dy, the output pixels shared out to parts where the weights are few.
#[track_caller]
pub(crate) fn weight_gradient(z: &Sizes, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()> {
    let name = "conv2d_wgrad";
    let (m, n, k) = (z.outer(), z.r * z.s * z.inner(), z.n * z.p * z.q);
    if z.is_depthwise() {
        return depthwise::weight_gradient(z, x, dy, dw);
    }
    if z.is_product() {
        let sizes = Product { batch: 1, m, n, k, transpose_a: true, transpose_b: false };
        return product(name, sizes, dy, x, None, dw);
    }
    if mma::applies(z, On::WeightGradient, [x, dy]) {
        return mma::run(name, z, On::WeightGradient, [x, dy], dw);
    }
    if fold::applies(z, On::WeightGradient, [x, dy]) {
        return fold::weight_gradient(name, z, x, dy, dw);
    }
    let tile = Tile::for_result(m, n);
    let (count, part) = parts(blocks(tile, [m, n]) * z.groups, k);
    let pass = Pass {
        tile,
        result: [m, n],
        a: (dy, z.outer()),
        b: (x, z.inner()),
        part,
        outer: count,
        pixels: [z.p, z.q],
        channels: z.inner(),
    };
    let kernel = kernel(tile, [&large::WGRAD, &tall::WGRAD, &wide::WGRAD, &small::WGRAD]);
    let launch = Launch::new(kernel.of(name, x.dtype())?, x.device())?
        .grid3([blocks(tile, pass.result) * count, z.groups, 1])
        .block(tile.threads())
        .flops(super::flops(z));
    let launch = launch.read(x)?.read(dy)?;
    let sizes = Convolution::new(name, z, &pass)?;
    if count == 1 {
        return launch.write(dw)?.value(0u64).value(sizes).bytes(super::bytes(z, x.dtype()) as usize).run();
    }
    let mut partial = Tensor::empty(&[count, z.o * n], DType::F32, x.device())?;
    launch.value(0u64).write(&mut partial)?.value(sizes).run()?;
    sum_parts(name, &partial, None, n, dw)
}
