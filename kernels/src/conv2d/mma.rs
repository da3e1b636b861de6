//! Launches of `mma.cu`: convolutions of bf16 on tensor cores.

use super::Sizes;
use crate::divisor::{Divisor, side};
use crate::matmul::cuda::sum_parts;
use crate::matmul::mma_tile::{MmaTile, STEPS};
use crate::norm::TileSums;
use engine::cuda::{Kernel, Launch};
use engine::{DType, Device, Result, Tensor};

/// The kernels of a tile. `cores`: the instructions that multiply, as they are in names and as a define.
macro_rules! tile {
    ($module:ident, $tile:ident, $m:literal x $n:literal, $warp_m:literal x $warp_n:literal, $cores:literal $define:literal) => {
        mod $module {
            use engine::cuda::{Kernel, Module};
            pass!(FWD, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "fwd", "PASS_FWD", "PLAIN");
            pass!(DGRAD, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "dgrad", "PASS_DGRAD", "PLAIN");
            pass!(WGRAD, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "wgrad", "PASS_WGRAD", "PLAIN");
            pass!(
                FWD_NORMALISED,
                $tile,
                [$m, $n, $warp_m, $warp_n, $cores, $define],
                "fwd_normalised",
                "PASS_FWD",
                "NORMALISED"
            );
            pass!(
                WGRAD_NORMALISED,
                $tile,
                [$m, $n, $warp_m, $warp_n, $cores, $define],
                "wgrad_normalised",
                "PASS_WGRAD",
                "NORMALISED"
            );
            pub(crate) static KERNELS: &[&Kernel] =
                &[&FWD, &DGRAD, &WGRAD, &FWD_NORMALISED, &WGRAD_NORMALISED];
        }
    };
}
macro_rules! pass {
    ($name:ident, $tile:ident, [$m:literal, $n:literal, $warp_m:literal, $warp_n:literal, $cores:literal, $cores_define:literal],
     $pass:literal, $define:literal, $input:literal) => {
        static $name: Kernel = {
            use crate::matmul::mma_tile::MmaTile;
            static MODULE: Module = MmaTile::$tile.module(Module::new(
                "conv2d",
                "kernels/src/conv2d/mma.cu",
                include_str!("mma.cu"),
                crate::cuda::HEADERS,
                &["ELEMENT_BF16", $define, $input],
                &[
                    concat!("--define-macro=", $cores_define),
                    concat!("--define-macro=TILE_M=", $m),
                    concat!("--define-macro=TILE_N=", $n),
                    concat!("--define-macro=WARP_M=", $warp_m),
                    concat!("--define-macro=WARP_N=", $warp_n),
                ],
            ));
            const ENTRY: &str = concat!("conv2d_", $cores, "_", $pass, "_", $m, "x", $n, "_bf16");
            MmaTile::$tile.kernel(Kernel::new(&MODULE, ENTRY))
        };
    };
}
tile!(t128x128, T128x128, 128 x 128, 64 x 64, "mma" "MMA");
tile!(t128x64, T128x64, 128 x 64, 64 x 64, "mma" "MMA");
tile!(t64x64, T64x64, 64 x 64, 64 x 64, "mma" "MMA");
tile!(w128x256, W128x256, 128 x 256, 16 x 256, "wgmma" "WGMMA");
tile!(w128x128, W128x128, 128 x 128, 16 x 128, "wgmma" "WGMMA");
tile!(w128x64, W128x64, 128 x 64, 16 x 64, "wgmma" "WGMMA");

/// Every kernel of this file, by tile.
pub(crate) static KERNELS: [&[&Kernel]; 6] = [
    t128x128::KERNELS,
    t128x64::KERNELS,
    t64x64::KERNELS,
    w128x256::KERNELS,
    w128x128::KERNELS,
    w128x64::KERNELS,
];
/// The tiles in that order, those of warpgroups last. The gradients would spill registers in others.
pub(super) const TILES: [MmaTile; 6] = [
    MmaTile::T128x128,
    MmaTile::T128x64,
    MmaTile::T64x64,
    MmaTile::W128x256,
    MmaTile::W128x128,
    MmaTile::W128x64,
];
/// Steps that take as long as what a block of windows does before and behind its loop, where that is not as for matrices: as
/// timed on an H100 in 3x3 convolutions, when each thread still found the places of its packs' windows by itself.
const ENDS: [(MmaTile, usize); 3] =
    [(MmaTile::T128x128, 340), (MmaTile::T128x64, 140), (MmaTile::T64x64, 670)];

/// The tiles that a device has kernels of.
pub(crate) fn tiles(device: Device) -> &'static [MmaTile] {
    if MmaTile::has_warpgroups(device) { &TILES } else { &TILES[..3] }
}

/// A pass, by its number among a tile's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// y from x.
    Forward,
    /// dx from dy.
    InputGradient,
    /// dw from x and dy.
    WeightGradient,
}

/// `WindowSteps` of `mma.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct WindowSteps {
    element: u32,
    channel: u32,
    row_factor: u32,
    row_rest: i32,
}

