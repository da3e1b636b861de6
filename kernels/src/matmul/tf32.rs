//! Products of f32 on tensor cores, whose operands are rounded to tf32: 8 bits of exponent, 10 of fraction. An explicit choice,
//! since each product then has an error of 2^-10 of itself at most; sums stay in float32.

use super::cuda::Sizes;
use super::mma::matrices;
use super::mma_tile::MmaTile;
use engine::cuda::Kernel;
use engine::{DType, Tensor};
use std::sync::atomic::{AtomicBool, Ordering};

/// How products of f32 are computed on CUDA devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float32Products {
    /// In float32, on the ordinary cores.
    Exact,
    /// On tensor cores, of operands rounded to tf32, where their rows begin at multiples of 16 bytes.
    Tf32,
}

static TF32: AtomicBool = AtomicBool::new(false);

/// Chooses how this process computes products of f32 on CUDA devices from now on: [`super::matmul`], [`super::linear`], and
/// what is computed by them, convolutions of 1 x 1 among it. Exactly, unless chosen otherwise.
pub fn set_float32_products(products: Float32Products) {
    TF32.store(products == Float32Products::Tf32, Ordering::Relaxed);
}

/// What [`set_float32_products`] chose.
pub fn float32_products() -> Float32Products {
    if TF32.load(Ordering::Relaxed) { Float32Products::Tf32 } else { Float32Products::Exact }
}

/// Whether tensor cores can compute this product in tf32: f32 operands whose rows all begin at multiples of 16 bytes and
/// are made of whole packs.
pub(crate) fn applies(sizes: &Sizes, a: &Tensor, b: &Tensor) -> bool {
    a.dtype() == DType::F32
        && matrices(sizes, a, b).iter().all(|matrix| matrix.has_whole_packs())
        && sizes.batch * sizes.m * sizes.n * sizes.k > 0
}

/// The kernels of a tile for each way that operands lie.
macro_rules! tile {
    ($module:ident, $tile:ident, $m:literal x $n:literal, $warp_m:literal x $warp_n:literal) => {
        mod $module {
            use engine::cuda::{Kernel, Module};
            variant!(NN, $tile, [$m, $n, $warp_m, $warp_n], "nn", 1, 0);
            variant!(NT, $tile, [$m, $n, $warp_m, $warp_n], "nt", 1, 1);
            variant!(TN, $tile, [$m, $n, $warp_m, $warp_n], "tn", 0, 0);
            variant!(TT, $tile, [$m, $n, $warp_m, $warp_n], "tt", 0, 1);
            pub(crate) static KERNELS: &[&Kernel] = &[&NN, &NT, &TN, &TT];
        }
    };
}
macro_rules! variant {
    ($name:ident, $tile:ident, [$m:literal, $n:literal, $warp_m:literal, $warp_n:literal],
     $letters:literal, $a:literal, $b:literal) => {
        static $name: Kernel = {
            static MODULE: Module = Module::new(
                "matmul",
                "kernels/src/matmul/mma.cu",
                include_str!("mma.cu"),
                crate::cuda::HEADERS,
                &["ELEMENT_F32"],
                &[
                    "--define-macro=MMA",
                    concat!("--define-macro=TILE_M=", $m),
                    concat!("--define-macro=TILE_N=", $n),
                    concat!("--define-macro=WARP_M=", $warp_m),
                    concat!("--define-macro=WARP_N=", $warp_n),
                    concat!("--define-macro=A_BY_STEPS=", $a),
                    concat!("--define-macro=B_BY_STEPS=", $b),
                ],
            );
            const ENTRY: &str = concat!("matmul_mma_", $m, "x", $n, "_", $letters, "_tf32");
            Kernel::new(&MODULE, ENTRY).with_dynamic_shared(crate::matmul::mma_tile::MmaTile::$tile.shared())
        };
    };
}
tile!(t128x128, T128x128, 128 x 128, 64 x 64);
tile!(t128x64, T128x64, 128 x 64, 64 x 64);
tile!(t64x64, T64x64, 64 x 64, 64 x 64);

/// Every kernel of this file, by tile.
pub(crate) static KERNELS: [&[&Kernel]; 3] = [t128x128::KERNELS, t128x64::KERNELS, t64x64::KERNELS];
/// The tiles in that order. A tile of 32 steps has as many bytes as one of 64 in bf16.
pub(crate) const TILES: [MmaTile; 3] = [MmaTile::T128x128, MmaTile::T128x64, MmaTile::T64x64];

/// A kernel of a tile by its number, if there is one.
pub(super) fn kernel(tile: MmaTile, number: usize) -> Option<&'static Kernel> {
    let at = TILES.iter().position(|other| *other == tile)?;
    KERNELS[at].get(number).copied()
}
