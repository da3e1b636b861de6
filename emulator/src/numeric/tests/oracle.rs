//! Exact comparisons in integers of any length, and what it means to be rounded correctly. Nothing here is shared with the
//! code under test.

use crate::numeric::Rounding;
use std::cmp::Ordering;

/// Units of 2^-SCALE: below the product of two float64 subnormals.
const SCALE: i32 = 2200;

/// A magnitude, the lowest 32 bits first.
type Digits = Vec<u32>;

fn parts(value: f64) -> (bool, u64, i32) {
    let bits = value.to_bits();
    let field = (bits >> 52 & 0x7FF) as i32;
    let fraction = bits & ((1 << 52) - 1);
    if field == 0 {
        (value.is_sign_negative(), fraction, -1074)
    } else {
        (value < 0.0, fraction | 1 << 52, field - 1075)
    }
}

fn add_into(sum: &mut Digits, mantissa: u128, shift: i32) {
    let (word, bit) = (shift as usize / 32, shift as usize % 32);
    sum.resize(sum.len().max(word + 7), 0);
    let mut carry = 0u64;
    for i in 0..6 {
        // 32 bits of mantissa << bit.
        let low = if 32 * i >= bit {
            mantissa.checked_shr((32 * i - bit) as u32).unwrap_or(0)
        } else {
            mantissa << bit
        };
        let total = sum[word + i] as u64 + (low as u32) as u64 + carry;
        sum[word + i] = total as u32;
        carry = total >> 32;
    }
    let mut i = word + 6;
    while carry != 0 {
        if i == sum.len() {
            sum.push(0);
        }
        let total = sum[i] as u64 + carry;
        sum[i] = total as u32;
        carry = total >> 32;
        i += 1;
    }
}

/// The sign of the sum of the products of finite factors, exactly.
pub fn sign(terms: &[(f64, f64)]) -> Ordering {
    let (mut positive, mut negative) = (Digits::new(), Digits::new());
    for &(x, y) in terms {
        let ((x_negative, x_mantissa, x_exponent), (y_negative, y_mantissa, y_exponent)) =
            (parts(x), parts(y));
        let sum = if x_negative == y_negative { &mut positive } else { &mut negative };
        add_into(sum, x_mantissa as u128 * y_mantissa as u128, x_exponent + y_exponent + SCALE);
    }
    let length = positive.len().max(negative.len());
    positive.resize(length, 0);
    negative.resize(length, 0);
    positive.iter().rev().cmp(negative.iter().rev())
}

/// A float type whose neighbours are known.
pub trait Float: Copy {
    /// Exactly, as float64.
    fn wide(self) -> f64;
    /// Toward +infinity.
    fn above(self) -> Self;
    /// Toward -infinity.
    fn below(self) -> Self;
}

impl Float for f32 {
    fn wide(self) -> f64 {
        self as f64
    }
    fn above(self) -> f32 {
        self.next_up()
    }
    fn below(self) -> f32 {
        self.next_down()
    }
}

impl Float for f64 {
    fn wide(self) -> f64 {
        self
    }
    fn above(self) -> f64 {
        self.next_up()
    }
    fn below(self) -> f64 {
        self.next_down()
    }
}

/// Whether `result` is the exact value rounded in a directed mode. `compare` orders a finite candidate against the exact
/// value.
pub fn rounded<F: Float>(result: F, rounding: Rounding, compare: impl Fn(f64) -> Ordering) -> bool {
    let order = |candidate: f64| match candidate {
        f64::INFINITY => Ordering::Greater,
        f64::NEG_INFINITY => Ordering::Less,
        _ => compare(candidate),
    };
    let floor = || order(result.wide()).is_le() && order(result.above().wide()).is_gt();
    let ceiling = || order(result.wide()).is_ge() && order(result.below().wide()).is_lt();
    match rounding {
        Rounding::Nearest => unreachable!("directed modes only"),
        Rounding::Down => floor(),
        Rounding::Up => ceiling(),
        // compare(0) tells the sign of the exact value.
        Rounding::Zero if compare(0.0).is_le() => floor(),
        Rounding::Zero => ceiling(),
    }
}

/// The modes that hardware arithmetic does not offer.
pub const DIRECTED: [Rounding; 3] = [Rounding::Zero, Rounding::Down, Rounding::Up];

/// A small generator of test bits (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}
