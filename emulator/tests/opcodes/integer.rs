//! Integer arithmetic, logic, shifts, bit fields: PTX ISA 9.7.1, 9.7.2, 9.7.8, 9.7.9. The oracles compute with integers
//! of 128 bits, or bit by bit as the manual writes it.

use super::form::{T, Table, Want};

const ALL: [T; 6] = [T::U16, T::S16, T::U32, T::S32, T::U64, T::S64];
const WIDE: [(T, T); 4] = [(T::U16, T::U32), (T::S16, T::S32), (T::U32, T::U64), (T::S32, T::S64)];
const BITS: [T; 3] = [T::B16, T::B32, T::B64];

pub fn table() -> Table {
    let mut table = Table::default();
    arithmetic(&mut table);
    products(&mut table);
    carries(&mut table);
    packed(&mut table);
    super::bits::forms(&mut table);
    table
}

fn clamp(t: T, value: i128) -> i128 {
    let (low, high) = t.range();
    value.clamp(low, high)
}

fn arithmetic(table: &mut Table) {
    for t in ALL {
        let n = t.name();
        table.integers(format!("add.{n}"), t, &[t, t], |v| v[0] + v[1]);
        table.integers(format!("sub.{n}"), t, &[t, t], |v| v[0] - v[1]);
        table.integers(format!("min.{n}"), t, &[t, t], |v| v[0].min(v[1]));
        table.integers(format!("max.{n}"), t, &[t, t], |v| v[0].max(v[1]));
        table.integers(format!("sad.{n}"), t, &[t, t, t], |v| v[2] + (v[0] - v[1]).abs());
        // Division by zero: "yields an unspecified, machine-specific value".
        table.add(format!("div.{n}"), t, &[t, t], move |v| match (t.integer(v[0]), t.integer(v[1])) {
            (_, 0) => Want::Anything,
            (a, b) => Want::Bits(t.wrap(a / b)),
        });
        table.add(format!("rem.{n}"), t, &[t, t], move |v| match (t.integer(v[0]), t.integer(v[1])) {
            (_, 0) => Want::Anything,
            (a, b) => Want::Bits(t.wrap(a % b)),
        });
        if t.signed() {
            table.integers(format!("neg.{n}"), t, &[t], |v| -v[0]);
            table.integers(format!("abs.{n}"), t, &[t], |v| v[0].abs());
        }
    }
    table.integers("add.sat.s32", T::S32, &[T::S32; 2], |v| clamp(T::S32, v[0] + v[1]));
    table.integers("sub.sat.s32", T::S32, &[T::S32; 2], |v| clamp(T::S32, v[0] - v[1]));
}

/// The product's two halves; the low 128 bits of a product of 64-bit values are exact for either sign.
fn product(t: T, a: i128, b: i128) -> (i128, i128) {
    let full = a.wrapping_mul(b) as u128;
    (full as i128, (full >> t.bits()) as i128)
}

fn products(table: &mut Table) {
    for t in ALL {
        let n = t.name();
        table.integers(format!("mul.lo.{n}"), t, &[t; 2], move |v| product(t, v[0], v[1]).0);
        table.integers(format!("mul.hi.{n}"), t, &[t; 2], move |v| product(t, v[0], v[1]).1);
        table.integers(format!("mad.lo.{n}"), t, &[t; 3], move |v| {
            product(t, v[0], v[1]).0.wrapping_add(v[2])
        });
        if t.bits() > 16 {
            table.integers(format!("mad.hi.{n}"), t, &[t; 3], move |v| {
                product(t, v[0], v[1]).1.wrapping_add(v[2])
            });
        }
    }
    for (t, wide) in WIDE {
        table.integers(format!("mul.wide.{}", t.name()), wide, &[t, t], |v| v[0] * v[1]);
        table.integers(format!("mad.wide.{}", t.name()), wide, &[t, t, wide], |v| v[0] * v[1] + v[2]);
    }
    for t in [T::U32, T::S32] {
        // The low 24 bits of each operand, with the sign of bit 23; .hi is bits 16 to 47 of the 48.
        let low24 = move |x: i128| {
            let x = x & 0xFF_FFFF;
            if t.signed() && x >> 23 == 1 { x - 0x100_0000 } else { x }
        };
        let n = t.name();
        table.integers(format!("mul24.lo.{n}"), t, &[t; 2], move |v| low24(v[0]) * low24(v[1]));
        table.integers(format!("mul24.hi.{n}"), t, &[t; 2], move |v| (low24(v[0]) * low24(v[1])) >> 16);
        table.integers(format!("mad24.lo.{n}"), t, &[t; 3], move |v| low24(v[0]) * low24(v[1]) + v[2]);
    }
}

