//! Products on tensor cores: every tile with every way that operands lie, on the device that tests have. The emulated
//! device runs each launch under all its schedules and compares the bits.

use super::cuda::Sizes;
use super::mma::{Beside, KERNELS, applies, product_by};
use super::mma_tile::{MmaTile, tests::HELD};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::compare;
use crate::registry::FAMILIES;
use crate::testing::device;
use engine::cuda::tensor_map::{Boxes, TensorMap};
use proptest::prelude::*;

pub(super) const BOTH: [bool; 2] = [false, true];

pub(super) fn sizes(batch: usize, [m, n, k]: [usize; 3], transpose_a: bool, transpose_b: bool) -> Sizes {
    Sizes { batch, m, n, k, transpose_a, transpose_b }
}

/// Values of the operands as their places say, as an element type holds them.
pub(super) fn operands_in(
    dtype: DType,
    z: &Sizes,
    fill: impl Fn(&[usize], u64) -> Array<f64>,
) -> [Array<f64>; 2] {
    let a = if z.transpose_a { [z.batch, z.k, z.m] } else { [z.batch, z.m, z.k] };
    let b = if z.transpose_b { [z.batch, z.n, z.k] } else { [z.batch, z.k, z.n] };
    [fill(&a, 1).rounded_to(dtype), fill(&b, 2).rounded_to(dtype)]
}

fn operands(z: &Sizes, fill: impl Fn(&[usize], u64) -> Array<f64>) -> [Array<f64>; 2] {
    operands_in(DType::BF16, z, fill)
}

fn random(shape: &[usize], seed: u64) -> Array<f64> {
    Array::random(shape, seed, 1.0)
}

/// The product by blocks of one tile, in fenced and poisoned memory.
fn by(tile: MmaTile, z: &Sizes, [a, b]: &[Array<f64>; 2], bias: Option<&Array<f64>>) -> Tensor {
    guarded(device(), || {
        let put = |x: &Array<f64>| on_device(x, DType::BF16, device());
        let (a, b, bias) = (put(a)?, put(b)?, bias.map(put).transpose()?);
        assert!(applies(z, &a, &b), "{z:?}");
        let mut out = Tensor::empty(&[z.batch, z.m, z.n], DType::BF16, device())?;
        product_by("matmul", tile, *z, &a, &b, bias.as_ref(), &mut out, Beside::Nothing)?;
        out.to_device(Device::Cpu)
    })
    .unwrap()
}

fn values(x: &Tensor) -> Array<f64> {
    Array::from_tensor(x).unwrap()
}

pub(super) fn oracle(z: &Sizes, [a, b]: &[Array<f64>; 2]) -> Array<f64> {
    reference::matmul(a, b, z.transpose_a, z.transpose_b)
}

/// Small integers, whose sums are exact in float32: every result is the exact one, rounded once.
fn check_exact(tile: MmaTile, z: &Sizes) {
    let inputs = operands(z, |shape, seed| Array::integers(shape, seed, 4));
    let found = values(&by(tile, z, &inputs, None));
    let expected = oracle(z, &inputs).rounded_to(DType::BF16);
    let wrong = found.data.iter().zip(&expected.data).position(|(x, y)| x != y);
    if let Some(i) = wrong {
        panic!(
            "{tile:?} {z:?}: [{}, {}] is {} and not {}",
            i / z.n,
            i % z.n,
            found.data[i],
            expected.data[i]
        );
    }
}

