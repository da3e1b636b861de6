//! Floats of any format as exact numbers, and their rounding: the oracle of everything that rounds. One value is
//! (-1)^sign * m * 2^e with a mantissa of 128 bits and a flag for what lies below it, which is enough to round sums,
//! products, fused products, quotients and roots of float64 in every direction.

/// A binary interchange format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    pub exponent: u32,
    pub mantissa: u32,
}

pub const F16: Format = Format { exponent: 5, mantissa: 10 };
pub const BF16: Format = Format { exponent: 8, mantissa: 7 };
pub const TF32: Format = Format { exponent: 8, mantissa: 10 };
pub const F32: Format = Format { exponent: 8, mantissa: 23 };
pub const F64: Format = Format { exponent: 11, mantissa: 52 };

/// A rounding direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero.
    Away,
}

pub const MODES: [(&str, Mode); 4] =
    [("rn", Mode::Nearest), ("rz", Mode::Zero), ("rm", Mode::Down), ("rp", Mode::Up)];

/// (-1)^negative * (m + something in (0, 1) if sticky) * 2^e
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exact {
    pub negative: bool,
    pub m: u128,
    pub e: i32,
    pub sticky: bool,
}

/// What bits of a format mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    Nan,
    Infinite(bool),
    Finite(Exact),
}
pub use Value::{Finite, Infinite, Nan};

impl Format {
    pub fn bits(self) -> u32 {
        1 + self.exponent + self.mantissa
    }

    fn ones(self) -> u64 {
        (1 << self.exponent) - 1
    }

    /// The exponent of the last bit of the smallest normal number, and of all subnormal ones.
    fn lowest(self) -> i32 {
        2 - (1 << (self.exponent - 1)) - self.mantissa as i32
    }

    pub fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    pub fn infinity(self, negative: bool) -> u64 {
        self.ones() << self.mantissa | if negative { self.sign() } else { 0 }
    }

    /// What the GPU gives where the result is no number (PTX ISA 9.7.3, 9.7.4): all bits but the sign.
    pub fn nan(self) -> u64 {
        self.sign() - 1
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign() - 1) > self.infinity(false)
    }

    pub fn one(self) -> u64 {
        (self.ones() >> 1) << self.mantissa
    }

    pub fn value(self, bits: u64) -> Value {
        let negative = bits & self.sign() != 0;
        let (field, low) = (bits >> self.mantissa & self.ones(), bits & ((1 << self.mantissa) - 1));
        if field == self.ones() {
            return if low == 0 { Infinite(negative) } else { Nan };
        }
        let m = if field == 0 { low } else { low | 1 << self.mantissa };
        let e = self.lowest() + field.max(1) as i32 - 1;
        Finite(Exact { negative, m: u128::from(m), e, sticky: false })
    }

    pub fn is_subnormal(self, bits: u64) -> bool {
        let magnitude = bits & (self.sign() - 1);
        magnitude != 0 && magnitude < 1 << self.mantissa
    }

    /// `.ftz`: subnormal numbers become zeros of the same sign.
    pub fn flush(self, bits: u64) -> u64 {
        if self.is_subnormal(bits) { bits & self.sign() } else { bits }
    }

    /// Rounds to this format; zero keeps its sign.
    pub fn round(self, x: Exact, mode: Mode) -> u64 {
        let sign = if x.negative { self.sign() } else { 0 };
        let x = x.normal();
        if x.m == 0 {
            return sign;
        }
        // The top bit is bit 127, so that `shift` is positive.
        let top = x.e + 127;
        let quantum = (top - self.mantissa as i32).max(self.lowest());
        let shift = quantum - x.e;
        let (kept, rest) = if shift > 127 {
            (0, if shift == 128 { x.m } else { 1 })
        } else {
            (x.m >> shift, x.m << (128 - shift))
        };
        let half = 1u128 << 127;
        let exact = rest == 0 && !x.sticky;
        let up = match mode {
            Mode::Nearest => rest > half || rest == half && (x.sticky || kept & 1 == 1),
            Mode::Away => rest >= half,
            Mode::Zero => false,
            Mode::Down => x.negative && !exact,
            Mode::Up => !x.negative && !exact,
        };
        let kept = kept as u64 + u64::from(up);
        // A subnormal number's field is 0, the smallest normal one's 1 by its hidden bit; a carry does the rest.
        let field = (quantum - self.lowest()) as u64;
        let magnitude = if field >= self.ones() { u64::MAX >> 1 } else { (field << self.mantissa) + kept };
        if magnitude < self.infinity(false) {
            return sign | magnitude;
        }
        let outwards = match mode {
            Mode::Nearest | Mode::Away => true,
            Mode::Zero => false,
            Mode::Down => x.negative,
            Mode::Up => !x.negative,
        };
        sign | (self.infinity(false) - u64::from(!outwards))
    }

    /// Rounds a value; no number gives the canonical NaN.
    pub fn encode(self, value: Value, mode: Mode) -> u64 {
        match value {
            Nan => self.nan(),
            Infinite(negative) => self.infinity(negative),
            Finite(x) => self.round(x, mode),
        }
    }
}

impl Exact {
    pub fn integer(value: i128) -> Exact {
        Exact { negative: value < 0, m: value.unsigned_abs(), e: 0, sticky: false }
    }

