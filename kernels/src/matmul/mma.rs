//! Launches of `mma.cu`: products of bf16 on tensor cores.

use super::cuda::{Matrix, Sizes, sum_parts};
use super::mma_tile::{GROUP, MmaTile};
use crate::divisor::{Divisor, side};
use engine::cuda::{Kernel, Launch};
use engine::{DType, Result, Tensor};

/// The kernels of a tile for each way that operands lie and for what is done besides, each a module that is compiled
/// when it is first used.
macro_rules! tile {
    ($module:ident, $tile:ident, $m:literal x $n:literal, $warp_m:literal x $warp_n:literal) => {
        tile!($module, $tile, $m x $n, $warp_m x $warp_n, row sums: [ROW_SUMS]);
    };
    ($module:ident, $tile:ident, $m:literal x $n:literal, $warp_m:literal x $warp_n:literal, row sums: [$($sums:ident)?]) => {
        mod $module {
            use engine::cuda::{Kernel, Module};
            variant!(NN, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma", "nn", 1, 0, "PLAIN");
            variant!(NT, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma", "nt", 1, 1, "PLAIN");
            variant!(TN, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma", "tn", 0, 0, "PLAIN");
            variant!(TT, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma", "tt", 0, 1, "PLAIN");
            variant!(GELU, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma_gelu", "nt", 1, 1, "GELU");
            variant!(GELU_BWD, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma_gelu_bwd", "nn", 1, 0, "GELU_BWD");
            $(variant!($sums, $tile, [$m, $n, $warp_m, $warp_n], "matmul_mma_row_sums", "tn", 0, 0, "ROW_SUMS");)?
            pub(crate) static KERNELS: &[&Kernel] = &[&NN, &NT, &TN, &TT, &GELU, &GELU_BWD $(, &$sums)?];
        }
    };
}
macro_rules! variant {
    ($name:ident, $tile:ident, [$m:literal, $n:literal, $warp_m:literal, $warp_n:literal], $prefix:literal,
     $letters:literal, $a:literal, $b:literal, $extra:literal) => {
        pub(super) static $name: Kernel = {
            static MODULE: Module = Module::new(
                "matmul",
                "kernels/src/matmul/mma.cu",
                include_str!("mma.cu"),
                crate::cuda::HEADERS,
                &["ELEMENT_BF16", $extra],
                &[
                    concat!("--define-macro=TILE_M=", $m),
                    concat!("--define-macro=TILE_N=", $n),
                    concat!("--define-macro=WARP_M=", $warp_m),
                    concat!("--define-macro=WARP_N=", $warp_n),
                    concat!("--define-macro=A_BY_STEPS=", $a),
                    concat!("--define-macro=B_BY_STEPS=", $b),
                ],
            );
            const ENTRY: &str = concat!($prefix, "_", $m, "x", $n, "_", $letters, "_bf16");
            Kernel::new(&MODULE, ENTRY).with_dynamic_shared(crate::matmul::mma_tile::MmaTile::$tile.shared())
        };
    };
}
tile!(t128x256, T128x256, 128 x 256, 64 x 64);
tile!(t128x128, T128x128, 128 x 128, 64 x 64);
tile!(t128x64, T128x64, 128 x 64, 64 x 64);
// With row sums this one would spill registers on sm_80.
tile!(t64x128, T64x128, 64 x 128, 64 x 64, row sums: []);
tile!(t64x64, T64x64, 64 x 64, 32 x 32);

/// Every kernel of this file, by tile.
pub(crate) static KERNELS: [&[&Kernel]; 5] =
    [t128x256::KERNELS, t128x128::KERNELS, t128x64::KERNELS, t64x128::KERNELS, t64x64::KERNELS];

/// `Product` of `mma.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Product {
    m: u32,
    n: u32,
    k: u32,
    part: u32,
    a_stride: u64,
    b_stride: u64,
    a_batch: u64,
    b_batch: u64,
    results: u64,
    tiles: Divisor,
    parts: Divisor,
    group: Divisor,
    tiles_m: u32,
    together: u32,
    unused: u32,
}
const _: () = assert!(size_of::<Product>() == 104);

/// Whether tensor cores compute this product: bf16 operands whose rows all begin at multiples of 16 bytes and are
/// made of whole packs.
pub(crate) fn applies(sizes: &Sizes, a: &Tensor, b: &Tensor) -> bool {
    let [a_matrix, b_matrix] = matrices(sizes, a, b);
    a.dtype() == DType::BF16
        && a_matrix.has_whole_packs()
        && b_matrix.has_whole_packs()
        && sizes.batch * sizes.m * sizes.n * sizes.k > 0
}

fn matrices(z: &Sizes, a: &Tensor, b: &Tensor) -> [Matrix; 2] {
    [
        Matrix::new(a, if z.transpose_a { z.m } else { z.k }, !z.transpose_a),
        Matrix::new(b, if z.transpose_b { z.k } else { z.n }, z.transpose_b),
    ]
}

/// What a launch does beside the product.
pub(crate) enum Beside<'a> {
    /// Nothing.
    Nothing,
    /// out = gelu(a b + bias), and a b + bias itself where that is wanted. A side by steps, B transposed.
    Gelu(Option<&'a mut Tensor>),
    /// out = a b gelu'(pre) for this `pre`. Neither side transposed.
    GeluBackward(&'a Tensor),
    /// The sums of A's rows, which is transposed, over k.
    RowSums(&'a mut Tensor),
}

impl Beside<'_> {
    /// The tile for a result where this is done besides; none where the sums are cut in parts, which only products and
    /// row sums allow.
    pub(crate) fn tile(&self, z: &Sizes) -> Option<MmaTile> {
        let tile = MmaTile::for_result(z.batch, z.m, z.n, z.k);
        match self {
            Beside::Nothing => Some(tile),
            Beside::RowSums(_) if tile == MmaTile::T64x128 => Some(MmaTile::T64x64),
            Beside::RowSums(_) => Some(tile),
            Beside::Gelu(_) | Beside::GeluBackward(_) => {
                let blocks = z.batch * tile.across(z.n) * tile.down(z.m);
                (tile.parts(blocks, z.k).0 == 1).then_some(tile)
            }
        }
    }

    fn kernel(&self, tile: MmaTile, z: &Sizes) -> &'static Kernel {
        let number = match self {
            Beside::Nothing => 2 * usize::from(z.transpose_a) + usize::from(z.transpose_b),
            Beside::Gelu(_) => 4,
            Beside::GeluBackward(_) => 5,
            Beside::RowSums(_) => 6,
        };
        KERNELS[tile as usize][number]
    }

    /// Bytes of the tensor that is read or written besides.
    fn bytes(&self) -> usize {
        match self {
            Beside::Nothing | Beside::Gelu(None) => 0,
            Beside::Gelu(Some(other)) | Beside::RowSums(other) => 2 * other.len(),
            Beside::GeluBackward(other) => 2 * other.len(),
        }
    }

    fn is_aligned(&self) -> bool {
        match self {
            Beside::Nothing | Beside::Gelu(None) => true,
            Beside::Gelu(Some(other)) | Beside::RowSums(other) => other.is_aligned(16),
            Beside::GeluBackward(other) => other.is_aligned(16),
        }
    }
}

/// out = a b + bias for every product of a batch, where [`applies`] says so.
#[track_caller]
pub(crate) fn product(
    name: &str,
    sizes: Sizes,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    out: &mut Tensor,
) -> Result<()> {
    let tile = MmaTile::for_result(sizes.batch, sizes.m, sizes.n, sizes.k);
    product_by(name, tile, sizes, a, b, bias, out, Beside::Nothing)
}

/// [`product`] by blocks of a given tile, and what is done besides.
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
    let (count, _) = tile.parts(blocks, k);
    let together = n.is_multiple_of(8) && out.is_aligned(16) && beside.is_aligned();
    let z = Product::new(name, tile, &sizes, matrices(&sizes, a, b), together)?;
    let device = a.device();
    let launch = Launch::new(beside.kernel(tile, &sizes), device)?
        .grid(blocks * count)
        .block(tile.threads())
        .shared(tile.shared())
        .flops(batch as f64 * super::flops(m, n, k));
    let launch = launch.read(a)?.read(b)?;
    if count == 1 {
        let bytes = (batch as f64 * super::bytes(m, n, k, DType::BF16)) as usize
            + bias.map_or(0, |b| 2 * b.len())
            + beside.bytes();
        let launch = launch.read_optional(bias)?.write(out)?.value(0u64);
        let launch = match beside {
            Beside::Nothing => launch.value(0u64),
            Beside::Gelu(other) => launch.write_optional(other)?,
            Beside::GeluBackward(other) => launch.read(other)?,
            Beside::RowSums(other) => launch.write(other)?,
        };
        return launch.value(0u64).value(z).bytes(bytes).run();
    }
    let mut partial = Tensor::empty(&[count, batch * m * n], DType::F32, device)?;
    let launch = launch.value(0u64).value(0u64).write(&mut partial)?.value(0u64);
    match beside {
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
    fn new(name: &str, tile: MmaTile, sizes: &Sizes, [a, b]: [Matrix; 2], together: bool) -> Result<Product> {
        let Sizes { batch, m, n, k, .. } = *sizes;
        let (across, down) = (tile.across(n), tile.down(m));
        let (count, part) = tile.parts(batch * across * down, k);
        Ok(Product {
            m: side(name, m)?,
            n: side(name, n)?,
            k: side(name, k)?,
            part: side(name, part)?,
            a_stride: a.stride(),
            b_stride: b.stride(),
            a_batch: (m * k) as u64,
            b_batch: (k * n) as u64,
            results: (batch * m * n) as u64,
            tiles: Divisor::new(name, across * down)?,
            parts: Divisor::new(name, count)?,
            group: Divisor::new(name, across * GROUP)?,
            tiles_m: side(name, down)?,
            together: u32::from(together),
            unused: 0,
        })
    }
}
