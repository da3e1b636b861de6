//! Sixteen-bit floats: f16 (1.5.10) and bf16 (1.8.7) as bits, tf32 as float32 bits, and conversions between them and
//! float32 and float64. PTX ISA 9.7.9.21 `cvt`.
//!
//! Everything here is a chain of selects, so that a loop over 32 lanes becomes vector code. Arithmetic on 16-bit floats
//! is in [`super::half_arithmetic`] and re-exported.

pub use super::half_arithmetic::*;

use super::round::{CANONICAL_F32, Rounding};

/// The NaN that every f16 and bf16 operation returns.
pub const CANONICAL_16: u16 = 0x7FFF;
/// Bits of +infinity in f16.
pub const F16_INFINITY: u16 = 0x7C00;
/// Bits of +infinity in bf16.
pub const BF16_INFINITY: u16 = 0x7F80;

/// `cvt.f32.f16`: exact; a NaN becomes the canonical one.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    let magnitude = ((half & 0x7FFF) as u32) << 13;
    // Subnormals: the bits read with exponent 2^-14 and an implicit one, which is then taken off. Exact.
    let subnormal = f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23);
    let normal = f32::from_bits(magnitude + (112 << 23));
    let value = if magnitude < (1 << 23) { subnormal } else { normal };
    let finite = value.to_bits() | ((half & 0x8000) as u32) << 16;
    let special = if magnitude > (0x1F << 23) { CANONICAL_F32 } else { finite | 0x7F80_0000 };
    f32::from_bits(if magnitude >= (0x1F << 23) { special } else { finite })
}

/// `cvt.f32.bf16`: exact; the manual leaves the payload of a NaN open, here it is kept.
#[inline(always)]
pub fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits((half as u32) << 16)
}

/// `cvt.rn.f16.f32`.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    // One half has an ulp of 2^-24, the step of f16's subnormals: adding it rounds to nearest even in hardware.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let even = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_add(0xFFF + even).wrapping_sub(112 << 23) >> 13;
    let rounded = if magnitude < (113 << 23) { subnormal } else { normal };
    let finite = if magnitude >= (143 << 23) { F16_INFINITY as u32 } else { rounded };
    let signed = (finite | (bits >> 16) & 0x8000) as u16;
    if magnitude > 0x7F80_0000 { CANONICAL_16 } else { signed }
}

/// `cvt.rz.f16.f32`: toward zero, so that a finite value never becomes infinite.
#[inline(always)]
pub fn f32_to_f16_rz(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let subnormal = (f32::from_bits(magnitude) * 16_777_216.0) as i32 as u32;
    let normal = magnitude.wrapping_sub(112 << 23) >> 13;
    let cut = if magnitude < (113 << 23) { subnormal } else { normal };
    let finite = if magnitude >= (143 << 23) { 0x7BFF } else { cut };
    let number = if magnitude == 0x7F80_0000 { F16_INFINITY as u32 } else { finite };
    let signed = (number | (bits >> 16) & 0x8000) as u16;
    if magnitude > 0x7F80_0000 { CANONICAL_16 } else { signed }
}

/// `cvt.rn.bf16.f32`.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
    if value.is_nan() { CANONICAL_16 } else { rounded }
}

/// `cvt.rz.bf16.f32`.
#[inline(always)]
pub fn f32_to_bf16_rz(value: f32) -> u16 {
    let cut = (value.to_bits() >> 16) as u16;
    if value.is_nan() { CANONICAL_16 } else { cut }
}

/// float64 to float32 by rounding to odd: exact values stay, of the two neighbours of any other the one with an odd last
/// bit is taken. A further rounding to at most 22 bits then gives what one rounding would have given.
#[inline(always)]
pub fn f64_to_f32_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let bits = nearest.to_bits();
    let back = nearest as f64;
    let other = if back.abs() > value.abs() { bits.wrapping_sub(1) } else { bits.wrapping_add(1) };
    f32::from_bits(if back != value && bits & 1 == 0 { other } else { bits })
}

/// `cvt.rn.f16.f64`, rounded once.
#[inline(always)]
pub fn f64_to_f16(value: f64) -> u16 {
    f32_to_f16(f64_to_f32_odd(value))
}

/// `cvt.rn.bf16.f64`, rounded once.
#[inline(always)]
pub fn f64_to_bf16(value: f64) -> u16 {
    f32_to_bf16(f64_to_f32_odd(value))
}

/// The 16-bit float above `half` (toward +infinity).
#[inline(always)]
fn above_16(half: u16) -> u16 {
    let negative = if half == 0x8000 { 0x0001 } else { half.wrapping_sub(1) };
    if half & 0x8000 == 0 { half.wrapping_add(1) } else { negative }
}

