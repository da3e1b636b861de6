//! Integer arithmetic and bits: PTX ISA 9.7.1 (integer), 9.7.2 (extended precision), 9.7.8 (logic and shift).

use super::super::context::Context;
use super::super::lanes::{LANES, Lane, Level, Operation as Runs, Rare, binary, compiled, ternary, unary};
use super::{Name, Operation, ints, same, type_of, with};
use crate::program::{Class, Instruction};

const C: Class = Class::Integer;

/// Finds an integer or bit operation.
pub fn find(name: &Name<'_>, l: Level) -> Option<Operation> {
    let t = name.last();
    if ["f16", "f16x2", "bf16", "bf16x2", "f32", "f64", "pred", ""].contains(&t) {
        return None;
    }
    match name.base {
        "add" | "sub" | "mul" | "mad" | "addc" | "subc" | "madc" | "div" | "rem" | "abs" | "neg" | "min"
        | "max" | "sad" | "mul24" | "mad24" => arithmetic(name, t, l),
        _ => bits(name, t, l),
    }
}

fn arithmetic(name: &Name<'_>, t: &str, l: Level) -> Option<Operation> {
    if name.has("cc") || ["addc", "subc", "madc"].contains(&name.base) {
        return carry(name, t, l);
    }
    match name.base {
        "add" | "sub" | "div" | "rem" | "abs" | "neg" | "min" | "max" | "sad" if !name.only(&["sat"]) => None,
        "add" if name.has("sat") && t == "s32" => {
            same(binary(l, |a: i32, b: i32| a.saturating_add(b)), C, t, 2)
        }
        "sub" if name.has("sat") && t == "s32" => {
            same(binary(l, |a: i32, b: i32| a.saturating_sub(b)), C, t, 2)
        }
        _ if name.has("sat") => None,
        "add" if t.ends_with("x2") => same(pairs(l, |a, b| a.wrapping_add(b)), C, t, 2),
        "add" => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a.wrapping_add(b)))?, C, t, 2),
        "sub" => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a.wrapping_sub(b)))?, C, t, 2),
        // Division by zero: all bits set (as the hardware's routine gives), the remainder is the dividend.
        "div" => same(
            ints!(t, l, level, T => binary(level, |a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) }))?,
            C,
            t,
            2,
        ),
        "rem" => same(
            ints!(t, l, level, T => binary(level, |a: T, b: T| if b == 0 { a } else { a.wrapping_rem(b) }))?,
            C,
            t,
            2,
        ),
        "min" if t == "u16x2" => same(pairs(l, |a, b| a.min(b)), C, t, 2),
        "max" if t == "u16x2" => same(pairs(l, |a, b| a.max(b)), C, t, 2),
        "min" if t == "s16x2" => same(pairs(l, |a, b| (a as i16).min(b as i16) as u16), C, t, 2),
        "max" if t == "s16x2" => same(pairs(l, |a, b| (a as i16).max(b as i16) as u16), C, t, 2),
        "min" => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a.min(b)))?, C, t, 2),
        "max" => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a.max(b)))?, C, t, 2),
        "abs" => match t {
            "s16" => same(unary(l, |a: i16| a.wrapping_abs()), C, t, 1),
            "s32" => same(unary(l, |a: i32| a.wrapping_abs()), C, t, 1),
            "s64" => same(unary(l, |a: i64| a.wrapping_abs()), C, t, 1),
            _ => None,
        },
        "neg" => same(ints!(t, l, level, T => unary(level, |a: T| a.wrapping_neg()))?, C, t, 1),
        "sad" => same(
            ints!(t, Rare, level, T => ternary(level, |a: T, b: T, c: T| c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })))?,
            C,
            t,
            3,
        ),
        "mul" if name.only(&["lo"]) && name.has("lo") => {
            same(ints!(t, l, level, T => binary(level, |a: T, b: T| a.wrapping_mul(b)))?, C, t, 2)
        }
        "mul" if name.only(&["hi"]) && name.has("hi") => same(high(t, l)?, C, t, 2),
        "mad" if name.only(&["lo"]) && name.has("lo") => same(
            ints!(t, l, level, T => ternary(level, |a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)))?,
            C,
            t,
            3,
        ),
        "mad" if name.only(&["hi"]) && name.has("hi") => same(mad_high(t)?, C, t, 3),
        "mul" if name.only(&["wide"]) && name.has("wide") => match t {
            "u16" => with(binary(l, |a: u16, b: u16| u32::from(a) * u32::from(b)), C, "u32", &[t; 2]),
            "s16" => with(binary(l, |a: i16, b: i16| i32::from(a) * i32::from(b)), C, "s32", &[t; 2]),
            "u32" => with(binary(l, |a: u32, b: u32| u64::from(a) * u64::from(b)), C, "u64", &[t; 2]),
            "s32" => with(binary(l, |a: i32, b: i32| i64::from(a) * i64::from(b)), C, "s64", &[t; 2]),
            _ => None,
        },
        "mad" if name.only(&["wide"]) && name.has("wide") => match t {
            "u16" => {
                let run = ternary(l, |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c));
                with(run, C, "u32", &[t, t, "u32"])
            }
            "s16" => {
                let run = ternary(l, |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c));
                with(run, C, "s32", &[t, t, "s32"])
            }
            "u32" => {
                let run = ternary(l, |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
                with(run, C, "u64", &[t, t, "u64"])
            }
            "s32" => {
                let run = ternary(l, |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c));
                with(run, C, "s64", &[t, t, "s64"])
            }
            _ => None,
        },
        "mul24" | "mad24" if name.only(&["lo", "hi"]) => {
            fn product<const HIGH: bool>(a: u32, b: u32) -> u32 {
                let full = u64::from(a & 0xFF_FFFF) * u64::from(b & 0xFF_FFFF);
                if HIGH { (full >> 16) as u32 } else { full as u32 }
            }
            fn signed<const HIGH: bool>(a: i32, b: i32) -> i32 {
                let full = i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8);
                if HIGH { (full >> 16) as i32 } else { full as i32 }
            }
            match (name.base, t, name.has("hi")) {
                ("mul24", "u32", false) => {
                    same(binary(Rare, |a: u32, b: u32| product::<false>(a, b)), C, t, 2)
                }
                ("mul24", "u32", true) => same(binary(Rare, |a: u32, b: u32| product::<true>(a, b)), C, t, 2),
                ("mul24", "s32", false) => {
                    same(binary(Rare, |a: i32, b: i32| signed::<false>(a, b)), C, t, 2)
                }
                ("mul24", "s32", true) => same(binary(Rare, |a: i32, b: i32| signed::<true>(a, b)), C, t, 2),
                ("mad24", "u32", false) => same(
                    ternary(Rare, |a: u32, b: u32, c: u32| product::<false>(a, b).wrapping_add(c)),
                    C,
                    t,
                    3,
                ),
                ("mad24", "s32", false) => same(
                    ternary(Rare, |a: i32, b: i32, c: i32| signed::<false>(a, b).wrapping_add(c)),
                    C,
                    t,
                    3,
                ),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The two 16-bit halves of a register.
fn pairs<F: Fn(u16, u16) -> u16 + Copy>(l: Level, f: F) -> crate::program::Run {
    binary(l, move |a: u32, b: u32| {
        u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
    })
}

fn high(t: &str, l: Level) -> Option<crate::program::Run> {
    Some(match t {
        "u16" => binary(l, |a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16),
        "s16" => binary(l, |a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16),
        "u32" => binary(l, |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "s32" => binary(l, |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        "u64" => binary(l, |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        "s64" => binary(l, |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64),
        _ => return None,
    })
}

fn mad_high(t: &str) -> Option<crate::program::Run> {
    Some(match t {
        "u32" => ternary(Rare, |a: u32, b: u32, c: u32| {
            (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
        }),
        "s32" => ternary(Rare, |a: i32, b: i32, c: i32| {
            (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c)
        }),
        "u64" => ternary(Rare, |a: u64, b: u64, c: u64| {
            (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)
        }),
        "s64" => ternary(Rare, |a: i64, b: i64, c: i64| {
            (((i128::from(a) * i128::from(b)) >> 64) as i64).wrapping_add(c)
        }),
        _ => return None,
    })
}

/// Arithmetic with the carry flag: `word` bit 0 reads it, bit 1 writes it; bits 8-9: 0 add, 1 sub, 2 mad.lo, 3 mad.hi.
struct Carry<T>(std::marker::PhantomData<T>);

/// An integer type with carries.
trait Carrying: Lane {
    fn add(a: Self, b: Self, carry: bool) -> (Self, bool);
    fn sub(a: Self, b: Self, borrow: bool) -> (Self, bool);
    fn product(a: Self, b: Self, high: bool) -> Self;
}

macro_rules! carrying {
    ($type:ty, $wide:ty) => {
        impl Carrying for $type {
            #[inline(always)]
            fn add(a: Self, b: Self, carry: bool) -> (Self, bool) {
                let sum = a as $wide + b as $wide + carry as $wide;
                (sum as $type, sum >> <$type>::BITS != 0)
            }
            #[inline(always)]
            fn sub(a: Self, b: Self, borrow: bool) -> (Self, bool) {
                let (difference, first) = a.overflowing_sub(b);
                let (difference, second) = difference.overflowing_sub(borrow as $type);
                (difference, first | second)
            }
            #[inline(always)]
            fn product(a: Self, b: Self, high: bool) -> Self {
                let product = a as $wide * b as $wide;
                if high { (product >> <$type>::BITS) as $type } else { product as $type }
            }
        }
    };
}
carrying!(u32, u64);
carrying!(u64, u128);

impl<T: Carrying> Runs for Carry<T> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (reads, writes, kind) = (i.word & 1 != 0, i.word & 2 != 0, i.word >> 8);
        let mut d = [T::default(); LANES];
        let mut carry = 0u32;
        // SAFETY: the decoder gave the slots.
        unsafe {
            for lane in 0..LANES {
                let (a, b) = (T::get(context.file, i.a, lane), T::get(context.file, i.b, lane));
                let flag = reads && context.carry >> lane & 1 == 1;
                let (value, out) = match kind {
                    0 => T::add(a, b, flag),
                    1 => T::sub(a, b, flag),
                    kind => T::add(T::product(a, b, kind == 3), T::get(context.file, i.c, lane), flag),
                };
                d[lane] = value;
                carry |= u32::from(out) << lane;
            }
            context.file.store(i.d, &d, mask);
        }
        if writes {
            context.carry = context.carry & !mask | carry & mask;
        }
    }
}

fn carry(name: &Name<'_>, t: &str, l: Level) -> Option<Operation> {
    if !name.only(&["cc", "lo", "hi"]) {
        return None;
    }
    let run = match t {
        "u32" | "s32" => compiled::<Carry<u32>>(l),
        "u64" | "s64" => compiled::<Carry<u64>>(l),
        _ => return None,
    };
    // The sign matters to the upper half of a product alone.
    if name.has("hi") && t.starts_with('s') {
        return None;
    }
    let (kind, sources) = match name.base {
        "add" | "addc" => (0, 2),
        "sub" | "subc" => (1, 2),
        _ => (2 + u64::from(name.has("hi")), 3),
    };
    let reads = u64::from(["addc", "subc", "madc"].contains(&name.base));
    let mut operation = same(run, C, t, sources)?;
    operation.word = kind << 8 | u64::from(name.has("cc")) << 1 | reads;
    Some(operation)
}

fn bits(name: &Name<'_>, t: &str, l: Level) -> Option<Operation> {
    let plain = name.qualifiers.len() == 1;
    match name.base {
        "and" if plain => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a & b))?, C, t, 2),
        "or" if plain => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a | b))?, C, t, 2),
        "xor" if plain => same(ints!(t, l, level, T => binary(level, |a: T, b: T| a ^ b))?, C, t, 2),
        "not" if plain => same(ints!(t, l, level, T => unary(level, |a: T| !a))?, C, t, 1),
        "cnot" if plain => same(ints!(t, l, level, T => unary(level, |a: T| T::from(a == 0)))?, C, t, 1),
        // Shifts by the width or more give zero, or the sign.
        "shl" if plain => with(
            ints!(t, l, level, T => binary(level, |a: T, b: u32| a.checked_shl(b).unwrap_or(0)))?,
            C,
            t,
            &[t, "u32"],
        ),
        "shr" if plain => with(
            ints!(t, l, level, T => binary(level, |a: T, b: u32| a >> b.min(T::BITS - 1) & if b >= T::BITS && T::MIN == 0 { 0 } else { !0 }))?,
            C,
            t,
            &[t, "u32"],
        ),
        "shf" if t == "b32" => {
            let run = match (name.qualifiers.first().copied()?, name.qualifiers.get(1).copied()?) {
                ("l", "wrap") => ternary(l, |a: u32, b: u32, c: u32| funnel(a, b, c & 31, true)),
                ("l", "clamp") => ternary(l, |a: u32, b: u32, c: u32| funnel(a, b, c.min(32), true)),
                ("r", "wrap") => ternary(l, |a: u32, b: u32, c: u32| funnel(a, b, c & 31, false)),
                ("r", "clamp") => ternary(l, |a: u32, b: u32, c: u32| funnel(a, b, c.min(32), false)),
                _ => return None,
            };
            same(run, C, t, 3)
        }
        "popc" if t == "b32" => with(unary(l, |a: u32| a.count_ones()), C, "u32", &[t]),
        "popc" if t == "b64" => with(unary(l, |a: u64| a.count_ones()), C, "u32", &[t]),
        "clz" if t == "b32" => with(unary(l, |a: u32| a.leading_zeros()), C, "u32", &[t]),
        "clz" if t == "b64" => with(unary(l, |a: u64| a.leading_zeros()), C, "u32", &[t]),
        "brev" if t == "b32" => same(unary(l, |a: u32| a.reverse_bits()), C, t, 1),
        "brev" if t == "b64" => same(unary(l, |a: u64| a.reverse_bits()), C, t, 1),
        "bfind" => {
            let shift = name.has("shiftamt");
            let run = match (t, shift) {
                ("u32", false) => unary(Rare, |a: u32| find_bit(u64::from(a), 32, false)),
                ("u32", true) => unary(Rare, |a: u32| find_bit(u64::from(a), 32, true)),
                ("s32", false) => {
                    unary(Rare, |a: i32| find_bit(u64::from((a ^ (a >> 31)) as u32), 32, false))
                }
                ("s32", true) => unary(Rare, |a: i32| find_bit(u64::from((a ^ (a >> 31)) as u32), 32, true)),
                ("u64", false) => unary(Rare, |a: u64| find_bit(a, 64, false)),
                ("u64", true) => unary(Rare, |a: u64| find_bit(a, 64, true)),
                ("s64", false) => unary(Rare, |a: i64| find_bit((a ^ (a >> 63)) as u64, 64, false)),
                ("s64", true) => unary(Rare, |a: i64| find_bit((a ^ (a >> 63)) as u64, 64, true)),
                _ => return None,
            };
            with(run, C, "u32", &[t])
        }
        "bfe" => {
            let run = match t {
                "u32" => {
                    ternary(Rare, |a: u32, b: u32, c: u32| extract(u64::from(a), b, c, 32, false) as u32)
                }
                "s32" => ternary(Rare, |a: u32, b: u32, c: u32| extract(u64::from(a), b, c, 32, true) as u32),
                "u64" => ternary(Rare, |a: u64, b: u32, c: u32| extract(a, b, c, 64, false)),
                "s64" => ternary(Rare, |a: u64, b: u32, c: u32| extract(a, b, c, 64, true)),
                _ => return None,
            };
            with(run, C, t, &[t, "u32", "u32"])
        }
        "bmsk" if t == "b32" => {
            let run = if name.has("clamp") {
                binary(Rare, |a: u32, b: u32| field(a.min(32), b.min(32)))
            } else if name.has("wrap") {
                binary(Rare, |a: u32, b: u32| field(a & 31, b & 31))
            } else {
                return None;
            };
            same(run, C, t, 2)
        }
        "prmt" if name.qualifiers.first() == Some(&"b32") => {
            let run = match name.qualifiers.get(1).copied() {
                None => ternary(l, |a: u32, b: u32, c: u32| permute(a, b, c)),
                Some(_) => return permute_mode(name, l),
            };
            same(run, C, t, 3)
        }
        "dp4a" => {
            let types: Vec<&str> = name.qualifiers.clone();
            let run = match types.as_slice() {
                ["u32", "u32"] => ternary(Rare, |a: u32, b: u32, c: u32| dot4(a, b, c, false, false)),
                ["u32", "s32"] => ternary(Rare, |a: u32, b: u32, c: u32| dot4(a, b, c, false, true)),
                ["s32", "u32"] => ternary(Rare, |a: u32, b: u32, c: u32| dot4(a, b, c, true, false)),
                ["s32", "s32"] => ternary(Rare, |a: u32, b: u32, c: u32| dot4(a, b, c, true, true)),
                _ => return None,
            };
            same(run, C, "b32", 3)
        }
        _ => {
            type_of(t)?;
            None
        }
    }
}

