//! The `.approx` instructions of PTX ISA 9.7.3 and 9.7.4: each within the error that the manual states ([`BOUNDS`]), with
//! its table of corner cases. They are not the hardware's bits, which no manual gives.
//!
//! Polynomials in float32 without tables, branches or library calls, so that loops over lanes become vector code. Their
//! coefficients interpolate the function at Chebyshev nodes. `mul_add` gives the same bits with and without FMA hardware.
//! A NaN result is the canonical one.

use super::round::{CANONICAL_F32, canonical_f32, ftz_f32};

/// How far an approximation may lie from the exact result; the numbers are powers of two or units in the last place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Error {
    /// At most this many units in the last place of the correctly rounded result.
    Ulps(f64),
    /// At most 2 to this power, relative to the exact result.
    Relative(f64),
    /// At most 2 to this power.
    Absolute(f64),
}

/// What the manual promises: instruction, largest magnitude of the operand, error. PTX ISA 9.7.3.8 to 9.7.3.22, 9.7.4.9
/// and 9.7.4.10. `div.approx` holds for divisors of 2^-126 to 2^126; `lg2`'s absolute bound for operands from 0.5 to 2, the
/// relative one elsewhere.
pub const BOUNDS: &[(&str, f64, Error)] = &[
    ("div.approx.f32", f64::INFINITY, Error::Ulps(2.0)),
    ("div.full.f32", f64::INFINITY, Error::Ulps(2.0)),
    ("rcp.approx.f32", f64::INFINITY, Error::Ulps(1.0)),
    ("sqrt.approx.f32", f64::INFINITY, Error::Relative(-23.0)),
    ("rsqrt.approx.f32", f64::INFINITY, Error::Relative(-22.9)),
    ("sin.approx.f32", 2.0 * std::f64::consts::PI, Error::Absolute(-20.5)),
    ("sin.approx.f32", 100.0 * std::f64::consts::PI, Error::Absolute(-14.7)),
    ("cos.approx.f32", 2.0 * std::f64::consts::PI, Error::Absolute(-20.5)),
    ("cos.approx.f32", 100.0 * std::f64::consts::PI, Error::Absolute(-14.7)),
    ("lg2.approx.f32", 2.0, Error::Absolute(-22.0)),
    ("lg2.approx.f32", f64::INFINITY, Error::Relative(-22.0)),
    ("ex2.approx.f32", f64::INFINITY, Error::Ulps(2.0)),
    ("tanh.approx.f32", f64::INFINITY, Error::Relative(-11.0)),
    ("tanh.approx.f16", f64::INFINITY, Error::Absolute(-10.987)),
    ("tanh.approx.bf16", f64::INFINITY, Error::Absolute(-8.0)),
    ("ex2.approx.f16", f64::INFINITY, Error::Relative(-9.9)),
    ("ex2.approx.ftz.bf16", f64::INFINITY, Error::Relative(-7.0)),
];

/// Horner's rule; the last coefficient is the highest.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut value = 0.0;
    for coefficient in coefficients.into_iter().rev() {
        value = x.mul_add(value, coefficient);
    }
    value
}

/// 2^power for powers from -126 to 127.
#[inline(always)]
fn power_of_two(power: i32) -> f32 {
    f32::from_bits(((power + 127) as u32) << 23)
}

/// 1.5 * 2^23: adding it leaves the nearest integer in the low bits, for magnitudes below 2^22.
const ROUND: f32 = 12_582_912.0;

/// `ex2.approx.f32`: at most 2 ulp. -inf -> +0, -0 and +0 -> 1, +inf -> +inf, NaN -> NaN; subnormals supported.
#[inline(always)]
pub fn ex2_approx(x: f32) -> f32 {
    let capped = if x < 129.0 { x } else { 129.0 };
    let clamped = if capped > -152.0 { capped } else { -152.0 };
    let shifted = clamped + ROUND;
    let whole = shifted - ROUND;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let fraction = clamped - whole;
    // (2^f - 1) / f on [-0.5, 0.5], relative error 2.2e-8.
    let slope = polynomial(
        fraction,
        [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63],
    );
    let mantissa = fraction.mul_add(slope, 1.0);
    // Two factors, since 2^power may be subnormal or infinite by itself: the second rounds once.
    let half = power >> 1;
    let value = mantissa * power_of_two(half) * power_of_two(power - half);
    if x.is_nan() { f32::from_bits(CANONICAL_F32) } else { value }
}

/// `ex2.approx.ftz.f32`: subnormal operands and results are zero.
#[inline(always)]
pub fn ex2_approx_ftz(x: f32) -> f32 {
    ftz_f32(ex2_approx(ftz_f32(x)))
}

