//! Rounding of float32 and float64 arithmetic: the four modes of PTX ISA 9.7.3 (`.rn .rz .rm .rp`), flushing, saturation,
//! minimum and maximum, classification.
//!
//! A float32 result with a directed rounding is found in float64: the exact result is a float64 `sum` (to nearest) plus an
//! `error` of which only the sign matters, and from float32's nearest value one step leads to the wanted neighbour. All
//! of it is selects, so it vectorises (`expf` without fast math executes `fma.rm.f32`). Directed float64 results are
//! computed in integers by [`super::exact`].

pub use super::exact::{add_f64, div_f64, fma_f64, mul_f64, rcp_f64, sqrt_f64, sub_f64};
pub use super::extrema::*;

/// Bits of the NaN that float32 instructions return: the GPU keeps no payloads.
pub const CANONICAL_F32: u32 = 0x7FFF_FFFF;
/// Bits of the NaN that this emulator returns for float64; the manual does not name one.
pub const CANONICAL_F64: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// The direction of a rounding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Rounding {
    /// `.rn`, `.rni`: to nearest, ties to even.
    Nearest,
    /// `.rz`, `.rzi`: toward zero.
    Zero,
    /// `.rm`, `.rmi`: toward -infinity.
    Down,
    /// `.rp`, `.rpi`: toward +infinity.
    Up,
}

/// The value, or the canonical NaN. NaN is told by the bits: a compiler may take any NaN for as good as the canonical one,
/// and drop a comparison of floats (it did, for square roots).
#[inline(always)]
pub fn canonical_f32(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7FFF_FFFF > 0x7F80_0000 { CANONICAL_F32 } else { bits })
}

/// The value, or the canonical NaN, told by the bits too.
#[inline(always)]
pub fn canonical_f64(value: f64) -> f64 {
    let bits = value.to_bits();
    f64::from_bits(if bits & (u64::MAX >> 1) > 0x7FF0_0000_0000_0000 { CANONICAL_F64 } else { bits })
}

/// `.ftz`: a subnormal becomes a zero of its sign.
#[inline(always)]
pub fn ftz_f32(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7F80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// `.sat`: clamps to [0, 1]; NaN and -0 become +0.
#[inline(always)]
pub fn saturate_f32(value: f32) -> f32 {
    let capped = if value < 1.0 { value } else { 1.0 };
    if value > 0.0 { capped } else { 0.0 }
}

/// `.sat` for float64, as [`saturate_f32`].
#[inline(always)]
pub fn saturate_f64(value: f64) -> f64 {
    let capped = if value < 1.0 { value } else { 1.0 };
    if value > 0.0 { capped } else { 0.0 }
}

/// The float32 above (toward +infinity) a number that is not a NaN, as bits.
#[inline(always)]
fn above(bits: u32) -> u32 {
    let negative = if bits == 0x8000_0000 { 1 } else { bits.wrapping_sub(1) };
    if bits >> 31 == 0 { bits.wrapping_add(1) } else { negative }
}

/// Rounds the exact value `sum + error` to float32 in a directed mode; `sum` is that value rounded to float64, `error`
/// has the sign of what it lacks. For `Nearest` the value must be `sum` itself.
#[inline(always)]
pub(crate) fn narrow(sum: f64, error: f64, rounding: Rounding) -> f32 {
    let nearest = sum as f32;
    let (bits, worth) = (nearest.to_bits(), nearest as f64);
    let too_high = worth > sum || (worth == sum && error < 0.0);
    let too_low = worth < sum || (worth == sum && error > 0.0);
    let zero = rounding == Rounding::Zero;
    let down = rounding == Rounding::Down || (zero && sum > 0.0);
    let up = rounding == Rounding::Up || (zero && sum < 0.0);
    let lower = if too_high && down { above(bits ^ 0x8000_0000) ^ 0x8000_0000 } else { bits };
    let rounded = if too_low && up { above(bits) } else { lower };
    canonical_f32(f32::from_bits(rounded))
}

/// `cvt.{rn,rz,rm,rp}.f32.f64`.
#[inline(always)]
pub fn f64_to_f32(value: f64, rounding: Rounding) -> f32 {
    narrow(value, 0.0, rounding)
}

/// product + c in a directed mode, the product exact.
#[inline(always)]
fn add_directed(product: f64, c: f64, rounding: Rounding) -> f32 {
    let sum = product + c;
    let shadow = sum - product;
    let error = (product - (sum - shadow)) + (c - shadow);
    // x + -x is -0 toward -infinity; float64 to nearest made it +0.
    let opposite = product.is_sign_negative() || c.is_sign_negative();
    let cancelled = sum == 0.0 && rounding == Rounding::Down && opposite;
    let result = narrow(sum, error, rounding);
    if cancelled { -0.0 } else { result }
}

/// `add.{rn,rz,rm,rp}.f32`.
#[inline(always)]
pub fn add_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::Nearest => canonical_f32(a + b),
        _ => add_directed(a as f64, b as f64, rounding),
    }
}

