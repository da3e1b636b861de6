//! `cvt` between floats and integers, and from floats to integral floats. PTX ISA 9.7.9.21.
//!
//! Float to integer: rounded to an integer, then clamped to the destination's range. A NaN gives 0 when the source is not
//! `.f64` and the destination is not `.s64` or `.u64`; otherwise only the destination's highest bit is set. So say the
//! manual's integer notes from version 9.0 on, and so does NVIDIA's documentation of the CUDA functions (`__double2int_rz`,
//! `__float2ll_rz`, `__half2ll_rz`); the manuals before said 0 for all.

use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f64_to_bf16_round, f64_to_f16_round};
use super::round::{Rounding, canonical_f32, canonical_f64};

/// `cvt.{rni,rzi,rmi,rpi}.f32.f32`: the integer as a float, the sign of a zero result kept.
#[inline(always)]
pub fn round_integral_f32(value: f32, rounding: Rounding) -> f32 {
    canonical_f32(match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    })
}

/// `cvt.{rni,rzi,rmi,rpi}.f64.f64`.
#[inline(always)]
pub fn round_integral_f64(value: f64, rounding: Rounding) -> f64 {
    canonical_f64(match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    })
}

/// `cvt.{rni,rzi,rmi,rpi}.f16.f16`.
#[inline(always)]
pub fn round_integral_f16(value: u16, rounding: Rounding) -> u16 {
    f32_to_f16(round_integral_f32(f16_to_f32(value), rounding))
}

/// `cvt.{rni,rzi,rmi,rpi}.bf16.bf16`.
#[inline(always)]
pub fn round_integral_bf16(value: u16, rounding: Rounding) -> u16 {
    f32_to_bf16(round_integral_f32(bf16_to_f32(value), rounding))
}

/// `cvt.f64.f32`: exact.
#[inline(always)]
pub fn f32_to_f64(value: f32) -> f64 {
    canonical_f64(value as f64)
}

macro_rules! float_to_integer {
    ($($integer:ty, $name:literal, $nan:expr, $f16:ident, $bf16:ident, $f32:ident, $f64:ident;)*) => {$(
        #[doc = concat!("`cvt.{rni,rzi,rmi,rpi}.", $name, ".f32`: clamped; see the module for NaN.")]
        #[inline(always)]
        pub fn $f32(value: f32, rounding: Rounding) -> $integer {
            let integral = match rounding {
                Rounding::Nearest => value.round_ties_even(),
                // The conversion itself cuts toward zero.
                Rounding::Zero => value,
                Rounding::Down => value.floor(),
                Rounding::Up => value.ceil(),
            };
            // What `integral as $integer` does, in selects that vectorise.
            let (low, high) = (<$integer>::MIN as f32, 2.0 * (1u64 << (<$integer>::BITS - 1)) as f32);
            let high = if <$integer>::MIN == 0 { high } else { high / 2.0 };
            let raised = if integral > low { integral } else { low };
            let inside = if raised < high { raised } else { low };
            // SAFETY: low <= inside < high, the range of the integer, and NaN has become `low`.
            let integer = unsafe { inside.to_int_unchecked::<$integer>() };
            let clamped = if integral >= high { <$integer>::MAX } else { integer };
            if value.is_nan() { $nan } else { clamped }
        }

        #[doc = concat!("`cvt.{rni,rzi,rmi,rpi}.", $name, ".f64`: clamped; NaN sets the highest bit alone.")]
        #[inline(always)]
        pub fn $f64(value: f64, rounding: Rounding) -> $integer {
            let integral = match rounding {
                Rounding::Nearest => value.round_ties_even(),
                Rounding::Zero => value,
                Rounding::Down => value.floor(),
                Rounding::Up => value.ceil(),
            };
            if value.is_nan() { 1 << (<$integer>::BITS - 1) } else { integral as $integer }
        }

        #[doc = concat!("`cvt.{rni,rzi,rmi,rpi}.", $name, ".f16`: clamped; see the module for NaN.")]
        #[inline(always)]
        pub fn $f16(value: u16, rounding: Rounding) -> $integer {
            $f32(f16_to_f32(value), rounding)
        }

        #[doc = concat!("`cvt.{rni,rzi,rmi,rpi}.", $name, ".bf16`: clamped; see the module for NaN.")]
        #[inline(always)]
        pub fn $bf16(value: u16, rounding: Rounding) -> $integer {
            $f32(bf16_to_f32(value), rounding)
        }
    )*};
}