/// `shf`: the upper (left) or lower (right) half of b:a shifted.
fn funnel(a: u32, b: u32, shift: u32, left: bool) -> u32 {
    let both = u64::from(b) << 32 | u64::from(a);
    if left { ((u128::from(both) << shift) >> 32) as u32 } else { (u128::from(both) >> shift) as u32 }
}

fn find_bit(a: u64, width: u32, shift: bool) -> u32 {
    if a == 0 {
        return u32::MAX;
    }
    let position = 63 - a.leading_zeros();
    if shift { width - 1 - position } else { position }
}

/// `bfe`: bits [start, start + length) of a, the sign being the field's last bit (or a's, where the field goes beyond).
fn extract(a: u64, start: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (start, length) = (start & 255, length & 255);
    let sign = signed && length > 0 && a >> (start + length - 1).min(width - 1) & 1 == 1;
    (0..width).fold(0, |value, bit| {
        let here = bit < length && start + bit < width;
        let set = if here { a >> (start + bit) & 1 == 1 } else { sign };
        value | u64::from(set) << bit
    })
}

fn field(start: u32, length: u32) -> u32 {
    let ones = if length >= 32 { u64::from(u32::MAX) } else { (1u64 << length) - 1 };
    if start >= 32 { 0 } else { (ones << start) as u32 }
}