/// `lg2.approx.f32`: absolute error at most 2^-22 on (0.5, 2), relative 2^-22 elsewhere. Negative -> NaN, zeros -> -inf,
/// +inf -> +inf; subnormals supported.
#[inline(always)]
pub fn lg2_approx(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 16_777_216.0 } else { x };
    let extra = if small { -24 } else { 0 };
    // Split so that the mantissa lies in [sqrt(1/2), sqrt(2)).
    let offset = scaled.to_bits().wrapping_sub(0x3F35_04F3);
    let exponent = ((offset as i32) >> 23) + extra;
    let mantissa = f32::from_bits((offset & 0x007F_FFFF).wrapping_add(0x3F35_04F3));
    let f = mantissa - 1.0;
    // log2(1 + f) / f, relative error 2e-8.
    let slope = polynomial(
        f,
        [
            std::f32::consts::LOG2_E,
            -0.721_347_33,
            0.480_898_53,
            -0.360_696_55,
            0.288_552_55,
            -0.239_608_12,
            0.204_857_65,
            -0.191_388_38,
            0.184_760_33,
            -0.107_497_89,
        ],
    );
    let value = f.mul_add(slope, exponent as f32);
    let positive = if x == f32::INFINITY { f32::INFINITY } else { value };
    let number = if x == 0.0 { f32::NEG_INFINITY } else { positive };
    if x >= 0.0 { number } else { f32::from_bits(CANONICAL_F32) }
}

/// `lg2.approx.ftz.f32`: subnormal operands count as zero; no result is subnormal.
#[inline(always)]
pub fn lg2_approx_ftz(x: f32) -> f32 {
    ftz_f32(lg2_approx(ftz_f32(x)))
}

/// `rcp.approx.f32`: at most 1 ulp; here correctly rounded. -inf -> -0, -0 -> -inf, +0 -> +inf, +inf -> +0.
#[inline(always)]
pub fn rcp_approx(x: f32) -> f32 {
    canonical_f32(1.0 / x)
}

/// `rcp.approx.ftz.f32`.
#[inline(always)]
pub fn rcp_approx_ftz(x: f32) -> f32 {
    ftz_f32(rcp_approx(ftz_f32(x)))
}

/// `rsqrt.approx.f32`: relative error at most 2^-22.9; two roundings of 2^-24 each. Negative -> NaN, -0 -> -inf,
/// +0 -> +inf, +inf -> +0.
#[inline(always)]
pub fn rsqrt_approx(x: f32) -> f32 {
    canonical_f32(1.0 / x.sqrt())
}

/// `rsqrt.approx.ftz.f32`.
#[inline(always)]
pub fn rsqrt_approx_ftz(x: f32) -> f32 {
    rsqrt_approx(ftz_f32(x))
}

/// `sqrt.approx.f32`: relative error at most 2^-23; here correctly rounded. Negative -> NaN, -0 -> -0.
#[inline(always)]
pub fn sqrt_approx(x: f32) -> f32 {
    canonical_f32(x.sqrt())
}

/// `sqrt.approx.ftz.f32`.
#[inline(always)]
pub fn sqrt_approx_ftz(x: f32) -> f32 {
    sqrt_approx(ftz_f32(x))
}

/// The angle less a multiple of pi/2, in [-pi/4, pi/4], and the quadrant in the low two bits. The angle in quarter turns
/// is a float64; beyond 2^51 quarter turns, where the manual promises nothing, the remainder is 0.
#[inline(always)]
fn quarter_turns(x: f32) -> (f32, u32) {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let turns = x as f64 * std::f64::consts::FRAC_2_PI;
    let shifted = turns + ROUND;
    let whole = shifted - ROUND;
    let rest = turns - whole;
    let inside = if turns.abs() < 2_251_799_813_685_248.0 { rest } else { 0.0 };
    ((inside * std::f64::consts::FRAC_PI_2) as f32, shifted.to_bits() as u32)
}

/// Sine of a remainder in [-pi/4, pi/4].
#[inline(always)]
fn sine(r: f32) -> f32 {
    let square = r * r;
    let cubic = polynomial(square, [-0.166_666_64, 0.008_332_747, -0.000_195_876_39]);
    let value = (r * square).mul_add(cubic, r);
    // The sum would lose the sign of -0.
    if square == 0.0 { r } else { value }
}

/// Cosine of a remainder in [-pi/4, pi/4].
#[inline(always)]
fn cosine(r: f32) -> f32 {
    let square = r * r;
    let quartic = polynomial(square, [0.041_666_664, -0.001_388_830_1, 0.000_024_547_69]);
    (square * square).mul_add(quartic, square.mul_add(-0.5, 1.0))
}