float_to_integer! {
    i8, "s8", 0, f16_to_s8, bf16_to_s8, f32_to_s8, f64_to_s8;
    i16, "s16", 0, f16_to_s16, bf16_to_s16, f32_to_s16, f64_to_s16;
    i32, "s32", 0, f16_to_s32, bf16_to_s32, f32_to_s32, f64_to_s32;
    i64, "s64", i64::MIN, f16_to_s64, bf16_to_s64, f32_to_s64, f64_to_s64;
    u8, "u8", 0, f16_to_u8, bf16_to_u8, f32_to_u8, f64_to_u8;
    u16, "u16", 0, f16_to_u16, bf16_to_u16, f32_to_u16, f64_to_u16;
    u32, "u32", 0, f16_to_u32, bf16_to_u32, f32_to_u32, f64_to_u32;
    u64, "u64", 1 << 63, f16_to_u64, bf16_to_u64, f32_to_u64, f64_to_u64;
}

/// Which way, if any, a value that was rounded to nearest has to step: +1 up, -1 down. `nearest` and `exact` are the two
/// values as integers.
#[inline(always)]
fn step(nearest: i128, exact: i128, rounding: Rounding) -> i32 {
    let zero = rounding == Rounding::Zero;
    let down = rounding == Rounding::Down || (zero && exact > 0);
    let up = rounding == Rounding::Up || (zero && exact < 0);
    (nearest < exact && up) as i32 - (nearest > exact && down) as i32
}

/// A 64-bit integer as a float64 by rounding to odd, which a later rounding to a 16-bit float does not notice.
#[inline(always)]
fn to_odd_f64(exact: i128) -> f64 {
    let nearest = exact as f64;
    let back = nearest as i128;
    let bits = nearest.to_bits();
    let away = (back < exact) == (exact > 0);
    let other = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if back != exact && bits & 1 == 0 { other } else { bits })
}

macro_rules! integer_to_float {
    ($($integer:ty, $name:literal, $f16:ident, $bf16:ident, $f32:ident, $f64:ident;)*) => {$(
        #[doc = concat!("`cvt.{rn,rz,rm,rp}.f32.", $name, "`.")]
        #[inline(always)]
        pub fn $f32(value: $integer, rounding: Rounding) -> f32 {
            let nearest = value as f32;
            if rounding == Rounding::Nearest {
                return nearest;
            }
            // An inexact result is far from zero and from the ends, so a step is one unit of the bits.
            let step = step(nearest as i128, value as i128, rounding) * if nearest < 0.0 { -1 } else { 1 };
            f32::from_bits(nearest.to_bits().wrapping_add_signed(step))
        }

        #[doc = concat!("`cvt.{rn,rz,rm,rp}.f64.", $name, "`.")]
        #[inline(always)]
        pub fn $f64(value: $integer, rounding: Rounding) -> f64 {
            let nearest = value as f64;
            if rounding == Rounding::Nearest {
                return nearest;
            }
            let step = step(nearest as i128, value as i128, rounding) * if nearest < 0.0 { -1 } else { 1 };
            f64::from_bits(nearest.to_bits().wrapping_add_signed(step as i64))
        }

        #[doc = concat!("`cvt.{rn,rz,rm,rp}.f16.", $name, "`.")]
        #[inline(always)]
        pub fn $f16(value: $integer, rounding: Rounding) -> u16 {
            f64_to_f16_round(to_odd_f64(value as i128), rounding)
        }

        #[doc = concat!("`cvt.{rn,rz,rm,rp}.bf16.", $name, "`.")]
        #[inline(always)]
        pub fn $bf16(value: $integer, rounding: Rounding) -> u16 {
            f64_to_bf16_round(to_odd_f64(value as i128), rounding)
        }
    )*};
}

integer_to_float! {
    i8, "s8", s8_to_f16, s8_to_bf16, s8_to_f32, s8_to_f64;
    i16, "s16", s16_to_f16, s16_to_bf16, s16_to_f32, s16_to_f64;
    i32, "s32", s32_to_f16, s32_to_bf16, s32_to_f32, s32_to_f64;
    i64, "s64", s64_to_f16, s64_to_bf16, s64_to_f32, s64_to_f64;
    u8, "u8", u8_to_f16, u8_to_bf16, u8_to_f32, u8_to_f64;
    u16, "u16", u16_to_f16, u16_to_bf16, u16_to_f32, u16_to_f64;
    u32, "u32", u32_to_f16, u32_to_bf16, u32_to_f32, u32_to_f64;
    u64, "u64", u64_to_f16, u64_to_bf16, u64_to_f32, u64_to_f64;
}
