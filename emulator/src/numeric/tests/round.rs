//! Directed rounding against exact integers; minimum, maximum, saturation, flushing against the manual's tables.

use super::oracle::{DIRECTED, Random, rounded, sign};
use crate::numeric::Rounding;
use crate::numeric::round::*;
use proptest::prelude::*;

const SPECIAL_F32: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    1.1754942e-38,
    f32::MAX,
    f32::MIN,
    1.000_000_1,
    0.999_999_94,
    2.0,
    0.5,
    3.0,
    8_388_608.0,
    16_777_216.0,
    1.7014118e38,
    5.9604645e-8,
    -1.5,
    2.524355e-29,
];

/// Operands in which ties, cancellation, subnormals and overflow are frequent.
fn operand_f32(random: &mut Random) -> f32 {
    let bits = random.next();
    match bits >> 60 {
        0..=3 => SPECIAL_F32[(bits % 22) as usize],
        4..=7 => f32::from_bits((bits as u32 & 0x803F_F800) | 0x3F00_0000),
        8..=10 => f32::from_bits(bits as u32 & 0x81FF_FFFF),
        11 => f32::from_bits((bits as u32 & 0x80FF_FFFF) | 0x7E00_0000),
        _ => Some(f32::from_bits(bits as u32)).filter(|value| value.is_finite()).unwrap_or(1.5),
    }
}

fn operand_f64(random: &mut Random) -> f64 {
    let bits = random.next();
    match random.next() >> 60 {
        0..=3 => [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            0.5,
            3.0,
            1.0 + f64::EPSILON,
        ][(bits % 12) as usize],
        4..=7 => f64::from_bits((bits & 0x800F_FFF0_0000_0000) | 0x3FE0_0000_0000_0000),
        8..=10 => f64::from_bits(bits & 0x803F_FFFF_FFFF_FFFF),
        11 => f64::from_bits((bits & 0x800F_FFFF_FFFF_FFFF) | 0x7FC0_0000_0000_0000),
        12 => f64::from_bits((bits & 0x800F_FFFF_FFFF_FFFF) | 0x1FF0_0000_0000_0000),
        _ => Some(f64::from_bits(bits)).filter(|value| value.is_finite()).unwrap_or(1.5),
    }
}

/// All operations on one triple, in all directed modes.
fn check_f32(a: f32, b: f32, c: f32) {
    let [x, y, z] = [a, b, c].map(|value| value as f64);
    for r in DIRECTED {
        assert!(
            rounded(fma_f32(a, b, c, r), r, |q| sign(&[(q, 1.0), (-x, y), (-z, 1.0)])),
            "fma {a:e} {b:e} {c:e} {r:?}"
        );
        assert!(
            rounded(add_f32(a, b, r), r, |q| sign(&[(q, 1.0), (-x, 1.0), (-y, 1.0)])),
            "add {a:e} {b:e} {r:?}"
        );
        assert!(
            rounded(sub_f32(a, b, r), r, |q| sign(&[(q, 1.0), (-x, 1.0), (y, 1.0)])),
            "sub {a:e} {b:e} {r:?}"
        );
        assert!(rounded(mul_f32(a, b, r), r, |q| sign(&[(q, 1.0), (-x, y)])), "mul {a:e} {b:e} {r:?}");
        if b != 0.0 {
            let (x, y) = if b < 0.0 { (-x, -y) } else { (x, y) };
            assert!(rounded(div_f32(a, b, r), r, |q| sign(&[(q, y), (-x, 1.0)])), "div {a:e} {b:e} {r:?}");
            assert_eq!(rcp_f32(b, r).to_bits(), div_f32(1.0, b, r).to_bits());
        }
        if a > 0.0 {
            let order = |q: f64| if q < 0.0 { std::cmp::Ordering::Less } else { sign(&[(q, q), (-x, 1.0)]) };
            assert!(rounded(sqrt_f32(a, r), r, order), "sqrt {a:e} {r:?}");
        }
        let expected = if r == Rounding::Down { (-0.0f32).to_bits() } else { 0 };
        if a != 0.0 {
            assert_eq!(sub_f32(a, a, r).to_bits(), expected, "{a:e} - itself {r:?}");
        }
    }
}

