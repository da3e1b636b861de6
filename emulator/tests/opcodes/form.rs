//! What the table of opcode forms is made of: an instruction, the types of its operands, and the oracle.

use super::exact::{self, Format};

/// The type of an operand: its register, and what values are worth trying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum T {
    /// A predicate.
    P,
    /// An 8-bit value in a 16-bit register.
    B8,
    B16,
    B32,
    B64,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
    /// An amount of a shift, a position or a length: 32 bits, mostly small.
    Amount,
}

impl T {
    /// Bits of the value; a predicate is 0 or 1.
    pub fn bits(self) -> u32 {
        match self {
            T::P => 1,
            T::B8 => 8,
            T::B16 | T::U16 | T::S16 | T::F16 | T::Bf16 => 16,
            T::B64 | T::U64 | T::S64 | T::F64 => 64,
            _ => 32,
        }
    }

    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    pub fn signed(self) -> bool {
        matches!(self, T::S16 | T::S32 | T::S64)
    }

    /// `.s32`, for opcodes.
    pub fn name(self) -> &'static str {
        match self {
            T::P => "pred",
            T::B8 => "b8",
            T::B16 => "b16",
            T::B32 | T::Amount => "b32",
            T::B64 => "b64",
            T::U16 => "u16",
            T::S16 => "s16",
            T::U32 => "u32",
            T::S32 => "s32",
            T::U64 => "u64",
            T::S64 => "s64",
            T::F16 => "f16",
            T::Bf16 => "bf16",
            T::F16x2 => "f16x2",
            T::Bf16x2 => "bf16x2",
            T::F32 => "f32",
            T::F64 => "f64",
        }
    }

    /// The format of floats, of one half of packed ones.
    pub fn format(self) -> Format {
        match self {
            T::F16 | T::F16x2 => exact::F16,
            T::Bf16 | T::Bf16x2 => exact::BF16,
            T::F64 => exact::F64,
            _ => exact::F32,
        }
    }

    /// The integer that the bits mean.
    pub fn integer(self, raw: u64) -> i128 {
        let raw = raw & self.mask();
        if self.signed() && raw >> (self.bits() - 1) & 1 == 1 {
            i128::from(raw) - (1i128 << self.bits())
        } else {
            i128::from(raw)
        }
    }

    /// The bits of an integer, modulo 2^bits.
    pub fn wrap(self, value: i128) -> u64 {
        value as u64 & self.mask()
    }

    /// Smallest and largest integer.
    pub fn range(self) -> (i128, i128) {
        if self.signed() {
            (-(1 << (self.bits() - 1)), (1 << (self.bits() - 1)) - 1)
        } else {
            (0, i128::from(self.mask()))
        }
    }
}

/// What the manual says of a result.
#[derive(Clone, Debug)]
pub enum Want {
    /// These bits.
    Bits(u64),
    /// Any NaN of this format.
    AnyNan(Format),
    /// A float of this format within these distances of the value: relative or absolute, whichever is larger.
    Near { format: Format, value: f64, relative: f64, absolute: f64 },
    /// One of several.
    Either(Vec<Want>),
    /// Two packed halves, the lower first.
    Halves(Box<[Want; 2]>),
    /// The manual leaves it open.
    Anything,
}

impl Want {
    pub fn holds(&self, got: u64) -> bool {
        match self {
            Want::Bits(bits) => got == *bits,
            Want::AnyNan(format) => format.is_nan(got),
            Want::Near { format, value, relative, absolute } => {
                let got = exact::approximately(format.value(got));
                if value.is_infinite() || got.is_infinite() {
                    got == *value
                } else {
                    (got - value).abs() <= (value.abs() * relative).max(*absolute)
                }
            }
            Want::Either(several) => several.iter().any(|want| want.holds(got)),
            Want::Halves(halves) => halves[0].holds(got & 0xFFFF) && halves[1].holds(got >> 16 & 0xFFFF),
            Want::Anything => true,
        }
    }
}

type Oracle = Box<dyn Fn(&[u64]) -> Want + Send + Sync>;

/// One opcode form.
pub struct Form {
    /// The opcode, as reports name it.
    pub opcode: String,
    /// Instructions with `$d`, `$a`, `$b`, `$c`, `$e` for the operands.
    pub text: String,
    pub to: T,
    pub from: Vec<T>,
    pub oracle: Oracle,
}

/// The table.
#[derive(Default)]
pub struct Table {
    pub forms: Vec<Form>,
}

impl Table {
    /// A form whose operands are the destination and the sources in order.
    pub fn add(
        &mut self,
        opcode: impl Into<String>,
        to: T,
        from: &[T],
        oracle: impl Fn(&[u64]) -> Want + Send + Sync + 'static,
    ) {
        let opcode = opcode.into();
        let names = ["$a", "$b", "$c", "$e"];
        let text = format!("{opcode} $d, {}", names[..from.len()].join(", "));
        self.text(opcode, &text, to, from, oracle);
    }

    /// A form written out.
    pub fn text(
        &mut self,
        opcode: impl Into<String>,
        text: &str,
        to: T,
        from: &[T],
        oracle: impl Fn(&[u64]) -> Want + Send + Sync + 'static,
    ) {
        self.forms.push(Form {
            opcode: opcode.into(),
            text: text.to_owned(),
            to,
            from: from.to_vec(),
            oracle: Box::new(oracle),
        });
    }

    /// A form of integers: the oracle gives an integer, of which the low bits count.
    pub fn integers(
        &mut self,
        opcode: impl Into<String>,
        to: T,
        from: &[T],
        oracle: impl Fn(&[i128]) -> i128 + Send + Sync + 'static,
    ) {
        let types = from.to_vec();
        self.add(opcode, to, from, move |raw| {
            let values: Vec<i128> = types.iter().zip(raw).map(|(t, raw)| t.integer(*raw)).collect();
            Want::Bits(to.wrap(oracle(&values)))
        });
    }
}
