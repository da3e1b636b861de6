//! 16-bit floats: conversions over all values and all boundaries between them, arithmetic against exact sums.

use super::oracle::{DIRECTED, Float, Random, rounded, sign};
use crate::numeric::Rounding;
use crate::numeric::half::*;
use ::half::{bf16, f16};
use std::cmp::Ordering;

/// One of the two formats: its bits to float64, by the `half` crate.
#[derive(Clone, Copy)]
struct Half<const BF16: bool>(u16);

impl<const BF16: bool> Half<BF16> {
    const INFINITY: u16 = if BF16 { 0x7F80 } else { 0x7C00 };
}

impl<const BF16: bool> Float for Half<BF16> {
    fn wide(self) -> f64 {
        if BF16 { bf16::from_bits(self.0).to_f64() } else { f16::from_bits(self.0).to_f64() }
    }
    fn above(self) -> Self {
        match self.0 {
            0x8000 | 0 => Half(1),
            bits if bits & 0x8000 != 0 => Half(bits - 1),
            bits => Half(bits + 1),
        }
    }
    fn below(self) -> Self {
        Half(Half::<BF16>(self.0 ^ 0x8000).above().0 ^ 0x8000)
    }
}

/// Rounding to nearest even by definition: among the neighbours of a truncation. `compare` orders a candidate against the
/// exact value's magnitude, candidates beyond the largest value included.
fn nearest<const BF16: bool>(compare: impl Fn(f64) -> Ordering) -> u16 {
    let wide = |bits: u16| {
        // Past the largest finite value comes what the next exponent would be worth.
        let top = Half::<BF16>(Half::<BF16>::INFINITY - 1).wide();
        if bits == Half::<BF16>::INFINITY {
            top + (top - Half::<BF16>(bits - 2).wide())
        } else {
            Half::<BF16>(bits).wide()
        }
    };
    let (mut low, mut high) = (0, Half::<BF16>::INFINITY);
    if compare(wide(high)).is_le() {
        return high;
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if compare(wide(middle)).is_le() { low = middle } else { high = middle }
    }
    match compare((wide(low) + wide(high)) / 2.0) {
        Ordering::Less => high,
        Ordering::Greater => low,
        Ordering::Equal => low + (low & 1),
    }
}

fn nearest_of<const BF16: bool>(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    nearest::<BF16>(|q| q.total_cmp(&value.abs())) | sign
}

/// Values at, between and next to all values of the formats.
fn boundaries() -> Vec<f32> {
    let mut values = vec![
        f32::INFINITY,
        f32::MAX,
        65519.996,
        65520.0,
        65536.0,
        1e-45,
        1e-40,
        2.9802322e-8,
        2.980_232_6e-8,
    ];
    for bits in 0..0x7F80u16 {
        for (low, high) in [
            (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32()),
            (bf16::from_bits(bits).to_f32(), bf16::from_bits(bits + 1).to_f32()),
        ] {
            if low.is_finite() && high.is_finite() {
                let middle = low + (high - low) / 2.0;
                values.extend([
                    low,
                    low.next_up(),
                    middle.next_down(),
                    middle,
                    middle.next_up(),
                    high.next_down(),
                ]);
            }
        }
    }
    let negative: Vec<f32> = values.iter().map(|value| -value).collect();
    values.extend(negative);
    values
}

#[test]
fn widening_is_exact() {
    for bits in 0..=u16::MAX {
        let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
        let expected = if half.is_nan() { 0x7FFF_FFFF } else { half.to_f32().to_bits() };
        assert_eq!(f16_to_f32(bits).to_bits(), expected, "{bits:#x}");
        assert_eq!(bf16_to_f32(bits).to_bits(), (bits as u32) << 16);
        assert!(brain.is_nan() || brain.to_f32() == bf16_to_f32(bits));
        // Back again.
        assert_eq!(f32_to_f16(f16_to_f32(bits)), if half.is_nan() { 0x7FFF } else { bits });
        assert_eq!(f32_to_bf16(bf16_to_f32(bits)), if brain.is_nan() { 0x7FFF } else { bits });
        assert_eq!(f32_to_f16_rz(f16_to_f32(bits)), if half.is_nan() { 0x7FFF } else { bits });
        assert_eq!(f32_to_bf16_rz(bf16_to_f32(bits)), if brain.is_nan() { 0x7FFF } else { bits });
    }
}

