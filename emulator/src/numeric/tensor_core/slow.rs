//! The truncating model for operands that [`super::tile`] does not take: any exponents, NaN and infinities, in 64-bit
//! integers, one result at a time.

use super::tile::{Accumulator, Operand, exponent, stored, zero_exponent};
use crate::numeric::half::{f16_to_f32, f64_to_f16};
use crate::numeric::round::{Rounding, canonical_f32, f64_to_f32};

/// 2^power; powers that are used here lie far inside float64's range.
fn power(power: i32) -> f64 {
    f64::from_bits(((power + 1023) as u64) << 52)
}

/// The terms `start..start + length` of every sum, with the accumulators.
#[cold]
#[inline(never)]
pub(super) fn block<const K: usize, const PARTS: usize>(
    a: &Operand<'_, K, 16>,
    b: &Operand<'_, K, 8>,
    start: usize,
    length: usize,
    fraction: i32,
    accumulator: Accumulator,
    sums: &mut [[f32; 16]; 8],
) {
    for column in 0..8 {
        for row in 0..16 {
            let c = sums[column][row];
            let terms = (start..start + length).map(stored::<K, PARTS>).map(|k| Term {
                a: (a.values[k][row], a.exponents[k][row]),
                b: (b.values[k][column], b.exponents[k][column]),
            });
            let special = terms.clone().fold(finite_to_zero(c), |sum, term| sum + term.special());
            sums[column][row] =
                if special == 0.0 { sum(terms, c, fraction, accumulator) } else { canonical_f32(special) };
        }
    }
}

fn finite_to_zero(value: f32) -> f32 {
    if value.is_finite() { 0.0 } else { value }
}

/// Two factors with their exponents.
#[derive(Clone, Copy)]
struct Term {
    a: (f32, i32),
    b: (f32, i32),
}

impl Term {
    /// What the term contributes if it is NaN or infinite (infinity times zero is NaN), else zero.
    fn special(self) -> f32 {
        if self.a.0.is_finite() && self.b.0.is_finite() { 0.0 } else { self.a.0 * self.b.0 }
    }

    fn is_zero(self) -> bool {
        self.a.0 == 0.0 || self.b.0 == 0.0
    }

    fn exponent(self) -> i32 {
        self.a.1 + self.b.1
    }
}

/// A significand with 10 fraction bits as an integer.
fn significand((value, exponent): (f32, i32)) -> i64 {
    if value == 0.0 { 0 } else { (value as f64 * power(10 - exponent)) as i64 }
}

/// A shift to the left, or toward zero to the right.
fn align(value: i64, shift: i32) -> i64 {
    if shift >= 0 { value << shift } else { value.signum() * (value.abs() >> (-shift).min(63)) }
}

/// The aligned sum of finite terms, rounded.
fn sum(terms: impl Iterator<Item = Term> + Clone, c: f32, fraction: i32, accumulator: Accumulator) -> f32 {
    let smallest = if accumulator == Accumulator::Half { -14 } else { -126 };
    let c_exponent = exponent(c, smallest, zero_exponent(fraction, accumulator));
    let terms = terms.filter(|term| !term.is_zero());
    let largest = terms.clone().map(Term::exponent).fold(c_exponent, i32::max);
    let c_significand = (c as f64 * power(23 - c_exponent)) as i64;
    let mut total = align(c_significand, fraction - 23 - (largest - c_exponent));
    for term in terms {
        let product = significand(term.a) * significand(term.b);
        total += align(product, fraction - 20 - (largest - term.exponent()));
    }
    let value = total as f64 * power(largest - fraction);
    match accumulator {
        Accumulator::Half => f16_to_f32(f64_to_f16(value)),
        // Unlike IEEE's rounding toward zero, the hardware's overflows to infinity.
        Accumulator::Float32 if value.abs() >= power(128) => f32::INFINITY.copysign(value as f32),
        Accumulator::Float32 => f64_to_f32(value, Rounding::Zero),
    }
}
