//! `mma.sync` against naive matrix products: the layouts written down from the manual's formulas for each shape, the
//! truncating models from their description in 128-bit integers, one result at a time.

use emulator::numeric::tensor_core::{Int8, Lanes};
use emulator::numeric::{Mma, TensorCore, mma, mma_f64};
use half::{bf16, f16};

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

/// How elements are stored.
#[derive(Clone, Copy, PartialEq)]
enum Element {
    Bf16,
    F16,
    Tf32,
    F32,
    Byte,
}

impl Element {
    /// Elements a register.
    fn packed(self) -> usize {
        match self {
            Element::Bf16 | Element::F16 => 2,
            Element::Tf32 | Element::F32 => 1,
            Element::Byte => 4,
        }
    }
}

/// K, and the elements of A and B, and of C and D.
fn shape(kind: Mma) -> (usize, Element, Element) {
    match kind {
        Mma::Bf16K16 => (16, Element::Bf16, Element::F32),
        Mma::Bf16K8 => (8, Element::Bf16, Element::F32),
        Mma::F16K16 => (16, Element::F16, Element::F32),
        Mma::F16K8 => (8, Element::F16, Element::F32),
        Mma::F16K16Half => (16, Element::F16, Element::F16),
        Mma::F16K8Half => (8, Element::F16, Element::F16),
        Mma::Tf32K8 => (8, Element::Tf32, Element::F32),
        Mma::Tf32K4 => (4, Element::Tf32, Element::F32),
        Mma::Int8K16(_) => (16, Element::Byte, Element::F32),
        Mma::Int8K32(_) => (32, Element::Byte, Element::F32),
    }
}

/// Where element `i` of a lane's A fragment lies, as the manual says it for the shape: (row, column).
fn place_a(kind: Mma, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match kind {
        Mma::Bf16K16 | Mma::F16K16 | Mma::F16K16Half => {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            (row, thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        Mma::Bf16K8 | Mma::F16K8 | Mma::F16K8Half => {
            (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
        }
        Mma::Tf32K4 => (if i == 0 { group } else { group + 8 }, thread),
        Mma::Tf32K8 => {
            (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
        }
        Mma::Int8K16(_) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        Mma::Int8K32(_) => {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            (row, if i < 8 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 })
        }
    }
}

/// Where element `i` of a lane's B fragment lies: (row, column).
fn place_b(kind: Mma, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match kind {
        Mma::Bf16K16 | Mma::F16K16 | Mma::F16K16Half => {
            (thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, group)
        }
        Mma::Bf16K8 | Mma::F16K8 | Mma::F16K8Half => (thread * 2 + i, group),
        Mma::Tf32K4 => (thread, group),
        Mma::Tf32K8 => (if i == 0 { thread } else { thread + 4 }, group),
        Mma::Int8K16(_) => (thread * 4 + i, group),
        Mma::Int8K32(_) => (if i < 4 { thread * 4 + i } else { thread * 4 + (i & 3) + 16 }, group),
    }
}

/// Where element `i` of a lane's C or D fragment lies: (row, column).
fn place_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

type Matrix = Vec<Vec<u32>>;

/// Matrices of element bits into fragments, and back.
fn fragment(
    matrix: &Matrix,
    element: Element,
    elements: usize,
    place: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<Lanes> {
    let packed = element.packed();
    let mut registers = vec![[0; 32]; elements / packed];
    for lane in 0..32 {
        for i in 0..elements {
            let (row, column) = place(lane, i);
            registers[i / packed][lane] |= matrix[row][column] << (32 / packed * (i % packed));
        }
    }
    registers
}

fn unfragment(registers: &[Lanes], element: Element) -> Matrix {
    let (packed, mut matrix) = (element.packed(), vec![vec![0; 8]; 16]);
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = place_c(lane, i);
            let word = registers[i / packed][lane] >> (32 / packed * (i % packed));
            matrix[row][column] = if packed == 2 { word & 0xFFFF } else { word };
        }
    }
    matrix
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
    pub fn avx512(
        kind: Mma,
        mode: TensorCore,
        a: &[Lanes],
        b: &[Lanes],
        c: &[Lanes],
        d: &mut [Lanes],
    ) -> bool {
        mma(kind, mode, a, b, c, d)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(kind: Mma, mode: TensorCore, a: &[Lanes], b: &[Lanes], c: &[Lanes], d: &mut [Lanes]) -> bool {
        mma(kind, mode, a, b, c, d)
    }
}

/// The instruction on matrices, compiled for every vector unit that this machine has: the same bits from all.
fn run(kind: Mma, mode: TensorCore, a: &Matrix, b: &Matrix, c: &Matrix) -> Matrix {
    let (k, element, accumulator) = shape(kind);
    let a = fragment(a, element, k / 2, |lane, i| place_a(kind, lane, i));
    let b = fragment(b, element, k / 4, |lane, i| place_b(kind, lane, i));
    let c = fragment(c, accumulator, 4, place_c);
    assert_eq!((a.len(), b.len(), c.len()), kind.registers());
    let mut d = vec![[0; 32]; c.len()];
    assert!(mma(kind, mode, &a, &b, &c, &mut d));
    #[cfg(target_arch = "x86_64")]
    {
        let mut again = vec![[0; 32]; c.len()];
        if is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the features have just been found.
            assert!(unsafe { wide::avx512(kind, mode, &a, &b, &c, &mut again) });
            assert_eq!(d, again, "{kind:?} {mode:?}");
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features have just been found.
            assert!(unsafe { wide::avx2(kind, mode, &a, &b, &c, &mut again) });
            assert_eq!(d, again, "{kind:?} {mode:?}");
        }
    }
    unfragment(&d, accumulator)
}

/// A small generator of test bits (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn matrix(&mut self, rows: usize, columns: usize, element: impl Fn(u64) -> u32) -> Matrix {
        (0..rows).map(|_| (0..columns).map(|_| element(self.next())).collect()).collect()
    }
}

