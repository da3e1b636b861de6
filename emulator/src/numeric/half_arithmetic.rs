//! Arithmetic on f16 and bf16 bits, each result rounded once. PTX ISA 9.7.4.
//!
//! Modifiers are functions of their own, applied around the operation: `.ftz` to operands and result ([`f16_ftz`]), `.sat`
//! ([`f16_saturate`]) and `.relu` ([`super::half::f16_relu`]) to the result.

use super::approx::{ex2_approx, ex2_approx_ftz, tanh_approx};
use super::half::{
    BF16_INFINITY, CANONICAL_16, F16_INFINITY, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f64_to_bf16,
    f64_to_f16,
};

/// a * b + c, exact up to rounding to odd in float64, for operands that are 16-bit floats. The product is exact and no
/// intermediate leaves float64's normal range, so the error of the sum is a float64 (Knuth's two-sum).
#[inline(always)]
fn fma_odd(a: f32, b: f32, c: f32) -> f64 {
    let (product, c) = (a as f64 * b as f64, c as f64);
    let sum = product + c;
    let shadow = sum - product;
    let error = (product - (sum - shadow)) + (c - shadow);
    let bits = sum.to_bits();
    // Toward the error: away from zero when error and sum have one sign.
    let other = if (error > 0.0) == (sum > 0.0) { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    // False for the NaN that an infinite sum leaves.
    let inexact = error.abs() > 0.0;
    f64::from_bits(if inexact && bits & 1 == 0 { other } else { bits })
}

/// `add.rn.f16`. float32 has more than twice the bits, so its rounding before f16's does no harm.
#[inline(always)]
pub fn f16_add(a: u16, b: u16) -> u16 {
    f32_to_f16(f16_to_f32(a) + f16_to_f32(b))
}

/// `sub.rn.f16`.
#[inline(always)]
pub fn f16_sub(a: u16, b: u16) -> u16 {
    f32_to_f16(f16_to_f32(a) - f16_to_f32(b))
}

/// `mul.rn.f16`. The product is exact in float32.
#[inline(always)]
pub fn f16_mul(a: u16, b: u16) -> u16 {
    f32_to_f16(f16_to_f32(a) * f16_to_f32(b))
}

/// `fma.rn.f16`, one rounding.
#[inline(always)]
pub fn f16_fma(a: u16, b: u16, c: u16) -> u16 {
    f64_to_f16(fma_odd(f16_to_f32(a), f16_to_f32(b), f16_to_f32(c)))
}

/// `neg.f16`: flips the sign, of a NaN too.
#[inline(always)]
pub fn f16_neg(a: u16) -> u16 {
    a ^ 0x8000
}

/// `abs.f16`.
#[inline(always)]
pub fn f16_abs(a: u16) -> u16 {
    a & 0x7FFF
}

/// `.ftz`: subnormals become zeros of their sign.
#[inline(always)]
pub fn f16_ftz(a: u16) -> u16 {
    if a & 0x7C00 == 0 { a & 0x8000 } else { a }
}

/// `.sat`: clamps to [0, 1]; NaN becomes +0.
#[inline(always)]
pub fn f16_saturate(a: u16) -> u16 {
    let capped = if a > 0x3C00 { 0x3C00 } else { a };
    if a & 0x8000 != 0 || a > F16_INFINITY { 0 } else { capped }
}

/// `ex2.approx.f16`: relative error at most 2^-9.9. PTX ISA 9.7.4.10.
#[inline(always)]
pub fn f16_ex2(a: u16) -> u16 {
    f32_to_f16(ex2_approx(f16_to_f32(a)))
}

/// `tanh.approx.f16`: absolute error at most 2^-10.987. PTX ISA 9.7.4.9.
#[inline(always)]
pub fn f16_tanh(a: u16) -> u16 {
    f32_to_f16(tanh_approx(f16_to_f32(a)))
}

/// `add.rn.bf16`.
#[inline(always)]
pub fn bf16_add(a: u16, b: u16) -> u16 {
    f32_to_bf16(bf16_to_f32(a) + bf16_to_f32(b))
}

/// `sub.rn.bf16`.
#[inline(always)]
pub fn bf16_sub(a: u16, b: u16) -> u16 {
    f32_to_bf16(bf16_to_f32(a) - bf16_to_f32(b))
}

/// `mul.rn.bf16`. The 16 bits of a product are exact in float32 down to 2^-134, the tie below bf16's smallest subnormal; what is
/// smaller becomes zero whether float32 rounds it before or not.
#[inline(always)]
pub fn bf16_mul(a: u16, b: u16) -> u16 {
    f32_to_bf16(bf16_to_f32(a) * bf16_to_f32(b))
}

/// `fma.rn.bf16`, one rounding.
#[inline(always)]
pub fn bf16_fma(a: u16, b: u16, c: u16) -> u16 {
    f64_to_bf16(fma_odd(bf16_to_f32(a), bf16_to_f32(b), bf16_to_f32(c)))
}

/// `neg.bf16`.
#[inline(always)]
pub fn bf16_neg(a: u16) -> u16 {
    a ^ 0x8000
}

/// `abs.bf16`.
#[inline(always)]
pub fn bf16_abs(a: u16) -> u16 {
    a & 0x7FFF
}

/// `ex2.approx.ftz.bf16`: relative error at most 2^-7; subnormal operands and results count as zero. PTX ISA 9.7.4.10.
#[inline(always)]
pub fn bf16_ex2(a: u16) -> u16 {
    let result = f32_to_bf16(ex2_approx_ftz(bf16_to_f32(a)));
    if result & 0x7F80 == 0 { 0 } else { result }
}

/// `tanh.approx.bf16`: absolute error at most 2^-8. PTX ISA 9.7.4.9.
#[inline(always)]
pub fn bf16_tanh(a: u16) -> u16 {
    f32_to_bf16(tanh_approx(bf16_to_f32(a)))
}

/// Bits of a 16-bit float in an order that integers share: -0 before +0.
#[inline(always)]
fn order(a: u16) -> u16 {
    if a & 0x8000 != 0 { !a } else { a | 0x8000 }
}

/// min or max where a NaN loses against a number; two NaNs give the canonical one.
#[inline(always)]
fn pick(a: u16, b: u16, infinity: u16, largest: bool) -> u16 {
    let (a_nan, b_nan) = (a & 0x7FFF > infinity, b & 0x7FFF > infinity);
    let number = if (order(a) < order(b)) != largest { a } else { b };
    let a_or_number = if b_nan { a } else { number };
    let picked = if a_nan { b } else { a_or_number };
    if a_nan && b_nan { CANONICAL_16 } else { picked }
}

/// min or max where a NaN wins.
#[inline(always)]
fn pick_nan(a: u16, b: u16, infinity: u16, largest: bool) -> u16 {
    let nan = a & 0x7FFF > infinity || b & 0x7FFF > infinity;
    if nan { CANONICAL_16 } else { pick(a, b, infinity, largest) }
}

/// `.xorsign.abs`: of the magnitudes, with the product of the signs; a NaN result is left as it is.
#[inline(always)]
fn pick_xorsign(a: u16, b: u16, infinity: u16, largest: bool, nan_wins: bool) -> u16 {
    let sign = (a ^ b) & 0x8000;
    let (a, b) = (a & 0x7FFF, b & 0x7FFF);
    let loses = pick(a, b, infinity, largest);
    let picked = if nan_wins { pick_nan(a, b, infinity, largest) } else { loses };
    if picked > infinity { picked } else { picked | sign }
}

macro_rules! extrema {
    ($infinity:expr, $format:literal, $min:ident, $max:ident, $min_nan:ident, $max_nan:ident, $min_xor:ident, $max_xor:ident) => {
        #[doc = concat!("`min.", $format, "`: NaN loses, -0 is less than +0. PTX ISA 9.7.4.7.")]
        #[inline(always)]
        pub fn $min(a: u16, b: u16) -> u16 {
            pick(a, b, $infinity, false)
        }
        #[doc = concat!("`max.", $format, "`: NaN loses, -0 is less than +0. PTX ISA 9.7.4.8.")]
        #[inline(always)]
        pub fn $max(a: u16, b: u16) -> u16 {
            pick(a, b, $infinity, true)
        }
        #[doc = concat!("`min.NaN.", $format, "`: NaN wins and is canonical.")]
        #[inline(always)]
        pub fn $min_nan(a: u16, b: u16) -> u16 {
            pick_nan(a, b, $infinity, false)
        }
        #[doc = concat!("`max.NaN.", $format, "`: NaN wins and is canonical.")]
        #[inline(always)]
        pub fn $max_nan(a: u16, b: u16) -> u16 {
            pick_nan(a, b, $infinity, true)
        }
        #[doc = concat!("`min{.NaN}.xorsign.abs.", $format, "`.")]
        #[inline(always)]
        pub fn $min_xor(a: u16, b: u16, nan_wins: bool) -> u16 {
            pick_xorsign(a, b, $infinity, false, nan_wins)
        }
        #[doc = concat!("`max{.NaN}.xorsign.abs.", $format, "`.")]
        #[inline(always)]
        pub fn $max_xor(a: u16, b: u16, nan_wins: bool) -> u16 {
            pick_xorsign(a, b, $infinity, true, nan_wins)
        }
    };
}

extrema!(F16_INFINITY, "f16", f16_min, f16_max, f16_min_nan, f16_max_nan, f16_min_xorsign, f16_max_xorsign);
extrema!(
    BF16_INFINITY,
    "bf16",
    bf16_min,
    bf16_max,
    bf16_min_nan,
    bf16_max_nan,
    bf16_min_xorsign,
    bf16_max_xorsign
);