/// One more and one less than a tile, more tiles than a group of the rasterisation, fewer steps than stages, a ragged
/// last step, a ragged end where a side's contiguous direction allows it.
#[test]
fn every_tile_is_exact_on_integers() {
    for tile in MmaTile::of(device()).iter().copied() {
        let (rows, columns) = (1024 / tile.down(1024), 1024 / tile.across(1024));
        for ta in BOTH {
            for tb in BOTH {
                // What need not be whole packs: M where A lies along k, N where B does, K where neither does.
                let m = |n: usize| if ta { n.next_multiple_of(8) } else { n };
                let n = |n: usize| if tb { n } else { n.next_multiple_of(8) };
                let k = |n: usize| if ta && !tb { n } else { n.next_multiple_of(8) };
                for shape in [
                    [m(rows + 1), n(columns - 1), k(71)],
                    [m(rows - 7), n(columns + 9), k(192)],
                    [m(1), n(3), k(1)],
                ] {
                    check_exact(tile, &sizes(1, shape, ta, tb));
                }
            }
        }
    }
    let many = sizes(1, [64 * 9 + 8, 72, 8], false, true);
    check_exact(MmaTile::T64x64, &many);
    check_exact(MmaTile::T64x64, &sizes(3, [40, 72, 24], true, false));
}

/// Three blocks compute the tiles of two products in turn: also of one step, and with a bias, whose terms each tile has anew.
#[test]
fn blocks_that_stay_compute_every_tile() {
    HELD.set(Some(3));
    for tile in MmaTile::of(device()).iter().copied() {
        let (rows, columns) = (1024 / tile.down(1024), 1024 / tile.across(1024));
        for (k, ta, tb) in [(200, false, true), (64, true, false)] {
            check_exact(tile, &sizes(2, [2 * rows - 8, columns + 8, k], ta, tb));
        }
        let z = sizes(1, [2 * rows + 1, 2 * columns - 8, 72], false, true);
        let inputs = operands(&z, |shape, seed| Array::integers(shape, seed, 4));
        let bias = Array::integers(&[z.n], 3, 4);
        let mut expected = oracle(&z, &inputs);
        expected.data.iter_mut().enumerate().for_each(|(i, v)| *v += bias.data[i % z.n]);
        let found = values(&by(tile, &z, &inputs, Some(&bias)));
        assert_eq!(found.data, expected.rounded_to(DType::BF16).data, "{tile:?}");
    }
    HELD.set(None);
}

/// Sums whose steps the smallest tile does six at a time, as far as tiles to copy are whole: all of the steps, all but one,
/// with a ragged end, with ragged rows (then none). Tiles have `step` steps.
pub(super) fn rounds_of_steps(step: usize) -> [[usize; 3]; 6] {
    [
        [64, 64, 6 * step],
        [64, 128, 7 * step],
        [128, 64, 13 * step],
        [64, 64, 12 * step + 8],
        [72, 64, 12 * step],
        [64, 72, 8 * step],
    ]
}

#[test]
fn rounds_of_steps_are_exact_on_integers() {
    for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
        for shape in rounds_of_steps(64) {
            check_exact(MmaTile::T64x64, &sizes(1, shape, ta, tb));
        }
    }
}

/// Parts of a sum, the last one ragged, and results that are not whole packs.
#[test]
fn long_sums_in_parts_are_exact_on_integers() {
    for tile in MmaTile::of(device()).iter().copied() {
        for (shape, ta, tb) in [([24, 16, 1000], false, true), ([16, 40, 777], true, false)] {
            check_exact(tile, &sizes(1, shape, ta, tb));
        }
    }
    check_exact(MmaTile::T64x64, &sizes(2, [5, 7, 1032], false, true));
}

/// Whatever the tile, a sum takes its products in the same order, 16 at a time: the same bits. Not in the smallest one, whose
/// warps share out the steps.
#[test]
fn the_tile_changes_no_bit() {
    let z = sizes(1, [136, 72, 248], false, true);
    let inputs = operands(&z, random);
    let first = by(MmaTile::T128x128, &z, &inputs, None).to_vec::<half::bf16>().unwrap();
    for tile in MmaTile::of(device()).iter().copied().filter(|&tile| tile != MmaTile::T64x64) {
        assert_eq!(by(tile, &z, &inputs, None).to_vec::<half::bf16>().unwrap(), first, "{tile:?}");
    }
}