/// `sub.{rn,rz,rm,rp}.f32`.
#[inline(always)]
pub fn sub_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    add_f32(a, -b, rounding)
}

/// `mul.{rn,rz,rm,rp}.f32`.
#[inline(always)]
pub fn mul_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::Nearest => canonical_f32(a * b),
        _ => narrow(a as f64 * b as f64, 0.0, rounding),
    }
}

/// `fma.{rn,rz,rm,rp}.f32`: one rounding.
#[inline(always)]
pub fn fma_f32(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::Nearest => canonical_f32(a.mul_add(b, c)),
        _ => add_directed(a as f64 * b as f64, c as f64, rounding),
    }
}

/// `div.{rn,rz,rm,rp}.f32`.
#[inline(always)]
pub fn div_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    if rounding == Rounding::Nearest {
        return canonical_f32(a / b);
    }
    let (a, b) = (a as f64, b as f64);
    let quotient = a / b;
    // The remainder is exact: 24 bits of b times 53 of the quotient, far from float64's ends.
    let remainder = (-quotient).mul_add(b, a);
    narrow(quotient, if b < 0.0 { -remainder } else { remainder }, rounding)
}

/// `rcp.{rn,rz,rm,rp}.f32`.
#[inline(always)]
pub fn rcp_f32(a: f32, rounding: Rounding) -> f32 {
    div_f32(1.0, a, rounding)
}

/// `sqrt.{rn,rz,rm,rp}.f32`.
#[inline(always)]
pub fn sqrt_f32(a: f32, rounding: Rounding) -> f32 {
    if rounding == Rounding::Nearest {
        return canonical_f32(a.sqrt());
    }
    let a = a as f64;
    let root = a.sqrt();
    narrow(root, (-root).mul_add(root, a), rounding)
}

/// `copysign.f32 d, a, b`: the sign of `a`, the magnitude of `b` (PTX ISA 9.7.3.2).
#[inline(always)]
pub fn copysign_f32(a: f32, b: f32) -> f32 {
    f32::from_bits(a.to_bits() & 0x8000_0000 | b.to_bits() & 0x7FFF_FFFF)
}

/// `copysign.f64 d, a, b`: the sign of `a`, the magnitude of `b`.
#[inline(always)]
pub fn copysign_f64(a: f64, b: f64) -> f64 {
    f64::from_bits(a.to_bits() & 1 << 63 | b.to_bits() & !(1 << 63))
}

/// What `testp` asks (PTX ISA 9.7.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TestP {
    /// Neither infinite nor NaN.
    Finite,
    /// Infinite.
    Infinite,
    /// Not NaN.
    Number,
    /// NaN.
    NotANumber,
    /// Neither infinite nor NaN nor subnormal; zero counts as normal here.
    Normal,
    /// Subnormal; zero is not.
    Subnormal,
}

/// `testp.f32`.
#[inline(always)]
pub fn testp_f32(value: f32, question: TestP) -> bool {
    answer(value.is_nan(), value.is_infinite(), value.is_subnormal(), question)
}

/// `testp.f64`.
#[inline(always)]
pub fn testp_f64(value: f64, question: TestP) -> bool {
    answer(value.is_nan(), value.is_infinite(), value.is_subnormal(), question)
}

#[inline(always)]
fn answer(nan: bool, infinite: bool, subnormal: bool, question: TestP) -> bool {
    match question {
        TestP::Finite => !nan && !infinite,
        TestP::Infinite => infinite,
        TestP::Number => !nan,
        TestP::NotANumber => nan,
        TestP::Normal => !nan && !infinite && !subnormal,
        TestP::Subnormal => subnormal,
    }
}