/// `sin.approx.f32`: absolute error at most 2^-20.5 on [-2 pi, 2 pi], 2^-14.7 on [-100 pi, 100 pi], best effort beyond.
/// -0 -> -0, infinities -> NaN.
#[inline(always)]
pub fn sin_approx(x: f32) -> f32 {
    let (r, quadrant) = quarter_turns(x);
    let value = if quadrant & 1 == 0 { sine(r) } else { cosine(r) };
    let signed = f32::from_bits(value.to_bits() ^ (quadrant & 2) << 30);
    if x.is_finite() { signed } else { f32::from_bits(CANONICAL_F32) }
}

/// `sin.approx.ftz.f32`.
#[inline(always)]
pub fn sin_approx_ftz(x: f32) -> f32 {
    ftz_f32(sin_approx(ftz_f32(x)))
}

/// `cos.approx.f32`: as [`sin_approx`]; zeros -> 1.
#[inline(always)]
pub fn cos_approx(x: f32) -> f32 {
    let (r, quadrant) = quarter_turns(x);
    let value = if quadrant & 1 == 0 { cosine(r) } else { sine(r) };
    let signed = f32::from_bits(value.to_bits() ^ (quadrant.wrapping_add(1) & 2) << 30);
    if x.is_finite() { signed } else { f32::from_bits(CANONICAL_F32) }
}

/// `cos.approx.ftz.f32`.
#[inline(always)]
pub fn cos_approx_ftz(x: f32) -> f32 {
    ftz_f32(cos_approx(ftz_f32(x)))
}

/// `tanh.approx.f32`: relative error at most 2^-11; here about 2^-22, since the 16-bit forms use it too. Subnormals pass
/// through, zeros keep their sign, infinities give one with theirs.
#[inline(always)]
pub fn tanh_approx(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = magnitude * magnitude;
    // (tanh x / x - 1) / x^2 on x < 0.55, relative error 6e-8.
    let quotient =
        polynomial(square, [-0.333_333_3, 0.133_331_14, -0.053_909_43, 0.021_309_389, -0.006_610_228]);
    let near = (magnitude * square).mul_add(quotient, magnitude);
    let capped = if magnitude < 10.0 { magnitude } else { 10.0 };
    let power = ex2_approx(capped * (2.0 * std::f32::consts::LOG2_E));
    let far = 1.0 - 2.0 / (power + 1.0);
    let value = if magnitude < 0.55 { near } else { far };
    let signed = f32::from_bits(value.to_bits() | x.to_bits() & 0x8000_0000);
    if x.is_nan() { f32::from_bits(CANONICAL_F32) } else { signed }
}

/// `div.approx.f32`: a * (1 / b), at most 2 ulp for |b| in [2^-126, 2^126]; above that the reciprocal counts as zero, so
/// that an infinite `a` gives NaN and any other a zero of the quotient's sign.
#[inline(always)]
pub fn div_approx(a: f32, b: f32) -> f32 {
    let reciprocal = 1.0 / b;
    let zero = f32::from_bits(b.to_bits() & 0x8000_0000);
    let factor = if b.abs() > power_of_two(126) { zero } else { reciprocal };
    canonical_f32(a * if b.is_nan() { b } else { factor })
}

/// `div.approx.ftz.f32`.
#[inline(always)]
pub fn div_approx_ftz(a: f32, b: f32) -> f32 {
    ftz_f32(div_approx(ftz_f32(a), ftz_f32(b)))
}

/// `div.full.f32`: at most 2 ulp over all operands; here correctly rounded.
#[inline(always)]
pub fn div_full(a: f32, b: f32) -> f32 {
    canonical_f32(a / b)
}

/// `div.full.ftz.f32`.
#[inline(always)]
pub fn div_full_ftz(a: f32, b: f32) -> f32 {
    ftz_f32(div_full(ftz_f32(a), ftz_f32(b)))
}

/// The upper word of a float64 with a zero lower word, subnormals flushed, NaN canonical: what the two float64
/// approximations take and give.
#[inline(always)]
fn upper_word(x: f64) -> f64 {
    let bits = x.to_bits() & 0xFFFF_FFFF_0000_0000;
    let flushed = if bits & 0x7FF0_0000_0000_0000 == 0 { bits & 1 << 63 } else { bits };
    f64::from_bits(if x.is_nan() { 0x7FFF_FFFF_0000_0000 } else { flushed })
}

/// `rcp.approx.ftz.f64`: of the upper word, into the upper word, cut. PTX ISA 9.7.3.14; it states no bound.
#[inline(always)]
pub fn rcp_approx_ftz_f64(x: f64) -> f64 {
    upper_word(1.0 / upper_word(x))
}

/// `rsqrt.approx.ftz.f64`: as [`rcp_approx_ftz_f64`]. PTX ISA 9.7.3.17.
#[inline(always)]
pub fn rsqrt_approx_ftz_f64(x: f64) -> f64 {
    upper_word(1.0 / upper_word(x).sqrt())
}
