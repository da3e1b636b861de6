//! Conversions between floats and integers against 128-bit integers.

use super::oracle::{DIRECTED, Random, rounded};
use crate::numeric::Rounding::{self, Down, Nearest, Up, Zero};
use crate::numeric::convert::*;
use crate::numeric::half::{bf16_to_f32, f16_to_f32};
use ::half::{bf16, f16};

/// Rounds a finite value to an integer by the definition of the mode, from bits; clamped to 96 bits.
fn integer(value: f64, rounding: Rounding) -> i128 {
    let clamped = value.clamp(-2f64.powi(96), 2f64.powi(96));
    let bits = clamped.to_bits();
    let field = (bits >> 52 & 0x7FF) as i32;
    let mantissa = (bits & ((1 << 52) - 1) | ((field != 0) as u64) << 52) as i128;
    let shift = 1075 - field.max(1);
    if shift <= 0 {
        return if value < 0.0 { -(mantissa << -shift) } else { mantissa << -shift };
    }
    // Two spare bits: floor, and how much lies above it.
    let shift = shift.min(100);
    let signed = if value < 0.0 { -mantissa } else { mantissa };
    let floor = signed >> shift;
    let rest = signed - (floor << shift);
    let half = 1i128 << (shift - 1);
    let up = match rounding {
        Down => false,
        Up => rest != 0,
        Zero => rest != 0 && value < 0.0,
        Nearest => rest > half || (rest == half && floor & 1 == 1),
    };
    floor + up as i128
}

const MODES: [Rounding; 4] = [Nearest, Zero, Down, Up];

macro_rules! check_to_integers {
    ($value:expr, $nan_narrow:expr, $nan_wide_s:expr, $nan_wide_u:expr, $wide:expr; $($integer:ty, $convert:path, $nan:expr;)*) => {$(
        for r in MODES {
            let expected = if $wide.is_nan() {
                $nan as $integer
            } else {
                integer($wide, r).clamp(<$integer>::MIN as i128, <$integer>::MAX as i128) as $integer
            };
            assert_eq!($convert($value, r), expected, "{} {} {r:?}", stringify!($convert), $wide);
        }
    )*};
}

fn check_f32(value: f32) {
    check_to_integers!(value, 0, 0, 0, value as f64;
        i8, f32_to_s8, 0; i16, f32_to_s16, 0; i32, f32_to_s32, 0; i64, f32_to_s64, i64::MIN;
        u8, f32_to_u8, 0; u16, f32_to_u16, 0; u32, f32_to_u32, 0; u64, f32_to_u64, 1u64 << 63;);
}

fn check_f64(value: f64) {
    check_to_integers!(value, 0, 0, 0, value;
        i8, f64_to_s8, i8::MIN; i16, f64_to_s16, i16::MIN; i32, f64_to_s32, i32::MIN; i64, f64_to_s64, i64::MIN;
        u8, f64_to_u8, 0x80; u16, f64_to_u16, 0x8000; u32, f64_to_u32, 1u32 << 31; u64, f64_to_u64, 1u64 << 63;);
}

#[test]
fn floats_to_integers() {
    let mut edges = vec![
        0.0,
        0.25,
        0.5,
        0.75,
        1.5,
        2.5,
        1e-45,
        1e30,
        3.4e38,
        f64::INFINITY,
        f64::NAN,
        4503599627370497.5,
        5e-324,
    ];
    for bits in [7, 8, 15, 16, 31, 32, 63, 64] {
        let power = 2f64.powi(bits);
        edges.extend([
            power,
            power - 0.5,
            power - 1.0,
            power - 1.5,
            power + 0.5,
            power + 1.0,
            power.next_down(),
            power.next_up(),
        ]);
        edges.extend([(power as f32).next_down() as f64, (power as f32).next_up() as f64]);
    }
    let mut random = Random(6);
    for _ in 0..20_000 {
        let bits = random.next();
        edges.push((bits as i32) as f64 / 2f64.powi((bits >> 58) as i32 - 20));
    }
    for value in edges {
        for value in [value, -value] {
            check_f64(value);
            check_f32(value as f32);
        }
    }
    for bits in 0..=u16::MAX {
        for r in MODES {
            // Through float32, which is tested above and holds both exactly.
            assert_eq!(f16_to_s8(bits, r), f32_to_s8(f16_to_f32(bits), r));
            assert_eq!(bf16_to_u32(bits, r), f32_to_u32(bf16_to_f32(bits), r));
            let (half, brain) = (f16::from_bits(bits).to_f64(), bf16::from_bits(bits).to_f64());
            if !half.is_nan() {
                assert_eq!(
                    f16_to_s32(bits, r) as i128,
                    integer(half, r).clamp(i32::MIN as i128, i32::MAX as i128)
                );
                assert_eq!(f16_to_u16(bits, r) as i128, integer(half, r).clamp(0, 65535));
            }
            if !brain.is_nan() {
                assert_eq!(
                    bf16_to_s64(bits, r) as i128,
                    integer(brain, r).clamp(i64::MIN as i128, i64::MAX as i128)
                );
                assert_eq!(bf16_to_s16(bits, r) as i128, integer(brain, r).clamp(-32768, 32767));
            }
        }
    }
    assert_eq!((f16_to_s64(0x7FFF, Zero), bf16_to_u64(0x7FFF, Zero)), (i64::MIN, 1 << 63));
    assert_eq!((f16_to_s32(0x7FFF, Zero), bf16_to_u8(0x7FFF, Zero)), (0, 0));
}