/// The directed rounding of `value`, given its rounding to nearest and what that is worth: one step where the nearest lies
/// on the wrong side. Works for both formats, whose bits order alike.
#[inline(always)]
fn step_16(nearest: u16, worth: f64, value: f64, rounding: Rounding) -> u16 {
    let above = above_16(nearest);
    let below = above_16(nearest ^ 0x8000) ^ 0x8000;
    let zero = rounding == Rounding::Zero;
    let down = rounding == Rounding::Down || (zero && value > 0.0);
    let up = rounding == Rounding::Up || (zero && value < 0.0);
    if worth > value && down {
        below
    } else if worth < value && up {
        above
    } else {
        nearest
    }
}

/// `cvt.{rn,rz,rm,rp}.f16.f64`.
#[inline(always)]
pub fn f64_to_f16_round(value: f64, rounding: Rounding) -> u16 {
    let nearest = f64_to_f16(value);
    step_16(nearest, f16_to_f32(nearest) as f64, value, rounding)
}

/// `cvt.{rn,rz,rm,rp}.bf16.f64`.
#[inline(always)]
pub fn f64_to_bf16_round(value: f64, rounding: Rounding) -> u16 {
    let nearest = f64_to_bf16(value);
    step_16(nearest, bf16_to_f32(nearest) as f64, value, rounding)
}

/// `cvt.{rn,rz,rm,rp}.f16.f32`.
#[inline(always)]
pub fn f32_to_f16_round(value: f32, rounding: Rounding) -> u16 {
    let nearest = f32_to_f16(value);
    step_16(nearest, f16_to_f32(nearest) as f64, value as f64, rounding)
}

/// `cvt.{rn,rz,rm,rp}.bf16.f32`.
#[inline(always)]
pub fn f32_to_bf16_round(value: f32, rounding: Rounding) -> u16 {
    let nearest = f32_to_bf16(value);
    step_16(nearest, bf16_to_f32(nearest) as f64, value as f64, rounding)
}

/// `.satfinite` for f16, applied to a converted value: infinity becomes the largest finite value of its sign (an infinite
/// input too: its absolute value is greater than that); NaN stays NaN. PTX ISA 9.7.9.21.
#[inline(always)]
pub fn f16_satfinite(half: u16) -> u16 {
    if half & 0x7FFF == F16_INFINITY { half - 1 } else { half }
}

/// `.satfinite` for bf16, as [`f16_satfinite`].
#[inline(always)]
pub fn bf16_satfinite(half: u16) -> u16 {
    if half & 0x7FFF == BF16_INFINITY { half - 1 } else { half }
}

/// `.relu` for f16: negative values and -0 become +0, NaN the canonical NaN.
#[inline(always)]
pub fn f16_relu(half: u16) -> u16 {
    let nan = half & 0x7FFF > F16_INFINITY;
    if nan {
        CANONICAL_16
    } else if half & 0x8000 != 0 {
        0
    } else {
        half
    }
}

/// `.relu` for bf16, as [`f16_relu`].
#[inline(always)]
pub fn bf16_relu(half: u16) -> u16 {
    let nan = half & 0x7FFF > BF16_INFINITY;
    if nan {
        CANONICAL_16
    } else if half & 0x8000 != 0 {
        0
    } else {
        half
    }
}

/// `cvt.rna.tf32.f32`: 10 fraction bits, ties away from zero. The low 13 bits of the result are zero; NaN is canonical.
#[inline(always)]
pub fn f32_to_tf32_rna(value: f32) -> u32 {
    let rounded = value.to_bits().wrapping_add(0x1000) & !0x1FFF;
    let number = if value.is_infinite() { value.to_bits() } else { rounded };
    if value.is_nan() { CANONICAL_F32 } else { number }
}

/// `cvt.rn.tf32.f32`: as [`f32_to_tf32_rna`] with ties to even.
#[inline(always)]
pub fn f32_to_tf32_rn(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0xFFF + ((bits >> 13) & 1)) & !0x1FFF;
    if value.is_nan() { CANONICAL_F32 } else { rounded }
}

/// `cvt.rz.tf32.f32`: as [`f32_to_tf32_rna`], cut toward zero.
#[inline(always)]
pub fn f32_to_tf32_rz(value: f32) -> u32 {
    if value.is_nan() { CANONICAL_F32 } else { value.to_bits() & !0x1FFF }
}

/// `.satfinite` for tf32: infinity becomes the largest finite tf32 of its sign.
#[inline(always)]
pub fn tf32_satfinite(bits: u32) -> u32 {
    if bits & 0x7FFF_FFFF == 0x7F80_0000 { bits - 0x2000 } else { bits }
}

/// `.relu` for tf32: negative values and -0 become +0, NaN the canonical NaN.
#[inline(always)]
pub fn tf32_relu(bits: u32) -> u32 {
    let nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    if nan {
        CANONICAL_F32
    } else if bits >> 31 != 0 {
        0
    } else {
        bits
    }
}

/// Two halves in one register. `cvt.*.f16x2.f32 d, a, b` puts `b` into the low half: `pack2(b, a)`.
#[inline(always)]
pub fn pack2(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}

/// The halves of a register: (low, high).
#[inline(always)]
pub fn unpack2(register: u32) -> (u16, u16) {
    (register as u16, (register >> 16) as u16)
}
