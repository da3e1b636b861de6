//! Launches of `mma.cu`: products of bf16 on tensor cores, and of f32 that is rounded to tf32.

use super::Residual;
use super::cuda::{Matrix, Sizes, add_parts, sum_parts};
use super::mma_tile::{GROUP, MmaTile, STEPS};
use super::tf32;
use crate::divisor::{Divisor, side};
use engine::cuda::tensor_map::{Boxes, TensorMap};
use engine::cuda::{Kernel, Launch};
use engine::{DType, Device, Error, Result, Tensor};

/// The kernels of a tile for each way that operands lie and for what is done besides, each a module that is compiled
/// when it is first used. `cores`: the instructions that multiply, as they are in names and as a define.
macro_rules! tile {
    ($module:ident, $tile:ident, $m:literal x $n:literal, $warp_m:literal x $warp_n:literal, $cores:literal $define:literal) => {
        tile!($module, $tile, $m x $n, $warp_m x $warp_n, $cores $define, row sums: [ROW_SUMS]);
    };
    (
        $module:ident, $tile:ident, $m:literal x $n:literal, $warp_m:literal x $warp_n:literal, $cores:literal $define:literal,
        row sums: [$($sums:ident)?]
    ) => {
        mod $module {
            use engine::cuda::{Kernel, Module};
            variant!(NN, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "", "nn", 1, 0, "PLAIN");
            variant!(NT, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "", "nt", 1, 1, "PLAIN");
            variant!(TN, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "", "tn", 0, 0, "PLAIN");
            variant!(TT, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "", "tt", 0, 1, "PLAIN");
            variant!(GELU, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "gelu_", "nt", 1, 1, "GELU");
            variant!(GELU_BWD, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "gelu_bwd_", "nn", 1, 0, "GELU_BWD");
            variant!(RELU, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "relu_", "nt", 1, 1, "RELU");
            variant!(RELU_BWD, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "relu_bwd_", "nn", 1, 0, "RELU_BWD");
            variant!(RESIDUAL, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "residual_", "nt", 1, 1, "RESIDUAL");
            variant!(ACCUMULATE, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "accumulate_", "tn", 0, 0, "ACCUMULATE");
            variant!(STATISTICS, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "statistics_", "nt", 1, 1, "STATISTICS");
            $(variant!($sums, $tile, [$m, $n, $warp_m, $warp_n, $cores, $define], "row_sums_", "tn", 0, 0, "ROW_SUMS");)?
            pub(crate) static KERNELS: &[&Kernel] = &[
                &NN, &NT, &TN, &TT, &GELU, &GELU_BWD, &RELU, &RELU_BWD, &RESIDUAL, &ACCUMULATE, &STATISTICS $(, &$sums)?
            ];
        }
    };
}
macro_rules! variant {
    ($name:ident, $tile:ident, [$m:literal, $n:literal, $warp_m:literal, $warp_n:literal, $cores:literal, $define:literal],
     $beside:literal, $letters:literal, $a:literal, $b:literal, $extra:literal) => {
        pub(super) static $name: Kernel = {
            use crate::matmul::mma_tile::MmaTile;
            static MODULE: Module = MmaTile::$tile.module(Module::new(
                "matmul",
                "kernels/src/matmul/mma.cu",
                include_str!("mma.cu"),
                crate::cuda::HEADERS,
                &["ELEMENT_BF16", $extra],
                &[
                    concat!("--define-macro=", $define),
                    concat!("--define-macro=TILE_M=", $m),
                    concat!("--define-macro=TILE_N=", $n),
                    concat!("--define-macro=WARP_M=", $warp_m),
                    concat!("--define-macro=WARP_N=", $warp_n),
                    concat!("--define-macro=A_BY_STEPS=", $a),
                    concat!("--define-macro=B_BY_STEPS=", $b),
                ],
            ));
            const ENTRY: &str = concat!("matmul_", $cores, "_", $beside, $m, "x", $n, "_", $letters, "_bf16");
            MmaTile::$tile.kernel(Kernel::new(&MODULE, ENTRY))
        };
    };
}
tile!(t128x256, T128x256, 128 x 256, 64 x 64, "mma" "MMA");
tile!(t128x128, T128x128, 128 x 128, 64 x 64, "mma" "MMA");
tile!(t128x64, T128x64, 128 x 64, 64 x 64, "mma" "MMA");
// With row sums this one would spill registers on sm_80.
tile!(t64x128, T64x128, 64 x 128, 64 x 64, "mma" "MMA", row sums: []);
tile!(t64x64, T64x64, 64 x 64, 64 x 64, "mma" "MMA");
tile!(w128x256, W128x256, 128 x 256, 16 x 256, "wgmma" "WGMMA");
tile!(w128x128, W128x128, 128 x 128, 16 x 128, "wgmma" "WGMMA");
tile!(w128x64, W128x64, 128 x 64, 16 x 64, "wgmma" "WGMMA");