#[test]
fn integral_floats() {
    for value in [0.3, -0.3, 0.5, -0.5, 1.5, 2.5, -2.5, 8388609.0, 1e28, f32::INFINITY, 4194304.5, 1e-45] {
        for r in MODES {
            let expected = if value.is_finite() { integer(value as f64, r) as f32 } else { value };
            let result = round_integral_f32(value, r);
            assert_eq!(result, expected, "{value} {r:?}");
            assert_eq!(result.is_sign_negative(), value.is_sign_negative());
            assert_eq!(round_integral_f64(value as f64, r), expected as f64);
        }
    }
    for bits in 0..=u16::MAX {
        for r in MODES {
            let (half, brain) = (f16::from_bits(bits).to_f64(), bf16::from_bits(bits).to_f64());
            if half.is_finite() {
                assert_eq!(
                    f16_to_f32(round_integral_f16(bits, r)) as f64,
                    integer(half, r) as f64,
                    "{bits:#x} {r:?}"
                );
            }
            if brain.abs() < 1e20 {
                assert_eq!(
                    bf16_to_f32(round_integral_bf16(bits, r)) as f64,
                    integer(brain, r) as f64,
                    "{bits:#x} {r:?}"
                );
            }
        }
    }
    assert_eq!(round_integral_f32(f32::NAN, Zero).to_bits(), 0x7FFF_FFFF);
    assert_eq!(round_integral_f16(0xFE00, Zero), 0x7FFF);
    assert_eq!(f32_to_f64(-1.5), -1.5);
}

#[test]
fn integers_to_floats() {
    let mut values: Vec<i128> =
        vec![0, 1, 2047, 2049, 65519, 65520, 65535, 16777217, 33554433, (1 << 53) + 1];
    for bits in 0..64 {
        values.extend([(1i128 << bits) - 1, 1 << bits, (1 << bits) + 1]);
    }
    values.push(u64::MAX as i128);
    let mut random = Random(7);
    for _ in 0..5_000 {
        let bits = random.next();
        values.push((bits >> (random.next() >> 58)) as i128);
    }
    let negative: Vec<i128> = values.iter().map(|value| -value).collect();
    values.extend(negative);
    for value in values {
        macro_rules! check {
            ($($integer:ty, $f16:path, $bf16:path, $f32:path, $f64:path;)*) => {$(
                if let Ok(small) = <$integer>::try_from(value) {
                    for r in DIRECTED {
                        let order = |q: f64| (q as i128).cmp(&value).then((q - q.trunc()).total_cmp(&0.0));
                        assert!(rounded($f32(small, r), r, order), "{value} f32 {r:?}");
                        assert!(rounded($f64(small, r), r, order), "{value} f64 {r:?}");
                        assert_eq!(f16_to_f32($f16(small, r)), by_definition(value, r, &|bits| f16::from_bits(bits).to_f64()) as f32);
                        assert_eq!(bf16_to_f32($bf16(small, r)), by_definition(value, r, &|bits| bf16::from_bits(bits).to_f64()) as f32);
                    }
                    assert_eq!($f32(small, Nearest), value as f32);
                    assert_eq!($f64(small, Nearest), value as f64);
                    // Nearest even: the result is not farther than either neighbour.
                    let neighbours = [Down, Up].map(|r| by_definition(value, r, &|bits| bf16::from_bits(bits).to_f64()));
                    let [down, up] = neighbours.map(|q| (q as i128 - value).abs());
                    let result = bf16_to_f32($bf16(small, Nearest)) as f64;
                    assert_eq!((result as i128 - value).abs(), down.min(up), "{value}");
                    if down == up && down != 0 {
                        assert_eq!($bf16(small, Nearest) & 1, 0, "{value}");
                    }
                }
            )*};
        }
        check! {
            i8, s8_to_f16, s8_to_bf16, s8_to_f32, s8_to_f64;
            i16, s16_to_f16, s16_to_bf16, s16_to_f32, s16_to_f64;
            i32, s32_to_f16, s32_to_bf16, s32_to_f32, s32_to_f64;
            i64, s64_to_f16, s64_to_bf16, s64_to_f32, s64_to_f64;
            u8, u8_to_f16, u8_to_bf16, u8_to_f32, u8_to_f64;
            u16, u16_to_f16, u16_to_bf16, u16_to_f32, u16_to_f64;
            u32, u32_to_f16, u32_to_bf16, u32_to_f32, u32_to_f64;
            u64, u64_to_f16, u64_to_bf16, u64_to_f32, u64_to_f64;
        }
    }
    assert_eq!(
        [s32_to_f16(65520, Nearest), s32_to_f16(65519, Nearest), u64_to_f16(u64::MAX, Zero)],
        [0x7C00, 0x7BFF, 0x7BFF]
    );
}

/// Directed rounding to a 16-bit float by a search through its values, which are in order.
fn by_definition(value: i128, rounding: Rounding, wide: &dyn Fn(u16) -> f64) -> f64 {
    let up = rounding == Up;
    if value < 0 {
        let mirrored = match rounding {
            Down => Up,
            Up => Down,
            other => other,
        };
        return -by_definition(-value, mirrored, wide);
    }
    let (mut low, mut high) = (0u16, 0x7FFF);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if wide(middle) <= value as f64 && wide(middle) as i128 <= value {
            low = middle
        } else {
            high = middle
        }
    }
    let exact = wide(low) as i128 == value && wide(low).fract() == 0.0;
    if up && !exact { wide(high) } else { wide(low) }
}
