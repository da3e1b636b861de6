//! Comparisons, selections, predicates and the operations with four operands: PTX ISA 9.7.6, 9.7.7, 9.7.8.

use super::super::context::Context;
use super::super::lanes::{Combine, LANES, Lane, Level, Operation as Runs, Rare, compare, compiled, ternary};
use super::{Name, Operation, is_wide, type_of, with};
use crate::numeric::half::{bf16_to_f32, f16_to_f32};
use crate::numeric::round::ftz_f32;
use crate::program::{Class, Instruction, Run};
use crate::ptx::ast::Type;

const C: Class = Class::Integer;

/// Finds a comparison (`setp`: the destination is a predicate, `set`: see the decoder), `slct`, `lop3`, `bfi`.
pub fn find(name: &Name<'_>, l: Level) -> Option<Operation> {
    match name.base {
        "setp" | "set" => comparison(name, l),
        "slct" if name.qualifiers.len() == 2 => select_by_sign(name),
        "lop3" if name.last() == "b32" && name.qualifiers.len() == 1 => {
            with(compiled::<LookUp>(l), C, "b32", &["b32", "b32", "b32"])
        }
        "bfi" if name.last() == "b32" => {
            with(compiled::<Insert<u32>>(l), C, "b32", &["b32", "b32", "u32", "u32"])
        }
        "bfi" if name.last() == "b64" => {
            with(compiled::<Insert<u64>>(l), C, "b64", &["b64", "b64", "u32", "u32"])
        }
        _ => None,
    }
}

/// Comparisons of floats: the ordered ones are false with a NaN, those that end in `u` are true.
macro_rules! floats {
    ($how:expr, $l:expr, $A:ty, $value:expr) => {
        match $how {
            "eq" => compare($l, |a: $A, b: $A| $value(a) == $value(b)),
            "ne" => compare($l, |a: $A, b: $A| $value(a) < $value(b) || $value(a) > $value(b)),
            "lt" => compare($l, |a: $A, b: $A| $value(a) < $value(b)),
            "le" => compare($l, |a: $A, b: $A| $value(a) <= $value(b)),
            "gt" => compare($l, |a: $A, b: $A| $value(a) > $value(b)),
            "ge" => compare($l, |a: $A, b: $A| $value(a) >= $value(b)),
            "equ" => compare($l, |a: $A, b: $A| !($value(a) < $value(b) || $value(a) > $value(b))),
            "neu" => compare($l, |a: $A, b: $A| $value(a) != $value(b)),
            "ltu" => compare($l, |a: $A, b: $A| !($value(a) >= $value(b))),
            "leu" => compare($l, |a: $A, b: $A| !($value(a) > $value(b))),
            "gtu" => compare($l, |a: $A, b: $A| !($value(a) <= $value(b))),
            "geu" => compare($l, |a: $A, b: $A| !($value(a) < $value(b))),
            "num" => compare($l, |a: $A, b: $A| !$value(a).is_nan() && !$value(b).is_nan()),
            "nan" => compare($l, |a: $A, b: $A| $value(a).is_nan() || $value(b).is_nan()),
            _ => return None,
        }
    };
}

fn comparison(name: &Name<'_>, l: Level) -> Option<Operation> {
    let how = name.qualifiers.first().copied()?;
    let rest = &name.qualifiers[1..];
    let t = name.last();
    let combine = rest.iter().find_map(|q| match *q {
        "and" => Some(Combine::And),
        "or" => Some(Combine::Or),
        "xor" => Some(Combine::Xor),
        _ => None,
    });
    if rest.iter().any(|q| !["and", "or", "xor", "ftz"].contains(q) && type_of(q).is_none()) {
        return None;
    }
    let run = match t {
        "f32" if name.has("ftz") => floats!(how, Rare, f32, ftz_f32),
        "f32" => floats!(how, l, f32, |x: f32| x),
        "f64" => floats!(how, Rare, f64, |x: f64| x),
        "f16" => floats!(how, Rare, u16, f16_to_f32),
        "bf16" => floats!(how, Rare, u16, bf16_to_f32),
        _ => integers(how, t, l)?,
    };
    let element = type_of(t)?;
    let word = combine.map_or(0, |combine| combine as u64);
    Some(Operation { run, class: C, destination: Type::Pred, sources: vec![element; 2], word })
}