/// Each result is as near as its own sum of magnitudes allows: one rounding to bf16, and 2 units of 2^-23 a product
/// for sums that tensor cores cut.
fn check_components(z: &Sizes, inputs: &[Array<f64>; 2], found: &Array<f64>) {
    let expected = oracle(z, inputs);
    let magnitudes = oracle(z, &[inputs[0].map(f64::abs), inputs[1].map(f64::abs)]);
    for (i, ((x, y), all)) in found.data.iter().zip(&expected.data).zip(&magnitudes.data).enumerate() {
        let allowed = 2f64.powi(-8) * y.abs() + 2.0 * z.k as f64 * 2f64.powi(-23) * all + 1e-38;
        assert!((x - y).abs() <= allowed, "{z:?}, {i}: {x} for {y}, allowed {allowed}");
    }
}

#[test]
fn adversarial_values_stay_within_the_bound() {
    let scales = [1e-30, 1e-3, 1.0, 1e4, 1e15];
    for (ta, tb) in [(false, true), (true, false)] {
        let z = sizes(1, [72, 136, 200], ta, tb);
        for (number, &scale) in scales.iter().enumerate() {
            // Rows of very different sizes, zeros of both signs, and pairs that cancel.
            let inputs = operands(&z, |shape, seed| {
                let mut x = Array::<f64>::random(shape, seed + 10 * number as u64, scale);
                for (i, v) in x.data.iter_mut().enumerate() {
                    match i % 11 {
                        0 => *v = 0.0,
                        1 => *v = -0.0,
                        2 => *v *= 300.0,
                        _ => {}
                    }
                }
                for i in (16..x.data.len()).step_by(16) {
                    x.data[i + 3 - 16] = -x.data[i - 16 + 5];
                }
                x
            });
            let found = values(&by(MmaTile::T64x64, &z, &inputs, None));
            check_components(&z, &inputs, &found);
        }
    }
}

/// Not more than twice the error of the naive sum in float32, the bias included.
#[test]
fn errors_are_at_most_twice_the_naive_ones() {
    for tile in [MmaTile::T128x128, MmaTile::T64x64] {
        let z = sizes(1, [100, 136, 520], false, true);
        let inputs = operands(&z, random);
        let bias = Array::random(&[z.n], 3, 1.0).rounded_to(DType::BF16);
        let with_bias = |y: Array<f64>| {
            let data = y.data.iter().enumerate().map(|(i, v)| v + bias.data[i % z.n]).collect();
            Array::new(&y.shape, data)
        };
        let naive = {
            let [a, b] = &inputs;
            let y = reference::matmul(&a.cast::<f32>(), &b.cast(), z.transpose_a, z.transpose_b);
            with_bias(y.cast()).cast::<f32>()
        };
        let found = by(tile, &z, &inputs, Some(&bias));
        compare::check("linear", &found, &naive, &with_bias(oracle(&z, &inputs)), 2.0).unwrap();
    }
}

/// A power of two that scales an operand scales every result, bit for bit.
#[test]
fn powers_of_two_pass_through() {
    for shape in [[72, 80, 136], [16, 24, 1024]] {
        let z = sizes(1, shape, false, false);
        let [a, b] = operands(&z, random);
        let once = values(&by(MmaTile::T64x64, &z, &[a.clone(), b.clone()], None));
        let scaled = values(&by(MmaTile::T64x64, &z, &[a.map(|v| 4096.0 * v), b], None));
        assert_eq!(scaled, once.map(|v| 4096.0 * v));
    }
}

/// What a row of A and a column of B hold does not reach other results: `product` gives them by some tile.
pub(super) fn check_nan_and_infinity(z: &Sizes, product: impl Fn(&[Array<f64>; 2]) -> Array<f64>) {
    let [mut a, mut b] = operands(z, random);
    let last = z.k - 1;
    a.data[if z.transpose_a { last * z.m + 3 } else { 3 * z.k + last }] = f64::NAN;
    b.data[if z.transpose_b { 5 * z.k + last } else { last * z.n + 5 }] = f64::INFINITY;
    let y = product(&[a, b]);
    for i in 0..z.m {
        for j in 0..z.n {
            let v = y.get(&[0, i, j]);
            assert_eq!(v.is_finite(), i != 3 && j != 5, "{z:?} [{i}, {j}] is {v}");
            assert_eq!(v.is_nan(), i == 3, "{z:?} [{i}, {j}] is {v}");
        }
    }
}

