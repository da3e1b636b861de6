//! Products in tf32: every tile with every way that operands lie, on the device that tests have.

use super::cuda::Sizes;
use super::mma::{Beside, product_by};
use super::mma_tests::{BOTH, check_nan_and_infinity, operands_in, oracle, rounds_of_steps, sizes};
use super::mma_tile::MmaTile;
use super::tf32::{TILES, applies};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;
use engine::cuda::profile;

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

#[test]
fn rounds_of_steps_are_exact_on_integers() {
    for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
        for shape in rounds_of_steps(32) {
            check_exact(MmaTile::T64x64, &sizes(1, shape, ta, tb));
        }
    }
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
    for (ta, tb, shape) in [
        (false, true, [70, 67, 36]),
        (true, false, [72, 68, 75]),
        (false, false, [9, 24, 40]),
        (false, true, [64, 64, 192]),
        (true, false, [64, 64, 332]),
    ] {
        let z = sizes(1, shape, ta, tb);
        for tile in TILES {
            check_nan_and_infinity(&z, |inputs| by(tile, &z, inputs, None));
        }
    }
}

/// A word as tf32 has it: NaN stays one, whatever its sign and fraction; what rounds beyond float32 is infinite.
fn rounded_word(word: u32) -> f32 {
    match f32::from_bits(word) {
        x if x.is_nan() => f32::NAN,
        x if x.is_infinite() => x,
        _ => f32::from_bits((word + 0x1000) & !0x1fff),
    }
}

/// Words that rounding by an addition could get wrong, each in a row of A (column of B) of its own: with a NaN or infinity among
/// them, and without. The other operand is all ones, and what else such a row has is zero.
#[test]
fn no_word_is_rounded_wrongly() {
    const FINITE: [u32; 9] = [
        0x7f7f_ffff,
        0xff7f_ffff,
        0x7f7f_efff,
        0xff7f_f000,
        0x0000_1000,
        0x0000_0fff,
        0x807f_ffff,
        0x0040_0000,
        0xbfff_ffff,
    ];
    const OTHERS: [u32; 9] = [
        0x7fff_ffff,
        0xffff_ffff,
        0x7fff_f000,
        0xffff_f000,
        0x7fc0_0000,
        0xffc0_0000,
        0x7f80_0001,
        0x7f80_0000,
        0xff80_0000,
    ];
    let words: Vec<u32> = FINITE.into_iter().chain(OTHERS).collect();
    for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
        for (tile, is_a, words) in TILES.into_iter().flat_map(|tile| {
            [(true, &FINITE[..]), (true, &words), (false, &FINITE), (false, &words)]
                .map(|(is_a, words)| (tile, is_a, words))
        }) {
            let z = sizes(1, [72, 72, 72], ta, tb);
            let turned = if is_a { ta } else { !tb }; // a line is a column
            // [72, 72], row `line` and step k: integers, and every third row is of one of the words.
            let element = |line: usize, k: usize| match (line % 3, words.get(line / 3)) {
                (1, Some(&word)) => {
                    if k == 7 * line % 72 {
                        word
                    } else {
                        0
                    }
                }
                _ => ((line + k) as f32 % 7.0 - 3.0).to_bits(),
            };
            let special: Vec<f32> = (0..72 * 72)
                .map(|i| if turned { element(i % 72, i / 72) } else { element(i / 72, i % 72) })
                .map(f32::from_bits)
                .collect();
            let ones = [1.0f32; 72 * 72];
            let [a, b] = if is_a { [&special[..], &ones[..]] } else { [&ones[..], &special[..]] };
            let out = guarded(device(), || {
                let put = |x: &[f32]| Tensor::from_slice(x, &[72, 72])?.to_device(device());
                let mut out = Tensor::empty(&[72, 72], DType::F32, device())?;
                product_by("matmul", tile, z, &put(a)?, &put(b)?, None, &mut out, Beside::Nothing)?;
                out.to_device(Device::Cpu)
            })
            .unwrap();
            for (i, &found) in out.as_slice::<f32>().unwrap().iter().enumerate() {
                let line = if is_a { i / 72 } else { i % 72 };
                let expected = match (line % 3, words.get(line / 3)) {
                    (1, Some(&word)) => rounded_word(word),
                    _ => (0..72).map(|k| f32::from_bits(element(line, k))).sum(),
                };
                // Tensor cores may flush subnormal numbers.
                let is_right = found == expected
                    || (found.is_nan() && expected.is_nan())
                    || (expected.is_subnormal() && found == 0.0);
                assert!(is_right, "{tile:?} {ta} {tb} {is_a}: {found:e} for {expected:e} at {i}");
            }
        }
    }
}

