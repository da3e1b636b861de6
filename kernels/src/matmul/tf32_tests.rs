//! Products in tf32: every tile with every way that operands lie, on the device that tests have.

use super::cuda::Sizes;
use super::mma::{Beside, product_by};
use super::mma_tests::{BOTH, check_nan_and_infinity, operands_in, oracle, sizes};
use super::mma_tile::MmaTile;
use super::tf32::{TILES, applies};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;

fn operands(z: &Sizes, fill: impl Fn(&[usize], u64) -> Array<f64>) -> [Array<f64>; 2] {
    operands_in(DType::F32, z, fill)
}

/// The product by blocks of one tile, in fenced and poisoned memory.
fn by(tile: MmaTile, z: &Sizes, [a, b]: &[Array<f64>; 2], bias: Option<&Array<f64>>) -> Array<f64> {
    guarded(device(), || {
        let put = |x: &Array<f64>| on_device(x, DType::F32, device());
        let (a, b, bias) = (put(a)?, put(b)?, bias.map(put).transpose()?);
        assert!(applies(z, &a, &b), "{z:?}");
        let mut out = Tensor::empty(&[z.batch, z.m, z.n], DType::F32, device())?;
        product_by("matmul", tile, *z, &a, &b, bias.as_ref(), &mut out, Beside::Nothing)?;
        Array::from_tensor(&out)
    })
    .unwrap()
}

/// Small integers, whose products and sums are exact.
fn check_exact(tile: MmaTile, z: &Sizes) {
    let inputs = operands(z, |shape, seed| Array::integers(shape, seed, 4));
    let bias = Array::integers(&[z.n], 3, 100);
    let found = by(tile, z, &inputs, Some(&bias));
    let expected = oracle(z, &inputs);
    for (i, (x, y)) in found.data.iter().zip(&expected.data).enumerate() {
        let y = y + bias.data[i % z.n];
        assert_eq!(*x, y, "{tile:?} {z:?}: [{}, {}]", i / z.n, i % z.n);
    }
}

/// One more and one less than a tile, more tiles than a group, fewer steps than stages, ragged ends where a side's contiguous
/// direction allows them, sums in parts, several products.
#[test]
fn every_tile_is_exact_on_integers() {
    for tile in TILES {
        let (rows, columns) = (1024 / tile.down(1024), 1024 / tile.across(1024));
        for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
            // What need not be whole packs: M where A lies along k, N where B does, K where neither does.
            let m = |n: usize| if ta { n.next_multiple_of(4) } else { n };
            let n = |n: usize| if tb { n } else { n.next_multiple_of(4) };
            let k = |n: usize| if ta && !tb { n } else { n.next_multiple_of(4) };
            for shape in [
                [m(rows + 1), n(columns - 1), k(35)],
                [m(rows - 7), n(columns + 9), k(96)],
                [m(1), n(3), k(1)],
            ] {
                check_exact(tile, &sizes(1, shape, ta, tb));
            }
            check_exact(tile, &sizes(2, [m(24), n(17), k(531)], ta, tb));
        }
    }
    check_exact(MmaTile::T64x64, &sizes(1, [64 * 9 + 8, 72, 8], false, true));
}

/// Rounding an operand to 11 significant bits changes a product by 2^-10 of itself at most (twice 2^-11, and what is of
/// higher order is within the sums' allowance); tensor cores cut sums by 2 units of 2^-23 a product.
#[test]
fn errors_are_those_of_tf32() {
    for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
        for (number, scale) in [1e-18f32, 1e-3, 1.0, 1e15].into_iter().enumerate() {
            let z = sizes(1, [72, 136, 200], ta, tb);
            let inputs = operands(&z, |shape, seed| {
                // Rows of very different sizes, zeros of both signs, and pairs that cancel.
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
                    x.data[i - 13] = -x.data[i - 11];
                }
                x
            });
            let expected = oracle(&z, &inputs);
            let magnitudes = oracle(&z, &[inputs[0].map(f64::abs), inputs[1].map(f64::abs)]);
            let tile = TILES[number % TILES.len()];
            let found = by(tile, &z, &inputs, None);
            let mut rounded = false;
            for (i, ((x, y), all)) in found.data.iter().zip(&expected.data).zip(&magnitudes.data).enumerate()
            {
                let allowed = 2f64.powi(-10) * all + 2.0 * z.k as f64 * 2f64.powi(-23) * all + 1e-38;
                assert!((x - y).abs() <= allowed, "{tile:?} {z:?}, {i}: {x} for {y}, allowed {allowed}");
                rounded |= (x - y).abs() > 2f64.powi(-18) * all;
            }
            assert!(rounded, "the operands were not rounded: this is no test of tf32");
        }
    }
}

