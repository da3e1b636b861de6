//! `mma.sync` against naive matrix products: the layouts written down from the manual's formulas for each shape, the
//! truncating models from their description in 128-bit integers, one result at a time.

#[path = "numeric/layout.rs"]
mod layout;
#[path = "numeric/model.rs"]
mod model;

use emulator::numeric::tensor_core::Int8;
use emulator::numeric::{Mma, TensorCore, mma, mma_f64};
use layout::{Element, Random, decode, encode, run, shape};
use model::{model, operand};

const MODES: [TensorCore; 3] = [TensorCore::Hopper, TensorCore::Ampere, TensorCore::Float32];

const FLOATS: [Mma; 8] = [
    Mma::Bf16K16,
    Mma::Bf16K8,
    Mma::F16K16,
    Mma::F16K8,
    Mma::F16K16Half,
    Mma::F16K8Half,
    Mma::Tf32K8,
    Mma::Tf32K4,
];

#[test]
fn small_integers_are_exact_in_every_shape_and_mode() {
    let mut random = Random(1);
    for kind in FLOATS {
        let (k, element, accumulator) = shape(kind);
        for mode in MODES {
            for _ in 0..4 {
                let small = |bits: u64| encode(element, (bits % 17) as f32 - 8.0);
                let (a, b) = (random.matrix(16, k, small), random.matrix(k, 8, small));
                let c = random.matrix(16, 8, |bits| encode(accumulator, (bits % 201) as f32 - 100.0));
                let d = run(kind, mode, &a, &b, &c);
                for row in 0..16 {
                    for column in 0..8 {
                        let product = |k: usize| decode(element, a[row][k]) * decode(element, b[k][column]);
                        let sum = (0..k).map(product).sum::<f32>() + decode(accumulator, c[row][column]);
                        assert_eq!(
                            decode(accumulator, d[row][column]),
                            sum,
                            "{kind:?} {mode:?} [{row}, {column}]"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn eight_bit_integers() {
    let mut random = Random(2);
    for variant in 0..8 {
        let variant =
            Int8 { a_signed: variant & 1 != 0, b_signed: variant & 2 != 0, saturate: variant & 4 != 0 };
        let byte = |bits: u32, signed: bool| if signed { bits as u8 as i8 as i64 } else { bits as u8 as i64 };
        for kind in [Mma::Int8K16(variant), Mma::Int8K32(variant)] {
            let k = shape(kind).0;
            for round in 0..20 {
                let (a, b) = (
                    random.matrix(16, k, |bits| bits as u8 as u32),
                    random.matrix(k, 8, |bits| bits as u8 as u32),
                );
                let edge = [0, i32::MAX as u32, i32::MIN as u32, 5][round % 4];
                let c = random.matrix(16, 8, |bits| edge.wrapping_add(bits as u32 % 1000));
                let d = run(kind, TensorCore::Hopper, &a, &b, &c);
                for row in 0..16 {
                    for column in 0..8 {
                        let term = |k: usize| {
                            byte(a[row][k], variant.a_signed) * byte(b[k][column], variant.b_signed)
                        };
                        let sum = (0..k).map(term).sum::<i64>() + c[row][column] as i32 as i64;
                        let clamped =
                            if variant.saturate { sum.clamp(i32::MIN as i64, i32::MAX as i64) } else { sum };
                        assert_eq!(d[row][column], clamped as i32 as u32, "{kind:?} [{row}, {column}]");
                    }
                }
            }
        }
    }
}

#[test]
fn float64_is_a_chain_of_fused_multiply_adds() {
    let mut random = Random(3);
    for _ in 0..200 {
        let mut value =
            || (random.next() as i64 as f64 / 2f64.powi(63)) * 2f64.powi((random.next() % 40) as i32 - 20);
        let a: [[f64; 4]; 8] = [0; 8].map(|_| [0; 4].map(|_| value()));
        let b: [[f64; 8]; 4] = [0; 4].map(|_| [0; 8].map(|_| value()));
        let c: [[f64; 8]; 8] = [0; 8].map(|_| [0; 8].map(|_| value()));
        let lanes = |f: &dyn Fn(usize, usize) -> f64| -> [u64; 32] {
            std::array::from_fn(|lane| f(lane / 4, lane % 4).to_bits())
        };
        let (fa, fb) = (lanes(&|group, thread| a[group][thread]), lanes(&|group, thread| b[thread][group]));
        let fc = [0, 1].map(|i| lanes(&|group, thread| c[group][thread * 2 + i]));
        let mut d = [[0; 32]; 2];
        mma_f64(&fa, &fb, &fc, &mut d);
        for lane in 0..32 {
            for i in 0..2 {
                let (row, column) = (lane / 4, (lane % 4) * 2 + i);
                let sum = (0..4).fold(c[row][column], |sum, k| a[row][k].mul_add(b[k][column], sum));
                assert_eq!(f64::from_bits(d[i][lane]), sum);
            }
        }
    }
}

#[test]
fn truncating_models_bit_for_bit() {
    let mut random = Random(4);
    for kind in FLOATS {
        let (k, element, accumulator) = shape(kind);
        for (mode, fraction, length) in [
            (TensorCore::Hopper, 25, k),
            (TensorCore::Ampere, 24, if element == Element::Tf32 { 4 } else { 8 }),
        ] {
            for trial in 0..64 * 8 {
                let (style, c_style) = (trial % 8, trial / 8 % 8);
                let a = random.matrix(16, k, |bits| operand(style, element, bits));
                let b_style = if trial >= 64 { (style + trial / 64 + trial / 8) % 8 } else { style };
                let b = random.matrix(k, 8, |bits| operand(b_style, element, bits));
                let c = random.matrix(16, 8, |bits| operand(c_style, accumulator, bits));
                let d = run(kind, mode, &a, &b, &c);
                for row in 0..16 {
                    for column in 0..8 {
                        let pairs: Vec<(f32, f32)> = (0..k)
                            .map(|k| (decode(element, a[row][k]), decode(element, b[k][column])))
                            .collect();
                        let c = decode(accumulator, c[row][column]);
                        let expected =
                            pairs.chunks(length).fold(c, |c, pairs| model(kind, fraction, pairs, c));
                        let expected = match (expected.is_nan(), accumulator) {
                            (true, Element::F16) => 0x7FFF,
                            (true, _) => 0x7FFF_FFFF,
                            _ => encode(accumulator, expected),
                        };
                        assert_eq!(
                            d[row][column], expected,
                            "{kind:?} {mode:?} styles {style} {b_style} {c_style} [{row}, {column}] {pairs:?} + {c:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn sums_that_need_33_bits() {
    let mut random = Random(6);
    for (kind, significand) in
        [(Mma::Bf16K16, 255.0 / 128.0), (Mma::F16K16, 2047.0 / 1024.0), (Mma::Tf32K8, 2047.0 / 1024.0)]
    {
        let (k, element, _) = shape(kind);
        for sign in [1.0, -1.0] {
            let (a, b) = (
                vec![vec![encode(element, significand); k]; 16],
                vec![vec![encode(element, sign * significand); 8]; k],
            );
            let c = random
                .matrix(16, 8, |bits| (sign * (1.0 + (bits & 0xFF_FFFF) as f32 / 16_777_216.0)).to_bits());
            let d = run(kind, TensorCore::Hopper, &a, &b, &c);
            for row in 0..16 {
                for column in 0..8 {
                    let pairs = vec![(significand, sign * significand); k];
                    let expected = model(kind, 25, &pairs, f32::from_bits(c[row][column]));
                    assert_eq!(f32::from_bits(d[row][column]), expected, "{kind:?} [{row}, {column}]");
                }
            }
        }
    }
}

#[test]
fn float32_mode_adds_in_order() {
    let mut random = Random(5);
    for kind in FLOATS {
        let (k, element, accumulator) = shape(kind);
        for style in 0..8 {
            let a = random.matrix(16, k, |bits| operand(style, element, bits));
            let b = random.matrix(k, 8, |bits| operand(style, element, bits));
            let c = random.matrix(16, 8, |bits| operand(0, accumulator, bits));
            let d = run(kind, TensorCore::Float32, &a, &b, &c);
            for row in 0..16 {
                for column in 0..8 {
                    let start = decode(accumulator, c[row][column]);
                    let add = |sum: f32, k: usize| {
                        decode(element, a[row][k]).mul_add(decode(element, b[k][column]), sum)
                    };
                    let sum = (0..k).fold(start, add);
                    let expected = match (sum.is_nan(), accumulator) {
                        (true, Element::F16) => 0x7FFF,
                        (true, _) => 0x7FFF_FFFF,
                        _ => encode(accumulator, sum),
                    };
                    assert_eq!(d[row][column], expected, "{kind:?} style {style} [{row}, {column}]");
                }
            }
        }
    }
}

#[test]
fn too_few_registers_are_refused() {
    let (few, enough) = ([[0; 32]; 1], [[0; 32]; 4]);
    let mut d = [[7; 32]; 4];
    assert!(!mma(Mma::Bf16K16, TensorCore::Hopper, &few, &enough, &enough, &mut d));
    assert!(!mma(Mma::Bf16K16, TensorCore::Hopper, &enough, &few, &enough, &mut d));
    assert!(!mma(Mma::F16K8Half, TensorCore::Hopper, &enough, &enough, &few, &mut d));
    assert!(!mma(Mma::Bf16K8, TensorCore::Hopper, &enough, &enough, &enough, &mut d[..2]));
    assert_eq!(d, [[7; 32]; 4]);
}