fn encode(element: Element, value: f32) -> u32 {
    match element {
        Element::Bf16 => bf16::from_f32(value).to_bits() as u32,
        Element::F16 => f16::from_f32(value).to_bits() as u32,
        _ => value.to_bits(),
    }
}

fn decode(element: Element, bits: u32) -> f32 {
    match element {
        Element::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        Element::F16 => f16::from_bits(bits as u16).to_f32(),
        Element::Tf32 => f32::from_bits(bits >> 13 << 13),
        _ => f32::from_bits(bits),
    }
}

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

/// 2^exponent, for exponents that float64 has.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// A finite float as significand * 2^(exponent - fraction bits), as the models read it.
fn fields(value: f32, smallest: i32, fraction_bits: i32) -> (i128, i32) {
    let field = (value.to_bits() >> 23 & 0xFF) as i32;
    let exponent = (field - 127).max(smallest);
    let significand = value.abs() as f64 * power(fraction_bits - exponent);
    assert_eq!(significand.fract(), 0.0);
    (if value < 0.0 { -(significand as i128) } else { significand as i128 }, exponent)
}

/// The published model for one sum: terms cut toward zero below `fraction` bits of the largest exponent, summed, rounded.
fn model(kind: Mma, fraction: i32, pairs: &[(f32, f32)], c: f32) -> f32 {
    let (_, element, accumulator) = shape(kind);
    let half = accumulator == Element::F16;
    let specials = pairs.iter().map(|&(a, b)| a * b).chain([c]);
    if pairs.iter().any(|&(a, b)| !a.is_finite() || !b.is_finite()) || !c.is_finite() {
        // The finite products that overflow float32 here are no infinities there.
        let finite = pairs.iter().map(|&(a, b)| a.is_finite() && b.is_finite()).chain([false]);
        let terms: Vec<f32> = specials
            .zip(finite)
            .filter(|&(term, finite)| !finite && !term.is_finite())
            .map(|pair| pair.0)
            .collect();
        let nan = terms.iter().any(|term| term.is_nan());
        let (plus, minus) = (terms.contains(&f32::INFINITY), terms.contains(&f32::NEG_INFINITY));
        return if nan || (plus && minus) {
            f32::NAN
        } else if plus {
            f32::INFINITY
        } else {
            f32::NEG_INFINITY
        };
    }
    let zero = match (half, fraction) {
        (false, 25) => -133,
        (false, _) => -132,
        (true, 25) => -22,
        (true, _) => -21,
    };
    let smallest = if element == Element::F16 { -14 } else { -126 };
    let mut terms: Vec<(i128, i32, i32)> = pairs
        .iter()
        .map(|&(a, b)| {
            let ((x, i), (y, j)) = (fields(a, smallest, 10), fields(b, smallest, 10));
            if x * y == 0 { (0, 20, zero) } else { (x * y, 20, i + j) }
        })
        .collect();
    let (significand, exponent) = fields(c, if half { -14 } else { -126 }, 23);
    terms.push((significand, 23, if c == 0.0 { zero } else { exponent }));
    let largest = terms.iter().map(|term| term.2).fold(i32::MIN, i32::max);
    // Units of 2^(largest - fraction); division cuts toward zero.
    let total: i128 = terms
        .iter()
        .map(|&(significand, bits, exponent)| {
            let shift = fraction - bits + exponent - largest;
            if shift >= 0 { significand << shift } else { significand / (1i128 << (-shift).min(100)) }
        })
        .sum();
    let unit = largest - fraction;
    let magnitude = total.unsigned_abs() as f64 * power(unit);
    if total == 0 {
        return 0.0;
    }
    // The result's step, as a power of two.
    let top = 127 - total.unsigned_abs().leading_zeros() as i32 + unit;
    let step = if half { top.max(-14) - 10 } else { top.max(-126) - 23 };
    let scaled = magnitude / power(step);
    let rounded = if half { scaled.round_ties_even() } else { scaled.trunc() } * power(step);
    let limit = if half { 65520.0 } else { power(128) };
    let value = if rounded >= limit { f32::INFINITY } else { rounded as f32 };
    if total < 0 { -value } else { value }
}