#[test]
fn narrowing_rounds_by_definition() {
    for value in boundaries() {
        assert_eq!(f32_to_f16(value), f16::from_f32(value).to_bits(), "{value:e}");
        assert_eq!(f32_to_bf16(value), bf16::from_f32(value).to_bits(), "{value:e}");
        assert_eq!(f64_to_f16(value as f64), f16::from_f32(value).to_bits(), "{value:e}");
        assert_eq!(f64_to_bf16(value as f64), bf16::from_f32(value).to_bits(), "{value:e}");
        let infinite = value.is_infinite();
        assert!(!infinite || f32_to_f16_rz(value) & 0x7FFF == 0x7C00);
        for r in DIRECTED.into_iter().filter(|_| !infinite) {
            let order = |q: f64| q.partial_cmp(&(value as f64)).unwrap();
            let results = [f32_to_f16_round(value, r), f64_to_f16_round(value as f64, r)];
            assert!(
                results.iter().all(|&bits| rounded(Half::<false>(bits), r, order)),
                "{value:e} {r:?} {results:x?}"
            );
            let results = [f32_to_bf16_round(value, r), f64_to_bf16_round(value as f64, r)];
            assert!(
                results.iter().all(|&bits| rounded(Half::<true>(bits), r, order)),
                "{value:e} {r:?} {results:x?}"
            );
        }
        if !infinite {
            assert_eq!(f32_to_f16_rz(value), f32_to_f16_round(value, Rounding::Zero), "{value:e}");
            assert_eq!(f32_to_bf16_rz(value), f32_to_bf16_round(value, Rounding::Zero), "{value:e}");
        }
    }
}

#[test]
fn f64_narrows_in_one_rounding() {
    // Just beside a tie by less than float32 can tell.
    for bits in (0..0x7BFFu16).step_by(7) {
        let (low, high) = (Half::<false>(bits).wide(), Half::<false>(bits + 1).wide());
        let middle = (low + high) / 2.0;
        for value in [middle, middle.next_up(), middle.next_down(), -middle.next_up(), low.next_up()] {
            assert_eq!(f64_to_f16(value), nearest_of::<false>(value), "{value:e}");
        }
        let (low, high) = (Half::<true>(bits).wide(), Half::<true>(bits + 1).wide());
        let middle = (low + high) / 2.0;
        for value in [middle, middle.next_up(), middle.next_down(), -middle.next_up(), low.next_up()] {
            assert_eq!(f64_to_bf16(value), nearest_of::<true>(value), "{value:e}");
        }
    }
    assert_eq!([f64_to_f16(1e300), f64_to_f16(-1e-300), f64_to_f16(f64::NAN)], [0x7C00, 0x8000, 0x7FFF]);
    assert_eq!([f64_to_bf16(1e300), f64_to_bf16(-1e-300), f64_to_bf16(f64::NAN)], [0x7F80, 0x8000, 0x7FFF]);
}

#[test]
fn nan_and_modifiers() {
    for nan in [0x7F80_0001, 0xFFC0_0000, 0x7FFF_FFFF, 0x7FFF_8000].map(f32::from_bits) {
        let halves = [f32_to_f16(nan), f32_to_f16_rz(nan), f32_to_bf16(nan), f32_to_bf16_rz(nan)];
        assert_eq!(halves, [0x7FFF; 4]);
        assert_eq!([f32_to_tf32_rn(nan), f32_to_tf32_rna(nan), f32_to_tf32_rz(nan)], [0x7FFF_FFFF; 3]);
    }
    assert_eq!(
        [f16_satfinite(0x7C00), f16_satfinite(0xFC00), f16_satfinite(0x7FFF)],
        [0x7BFF, 0xFBFF, 0x7FFF]
    );
    assert_eq!(
        [bf16_satfinite(0x7F80), bf16_satfinite(0xFF80), bf16_satfinite(0x3F80)],
        [0x7F7F, 0xFF7F, 0x3F80]
    );
    assert_eq!(
        [f16_relu(0x8000), f16_relu(0xBC00), f16_relu(0x3C00), f16_relu(0xFE00)],
        [0, 0, 0x3C00, 0x7FFF]
    );
    assert_eq!(
        [bf16_relu(0xFF80), bf16_relu(0xBF80), bf16_relu(0x0001), bf16_relu(0xFF81)],
        [0, 0, 1, 0x7FFF]
    );
    assert_eq!(
        [f16_saturate(0x3C01), f16_saturate(0x7E00), f16_saturate(0x8001), f16_saturate(0x3800)],
        [0x3C00, 0, 0, 0x3800]
    );
    assert_eq!([f16_ftz(0x83FF), f16_ftz(0x0400), f16_ftz(0x0001)], [0x8000, 0x0400, 0]);
    assert_eq!(
        [tf32_relu(0x8000_0000), tf32_relu(0xFFC0_0000), tf32_relu(0x3F80_0000)],
        [0, 0x7FFF_FFFF, 0x3F80_0000]
    );
    assert_eq!([tf32_satfinite(0x7F80_0000), tf32_satfinite(0xFF80_0000)], [0x7F7F_E000, 0xFF7F_E000]);
    assert_eq!(unpack2(pack2(0x1234, 0xABCD)), (0x1234, 0xABCD));
    assert_eq!(pack2(1, 2), 0x0002_0001);
}