/// Every kernel of this file, by tile.
pub(crate) static KERNELS: [&[&Kernel]; 8] = [
    t128x256::KERNELS,
    t128x128::KERNELS,
    t128x64::KERNELS,
    t64x128::KERNELS,
    t64x64::KERNELS,
    w128x256::KERNELS,
    w128x128::KERNELS,
    w128x64::KERNELS,
];

/// `Product` of `mma.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Product {
    m: u32,
    n: u32,
    k: u32,
    part: u32,
    a_stride: u32,
    b_stride: u32,
    a_batch: u64,
    b_batch: u64,
    results: u64,
    tiles: Divisor,
    parts: Divisor,
    group: Divisor,
    tiles_m: u32,
    together: u32,
    blocks: u32,
}
const _: () = assert!(size_of::<Product>() == 96);

/// Whether tensor cores compute this product: bf16 operands whose rows all begin at multiples of 16 bytes and are
/// made of whole packs.
pub(crate) fn applies(sizes: &Sizes, a: &Tensor, b: &Tensor) -> bool {
    let [a_matrix, b_matrix] = matrices(sizes, a, b);
    a.dtype() == DType::BF16
        && a_matrix.has_whole_packs()
        && b_matrix.has_whole_packs()
        && sizes.batch * sizes.m * sizes.n * sizes.k > 0
}

pub(super) fn matrices(z: &Sizes, a: &Tensor, b: &Tensor) -> [Matrix; 2] {
    [
        Matrix::new(a, if z.transpose_a { z.m } else { z.k }, !z.transpose_a),
        Matrix::new(b, if z.transpose_b { z.k } else { z.n }, z.transpose_b),
    ]
}

/// Whether a kernel adds a product that lies so to what is there.
fn is_in_one_pass(z: &Sizes, dtype: DType) -> bool {
    z.transpose_a && !z.transpose_b && dtype == DType::BF16
}