/// `prmt`: each nibble of c picks a byte of b:a, its upper bit spreads the byte's sign.
fn permute(a: u32, b: u32, c: u32) -> u32 {
    let both = u64::from(b) << 32 | u64::from(a);
    (0..4).fold(0, |value, byte| {
        let pick = c >> (4 * byte) & 15;
        let picked = (both >> (8 * (pick & 7))) as u8;
        let picked = if pick & 8 != 0 { ((picked as i8) >> 7) as u8 } else { picked };
        value | u32::from(picked) << (8 * byte)
    })
}

fn permute_mode(name: &Name<'_>, l: Level) -> Option<Operation> {
    fn indexed(a: u32, b: u32, c: u32, table: [[u32; 4]; 4]) -> u32 {
        let picks = table[(c & 3) as usize];
        permute(a, b, picks[0] | picks[1] << 4 | picks[2] << 8 | picks[3] << 12)
    }
    let run = match name.qualifiers.get(1).copied()? {
        "f4e" => ternary(l, |a: u32, b: u32, c: u32| {
            indexed(a, b, c, [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]])
        }),
        "b4e" => ternary(l, |a: u32, b: u32, c: u32| {
            indexed(a, b, c, [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]])
        }),
        "rc8" => ternary(l, |a: u32, b: u32, c: u32| indexed(a, b, c, [[0; 4], [1; 4], [2; 4], [3; 4]])),
        "ecl" => ternary(l, |a: u32, b: u32, c: u32| {
            indexed(a, b, c, [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]])
        }),
        "ecr" => ternary(l, |a: u32, b: u32, c: u32| {
            indexed(a, b, c, [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]])
        }),
        "rc16" => ternary(l, |a: u32, b: u32, c: u32| {
            indexed(a, b, c, [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]])
        }),
        _ => return None,
    };
    same(run, C, "b32", 3)
}

fn dot4(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let byte = |value: u32, index: u32, signed: bool| {
        let byte = (value >> (8 * index)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    (0..4)
        .fold(c, |sum, index| sum.wrapping_add((byte(a, index, a_signed) * byte(b, index, b_signed)) as u32))
}