/// `Convolution` of `mma.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Convolution {
    /// N, H, W, a group's C, R, S, a group's O, P, Q, stride, padding, all C, all O.
    sizes: [u32; 13],
    part: u32,
    together: u32,
    blocks: u32,
    tiles_n: Divisor,
    tiles_m: Divisor,
    outer: Divisor,
    rows: Divisor,
    columns: Divisor,
    channels: Divisor,
    steps: WindowSteps,
}
const _: () = assert!(size_of::<Convolution>() == 152);

/// A pass as products for each group: their number, and rows, columns and steps of each.
#[derive(Debug, Clone, Copy)]
struct Product {
    count: usize,
    m: usize,
    n: usize,
    k: usize,
}

fn product(z: &Sizes, pass: Pass) -> Product {
    let window = z.r * z.s;
    match pass {
        Pass::Forward => Product { count: 1, m: z.n * z.p * z.q, n: z.outer(), k: window * z.inner() },
        Pass::InputGradient => Product {
            count: z.stride * z.stride,
            m: z.n * z.h.div_ceil(z.stride) * z.w.div_ceil(z.stride),
            n: z.inner(),
            k: (window * z.outer()).div_ceil(z.stride * z.stride),
        },
        Pass::WeightGradient => Product { count: 1, m: z.outer(), n: window * z.inner(), k: z.n * z.p * z.q },
    }
}

/// Whether tensor cores compute a pass: bf16, at multiples of 16 bytes, of sizes that [`fits`] takes.
pub(crate) fn applies(z: &Sizes, pass: Pass, tensors: [&Tensor; 2]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::BF16 && tensor.is_aligned(16)) && fits(z, pass)
}

/// The sizes that the kernels take: whole packs of a group's channels, kernels of at most 32 elements without dilation, and for the
/// input gradient whole tiles of output channels. A stem of three channels is none of these ([`super::fold`]).
pub(crate) fn fits(z: &Sizes, pass: Pass) -> bool {
    /// Elements of a tensor, which kernels count in 32 bits with a window's overhang.
    const MOST: usize = 1 << 30;
    let pixels = (z.n * (z.h + 2 * z.padding + z.r) * (z.w + 2 * z.padding + z.s)).max(z.n * z.p * z.q);
    let elements = pixels.saturating_mul(z.c.max(z.o)).max(z.o * z.r * z.s * z.c);
    let outputs = match pass {
        Pass::Forward => 1,
        Pass::InputGradient => 64,
        Pass::WeightGradient => 8,
    };
    z.inner().is_multiple_of(8)
        && z.outer().is_multiple_of(outputs)
        && z.r * z.s <= 32
        && z.dilation == 1
        && z.n * z.c * z.o > 0
        && elements <= MOST
}

/// The tile for a pass on a device.
pub(crate) fn tile(device: Device, z: &Sizes, pass: Pass) -> MmaTile {
    tile_of(tiles(device), z, pass)
}

/// The best of some tiles for a pass. Sums are cut in parts in the weight gradient alone.
pub(crate) fn tile_of(tiles: &[MmaTile], z: &Sizes, pass: Pass) -> MmaTile {
    let Product { count, m, n, k } = product(z, pass);
    let batch = count * z.groups;
    if pass == Pass::WeightGradient {
        // An H100 took a quarter longer for the widest tile than for two of half its width.
        let narrow = tiles.iter().filter(|&&tile| tile != MmaTile::W128x256);
        return MmaTile::best_of(narrow, batch, m, n, k);
    }
    let time = |tile: &&MmaTile| {
        let ends = ENDS.iter().find(|(other, _)| other == *tile).map_or(tile.ends(), |(_, ends)| *ends);
        tile.time_of(batch * tile.down(m) * tile.across(n), k, ends)
    };
    tiles.iter().min_by_key(time).copied().unwrap_or(MmaTile::T128x128)
}

/// The result of a pass, where [`applies`] says so: y from x and w, dx from dy and w, or dw from x and dy.
#[track_caller]
pub(crate) fn run(name: &str, z: &Sizes, pass: Pass, operands: [&Tensor; 2], out: &mut Tensor) -> Result<()> {
    run_by(name, tile(out.device(), z, pass), z, pass, operands, out)
}

/// y from x (or what `map` makes of it) and w, and sums of its columns over the rows of each tile. O is a multiple of 8, and
/// [`applies`].
#[track_caller]
pub(crate) fn forward_with_sums(
    name: &str,
    tile: MmaTile,
    z: &Sizes,
    operands: [&Tensor; 2],
    map: Option<&Tensor>,
    y: &mut Tensor,
) -> Result<TileSums> {
    let mut sums = TileSums::new(z.n * z.p * z.q, z.o, tile.rows(), y.device())?;
    launch(name, tile, z, Pass::Forward, operands, y, Beside { sums: Some(&mut sums), map })?;
    Ok(sums)
}

