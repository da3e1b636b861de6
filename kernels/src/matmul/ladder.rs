//! The way to `mma.cu` in steps of one idea each, for those who learn it: `ladder/README.md`. All compute the same
//! product, `A Bᵀ` of bf16; nothing but the tests and `pretext kernels profile` runs the first four.

use super::cuda::Sizes;
use super::mma::{Beside, product_by};
use super::mma_tile::MmaTile;
use crate::divisor::side;
use engine::cuda::{Kernel, Launch};
use engine::{Result, Tensor};

macro_rules! step {
    ($module:ident, $file:literal, $entry:literal) => {
        mod $module {
            crate::cuda::kernels! {
                family: "matmul", file: $file, options: ["--define-macro=ELEMENT_BF16"];
                KERNEL = $entry;
            }
        }
    };
}
step!(naive, "ladder/v1_naive.cu", "matmul_ladder_v1_naive_bf16");
step!(tiled, "ladder/v2_tiled.cu", "matmul_ladder_v2_tiled_bf16");
step!(mma, "ladder/v3_mma.cu", "matmul_ladder_v3_mma_bf16");
step!(ldmatrix, "ladder/v4_ldmatrix.cu", "matmul_ladder_v4_ldmatrix_bf16");

/// The kernels of each step but the last, whose are `mma.cu`'s.
pub(crate) static KERNELS: [&[&Kernel]; 4] =
    [naive::KERNELS, tiled::KERNELS, mma::KERNELS, ldmatrix::KERNELS];

/// Rows and columns of a block's results, and its threads.
const BLOCKS: [(usize, usize); 4] = [(16, 256), (64, 256), (64, 128), (128, 128)];

/// out = a bᵀ by the given step, from 0: a `[M, K]`, b `[N, K]`, out `[M, N]`, all bf16, K a multiple of 8.
#[track_caller]
pub(crate) fn product(step: usize, a: &Tensor, b: &Tensor, out: &mut Tensor) -> Result<()> {
    let name = "matmul_ladder";
    let (m, n, k) = (a.shape()[0], b.shape()[0], a.shape()[1]);
    let Some((kernel, &(tile, threads))) = KERNELS.get(step).zip(BLOCKS.get(step)) else {
        let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
        return product_by(name, MmaTile::T128x128, sizes, a, b, None, out, Beside::Nothing);
    };
    Launch::new(kernel[0], a.device())?
        .read(a)?
        .read(b)?
        .write(out)?
        .value(side(name, m)?)
        .value(side(name, n)?)
        .value(side(name, k)?)
        .grid3([n.div_ceil(tile), m.div_ceil(tile), 1])
        .block(threads)
        .flops(super::flops(m, n, k))
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Array;
    use crate::check::{guarded, on_device};
    use crate::compare;
    use crate::matmul::reference;
    use crate::testing::device;
    use engine::{DType, Device};

    /// One result, tile sizes and their neighbours, ragged last steps.
    const SIZES: [[usize; 3]; 5] = [[1, 1, 8], [16, 24, 64], [65, 63, 72], [130, 129, 40], [33, 200, 136]];

    fn by(step: usize, a: &Array<f64>, b: &Array<f64>) -> Tensor {
        guarded(device(), || {
            let put = |x| on_device(x, DType::BF16, device());
            let mut out = Tensor::empty(&[a.shape[0], b.shape[0]], DType::BF16, device())?;
            product(step, &put(a)?, &put(b)?, &mut out)?;
            out.to_device(Device::Cpu)
        })
        .unwrap()
    }

    #[test]
    fn every_step_is_right() {
        for [m, n, k] in SIZES {
            let integers = [Array::integers(&[m, k], 1, 4), Array::integers(&[n, k], 2, 4)];
            let random = [Array::random(&[m, k], 3, 1.0), Array::random(&[n, k], 4, 1.0)]
                .map(|x: Array<f64>| x.rounded_to(DType::BF16));
            let exact = reference::matmul(&integers[0], &integers[1], false, true).rounded_to(DType::BF16);
            let oracle = reference::matmul(&random[0], &random[1], false, true);
            let naive = reference::matmul(&random[0].cast::<f32>(), &random[1].cast(), false, true);
            for step in 0..=KERNELS.len() {
                let found = Array::<f64>::from_tensor(&by(step, &integers[0], &integers[1])).unwrap();
                assert_eq!(found, exact, "step {} of {m} {n} {k}", step + 1);
                let found = by(step, &random[0], &random[1]);
                compare::check(&format!("step {}", step + 1), &found, &naive, &oracle, 2.0).unwrap();
            }
        }
    }
}