/// Element bits of a kind of operand.
fn operand(style: usize, element: Element, bits: u64) -> u32 {
    let (sign, low) = (if bits >> 63 != 0 { -1.0 } else { 1.0 }, (bits & 0xFFFF) as f32);
    let scaled = |power: i32| encode(element, sign * (1.0 + low / 65536.0) * 2f32.powi(power));
    let special = match element {
        Element::Bf16 => [0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x807F, 0x7F7F],
        Element::F16 => [0, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0x0001, 0x83FF, 0x7BFF],
        _ => [0, 1 << 31, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x0000_2000, 0x807F_E000, 0x7F7F_E000],
    };
    match style {
        // About one.
        0 => scaled(0),
        // Exponents all over the format, subnormals too, nothing infinite.
        1 => {
            let any = if element.packed() == 2 { bits as u32 & 0xFFFF } else { bits as u32 };
            if decode(element, any).is_finite() { any } else { scaled(3) }
        }
        // Mixed magnitudes, zeros.
        2 => {
            if bits >> 40 & 7 == 0 {
                0
            } else {
                scaled((bits >> 50 & 31) as i32 - 14)
            }
        }
        // Few significands, so that sums cancel.
        3 => encode(element, sign * [1.0, 1.5, 4096.0, 0.000_244_140_63][(bits & 3) as usize]),
        // Small exponents.
        4 => scaled(-(bits as i32 >> 20 & 15) - if element == Element::F16 { 9 } else { 50 }),
        // Infinities, NaN, subnormals, zeros among numbers.
        5 => {
            if bits >> 50 & 7 == 0 {
                special[(bits >> 40 & 7) as usize]
            } else {
                scaled(0)
            }
        }
        // Large magnitudes of one sign and significands near two: sums that need all their bits, and overflow.
        6 => {
            let power = if element == Element::F16 { 15 } else { 60 + (bits >> 30 & 1) as i32 };
            encode(element, (1.96 + low / 2e6) * 2f32.powi(power))
        }
        // Subnormals and zeros only.
        _ => {
            if bits >> 41 & 1 == 0 {
                special[(bits >> 40 & 1) as usize * 5 + 1]
            } else {
                special[(bits >> 40 & 1) as usize]
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
