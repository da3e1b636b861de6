//! The published models of the tensor cores in 128-bit integers, and operands that try them.

use super::layout::{Element, decode, encode, shape};
use emulator::numeric::Mma;

/// 2^exponent, for exponents that float64 has.
pub fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// A finite float as significand * 2^(exponent - fraction bits), as the models read it.
pub fn fields(value: f32, smallest: i32, fraction_bits: i32) -> (i128, i32) {
    let field = (value.to_bits() >> 23 & 0xFF) as i32;
    let exponent = (field - 127).max(smallest);
    let significand = value.abs() as f64 * power(fraction_bits - exponent);
    assert_eq!(significand.fract(), 0.0);
    (if value < 0.0 { -(significand as i128) } else { significand as i128 }, exponent)
}

/// The published model for one sum: terms cut toward zero below `fraction` bits of the largest exponent, summed, rounded.
pub fn model(kind: Mma, fraction: i32, pairs: &[(f32, f32)], c: f32) -> f32 {
    let (_, element, accumulator) = shape(kind);
    let half = accumulator == Element::F16;
    let specials = pairs.iter().map(|&(a, b)| a * b).chain([c]);
    if pairs.iter().any(|&(a, b)| !a.is_finite() || !b.is_finite()) || !c.is_finite() {
        // The finite products that overflow float32 here are no infinities there.
        let finite = pairs.iter().map(|&(a, b)| a.is_finite() && b.is_finite()).chain([false]);
        let terms: Vec<f32> = specials
            .zip(finite)
            .filter(|&(term, finite)| !finite && !term.is_finite())
            .map(|pair| pair.0)
            .collect();
        let nan = terms.iter().any(|term| term.is_nan());
        let (plus, minus) = (terms.contains(&f32::INFINITY), terms.contains(&f32::NEG_INFINITY));
        return if nan || (plus && minus) {
            f32::NAN
        } else if plus {
            f32::INFINITY
        } else {
            f32::NEG_INFINITY
        };
    }
    let zero = match (half, fraction) {
        (false, 25) => -133,
        (false, _) => -132,
        (true, 25) => -22,
        (true, _) => -21,
    };
    let smallest = if element == Element::F16 { -14 } else { -126 };
    let mut terms: Vec<(i128, i32, i32)> = pairs
        .iter()
        .map(|&(a, b)| {
            let ((x, i), (y, j)) = (fields(a, smallest, 10), fields(b, smallest, 10));
            if x * y == 0 { (0, 20, zero) } else { (x * y, 20, i + j) }
        })
        .collect();
    let (significand, exponent) = fields(c, if half { -14 } else { -126 }, 23);
    terms.push((significand, 23, if c == 0.0 { zero } else { exponent }));
    let largest = terms.iter().map(|term| term.2).fold(i32::MIN, i32::max);
    // Units of 2^(largest - fraction); division cuts toward zero.
    let total: i128 = terms
        .iter()
        .map(|&(significand, bits, exponent)| {
            let shift = fraction - bits + exponent - largest;
            if shift >= 0 { significand << shift } else { significand / (1i128 << (-shift).min(100)) }
        })
        .sum();
    let unit = largest - fraction;
    let magnitude = total.unsigned_abs() as f64 * power(unit);
    if total == 0 {
        return 0.0;
    }
    // The result's step, as a power of two.
    let top = 127 - total.unsigned_abs().leading_zeros() as i32 + unit;
    let step = if half { top.max(-14) - 10 } else { top.max(-126) - 23 };
    let scaled = magnitude / power(step);
    let rounded = if half { scaled.round_ties_even() } else { scaled.trunc() } * power(step);
    let limit = if half { 65520.0 } else { power(128) };
    let value = if rounded >= limit { f32::INFINITY } else { rounded as f32 };
    if total < 0 { -value } else { value }
}

/// Element bits of a kind of operand.
pub fn operand(style: usize, element: Element, bits: u64) -> u32 {
    let (sign, low) = (if bits >> 63 != 0 { -1.0 } else { 1.0 }, (bits & 0xFFFF) as f32);
    let scaled = |power: i32| encode(element, sign * (1.0 + low / 65536.0) * 2f32.powi(power));
    let special = match element {
        Element::Bf16 => [0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x807F, 0x7F7F],
        Element::F16 => [0, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0x0001, 0x83FF, 0x7BFF],
        _ => [0, 1 << 31, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x0000_2000, 0x807F_E000, 0x7F7F_E000],
    };
    match style {
        // About one.
        0 => scaled(0),
        // Exponents all over the format, subnormals too, nothing infinite.
        1 => {
            let any = if element.packed() == 2 { bits as u32 & 0xFFFF } else { bits as u32 };
            if decode(element, any).is_finite() { any } else { scaled(3) }
        }
        // Mixed magnitudes, zeros.
        2 => {
            if bits >> 40 & 7 == 0 {
                0
            } else {
                scaled((bits >> 50 & 31) as i32 - 14)
            }
        }
        // Few significands, so that sums cancel.
        3 => encode(element, sign * [1.0, 1.5, 4096.0, 0.000_244_140_63][(bits & 3) as usize]),
        // Small exponents.
        4 => scaled(-(bits as i32 >> 20 & 15) - if element == Element::F16 { 9 } else { 50 }),
        // Infinities, NaN, subnormals, zeros among numbers.
        5 => {
            if bits >> 50 & 7 == 0 {
                special[(bits >> 40 & 7) as usize]
            } else {
                scaled(0)
            }
        }
        // Large magnitudes of one sign and significands near two: sums that need all their bits, and overflow.
        6 => {
            let power = if element == Element::F16 { 15 } else { 60 + (bits >> 30 & 1) as i32 };
            encode(element, (1.96 + low / 2e6) * 2f32.powi(power))
        }
        // Subnormals and zeros only.
        _ => {
            if bits >> 41 & 1 == 0 {
                special[(bits >> 40 & 1) as usize * 5 + 1]
            } else {
                special[(bits >> 40 & 1) as usize]
            }
        }
    }
}