/// To the nearest value of 11 significant bits, ties away from zero: a product with the identity shows either operand.
#[test]
fn operands_are_rounded_to_the_nearest() {
    let rounded = |x: f64| f64::from(f32::from_bits(((x as f32).to_bits() + 0x1000) & !0x1fff));
    for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
        let z = sizes(1, [72, 72, 72], ta, tb);
        let values = Array::<f64>::random(&[1, 72, 72], 5, 1.0).rounded_to(DType::F32);
        let ties = values.map(|v| f64::from(f32::from_bits((v as f32).to_bits() & !0x1fff | 0x1000)));
        let identity = Array::new(&[1, 72, 72], (0..72 * 72).map(|i| f64::from(i % 73 == 0)).collect());
        for values in [values, ties] {
            let turned = |x: &Array<f64>, turn: bool| match turn {
                true => reference::matmul(x, &identity, true, false),
                false => x.clone(),
            };
            let expected = values.map(rounded);
            let by_identity = by(MmaTile::T128x64, &z, &[turned(&values, ta), identity.clone()], None);
            assert!(by_identity.data == expected.data, "A, {ta} {tb}");
            let of_identity = by(MmaTile::T64x64, &z, &[identity.clone(), turned(&values, tb)], None);
            assert!(of_identity.data == expected.data, "B, {ta} {tb}");
        }
    }
}

/// Values of 11 significant bits are not rounded: the errors are those of float32 sums.
#[test]
fn values_of_tf32_lose_nothing() {
    let z = sizes(1, [64, 72, 40], true, false);
    let inputs = operands(&z, |shape, seed| Array::integers(shape, seed, 2047).map(|v| v / 1024.0));
    let (found, expected) = (by(MmaTile::T64x64, &z, &inputs, None), oracle(&z, &inputs));
    let magnitudes = oracle(&z, &[inputs[0].map(f64::abs), inputs[1].map(f64::abs)]);
    for ((x, y), all) in found.data.iter().zip(&expected.data).zip(&magnitudes.data) {
        assert!((x - y).abs() <= 2.0 * z.k as f64 * 2f64.powi(-23) * all, "{x} for {y}");
    }
}

/// Also where tiles and steps are ragged.
#[test]
fn nan_and_infinity_stay_in_their_row_and_column() {
    for (ta, tb, shape) in
        [(false, true, [70, 67, 36]), (true, false, [72, 68, 75]), (false, false, [9, 24, 40])]
    {
        let z = sizes(1, shape, ta, tb);
        for tile in TILES {
            check_nan_and_infinity(&z, |inputs| by(tile, &z, inputs, None));
        }
    }
}

/// Sums that are added to what is there.
#[test]
fn products_are_added_exactly() {
    for (shape, ta, tb) in [([24, 68, 40], true, false), ([70, 17, 600], false, true)] {
        let z = sizes(1, shape, ta, tb);
        let inputs = operands(&z, |shape, seed| Array::integers(shape, seed, 4));
        let found = guarded(device(), || {
            let [a, b] = [0, 1].map(|i| on_device(&inputs[i], DType::F32, device()));
            let mut out = Tensor::full(&[z.m, z.n], 0.5, device())?;
            product_by("matmul", MmaTile::T64x64, z, &a?, &b?, None, &mut out, Beside::Accumulate)?;
            Array::<f64>::from_tensor(&out)
        })
        .unwrap();
        assert!(found.data == oracle(&z, &inputs).map(|v| v + 0.5).data, "{z:?}");
    }
}

#[test]
fn rows_that_are_not_whole_packs_do_not_apply() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, device()).unwrap();
    for (shape, ta, tb, taken) in [
        ([16, 16, 6], false, false, false),
        ([16, 6, 16], false, false, false),
        ([16, 6, 16], false, true, true),
        ([6, 16, 16], true, false, false),
        ([16, 16, 5], true, false, true),
    ] {
        let z = sizes(1, shape, ta, tb);
        let [a, b] = [
            if ta { [shape[2], shape[0]] } else { [shape[0], shape[2]] },
            if tb { [shape[1], shape[2]] } else { [shape[2], shape[1]] },
        ];
        assert_eq!(applies(&z, &zeros(&a, DType::F32), &zeros(&b, DType::F32)), taken, "{z:?}");
        assert!(!applies(&z, &zeros(&a, DType::BF16), &zeros(&b, DType::BF16)));
    }
    assert_eq!(float32_products(), Float32Products::Exact, "unless chosen otherwise");
}