#[test]
fn tf32_has_ten_fraction_bits() {
    let mut random = Random(3);
    for _ in 0..200_000 {
        let bits = random.next() as u32;
        let value = f32::from_bits(bits & !0x1000_0000 | 0x1000 & (bits << 1));
        let step =
            (f32::from_bits(value.to_bits() & !0x1FFF), f32::from_bits((value.to_bits() & !0x1FFF) + 0x2000));
        if !step.1.is_finite() {
            continue;
        }
        let (low, high) = ((value - step.0).abs(), (step.1 - value).abs());
        let even = if step.0.to_bits() & 0x2000 == 0 { step.0 } else { step.1 };
        let nearest = |tie: f32| {
            if low == high {
                tie
            } else if low < high {
                step.0
            } else {
                step.1
            }
        };
        assert_eq!(f32_to_tf32_rz(value), step.0.to_bits());
        assert_eq!(f32_to_tf32_rn(value), nearest(even).to_bits(), "{bits:#x}");
        assert_eq!(f32_to_tf32_rna(value), nearest(step.1).to_bits(), "{bits:#x}");
    }
    assert_eq!(f32_to_tf32_rna(f32::MAX), 0x7F80_0000);
    assert_eq!([f32_to_tf32_rna(f32::INFINITY), f32_to_tf32_rn(-f32::INFINITY)], [0x7F80_0000, 0xFF80_0000]);
}

/// One format's operations against exact sums of products.
fn check_arithmetic<const BF16: bool>(
    fma: fn(u16, u16, u16) -> u16,
    binary: [fn(u16, u16) -> u16; 3],
    seed: u64,
) {
    let mut random = Random(seed);
    let special = [
        0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x3C00, 0x3C01, 0xBC00, 0x7BFF, 0xFBFF, 0x3F80, 0x007F, 0x0080,
        0x7F7F,
    ];
    let mut operand = || {
        let bits = random.next();
        let value = if bits >> 62 == 0 { special[bits as usize % 15] } else { bits as u16 };
        if value & 0x7FFF >= Half::<BF16>::INFINITY { value & 0x8FFF | 0x0C00 } else { value }
    };
    let expect = |terms: &[(f64, f64)]| {
        let of = |q: f64, factor: f64| {
            let mut all = vec![(q, factor)];
            all.extend(terms.iter().map(|&(x, y)| (-x, y)));
            sign(&all)
        };
        if of(0.0, 1.0).is_gt() {
            nearest::<BF16>(|q| of(q, -1.0).reverse()) | 0x8000
        } else {
            nearest::<BF16>(|q| of(q, 1.0))
        }
    };
    for _ in 0..60_000 {
        let [a, b, c] = [operand(), operand(), operand()];
        // Half of the sums nearly cancel.
        let c = if a & 1 == 0 { binary[2](a, b) ^ 0x8000 } else { c };
        let c = if c & 0x7FFF >= Half::<BF16>::INFINITY { 0x3C00 } else { c };
        let [x, y, z] = [a, b, c].map(|bits| Half::<BF16>(bits).wide());
        // Signs of zero have tests of their own.
        let same = |result: u16, expected: u16, what: &str| {
            let zero = result & 0x7FFF == 0 && expected & 0x7FFF == 0;
            assert!(
                zero || result == expected,
                "{what} {a:#x} {b:#x} {c:#x}: {result:#x}, not {expected:#x}"
            );
        };
        same(fma(a, b, c), expect(&[(x, y), (z, 1.0)]), "fma");
        same(binary[0](a, b), expect(&[(x, 1.0), (y, 1.0)]), "add");
        same(binary[1](a, b), expect(&[(x, 1.0), (y, -1.0)]), "sub");
        same(binary[2](a, b), expect(&[(x, y)]), "mul");
    }
    let infinity = Half::<BF16>::INFINITY;
    let one = if BF16 { 0x3F80 } else { 0x3C00 };
    assert_eq!(
        [fma(infinity, 0, one), fma(one, one, 0x7FFF), binary[0](infinity, infinity | 0x8000)],
        [0x7FFF; 3]
    );
    assert_eq!([fma(infinity, one, 0), binary[2](infinity - 1, infinity - 1)], [infinity; 2]);
    assert_eq!([binary[0](0x8000, 0x8000), fma(0x8000, one, 0x8000), binary[2](0x8000, one)], [0x8000; 3]);
    assert_eq!([binary[0](one, one | 0x8000), fma(one, one, one | 0x8000), binary[1](0, 0)], [0; 3]);
}

