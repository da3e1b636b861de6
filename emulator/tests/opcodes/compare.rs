//! Comparisons, selections and the logic of predicates: PTX ISA 9.7.6, 9.7.7.

use super::exact::{self, F32, Format, Value};
use super::form::{T, Table, Want};
use std::cmp::Ordering;

type Test = fn(Option<Ordering>) -> bool;

/// Comparisons of numbers; None: one of them is no number.
const ORDERED: [(&str, Test); 6] = [
    ("eq", |order| order == Some(Ordering::Equal)),
    ("ne", |order| matches!(order, Some(Ordering::Less | Ordering::Greater))),
    ("lt", |order| order == Some(Ordering::Less)),
    ("le", |order| matches!(order, Some(Ordering::Less | Ordering::Equal))),
    ("gt", |order| order == Some(Ordering::Greater)),
    ("ge", |order| matches!(order, Some(Ordering::Greater | Ordering::Equal))),
];

const UNORDERED: [(&str, Test); 8] = [
    ("equ", |order| !matches!(order, Some(Ordering::Less | Ordering::Greater))),
    ("neu", |order| order != Some(Ordering::Equal)),
    ("ltu", |order| !matches!(order, Some(Ordering::Greater | Ordering::Equal))),
    ("leu", |order| order != Some(Ordering::Greater)),
    ("gtu", |order| !matches!(order, Some(Ordering::Less | Ordering::Equal))),
    ("geu", |order| order != Some(Ordering::Less)),
    ("num", |order| order.is_some()),
    ("nan", |order| order.is_none()),
];

const UNSIGNED: [(&str, usize); 4] = [("lo", 2), ("ls", 3), ("hi", 4), ("hs", 5)];

/// The order of two floats, through float64 where every format is exact.
fn order(f: Format, a: u64, b: u64) -> Option<Ordering> {
    let number = |raw: u64| match f.value(raw) {
        Value::Nan => f64::NAN,
        other => exact::approximately(other),
    };
    number(a).partial_cmp(&number(b))
}

type Compare = Box<dyn Fn(u64, u64) -> bool + Send + Sync>;

/// All comparisons: name with type and `.ftz`, type, result.
fn comparisons() -> Vec<(String, T, Compare)> {
    let mut all: Vec<(String, T, Compare)> = Vec::new();
    for t in [T::U16, T::S16, T::U32, T::S32, T::U64, T::S64, T::B16, T::B32, T::B64] {
        let bits = matches!(t, T::B16 | T::B32 | T::B64);
        let mut tests = ORDERED[..if bits { 2 } else { 6 }].to_vec();
        if !bits && !t.signed() {
            tests.extend(UNSIGNED.map(|(name, same)| (name, ORDERED[same].1)));
        }
        for (name, test) in tests {
            let compare = move |a: u64, b: u64| test(Some(t.integer(a).cmp(&t.integer(b))));
            all.push((format!("{name} .{}", t.name()), t, Box::new(compare)));
        }
    }
    for t in [T::F16, T::Bf16, T::F32, T::F64] {
        for (name, test) in ORDERED.into_iter().chain(UNORDERED) {
            let f = t.format();
            let compare = move |a: u64, b: u64| test(order(f, a, b));
            all.push((format!("{name} .{}", t.name()), t, Box::new(compare)));
            if t == T::F32 {
                let compare = move |a: u64, b: u64| test(order(F32, F32.flush(a), F32.flush(b)));
                all.push((format!("{name} .ftz.f32"), t, Box::new(compare)));
            }
        }
    }
    all
}

type Combine = fn(bool, bool) -> bool;
const COMBINATIONS: [(&str, Combine); 3] =
    [(".and", |a, b| a && b), (".or", |a, b| a || b), (".xor", |a, b| a != b)];

pub fn table() -> Table {
    let mut table = Table::default();
    for (name, t, compare) in comparisons() {
        let compare: std::sync::Arc<dyn Fn(u64, u64) -> bool + Send + Sync> = compare.into();
        let (how, rest) = name.split_once(' ').unwrap();
        let plain = compare.clone();
        table.add(format!("setp.{how}{rest}"), T::P, &[t; 2], move |v| {
            Want::Bits(u64::from(plain(v[0], v[1])))
        });
        let other = compare.clone();
        let text = format!("setp.{how}{rest} %p8|$d, $a, $b");
        table.text(format!("setp.{how}{rest} (second)"), &text, T::P, &[t; 2], move |v| {
            Want::Bits(u64::from(!other(v[0], v[1])))
        });
        for (combination, combine) in COMBINATIONS {
            for (first, negated) in [(true, false), (false, true)] {
                // The first result takes the comparison, the second its opposite.
                let compare = compare.clone();
                let results = if first { "$d|%p8" } else { "%p8|$d" };
                let bang = if negated { "!" } else { "" };
                let text = format!("setp.{how}{combination}{rest} {results}, $a, $b, {bang}$c");
                table.text(format!("setp.{how}{combination}{rest}"), &text, T::P, &[t, t, T::P], move |v| {
                    let compared = compare(v[0], v[1]) == first;
                    Want::Bits(u64::from(combine(compared, (v[2] == 1) != negated)))
                });
            }
        }
        for (to, yes) in [(T::U32, 0xFFFF_FFFFu64), (T::S32, 0xFFFF_FFFF), (T::F32, 0x3F80_0000)] {
            let (ftz, source) = match rest.strip_prefix(".ftz") {
                Some(source) => (".ftz", source),
                None => ("", rest),
            };
            let alone = compare.clone();
            table.add(format!("set.{how}{ftz}.{}{source}", to.name()), to, &[t; 2], move |v| {
                Want::Bits(if alone(v[0], v[1]) { yes } else { 0 })
            });
            let (combination, combine) = COMBINATIONS[2];
            let combined = compare.clone();
            let from = [t, t, T::P];
            table.add(format!("set.{how}{combination}{ftz}.{}{source}", to.name()), to, &from, move |v| {
                Want::Bits(if combine(combined(v[0], v[1]), v[2] == 1) { yes } else { 0 })
            });
        }
    }
    selections(&mut table);
    predicates(&mut table);
    moves(&mut table);
    table
}

