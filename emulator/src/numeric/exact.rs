//! float64 arithmetic in the directed rounding modes, in integers.
//!
//! A value is a sign, 128 bits and an exponent. Bits that fall off the right leave a trace in the lowest bit ("jamming"):
//! a directed rounding to 53 bits asks only whether anything was cut off, and the lowest bit lies far below that cut.

use super::round::{Rounding, canonical_f64};

/// (-1)^negative * significand * 2^exponent.
#[derive(Clone, Copy)]
struct Exact {
    negative: bool,
    significand: u128,
    exponent: i32,
}

/// The highest bit that [`Exact::normalised`] sets: two operands can be added without overflow.
const TOP: u32 = 125;

impl Exact {
    fn of(value: f64) -> Exact {
        let bits = value.to_bits();
        let field = ((bits >> 52) & 0x7FF) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 } as u128;
        Exact { negative: value.is_sign_negative(), significand, exponent: field.max(1) - 1075 }
    }

    /// The same value with bit [`TOP`] the highest set one; the significand must have at most that many bits.
    fn normalised(self) -> Exact {
        if self.significand == 0 {
            return self;
        }
        let shift = self.significand.leading_zeros() - (127 - TOP);
        Exact { significand: self.significand << shift, exponent: self.exponent - shift as i32, ..self }
    }

    fn times(self, other: Exact) -> Exact {
        Exact {
            negative: self.negative != other.negative,
            significand: self.significand * other.significand,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The sum of two values of at most 106 bits. Cancellation of more than one bit needs exponents that differ by at most
    /// one, and then nothing is cut off.
    fn plus(self, other: Exact, rounding: Rounding) -> Exact {
        let down = rounding == Rounding::Down;
        if self.significand == 0 && other.significand == 0 {
            let negative = if self.negative == other.negative { self.negative } else { down };
            return Exact { negative, ..self };
        }
        let (a, b) = (self.normalised(), other.normalised());
        let a_first = b.significand == 0 || (a.significand != 0 && a.exponent >= b.exponent);
        let (high, low) = if a_first { (a, b) } else { (b, a) };
        let low_bits = shift_right_jam(low.significand, high.exponent.saturating_sub(low.exponent) as u32);
        let signed =
            high.significand as i128 + if high.negative == low.negative { 1 } else { -1 } * low_bits as i128;
        let negative = if signed == 0 { down } else { high.negative != (signed < 0) };
        Exact { negative, significand: signed.unsigned_abs(), exponent: high.exponent }
    }

    /// To float64 in a directed mode.
    fn round(self, rounding: Rounding) -> f64 {
        let sign = (self.negative as u64) << 63;
        if self.significand == 0 {
            return f64::from_bits(sign);
        }
        let away = match rounding {
            Rounding::Down => self.negative,
            Rounding::Up => !self.negative,
            Rounding::Zero | Rounding::Nearest => false,
        };
        // Keep 53 bits, or down to 2^-1074.
        let bits = 128 - self.significand.leading_zeros() as i32;
        let shift = (bits - 53).max(-1074 - self.exponent);
        let (kept, inexact) = if shift > 127 {
            (0, true)
        } else if shift > 0 {
            (self.significand >> shift, self.significand << (128 - shift) != 0)
        } else {
            (self.significand << -shift, false)
        };
        let rounded = kept as u64 + (inexact && away) as u64;
        // A carry to 2^53 moves into the exponent field by addition; subnormals have the field 0 without being told.
        let exponent = self.exponent + shift;
        let field = if rounded >> 52 == 0 { 0 } else { (exponent + 1074) as u64 };
        if field >= 2046 {
            let overflow = if away { f64::INFINITY } else { f64::MAX };
            return f64::from_bits(overflow.to_bits() | sign);
        }
        f64::from_bits(((field << 52) + rounded) | sign)
    }
}

/// A right shift whose lowest bit remembers what was cut off.
fn shift_right_jam(value: u128, shift: u32) -> u128 {
    if shift == 0 {
        value
    } else if shift > 127 {
        (value != 0) as u128
    } else {
        value >> shift | (value << (128 - shift) != 0) as u128
    }
}

/// `fma.{rn,rz,rm,rp}.f64`.
pub fn fma_f64(a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::Nearest || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return canonical_f64(a.mul_add(b, c));
    }
    Exact::of(a).times(Exact::of(b)).plus(Exact::of(c), rounding).round(rounding)
}

/// `add.{rn,rz,rm,rp}.f64`.
pub fn add_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::Nearest || !a.is_finite() || !b.is_finite() {
        return canonical_f64(a + b);
    }
    Exact::of(a).plus(Exact::of(b), rounding).round(rounding)
}

/// `sub.{rn,rz,rm,rp}.f64`.
pub fn sub_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    add_f64(a, -b, rounding)
}

/// `mul.{rn,rz,rm,rp}.f64`.
pub fn mul_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::Nearest || !a.is_finite() || !b.is_finite() {
        return canonical_f64(a * b);
    }
    Exact::of(a).times(Exact::of(b)).round(rounding)
}

/// `div.{rn,rz,rm,rp}.f64`.
pub fn div_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::Nearest || !a.is_finite() || !b.is_finite() || b == 0.0 {
        return canonical_f64(a / b);
    }
    // 126 bits over at most 53 leave at least 73 bits of quotient.
    let (dividend, divisor) = (Exact::of(a).normalised(), Exact::of(b));
    let quotient = dividend.significand / divisor.significand;
    let remainder = dividend.significand % divisor.significand;
    Exact {
        negative: dividend.negative != divisor.negative,
        significand: quotient | (remainder != 0) as u128,
        exponent: dividend.exponent - divisor.exponent,
    }
    .round(rounding)
}

/// `rcp.{rn,rz,rm,rp}.f64`.
pub fn rcp_f64(a: f64, rounding: Rounding) -> f64 {
    div_f64(1.0, a, rounding)
}

/// `sqrt.{rn,rz,rm,rp}.f64`.
pub fn sqrt_f64(a: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::Nearest || !a.is_finite() || a <= 0.0 {
        return canonical_f64(a.sqrt());
    }
    // An even exponent, and a root of 63 bits, the last one jammed.
    let x = Exact::of(a).normalised();
    let odd = x.exponent & 1;
    let radicand = x.significand << odd;
    let root = radicand.isqrt();
    let significand = root | (root * root != radicand) as u128;
    Exact { negative: false, significand, exponent: (x.exponent - odd) / 2 }.round(rounding)
}