#[test]
fn arithmetic_rounds_once() {
    check_arithmetic::<false>(f16_fma, [f16_add, f16_sub, f16_mul], 4);
    check_arithmetic::<true>(bf16_fma, [bf16_add, bf16_sub, bf16_mul], 5);
    assert_eq!(
        [f16_neg(0x3C00), f16_abs(0xBC00), bf16_neg(0xBF80), bf16_abs(0xBF80)],
        [0xBC00, 0x3C00, 0x3F80, 0x3F80]
    );
}

#[test]
fn minimum_and_maximum() {
    let values = [
        0u16, 0x8000, 1, 0x8001, 0x3C00, 0xBC00, 0x7BFF, 0x7C00, 0xFC00, 0x7C01, 0xFFFF, 0x7F80, 0xFF80,
        0x7F81,
    ];
    for a in values {
        for b in values {
            check_extrema::<false>(
                a,
                b,
                [f16_min, f16_max, f16_min_nan, f16_max_nan],
                [f16_min_xorsign, f16_max_xorsign],
            );
            check_extrema::<true>(
                a,
                b,
                [bf16_min, bf16_max, bf16_min_nan, bf16_max_nan],
                [bf16_min_xorsign, bf16_max_xorsign],
            );
        }
    }
}

fn check_extrema<const BF16: bool>(
    a: u16,
    b: u16,
    [min, max, min_nan, max_nan]: [fn(u16, u16) -> u16; 4],
    xorsign: [fn(u16, u16, bool) -> u16; 2],
) {
    let nan = |bits: u16| Half::<BF16>(bits).wide().is_nan();
    let less = |a: u16, b: u16| {
        let (x, y) = (Half::<BF16>(a).wide(), Half::<BF16>(b).wide());
        x < y || (x == y && a & 0x8000 != 0 && b & 0x8000 == 0)
    };
    let choose = |a: u16, b: u16, largest: bool| match (nan(a), nan(b)) {
        (true, true) => 0x7FFF,
        (true, false) => b,
        (false, true) => a,
        _ => {
            if less(a, b) != largest {
                a
            } else {
                b
            }
        }
    };
    let choose_nan =
        |a: u16, b: u16, largest: bool| if nan(a) || nan(b) { 0x7FFF } else { choose(a, b, largest) };
    assert_eq!([min(a, b), max(a, b)], [choose(a, b, false), choose(a, b, true)], "{a:#x} {b:#x}");
    assert_eq!([min_nan(a, b), max_nan(a, b)], [choose_nan(a, b, false), choose_nan(a, b, true)]);
    for (largest, function) in [false, true].into_iter().zip(xorsign) {
        for nan_wins in [false, true] {
            let (x, y) = (a & 0x7FFF, b & 0x7FFF);
            let magnitude = if nan_wins { choose_nan(x, y, largest) } else { choose(x, y, largest) };
            let expected = if nan(magnitude) { magnitude } else { magnitude | ((a ^ b) & 0x8000) };
            assert_eq!(function(a, b, nan_wins), expected, "{a:#x} {b:#x}");
        }
    }
}