/// One NaN of all ones, which an addition makes zero, at each place that a lane has in the fragments of a quarter of a tile,
/// and in each quarter: one of 128 products each.
#[test]
fn a_single_nan_is_seen_wherever_it_is() {
    for (ta, tb) in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| (ta, tb))) {
        for (tile, is_a) in [(MmaTile::T128x64, true), (MmaTile::T64x64, false)] {
            let z = sizes(128, [64, 64, 32], ta, tb);
            let place = |p: usize| (p % 64, p / 64 * 4 + p % 4 + p / 4 % 4 * 8); // line and step
            let turned = if is_a { ta } else { !tb };
            let mut special = vec![1.0f32; 128 * 64 * 32];
            for p in 0..128 {
                let (line, k) = place(p);
                let at = if turned { k * 64 + line } else { line * 32 + k };
                special[p * 64 * 32 + at] = f32::from_bits(0x7fff_ffff);
            }
            let ones = vec![1.0f32; 128 * 64 * 32];
            let [a, b] = if is_a { [&special, &ones] } else { [&ones, &special] };
            let put = |x: &[f32], turned: bool| {
                Tensor::from_slice(x, &if turned { [128, 32, 64] } else { [128, 64, 32] })?
                    .to_device(device())
            };
            let out = guarded(device(), || {
                let mut out = Tensor::empty(&[128, 64, 64], DType::F32, device())?;
                product_by("matmul", tile, z, &put(a, ta)?, &put(b, !tb)?, None, &mut out, Beside::Nothing)?;
                out.to_device(Device::Cpu)
            })
            .unwrap();
            for (i, found) in out.as_slice::<f32>().unwrap().iter().enumerate() {
                let (p, line) = (i / 4096, if is_a { i / 64 % 64 } else { i % 64 });
                let is_right = if line == place(p).0 { found.is_nan() } else { *found == 32.0 };
                assert!(is_right, "{tile:?} {ta} {tb} {is_a}: {found} in line {line} of product {p}");
            }
        }
    }
}

/// Large numbers may cost a block a second time, which gives the same.
#[test]
fn large_elements_are_exact() {
    for (tile, scale) in TILES.into_iter().flat_map(|tile| [80, -80].map(|scale| (tile, scale))) {
        let z = sizes(1, [72, 68, 100], true, false);
        let [a, b] = operands(&z, |shape, seed| Array::integers(shape, seed, 4));
        let expected = oracle(&z, &[a.clone(), b.clone()]);
        let inputs = [a.map(|v| v * 2f64.powi(scale)), b.map(|v| v * 2f64.powi(-scale))];
        assert!(by(tile, &z, &inputs, None).data == expected.data, "{tile:?} {scale}");
    }
}

/// Blocks with NaN compute their tile once more, and only those.
#[test]
fn only_nan_costs_a_second_pass() {
    let products = |tile, z: &Sizes, inputs: &[Array<f64>; 2]| {
        device(); // from here on no other test launches anything
        profile::start().unwrap();
        by(tile, z, inputs, None);
        let records = profile::stop().unwrap();
        records.iter().find(|r| r.launch.kernel.starts_with("matmul_mma")).unwrap().counters.map(|c| c.tensor)
    };
    for tile in TILES {
        // Two blocks; the second has the NaN.
        let rows = 1024 / tile.down(1024);
        let z = sizes(1, [2 * rows, 8, 96], false, true);
        let mut inputs = operands(&z, |shape, seed| Array::integers(shape, seed, 4));
        let Some(good) = products(tile, &z, &inputs) else { return }; // hardware counts nothing
        inputs[0].data[(2 * rows - 1) * z.k + 50] = f64::NAN;
        assert_eq!(products(tile, &z, &inputs), Some(good + good / 2), "{tile:?}");
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