fn check_f64(a: f64, b: f64, c: f64) {
    for r in DIRECTED {
        assert!(
            rounded(fma_f64(a, b, c, r), r, |q| sign(&[(q, 1.0), (-a, b), (-c, 1.0)])),
            "fma {a:e} {b:e} {c:e} {r:?}"
        );
        assert!(
            rounded(add_f64(a, b, r), r, |q| sign(&[(q, 1.0), (-a, 1.0), (-b, 1.0)])),
            "add {a:e} {b:e} {r:?}"
        );
        assert!(rounded(mul_f64(a, b, r), r, |q| sign(&[(q, 1.0), (-a, b)])), "mul {a:e} {b:e} {r:?}");
        if b != 0.0 {
            let (x, y) = if b < 0.0 { (-a, -b) } else { (a, b) };
            assert!(rounded(div_f64(a, b, r), r, |q| sign(&[(q, y), (-x, 1.0)])), "div {a:e} {b:e} {r:?}");
        }
        if a > 0.0 {
            let order = |q: f64| if q < 0.0 { std::cmp::Ordering::Less } else { sign(&[(q, q), (-a, 1.0)]) };
            assert!(rounded(sqrt_f64(a, r), r, order), "sqrt {a:e} {r:?}");
        }
        // float64 to float32, for the same operands.
        assert!(rounded(f64_to_f32(a, r), r, |q| sign(&[(q, 1.0), (-a, 1.0)])), "cvt {a:e} {r:?}");
        let expected = if r == Rounding::Down { (-0.0f64).to_bits() } else { 0 };
        if a != 0.0 {
            assert_eq!(sub_f64(a, a, r).to_bits(), expected, "{a:e} - itself {r:?}");
        }
    }
}

#[test]
fn directed_f32_is_exact() {
    for a in SPECIAL_F32 {
        for b in SPECIAL_F32 {
            for c in [0.0, -0.0, -a, f32::MAX, -1e-45, 1.0] {
                check_f32(a, b, c);
            }
        }
    }
    let mut random = Random(1);
    for _ in 0..30_000 {
        let [a, b, c] = [0; 3].map(|_| operand_f32(&mut random));
        check_f32(a, b, c);
        // Near cancellation.
        check_f32(a, b, -(a * b).clamp(f32::MIN, f32::MAX));
    }
}