/// Sums of two registers: the sequence gives the upper one, and the lower one with `low`.
fn carries(table: &mut Table) {
    for t in [T::U32, T::S32, T::U64, T::S64] {
        let n = t.name();
        let unsigned = if t.bits() == 64 { T::U64 } else { T::U32 };
        let value = move |raw: u64| unsigned.integer(raw) as u128;
        let size = t.bits();
        let low = if size == 64 { "%l9" } else { "%r9" };
        let four = [t; 4];
        // (a, b) and (c, e) as numbers of two registers, a and c the lower ones.
        let sum = move |v: &[u64]| {
            let (first, carry) = (value(v[0]) + value(v[2]), (value(v[0]) + value(v[2])) >> size);
            (first, value(v[1]).wrapping_add(value(v[3])).wrapping_add(carry))
        };
        let bits = move |value: u128| Want::Bits(value as u64 & t.mask());
        let text = format!("add.cc.{n} {low}, $a, $c; addc.{n} $d, $b, $e");
        table.text(format!("addc.{n}"), &text, t, &four, move |v| bits(sum(v).1));
        let text = format!("add.cc.{n} $d, $a, $c; addc.{n} {low}, $b, $e");
        table.text(format!("add.cc.{n}"), &text, t, &four, move |v| bits(sum(v).0));
        let text = format!("add.cc.{n} {low}, $a, $c; addc.cc.{n} {low}, $b, $e; addc.{n} $d, 0, 0");
        table.text(format!("addc.cc.{n}"), &text, t, &four, move |v| bits(sum(v).1 >> size));
        let borrow = move |v: &[u64]| {
            let first = value(v[0]).wrapping_sub(value(v[2]));
            let borrow = u128::from(value(v[0]) < value(v[2]));
            (first, value(v[1]).wrapping_sub(value(v[3])).wrapping_sub(borrow))
        };
        let text = format!("sub.cc.{n} {low}, $a, $c; subc.{n} $d, $b, $e");
        table.text(format!("subc.{n}"), &text, t, &four, move |v| bits(borrow(v).1));
        let text = format!("sub.cc.{n} $d, $a, $c; subc.{n} {low}, $b, $e");
        table.text(format!("sub.cc.{n}"), &text, t, &four, move |v| bits(borrow(v).0));
        // The borrow shows as -1 in the next register.
        let text = format!("sub.cc.{n} {low}, $a, $c; subc.cc.{n} {low}, $b, $e; subc.{n} $d, 0, 0");
        table.text(format!("subc.cc.{n}"), &text, t, &four, move |v| {
            bits((borrow(v).1 >> 127) * u128::from(t.mask()))
        });
        // The emulator has no upper halves of signed products with carries.
        let parts: &[&str] = if t.signed() { &["lo"] } else { &["lo", "hi"] };
        for &half in parts {
            let part = move |v: &[u64]| {
                let (low, high) = product(t, t.integer(v[0]), t.integer(v[1]));
                u128::from(t.wrap(if half == "lo" { low } else { high }))
            };
            let text = format!("mad.{half}.cc.{n} $d, $a, $b, $c; addc.{n} {low}, 0, 0");
            table.text(format!("mad.{half}.cc.{n}"), &text, t, &[t; 3], move |v| bits(part(v) + value(v[2])));
            let text = format!("mad.{half}.cc.{n} {low}, $a, $b, $c; addc.{n} $d, 0, 0");
            let name = format!("mad.{half}.cc.{n} (carry)");
            table.text(name, &text, t, &[t; 3], move |v| bits((part(v) + value(v[2])) >> size));
            // The carry of $c + $e goes in.
            let text = format!("add.cc.{n} {low}, $c, $e; madc.{half}.{n} $d, $a, $b, $c");
            table.text(format!("madc.{half}.{n}"), &text, t, &four, move |v| {
                bits(part(v) + value(v[2]) + ((value(v[2]) + value(v[3])) >> size))
            });
            let text =
                format!("add.cc.{n} {low}, $c, $e; madc.{half}.cc.{n} {low}, $a, $b, $c; addc.{n} $d, 0, 0");
            table.text(format!("madc.{half}.cc.{n}"), &text, t, &four, move |v| {
                bits((part(v) + value(v[2]) + ((value(v[2]) + value(v[3])) >> size)) >> size)
            });
        }
    }
}

/// Two 16-bit integers a register.
fn packed(table: &mut Table) {
    let halves = |t: T, f: fn(i128, i128) -> i128| {
        move |v: &[u64]| {
            let half = |at: u32| t.wrap(f(t.integer(v[0] >> at), t.integer(v[1] >> at)));
            Want::Bits(half(0) | half(16) << 16)
        }
    };
    for t in [T::U16, T::S16] {
        let n = t.name();
        table.add(format!("add.{n}x2"), T::B32, &[T::B32; 2], halves(t, |a, b| a + b));
        table.add(format!("min.{n}x2"), T::B32, &[T::B32; 2], halves(t, |a, b| a.min(b)));
        table.add(format!("max.{n}x2"), T::B32, &[T::B32; 2], halves(t, |a, b| a.max(b)));
    }
}

/// The types of bitwise operations.
pub fn bit_types() -> [T; 3] {
    BITS
}