/// What a launch does beside the product.
pub(crate) enum Beside<'a> {
    /// Nothing.
    Nothing,
    /// out = gelu(a b + bias), and a b + bias itself where that is wanted. A side by steps, B transposed.
    Gelu(Option<&'a mut Tensor>),
    /// out = a b gelu'(pre) for this `pre`. Neither side transposed.
    GeluBackward(&'a Tensor),
    /// out = max(a b + bias, 0). B transposed.
    Relu,
    /// out = a b where this is positive, else 0. Neither side transposed.
    ReluBackward(&'a Tensor),
    /// out = the end of a residual branch a b + bias, and the branch itself where that is wanted. B transposed.
    Residual(Residual<'a>, Option<&'a mut Tensor>),
    /// out += a b, out in f32. In one pass where A is transposed and B is not, as in a weight's gradient, in bf16; else sums
    /// are written and added.
    Accumulate,
    /// The sums of A's rows, which is transposed, over k.
    RowSums(&'a mut Tensor),
    /// Sums of the result's columns over each tile's rows, `[tiles, 2, N]` of f32: see `common/mma_statistics.cuh`. One
    /// product, a side by steps, B transposed, N a multiple of 8.
    Statistics(&'a mut Tensor),
}

impl Beside<'_> {
    /// Whether a sum may be cut in parts.
    fn allows_parts(&self) -> bool {
        matches!(self, Beside::Nothing | Beside::RowSums(_) | Beside::Accumulate)
    }

    /// The tile for a result where this is done besides; none where a sum would rather be cut in parts, and this does not
    /// allow it.
    pub(crate) fn tile(&self, device: Device, z: &Sizes) -> Option<MmaTile> {
        let tile = MmaTile::for_result(device, z.batch, z.m, z.n, z.k);
        if let (Beside::RowSums(_), MmaTile::T64x128) = (self, tile) {
            return Some(MmaTile::T128x64);
        }
        if self.allows_parts() { Some(tile) } else { Beside::tile_without_parts(device, z) }
    }

    /// The tile for a result whose sums must not be cut in parts; none where they are.
    pub(crate) fn tile_without_parts(device: Device, z: &Sizes) -> Option<MmaTile> {
        let tile = MmaTile::for_result(device, z.batch, z.m, z.n, z.k);
        let blocks = z.batch * tile.across(z.n) * tile.down(z.m);
        (tile.parts(blocks, z.k).0 == 1).then_some(tile)
    }

    /// The number of the kernel among a tile's.
    fn number(&self, z: &Sizes, dtype: DType) -> usize {
        match self {
            Beside::Nothing => 2 * usize::from(z.transpose_a) + usize::from(z.transpose_b),
            Beside::Gelu(_) => 4,
            Beside::GeluBackward(_) => 5,
            Beside::Relu => 6,
            Beside::ReluBackward(_) => 7,
            Beside::Residual(..) => 8,
            Beside::Accumulate if is_in_one_pass(z, dtype) => 9,
            Beside::Accumulate => Beside::Nothing.number(z, dtype),
            Beside::Statistics(_) => 10,
            Beside::RowSums(_) => 11,
        }
    }

    /// Bytes that are read or written besides, for results in `out`.
    fn bytes(&self, out: &Tensor) -> usize {
        let of = |x: &Tensor| x.len() * x.dtype().size();
        match self {
            Beside::Nothing | Beside::Relu | Beside::Gelu(None) => 0,
            Beside::Gelu(Some(other)) | Beside::RowSums(other) | Beside::Statistics(other) => of(other),
            Beside::GeluBackward(other) | Beside::ReluBackward(other) => of(other),
            Beside::Residual(residual, branch) => {
                let read = [Some(residual.x), residual.scale, residual.keep];
                read.into_iter().flatten().map(of).sum::<usize>() + branch.as_deref().map_or(0, of)
            }
            // The product is counted with results in bf16.
            Beside::Accumulate => 2 * of(out) - out.len() * DType::BF16.size(),
        }
    }

    fn is_aligned(&self) -> bool {
        let aligned = |x: &Tensor| x.is_aligned(16);
        match self {
            Beside::Nothing | Beside::Relu | Beside::Gelu(None) | Beside::Accumulate => true,
            Beside::Gelu(Some(other)) | Beside::RowSums(other) | Beside::Statistics(other) => aligned(other),
            Beside::GeluBackward(other) | Beside::ReluBackward(other) => aligned(other),
            Beside::Residual(residual, branch) => {
                aligned(residual.x)
                    && residual.scale.is_none_or(aligned)
                    && branch.as_deref().is_none_or(aligned)
            }
        }
    }
}

/// out = a b + bias for every product of a batch, where [`applies`] says so, or [`tf32::applies`] for f32.
#[track_caller]
pub(crate) fn product(
    name: &str,
    sizes: Sizes,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    out: &mut Tensor,
) -> Result<()> {
    let tile = tile_of(&sizes, a);
    product_by(name, tile, sizes, a, b, bias, out, Beside::Nothing)
}

/// The tile for results of operands of this one's type and device.
pub(crate) fn tile_of(z: &Sizes, a: &Tensor) -> MmaTile {
    match a.dtype() {
        DType::F32 => MmaTile::best_of(&tf32::TILES, z.batch, z.m, z.n, z.k),
        _ => MmaTile::for_result(a.device(), z.batch, z.m, z.n, z.k),
    }
}

/// [`product`] by blocks of a given tile, and what is done besides: in f32 nothing, or an addition in parts.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "a product and what it depends on")]
pub(crate) fn product_by(
    name: &str,
    tile: MmaTile,
    sizes: Sizes,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    out: &mut Tensor,
    beside: Beside<'_>,
) -> Result<()> {
    let Sizes { batch, m, n, k, .. } = sizes;
    let blocks = batch * tile.across(n) * tile.down(m);
    let (count, part) = if beside.allows_parts() { tile.parts(blocks, k) } else { (1, k) };
    let together = n.is_multiple_of(8) && out.is_aligned(16) && beside.is_aligned();
    let kernel = match a.dtype() {
        DType::F32 => tf32::kernel(tile, beside.number(&sizes, a.dtype())),
        _ => KERNELS[tile as usize].get(beside.number(&sizes, a.dtype())).copied(),
    };
    let Some(kernel) = kernel else {
        let text = "no kernel computes this for this type by blocks of this tile";
        return Err(Error::dtype(name, text).argument("a", a).with("tile", tile));
    };
    let z = Product::new(name, tile, &sizes, matrices(&sizes, a, b), (count, part), together)?;
    let device = a.device();
    // Blocks that stay compute one tile after the other.
    let stays = count == 1 && !matches!(beside, Beside::Accumulate);
    let launch = Launch::new(kernel, device)?
        .grid(if stays { tile.blocks(device, blocks) } else { blocks * count })
        .block(tile.threads())
        .shared(tile.shared())
        .flops(batch as f64 * super::flops(m, n, k));
    let launch = match tile.is_of_warpgroups() {
        true => {
            let map = |x: &Tensor, rows: usize, along_k: bool, boxed: usize| {
                let (inner, outer) = if along_k { (k, rows) } else { (rows, k) };
                let boxed = [STEPS, if along_k { boxed } else { STEPS }];
                TensorMap::new(
                    name,
                    x,
                    Boxes { sizes: [inner, outer, batch], strides: [inner, inner * outer], boxed },
                )
            };
            let a_map = map(a, m, !sizes.transpose_a, tile.rows())?;
            let b_map = map(b, n, sizes.transpose_b, tile.columns())?;
            launch.read_map(a, a_map)?.read_map(b, b_map)?
        }
        false => launch.read(a)?.read(b)?,
    };
    if count == 1 && (is_in_one_pass(&sizes, a.dtype()) || !matches!(beside, Beside::Accumulate)) {
        let bytes = (batch as f64 * super::bytes(m, n, k, a.dtype())) as usize
            + bias.map_or(0, |b| a.dtype().size() * b.len())
            + beside.bytes(out);
        let launch = launch.read_optional(bias)?.write(out)?.value(0u64);
        let mut factors = None;
        let launch = match beside {
            Beside::Nothing | Beside::Relu | Beside::Accumulate => launch.value(0u64).value(0u64),
            Beside::Gelu(other) => launch.write_optional(other)?.value(0u64),
            Beside::GeluBackward(other) | Beside::ReluBackward(other) => launch.read(other)?.value(0u64),
            Beside::RowSums(other) => launch.write(other)?.value(0u64),
            Beside::Statistics(other) => launch.value(0u64).write(other)?,
            Beside::Residual(residual, branch) => {
                factors = Some(residual);
                launch.write_optional(branch)?.value(0u64)
            }
        };
        let launch = launch.value(z);
        let launch = match factors {
            None => launch,
            Some(Residual { x, scale, keep }) => launch
                .read(x)?
                .read_optional(scale)?
                .read_optional(keep)?
                .value(Divisor::new(name, m / keep.map_or(1, Tensor::len))?),
        };
        return launch.bytes(bytes).run();
    }
    let mut partial = Tensor::empty(&[count, batch * m * n], DType::F32, device)?;
    let launch = launch.value(0u64).value(0u64).write(&mut partial)?.value(0u64);
    match beside {
        Beside::Accumulate => {
            launch.value(0u64).value(z).run()?;
            return add_parts(name, &partial, out);
        }
        Beside::RowSums(other) => {
            let mut partial_sums = Tensor::empty(&[count, m], DType::F32, device)?;
            launch.write(&mut partial_sums)?.value(z).run()?;
            sum_parts(name, &partial_sums, None, m, other)?;
        }
        _ => launch.value(0u64).value(z).run()?,
    }
    sum_parts(name, &partial, bias, n, out)
}

impl Product {
    #[track_caller]
    fn new(
        name: &str,
        tile: MmaTile,
        sizes: &Sizes,
        [a, b]: [Matrix; 2],
        (count, part): (usize, usize),
        together: bool,
    ) -> Result<Product> {
        let Sizes { batch, m, n, k, .. } = *sizes;
        let (across, down) = (tile.across(n), tile.down(m));
        Ok(Product {
            m: side(name, m)?,
            n: side(name, n)?,
            k: side(name, k)?,
            part: side(name, part)?,
            a_stride: side(name, a.stride() as usize)?,
            b_stride: side(name, b.stride() as usize)?,
            a_batch: (m * k) as u64,
            b_batch: (k * n) as u64,
            results: (batch * m * n) as u64,
            tiles: Divisor::new(name, across * down)?,
            parts: Divisor::new(name, count)?,
            group: Divisor::new(name, across * GROUP)?,
            tiles_m: side(name, down)?,
            together: u32::from(together),
            blocks: side(name, batch * across * down * count)?,
        })
    }
}