#[test]
fn directed_f64_is_exact() {
    let mut random = Random(2);
    for _ in 0..20_000 {
        let [a, b, c] = [0; 3].map(|_| operand_f64(&mut random));
        check_f64(a, b, c);
        check_f64(a, b, -(a * b).clamp(f64::MIN, f64::MAX));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn directed_modes_agree_with_the_oracle(
        a in any::<f32>().prop_filter("finite", |x| x.is_finite()),
        b in any::<f32>().prop_filter("finite", |x| x.is_finite()),
        c in any::<f64>().prop_filter("finite", |x| x.is_finite()),
    ) {
        check_f32(a, b, (c as f32).clamp(f32::MIN, f32::MAX));
        check_f64(a as f64 * c.signum(), c, b as f64);
    }
}

#[test]
fn signs_of_zero() {
    for r in [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up] {
        let cancelled = if r == Rounding::Down { 0x8000_0000u32 } else { 0 };
        let wide = (cancelled as u64) << 32;
        assert_eq!(add_f32(0.0, -0.0, r).to_bits(), cancelled);
        assert_eq!(add_f32(-0.0, -0.0, r).to_bits(), 0x8000_0000);
        assert_eq!(add_f32(0.0, 0.0, r).to_bits(), 0);
        assert_eq!(fma_f32(-1.0, 0.0, -0.0, r).to_bits(), 0x8000_0000);
        assert_eq!(fma_f32(-1.0, 2.0, 2.0, r).to_bits(), cancelled);
        assert_eq!(mul_f32(-1.0, 0.0, r).to_bits(), 0x8000_0000);
        assert_eq!(div_f32(-0.0, 7.0, r).to_bits(), 0x8000_0000);
        assert_eq!(sqrt_f32(-0.0, r).to_bits(), 0x8000_0000);
        assert_eq!(add_f64(0.0, -0.0, r).to_bits(), wide);
        assert_eq!(add_f64(-0.0, -0.0, r).to_bits(), 1 << 63);
        assert_eq!(fma_f64(-1.0, 2.0, 2.0, r).to_bits(), wide);
        assert_eq!(fma_f64(-1.0, 0.0, -0.0, r).to_bits(), 1 << 63);
        assert_eq!(mul_f64(-1.0, 0.0, r).to_bits(), 1 << 63);
        assert_eq!(div_f64(-0.0, 7.0, r).to_bits(), 1 << 63);
        assert_eq!(sqrt_f64(-0.0, r).to_bits(), 1 << 63);
    }
}

#[test]
fn infinities_and_nan() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let (inf64, nan64) = (f64::INFINITY, f64::NAN);
    for r in [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up] {
        let nans = [
            add_f32(inf, -inf, r),
            fma_f32(inf, 0.0, 1.0, r),
            fma_f32(1.0, nan, 1.0, r),
            mul_f32(0.0, inf, r),
            div_f32(0.0, 0.0, r),
            div_f32(inf, inf, r),
            sqrt_f32(-1.0, r),
        ];
        assert!(nans.iter().all(|x| x.to_bits() == CANONICAL_F32), "{r:?} {nans:?}");
        let nans = [
            add_f64(inf64, -inf64, r),
            fma_f64(inf64, 0.0, 1.0, r),
            fma_f64(1.0, nan64, 1.0, r),
            mul_f64(0.0, inf64, r),
            div_f64(0.0, 0.0, r),
            sqrt_f64(-1.0, r),
        ];
        assert!(nans.iter().all(|x| x.to_bits() == CANONICAL_F64), "{r:?} {nans:?}");
        assert_eq!([add_f32(inf, f32::MIN, r), div_f32(1.0, 0.0, r), sqrt_f32(inf, r)], [inf; 3]);
        assert_eq!([mul_f32(inf, -2.0, r), div_f32(1.0, -0.0, r)], [-inf; 2]);
        assert_eq!([add_f64(inf64, f64::MIN, r), div_f64(1.0, 0.0, r), sqrt_f64(inf64, r)], [inf64; 3]);
        assert_eq!(div_f32(3.0, -inf, r).to_bits(), 0x8000_0000);
        assert_eq!(div_f64(3.0, -inf64, r).to_bits(), 1 << 63);
    }
    assert_eq!(mul_f32(f32::MAX, 2.0, Rounding::Zero), f32::MAX);
    assert_eq!(mul_f32(f32::MAX, 2.0, Rounding::Nearest), inf);
    assert_eq!(add_f32(f32::MIN, f32::MIN, Rounding::Up), f32::MIN);
    assert_eq!(add_f64(f64::MIN, f64::MIN, Rounding::Down), -inf64);
}

#[test]
fn nearest_rounds_once() {
    // The product's tail decides a tie that float32 twice rounded would miss.
    let (a, b) = (1.0 + f32::EPSILON, 1.0 + f32::EPSILON);
    assert_eq!(fma_f32(a, b, -1.0 - 2.0 * f32::EPSILON, Rounding::Nearest), f32::EPSILON * f32::EPSILON);
    assert_eq!(f64_to_f32(1.0 + 3.0 * 2f64.powi(-24), Rounding::Nearest), 1.0 + 2.0 * f32::EPSILON);
    assert_eq!(f64_to_f32(1.0 + 2f64.powi(-24), Rounding::Nearest), 1.0);
}