    fn normal(self) -> Exact {
        if self.m == 0 {
            return self;
        }
        let up = self.m.leading_zeros();
        Exact { m: self.m << up, e: self.e - up as i32, ..self }
    }

    fn product(self, other: Exact) -> Exact {
        let negative = self.negative != other.negative;
        Exact { negative, m: self.m * other.m, e: self.e + other.e, sticky: false }
    }

    /// Of values with at most 106 bits. A zero sum is +0, or -0 when rounding down.
    fn sum(self, other: Exact, mode: Mode) -> Exact {
        if self.m == 0 && other.m == 0 {
            let negative = if self.negative == other.negative { self.negative } else { mode == Mode::Down };
            return Exact { negative, ..self };
        }
        if self.m == 0 || other.m == 0 {
            return if self.m == 0 { other } else { self };
        }
        // Top bits at 126: a sum fits, and a difference that cancels has lost nothing (106 + 20 bits).
        let place = |x: Exact| {
            let x = x.normal();
            debug_assert!(x.m & 1 == 0);
            Exact { m: x.m >> 1, e: x.e + 1, ..x }
        };
        let (a, b) = (place(self), place(other));
        let (a, b) = if (a.e, a.m) >= (b.e, b.m) { (a, b) } else { (b, a) };
        let shift = (a.e - b.e) as u32;
        let (low, lost) =
            if shift > 127 { (0, true) } else { (b.m >> shift, shift > 0 && b.m << (128 - shift) != 0) };
        let m = if a.negative == b.negative { a.m + low } else { a.m - low - u128::from(lost) };
        let negative = if m == 0 && !lost { mode == Mode::Down } else { a.negative };
        Exact { negative, m, e: a.e, sticky: lost }
    }
}

pub fn add(a: Value, b: Value, mode: Mode) -> Value {
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Infinite(a), Infinite(b)) if a != b => Nan,
        (Infinite(sign), _) | (_, Infinite(sign)) => Infinite(sign),
        (Finite(a), Finite(b)) => Finite(a.sum(b, mode)),
    }
}

pub fn negate(a: Value) -> Value {
    match a {
        Nan => Nan,
        Infinite(sign) => Infinite(!sign),
        Finite(a) => Finite(Exact { negative: !a.negative, ..a }),
    }
}

fn negative(a: Value) -> bool {
    matches!(a, Infinite(true)) || matches!(a, Finite(Exact { negative: true, .. }))
}

fn is_zero(a: Value) -> bool {
    matches!(a, Finite(Exact { m: 0, .. }))
}

pub fn multiply(a: Value, b: Value) -> Value {
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Finite(a), Finite(b)) => Finite(a.product(b)),
        _ if is_zero(a) || is_zero(b) => Nan,
        _ => Infinite(negative(a) != negative(b)),
    }
}

pub fn divide(a: Value, b: Value) -> Value {
    let sign = negative(a) != negative(b);
    match (a, b) {
        (Nan, _) | (_, Nan) | (Infinite(_), Infinite(_)) => Nan,
        (Infinite(_), _) => Infinite(sign),
        (_, Infinite(_)) => Finite(Exact { negative: sign, m: 0, e: 0, sticky: false }),
        _ if is_zero(a) && is_zero(b) => Nan,
        _ if is_zero(b) => Infinite(sign),
        (Finite(a), Finite(b)) => {
            // At least 127 - 53 bits of quotient.
            let (a, b) = (a.normal(), Exact { e: b.e, ..b });
            let (m, rest) = (a.m / b.m, a.m % b.m);
            Finite(Exact { negative: sign, m, e: a.e - b.e, sticky: rest != 0 })
        }
    }
}

pub fn root(a: Value) -> Value {
    match a {
        Finite(Exact { m: 0, .. }) => a,
        Nan => Nan,
        Infinite(false) => a,
        _ if negative(a) => Nan,
        Finite(a) => {
            let x = a.normal();
            let x = if x.e % 2 == 0 { x } else { Exact { m: x.m >> 1, e: x.e + 1, ..x } };
            let m = x.m.isqrt();
            Finite(Exact { negative: false, m, e: x.e / 2, sticky: m * m != x.m })
        }
        Infinite(true) => Nan,
    }
}

/// The nearest integer in the direction of `mode`, as a value: a zero keeps the sign of what was rounded.
pub fn integral(a: Value, mode: Mode) -> Value {
    let Finite(x) = a else { return a };
    if x.e >= 0 || x.m == 0 {
        return a;
    }
    let shift = x.e.unsigned_abs();
    let (kept, rest) =
        if shift > 127 { (0, u128::from(x.m != 0)) } else { (x.m >> shift, x.m << (128 - shift)) };
    let half = 1u128 << 127;
    let up = match mode {
        Mode::Nearest => rest > half || rest == half && kept & 1 == 1,
        Mode::Away => rest >= half,
        Mode::Zero => false,
        Mode::Down => x.negative && rest != 0,
        Mode::Up => !x.negative && rest != 0,
    };
    Finite(Exact { negative: x.negative, m: kept + u128::from(up), e: 0, sticky: false })
}

/// The nearest float64, for bounds of approximations.
pub fn approximately(a: Value) -> f64 {
    f64::from_bits(match a {
        Nan => f64::NAN.to_bits(),
        other => F64.encode(other, Mode::Nearest),
    })
}