/// Also where tiles and steps are ragged.
#[test]
fn nan_and_infinity_stay_in_their_row_and_column() {
    for (ta, tb, shape) in
        [(false, true, [70, 67, 72]), (true, false, [72, 136, 75]), (false, false, [9, 24, 776])]
    {
        let z = sizes(1, shape, ta, tb);
        for tile in [MmaTile::T64x64, MmaTile::T64x128] {
            check_nan_and_infinity(&z, |inputs| values(&by(tile, &z, inputs, None)));
        }
    }
}

/// What tensor cores do not take is still computed.
#[test]
fn rows_that_are_not_aligned_go_to_the_ordinary_cores() {
    for (shape, ta, tb, taken) in [
        ([16, 16, 12], false, false, false),
        ([16, 12, 16], false, false, false),
        ([16, 12, 16], false, true, true),
        ([12, 16, 16], true, false, false),
        ([16, 16, 5], true, false, true),
    ] {
        let z = sizes(1, shape, ta, tb);
        let [a, b] = operands(&z, |shape, seed| Array::integers(shape, seed, 4));
        let tensors = [&a, &b].map(|x| on_device(x, DType::BF16, device()).unwrap());
        assert_eq!(applies(&z, &tensors[0], &tensors[1]), taken, "{z:?}");
        let y = values(&matmul(&tensors[0], &tensors[1], ta, tb).unwrap());
        assert_eq!(y, oracle(&z, &[a, b]).rounded_to(DType::BF16), "{z:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any size, any tile.
    #[test]
    fn any_size_is_exact(
        number in 0..MmaTile::of(device()).len(),
        batch in 1..3usize,
        shape in [1..20usize, 1..20, 1..60],
        (ta, tb) in any::<(bool, bool)>(),
    ) {
        check_exact(MmaTile::of(device())[number], &sizes(batch, shape.map(|n| 8 * n), ta, tb));
    }
}

/// `pretext kernels` lists, locks and profiles what the registry has.
#[test]
fn every_kernel_is_registered() {
    let convolutions = crate::conv2d::mma::KERNELS.iter();
    for kernel in KERNELS.iter().chain(tf32::KERNELS.iter()).chain(convolutions).copied().flatten() {
        let mut all = FAMILIES.iter().flat_map(|family| family.kernels());
        assert!(all.any(|other| std::ptr::eq(other, *kernel)), "{}", kernel.entry);
    }
}

#[test]
fn a_tensor_map_is_of_what_is_there() {
    let x = on_device(&Array::<f64>::random(&[16, 64], 1, 1.0), DType::BF16, device()).unwrap();
    let boxes = Boxes { sizes: [64, 16, 1], strides: [64, 1024], boxed: [64, 16] };
    let map = |x: &Tensor, boxes: Boxes| TensorMap::new("test", x, boxes).map(drop);
    map(&x, boxes).unwrap();
    map(&x, Boxes { sizes: [64, 15, 1], ..boxes }).unwrap();
    for sizes in [[64, 17, 1], [65, 16, 1], [64, 16, 2], [0, 16, 1]] {
        assert!(
            map(&x, Boxes { sizes, ..boxes }).unwrap_err().message().contains("fewer elements"),
            "{sizes:?}"
        );
    }
    assert!(map(&x, Boxes { strides: [usize::MAX, 1], ..boxes }).is_err());
    let wide = Tensor::zeros(&[16, 64], DType::F32, device()).unwrap();
    for wrong in [wide, x.to_device(Device::Cpu).unwrap()] {
        assert!(map(&wrong, boxes).unwrap_err().message().contains("bf16 on a CUDA device"));
    }
    let refused = map(&x, Boxes { strides: [60, 1024], ..boxes }).unwrap_err();
    assert!(refused.message().contains("CUDA_ERROR_INVALID_VALUE"), "{refused}");
}