fn integers(how: &str, t: &str, l: Level) -> Option<Run> {
    // lo, ls, hi, hs are the unsigned names.
    if ["lo", "ls", "hi", "hs"].contains(&how) && !t.starts_with('u') {
        return None;
    }
    super::ints!(t, l, level, T => match how {
        "eq" => compare(level, |a: T, b: T| a == b),
        "ne" => compare(level, |a: T, b: T| a != b),
        "lt" | "lo" => compare(level, |a: T, b: T| a < b),
        "le" | "ls" => compare(level, |a: T, b: T| a <= b),
        "gt" | "hi" => compare(level, |a: T, b: T| a > b),
        "ge" | "hs" => compare(level, |a: T, b: T| a >= b),
        _ => return None,
    })
}

/// `slct`: a where c >= 0, else b; the first type is a's, the second c's.
fn select_by_sign(name: &Name<'_>) -> Option<Operation> {
    let (t, by) = (name.qualifiers[0], name.qualifiers[1]);
    let wide = is_wide(type_of(t)?);
    let run = match (by, wide) {
        ("s32", false) => ternary(Rare, |a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        ("s32", true) => ternary(Rare, |a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        ("f32", false) => ternary(Rare, |a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b }),
        ("f32", true) => ternary(Rare, |a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
        _ => return None,
    };
    with(run, C, t, &[t, t, by])
}

/// `lop3`: any function of three bits, as a table in `word`.
struct LookUp;

impl Runs for LookUp {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let table: [u32; 8] = std::array::from_fn(|bit| if i.word >> bit & 1 == 1 { u32::MAX } else { 0 });
        // SAFETY: the decoder gave the slots.
        unsafe {
            let mut d = [0u32; LANES];
            for (lane, d) in d.iter_mut().enumerate() {
                let a = u32::get(context.file, i.a, lane);
                let b = u32::get(context.file, i.b, lane);
                let c = u32::get(context.file, i.c, lane);
                *d = table[0] & !a & !b & !c
                    | table[1] & !a & !b & c
                    | table[2] & !a & b & !c
                    | table[3] & !a & b & c
                    | table[4] & a & !b & !c
                    | table[5] & a & !b & c
                    | table[6] & a & b & !c
                    | table[7] & a & b & c;
            }
            context.file.store(i.d, &d, mask);
        }
    }
}

/// `bfi`: the low bits of a put into b at position c, e bits long.
struct Insert<T>(std::marker::PhantomData<T>);

trait Bits: Lane {
    fn insert(a: Self, b: Self, start: u32, length: u32) -> Self;
}

macro_rules! insertable {
    ($type:ty) => {
        impl Bits for $type {
            #[inline(always)]
            fn insert(a: Self, b: Self, start: u32, length: u32) -> Self {
                let ones = if length >= <$type>::BITS { <$type>::MAX } else { ((1 as $type) << length) - 1 };
                let field = ones.checked_shl(start).unwrap_or(0);
                b & !field | a.checked_shl(start).unwrap_or(0) & field
            }
        }
    };
}
insertable!(u32);
insertable!(u64);

impl<T: Bits> Runs for Insert<T> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        // SAFETY: the decoder gave the slots.
        unsafe {
            let mut d = [T::default(); LANES];
            for (lane, d) in d.iter_mut().enumerate() {
                let (a, b) = (T::get(context.file, i.a, lane), T::get(context.file, i.b, lane));
                let start = u32::get(context.file, i.c, lane) & 255;
                let length = u32::get(context.file, i.e, lane) & 255;
                *d = T::insert(a, b, start, length);
            }
            context.file.store(i.d, &d, mask);
        }
    }
}