fn selections(table: &mut Table) {
    const TYPES: [T; 11] =
        [T::B16, T::B32, T::B64, T::U16, T::S16, T::U32, T::S32, T::U64, T::S64, T::F32, T::F64];
    for t in TYPES {
        let n = t.name();
        table.add(format!("selp.{n}"), t, &[t, t, T::P], |v| Want::Bits(v[if v[2] == 1 { 0 } else { 1 }]));
        table.text(format!("selp.{n} (not)"), &format!("selp.{n} $d, $a, $b, !$c"), t, &[t, t, T::P], |v| {
            Want::Bits(v[if v[2] == 1 { 1 } else { 0 }])
        });
        table.add(format!("slct.{n}.s32"), t, &[t, t, T::S32], |v| {
            Want::Bits(v[if (v[2] as u32 as i32) >= 0 { 0 } else { 1 }])
        });
        // -0 counts as zero; no number selects b.
        table.add(format!("slct.{n}.f32"), t, &[t, t, T::F32], |v| {
            Want::Bits(v[if f32::from_bits(v[2] as u32) >= 0.0 { 0 } else { 1 }])
        });
    }
}

fn predicates(table: &mut Table) {
    for (name, combine) in COMBINATIONS {
        table.add(format!("{}.pred", &name[1..]), T::P, &[T::P; 2], move |v| {
            Want::Bits(u64::from(combine(v[0] == 1, v[1] == 1)))
        });
        let text = format!("{}.pred $d, $a, !$b", &name[1..]);
        table.text(format!("{}.pred (not b)", &name[1..]), &text, T::P, &[T::P; 2], move |v| {
            Want::Bits(u64::from(combine(v[0] == 1, v[1] != 1)))
        });
    }
    table.add("not.pred", T::P, &[T::P], |v| Want::Bits(1 - v[0]));
    table.add("mov.pred", T::P, &[T::P], |v| Want::Bits(v[0]));
    table.text("mov.pred 1", "mov.pred $d, 1", T::P, &[T::P], |_| Want::Bits(1));
    table.text("mov.pred 0", "mov.pred $d, 0", T::P, &[T::P], |_| Want::Bits(0));
}

fn moves(table: &mut Table) {
    for t in [T::B16, T::B32, T::B64, T::U16, T::S16, T::U32, T::S32, T::U64, T::S64, T::F32, T::F64] {
        table.add(format!("mov.{}", t.name()), t, &[t], |v| Want::Bits(v[0]));
    }
    let pair = [T::B32; 2];
    table.text("mov.b64 pack", "mov.b64 $d, {$a, $b}", T::B64, &pair, |v| Want::Bits(v[0] | v[1] << 32));
    let halves = [T::B16; 4];
    table.text("mov.b32 pack", "mov.b32 $d, {$a, $b}", T::B32, &halves[..2], |v| {
        Want::Bits(v[0] | v[1] << 16)
    });
    table.text("mov.b64 pack 4", "mov.b64 $d, {$a, $b, $c, $e}", T::B64, &halves, |v| {
        Want::Bits(v[0] | v[1] << 16 | v[2] << 32 | v[3] << 48)
    });
    table.text("mov.b64 unpack low", "mov.b64 {$d, %r9}, $a", T::B32, &[T::B64], |v| {
        Want::Bits(v[0] & 0xFFFF_FFFF)
    });
    table.text("mov.b64 unpack high", "mov.b64 {_, $d}, $a", T::B32, &[T::B64], |v| Want::Bits(v[0] >> 32));
    table.text("mov.b32 unpack low", "mov.b32 {$d, %h9}, $a", T::B16, &[T::B32], |v| {
        Want::Bits(v[0] & 0xFFFF)
    });
    table.text("mov.b32 unpack high", "mov.b32 {%h9, $d}, $a", T::B16, &[T::B32], |v| Want::Bits(v[0] >> 16));
    table.text("mov.b64 unpack 4", "mov.b64 {%h8, %h9, $d, %h10}, $a", T::B16, &[T::B64], |v| {
        Want::Bits(v[0] >> 32 & 0xFFFF)
    });
}