#[test]
fn flush_and_saturate() {
    assert_eq!(ftz_f32(1e-45).to_bits(), 0);
    assert_eq!(ftz_f32(-1.1754942e-38).to_bits(), 0x8000_0000);
    assert_eq!(ftz_f32(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    for (x, y) in [
        (f32::NAN, 0.0),
        (-0.0, 0.0),
        (-3.0, 0.0),
        (0.25, 0.25),
        (1.5, 1.0),
        (f32::INFINITY, 1.0),
        (1e-45, 1e-45),
    ] {
        assert_eq!(saturate_f32(x).to_bits(), f32::to_bits(y));
        assert_eq!(saturate_f64(x as f64).to_bits(), (y as f64).to_bits());
    }
    assert_eq!(copysign_f32(-0.0, 3.0), -3.0);
    assert_eq!(copysign_f64(1.0, -3.0), 3.0);
}

#[test]
fn minimum_and_maximum() {
    let nan = f32::from_bits(0xFFC0_1234);
    let values = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, f32::INFINITY, -f32::INFINITY, nan, f32::MAX];
    for a in values {
        for b in values {
            // The manual's order: as real numbers, and -0 before +0.
            let less = a < b || (a == b && a.is_sign_negative() && !b.is_sign_negative());
            let (low, high) = if less { (a, b) } else { (b, a) };
            let any_nan = a.is_nan() || b.is_nan();
            let number = if a.is_nan() { b } else { a };
            let expect = |value: f32| if value.is_nan() { CANONICAL_F32 } else { value.to_bits() };
            let (low, high) = if any_nan { (number, number) } else { (low, high) };
            assert_eq!(
                [min_f32(a, b), max_f32(a, b)].map(f32::to_bits),
                [expect(low), expect(high)],
                "{a} {b}"
            );
            assert_eq!(min_f64(a as f64, b as f64).is_nan(), low.is_nan());
            if !low.is_nan() {
                assert_eq!(min_f64(a as f64, b as f64).to_bits(), (low as f64).to_bits());
                assert_eq!(max_f64(a as f64, b as f64).to_bits(), (high as f64).to_bits());
            }
            let wins = if any_nan { [CANONICAL_F32; 2] } else { [low.to_bits(), high.to_bits()] };
            assert_eq!([min_nan_f32(a, b), max_nan_f32(a, b)].map(f32::to_bits), wins);
            let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
            for nan_wins in [false, true] {
                let magnitude = match (nan_wins && any_nan, any_nan) {
                    (true, _) => f32::NAN,
                    (false, true) => number.abs(),
                    (false, false) => a.abs().min(b.abs()),
                };
                let expected = if magnitude.is_nan() { CANONICAL_F32 } else { magnitude.to_bits() | sign };
                assert_eq!(min_xorsign_f32(a, b, nan_wins).to_bits(), expected, "{a} {b}");
            }
            if !any_nan {
                let expected = a.abs().max(b.abs()).to_bits() | sign;
                assert_eq!(max_xorsign_f32(a, b, true).to_bits(), expected);
            }
        }
    }
}

#[test]
fn classes() {
    use TestP::*;
    let cases: [(f32, [bool; 6]); 5] = [
        (1.0, [true, false, true, false, true, false]),
        (0.0, [true, false, true, false, true, false]),
        (1e-45, [true, false, true, false, false, true]),
        (f32::INFINITY, [false, true, true, false, false, false]),
        (f32::NAN, [false, false, false, true, false, false]),
    ];
    for (value, expected) in cases {
        let questions = [Finite, Infinite, Number, NotANumber, Normal, Subnormal];
        assert_eq!(questions.map(|question| testp_f32(value, question)), expected, "{value}");
    }
    assert!(testp_f64(5e-324, Subnormal) && !testp_f64(1e-45, Subnormal));
}