/// What a launch does beside its pass.
#[derive(Default)]
pub(crate) struct Beside<'a> {
    /// Forward: sums of the result's columns over the rows of each tile.
    pub(crate) sums: Option<&'a mut TileSums>,
    /// Forward and for the weight's gradient: x is what `relu(normalised(x))` is made of, by this map of its channels
    /// [3, C].
    pub(crate) map: Option<&'a Tensor>,
}

/// [`run`] by blocks of a given tile of [`tiles`].
#[track_caller]
pub(crate) fn run_by(
    name: &str,
    tile: MmaTile,
    z: &Sizes,
    pass: Pass,
    operands: [&Tensor; 2],
    out: &mut Tensor,
) -> Result<()> {
    launch(name, tile, z, pass, operands, out, Beside::default())
}

/// [`run_by`], and what is done beside.
#[track_caller]
pub(crate) fn launch(
    name: &str,
    tile: MmaTile,
    z: &Sizes,
    pass: Pass,
    operands: [&Tensor; 2],
    out: &mut Tensor,
    beside: Beside<'_>,
) -> Result<()> {
    let Product { count: products, m, n, k } = product(z, pass);
    let (across, down) = (tile.across(n), tile.down(m));
    // The windows of an input gradient's products differ: their sums are not cut in parts.
    let (count, part) = match pass {
        Pass::WeightGradient => tile.parts(across * down * z.groups, k),
        _ => (1, k),
    };
    let (outer, rows, columns, channels) = match pass {
        Pass::InputGradient => (z.stride, z.h.div_ceil(z.stride), z.w.div_ceil(z.stride), z.outer()),
        _ => (count, z.p, z.q, z.inner()),
    };
    let mut sizes = [0; 13];
    let [c, o] = [z.inner(), z.outer()];
    let all = [z.n, z.h, z.w, c, z.r, z.s, o, z.p, z.q, z.stride, z.padding, z.c, z.o];
    for (small, size) in sizes.iter_mut().zip(all) {
        *small = side(name, size)?;
    }
    let convolution = Convolution {
        sizes,
        part: side(name, part)?,
        together: u32::from(n.is_multiple_of(8) && out.is_aligned(16)),
        blocks: side(name, across * down * products)?,
        tiles_n: Divisor::new(name, across)?,
        tiles_m: Divisor::new(name, down)?,
        outer: Divisor::new(name, outer)?,
        rows: Divisor::new(name, rows)?,
        columns: Divisor::new(name, columns)?,
        channels: Divisor::new(name, channels)?,
        steps: WindowSteps {
            element: side(name, STEPS / c)?,
            channel: side(name, STEPS % c)?,
            row_factor: side(name, 65536_usize.div_ceil(z.s))?,
            row_rest: (z.w as i64 - z.s as i64).saturating_mul(z.c as i64) as i32,
        },
    };
    let number = TILES.iter().position(|other| *other == tile).unwrap_or(0);
    let device = operands[0].device();
    let bytes = super::bytes(z, DType::BF16) as usize;
    let kernel = match (pass, beside.map) {
        (Pass::Forward, Some(_)) => 3,
        (Pass::WeightGradient, Some(_)) => 4,
        _ => pass as usize,
    };
    let blocks = across * down * products * count;
    // Those of most passes stay where they are of warpgroups, and compute one tile after the other.
    let (blocks, shared) = match (pass, beside.map) {
        (Pass::WeightGradient, _) => (blocks, tile.shared_of_loop()),
        (_, Some(_)) => (blocks, tile.room()),
        _ => (tile.blocks(device, blocks), tile.room()),
    };
    let launch = Launch::new(KERNELS[number][kernel], device)?
        .grid3([blocks, z.groups, 1])
        .block(tile.threads())
        .shared(shared)
        .flops(super::flops(z));
    let launch = launch.read(operands[0])?.read(operands[1])?;
    match pass {
        Pass::Forward => {
            let bytes = bytes + beside.sums.as_ref().map_or(0, |sums| 4 * sums.sums.len());
            let launch = launch.write(out)?.write_optional(beside.sums.map(|sums| &mut sums.sums))?;
            with_map(launch.value(convolution), beside.map)?.bytes(bytes).run()
        }
        Pass::InputGradient => launch.write(out)?.value(convolution).bytes(bytes).run(),
        Pass::WeightGradient if count == 1 => {
            let launch = launch.write(out)?.value(0u64).value(convolution);
            with_map(launch, beside.map)?.bytes(bytes).run()
        }
        Pass::WeightGradient => {
            let mut partial = Tensor::empty(&[count, z.o * n], DType::F32, device)?;
            let launch = launch.value(0u64).write(&mut partial)?.value(convolution);
            with_map(launch, beside.map)?.run()?;
            sum_parts(name, &partial, None, n, out)
        }
    }
}

/// The last arguments of a kernel that normalises what it reads, and none of the others.
#[track_caller]
fn with_map(launch: Launch, map: Option<&Tensor>) -> Result<Launch> {
    match map {
        Some(map) => Ok(launch.read(map)?.value(map.shape()[1] as u64)),
        None => Ok(launch),
    }
}
