//! `cvt`: PTX ISA 9.7.9.21.

use super::super::lanes::{Level, Rare, binary, unary};
use super::float::rounded;
use super::{Name, Operation, type_of, with};
use crate::numeric::convert as c;
use crate::numeric::half as h;
use crate::numeric::round::{Rounding, canonical_f32, f64_to_f32, ftz_f32, saturate_f32, saturate_f64};
use crate::program::{Class, Run};

const QUALIFIERS: &[&str] =
    &["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu", "rna", "satfinite", "tf32"];

/// Finds a conversion.
pub fn find(name: &Name<'_>, l: Level) -> Option<Operation> {
    if name.base != "cvt" || !name.only(QUALIFIERS) {
        return None;
    }
    let types: Vec<&str> = name.qualifiers.iter().copied().filter(|q| type_of(q).is_some()).collect();
    let (&[to, from], true) = (types.as_slice(), name.qualifiers.len() >= 2) else { return None };
    let class = Class::Integer;
    if to.ends_with("x2") {
        return with(packed(name, to, from, l)?, class, "b32", &[from, from]);
    }
    let integer = |t: &str| t.starts_with('u') || t.starts_with('s');
    let run = match (integer(to), integer(from)) {
        _ if to == "tf32" => tensor_float(name, from)?,
        (true, true) => between_integers(to, from, name.has("sat"), l)?,
        (false, true) => from_integer(name, to, from, l)?,
        (true, false) => to_integer(name, to, from)?,
        (false, false) => between_floats(name, to, from, l)?,
    };
    with(run, class, if to == "tf32" { "b32" } else { to }, &[from])
}

fn tensor_float(name: &Name<'_>, from: &str) -> Option<Run> {
    if from != "f32" {
        return None;
    }
    Some(match (name.qualifiers.first().copied()?, name.has("relu"), name.has("satfinite")) {
        ("rna", false, false) => unary(Rare, |a: f32| h::f32_to_tf32_rna(a)),
        ("rna", false, true) => unary(Rare, |a: f32| h::tf32_satfinite(h::f32_to_tf32_rna(a))),
        ("rn", false, false) => unary(Rare, |a: f32| h::f32_to_tf32_rn(a)),
        ("rn", true, false) => unary(Rare, |a: f32| h::tf32_relu(h::f32_to_tf32_rn(a))),
        ("rz", false, false) => unary(Rare, |a: f32| h::f32_to_tf32_rz(a)),
        ("rz", true, false) => unary(Rare, |a: f32| h::tf32_relu(h::f32_to_tf32_rz(a))),
        _ => return None,
    })
}

/// `cvt.rn.bf16x2.f32 d, a, b`: a goes to the upper half.
fn packed(name: &Name<'_>, to: &str, from: &str, l: Level) -> Option<Run> {
    if from != "f32" || name.has("ftz") || name.has("sat") {
        return None;
    }
    macro_rules! pack {
        ($f:expr) => {
            binary(l, |a: f32, b: f32| h::pack2($f(b), $f(a)))
        };
    }
    let nearest = name.has("rn");
    if !nearest && !name.has("rz") {
        return None;
    }
    Some(match (to, nearest, name.has("relu"), name.has("satfinite")) {
        ("bf16x2", true, false, false) => pack!(h::f32_to_bf16),
        ("bf16x2", true, true, false) => pack!(|x| h::bf16_relu(h::f32_to_bf16(x))),
        ("bf16x2", true, false, true) => pack!(|x| h::bf16_satfinite(h::f32_to_bf16(x))),
        ("bf16x2", false, false, false) => pack!(h::f32_to_bf16_rz),
        ("bf16x2", false, true, false) => pack!(|x| h::bf16_relu(h::f32_to_bf16_rz(x))),
        ("f16x2", true, false, false) => pack!(h::f32_to_f16),
        ("f16x2", true, true, false) => pack!(|x| h::f16_relu(h::f32_to_f16(x))),
        ("f16x2", true, false, true) => pack!(|x| h::f16_satfinite(h::f32_to_f16(x))),
        ("f16x2", false, false, false) => pack!(h::f32_to_f16_rz),
        ("f16x2", false, true, false) => pack!(|x| h::f16_relu(h::f32_to_f16_rz(x))),
        _ => return None,
    })
}

/// The type of a qualifier in Rust: `each!(name, T => expression)`.
macro_rules! each {
    ($name:expr, $T:ident => $body:expr) => {
        match $name {
            "u8" => Some({
                type $T = u8;
                $body
            }),
            "s8" => Some({
                type $T = i8;
                $body
            }),
            "u16" => Some({
                type $T = u16;
                $body
            }),
            "s16" => Some({
                type $T = i16;
                $body
            }),
            "u32" => Some({
                type $T = u32;
                $body
            }),
            "s32" => Some({
                type $T = i32;
                $body
            }),
            "u64" => Some({
                type $T = u64;
                $body
            }),
            "s64" => Some({
                type $T = i64;
                $body
            }),
            _ => None,
        }
    };
}

fn between_integers(to: &str, from: &str, saturate: bool, l: Level) -> Option<Run> {
    if saturate {
        each!(to, D => each!(from, A => unary(Rare, |a: A| (a as i128).clamp(D::MIN as i128, D::MAX as i128) as D)))?
    } else {
        match (to, from) {
            ("u64", "u32") => Some(unary(l, |a: u32| u64::from(a))),
            ("s64", "s32") => Some(unary(l, |a: i32| i64::from(a))),
            ("u32", "u64") => Some(unary(l, |a: u64| a as u32)),
            ("u32", "u16") => Some(unary(l, |a: u16| u32::from(a))),
            ("u16", "u32") => Some(unary(l, |a: u32| a as u16)),
            _ => each!(to, D => each!(from, A => unary(Rare, |a: A| a as D)))?,
        }
    }
}

fn from_integer(name: &Name<'_>, to: &str, from: &str, l: Level) -> Option<Run> {
    if name.has("ftz") || name.has("relu") {
        return None;
    }
    // Through the 64-bit functions: an integer is exact in the wider type.
    macro_rules! to_float {
        ($D:ty, $unsigned:path, $signed:path) => {
            if from.starts_with('u') {
                each!(from, A => rounded!(name, R => unary(Rare, |a: A| -> $D { $unsigned(a as u64, R) })))
            } else {
                each!(from, A => rounded!(name, R => unary(Rare, |a: A| -> $D { $signed(a as i64, R) })))
            }
        };
    }
    let nearest = !(name.has("rz") || name.has("rm") || name.has("rp"));
    if name.has("sat") {
        return match to {
            "f32" => {
                each!(from, A => rounded!(name, R => unary(Rare, |a: A| saturate_f32(c::s64_to_f32(a as i64, R)))))
            }
            _ => None,
        };
    }
    match to {
        "f32" if from == "s32" && nearest => Some(unary(l, |a: i32| a as f32)),
        "f32" if from == "u32" && nearest => Some(unary(l, |a: u32| a as f32)),
        "f32" if nearest => each!(from, A => unary(Rare, |a: A| a as f32)),
        "f64" if nearest => each!(from, A => unary(Rare, |a: A| a as f64)),
        "f32" => to_float!(f32, c::u64_to_f32, c::s64_to_f32),
        "f64" => to_float!(f64, c::u64_to_f64, c::s64_to_f64),
        "f16" => to_float!(u16, c::u64_to_f16, c::s64_to_f16),
        "bf16" => to_float!(u16, c::u64_to_bf16, c::s64_to_bf16),
        _ => None,
    }
}

/// `.rni .rzi .rmi .rpi` as constants; without one there is no conversion to an integer.
macro_rules! integral {
    ($name:expr, $R:ident => $body:expr) => {
        if $name.has("rzi") {
            const $R: Rounding = Rounding::Zero;
            $body
        } else if $name.has("rmi") {
            const $R: Rounding = Rounding::Down;
            $body
        } else if $name.has("rpi") {
            const $R: Rounding = Rounding::Up;
            $body
        } else {
            const $R: Rounding = Rounding::Nearest;
            $body
        }
    };
}

fn to_integer(name: &Name<'_>, to: &str, from: &str) -> Option<Run> {
    if !["rni", "rzi", "rmi", "rpi"].iter().any(|mode| name.has(mode)) {
        return None;
    }
    let ftz = name.has("ftz");
    macro_rules! all {
        ($f32:path, $f64:path, $f16:path, $bf16:path) => {
            match from {
                "f32" if ftz => Some(integral!(name, R => unary(Rare, |a: f32| $f32(ftz_f32(a), R)))),
                "f32" => Some(integral!(name, R => unary(Rare, |a: f32| $f32(a, R)))),
                "f64" => Some(integral!(name, R => unary(Rare, |a: f64| $f64(a, R)))),
                "f16" => Some(integral!(name, R => unary(Rare, |a: u16| $f16(a, R)))),
                "bf16" => Some(integral!(name, R => unary(Rare, |a: u16| $bf16(a, R)))),
                _ => None,
            }
        };
    }
    match to {
        "s8" => all!(c::f32_to_s8, c::f64_to_s8, c::f16_to_s8, c::bf16_to_s8),
        "u8" => all!(c::f32_to_u8, c::f64_to_u8, c::f16_to_u8, c::bf16_to_u8),
        "s16" => all!(c::f32_to_s16, c::f64_to_s16, c::f16_to_s16, c::bf16_to_s16),
        "u16" => all!(c::f32_to_u16, c::f64_to_u16, c::f16_to_u16, c::bf16_to_u16),
        "s32" => all!(c::f32_to_s32, c::f64_to_s32, c::f16_to_s32, c::bf16_to_s32),
        "u32" => all!(c::f32_to_u32, c::f64_to_u32, c::f16_to_u32, c::bf16_to_u32),
        "s64" => all!(c::f32_to_s64, c::f64_to_s64, c::f16_to_s64, c::bf16_to_s64),
        "u64" => all!(c::f32_to_u64, c::f64_to_u64, c::f16_to_u64, c::bf16_to_u64),
        _ => None,
    }
}

fn between_floats(name: &Name<'_>, to: &str, from: &str, l: Level) -> Option<Run> {
    let whole = ["rni", "rzi", "rmi", "rpi"].iter().any(|mode| name.has(mode));
    let (ftz, sat) = (name.has("ftz"), name.has("sat"));
    if name.has("satfinite") {
        return None;
    }
    Some(match (to, from) {
        ("f32", "f32") if whole => match (ftz, sat) {
            (false, false) => integral!(name, R => unary(Rare, |a: f32| c::round_integral_f32(a, R))),
            (true, false) => integral!(name, R => unary(Rare, |a: f32| c::round_integral_f32(ftz_f32(a), R))),
            (false, true) => {
                integral!(name, R => unary(Rare, |a: f32| saturate_f32(c::round_integral_f32(a, R))))
            }
            (true, true) => {
                integral!(name, R => unary(Rare, |a: f32| saturate_f32(c::round_integral_f32(ftz_f32(a), R))))
            }
        },
        ("f32", "f32") => match (ftz, sat) {
            (false, false) => unary(l, |a: f32| a),
            (true, false) => unary(Rare, |a: f32| ftz_f32(a)),
            (false, true) => unary(l, |a: f32| saturate_f32(a)),
            (true, true) => unary(Rare, |a: f32| saturate_f32(ftz_f32(a))),
        },
        ("f64", "f64") if whole && !sat => {
            integral!(name, R => unary(Rare, |a: f64| c::round_integral_f64(a, R)))
        }
        ("f64", "f64") if !whole => {
            if sat {
                unary(Rare, |a: f64| saturate_f64(a))
            } else {
                unary(Rare, |a: f64| a)
            }
        }
        ("f64", "f32") if !sat => {
            if ftz {
                unary(Rare, |a: f32| c::f32_to_f64(ftz_f32(a)))
            } else {
                unary(Rare, |a: f32| c::f32_to_f64(a))
            }
        }
        ("f32", "f64") => match (ftz, sat) {
            (false, false) => rounded!(name, R => unary(Rare, |a: f64| f64_to_f32(a, R))),
            (true, false) => rounded!(name, R => unary(Rare, |a: f64| ftz_f32(f64_to_f32(a, R)))),
            _ => rounded!(name, R => unary(Rare, |a: f64| saturate_f32(f64_to_f32(a, R)))),
        },
        ("f32", "f16") => match (ftz, sat) {
            (false, false) => unary(l, |a: u16| canonical_f32(h::f16_to_f32(a))),
            (true, false) => unary(Rare, |a: u16| ftz_f32(canonical_f32(h::f16_to_f32(a)))),
            _ => unary(Rare, |a: u16| saturate_f32(h::f16_to_f32(a))),
        },
        ("f32", "bf16") if !sat => unary(l, |a: u16| canonical_f32(h::bf16_to_f32(a))),
        ("f64", "f16") if !sat => unary(Rare, |a: u16| c::f32_to_f64(h::f16_to_f32(a))),
        ("f64", "bf16") if !sat => unary(Rare, |a: u16| c::f32_to_f64(h::bf16_to_f32(a))),
        ("f16", "f16") if whole && !sat => {
            integral!(name, R => unary(Rare, |a: u16| c::round_integral_f16(a, R)))
        }
        ("bf16", "bf16") if whole && !sat => {
            integral!(name, R => unary(Rare, |a: u16| c::round_integral_bf16(a, R)))
        }
        ("f16", "f32") if sat => {
            rounded!(name, R => unary(Rare, |a: f32| h::f16_saturate(h::f32_to_f16_round(a, R))))
        }
        ("f16", "f32") if name.has("relu") => {
            rounded!(name, R => unary(Rare, |a: f32| h::f16_relu(h::f32_to_f16_round(a, R))))
        }
        ("f16", "f32") if ftz => {
            rounded!(name, R => unary(Rare, |a: f32| h::f32_to_f16_round(ftz_f32(a), R)))
        }
        ("f16", "f32") if name.has("rn") => unary(l, |a: f32| h::f32_to_f16(a)),
        ("f16", "f32") => rounded!(name, R => unary(Rare, |a: f32| h::f32_to_f16_round(a, R))),
        ("bf16", "f32") if name.has("relu") => {
            rounded!(name, R => unary(Rare, |a: f32| h::bf16_relu(h::f32_to_bf16_round(a, R))))
        }
        ("bf16", "f32") if name.has("rn") => unary(l, |a: f32| h::f32_to_bf16(a)),
        ("bf16", "f32") => rounded!(name, R => unary(Rare, |a: f32| h::f32_to_bf16_round(a, R))),
        ("f16", "f64") if !sat => rounded!(name, R => unary(Rare, |a: f64| h::f64_to_f16_round(a, R))),
        ("bf16", "f64") if !sat => rounded!(name, R => unary(Rare, |a: f64| h::f64_to_bf16_round(a, R))),
        ("f16", "bf16") => {
            rounded!(name, R => unary(Rare, |a: u16| h::f32_to_f16_round(h::bf16_to_f32(a), R)))
        }
        ("bf16", "f16") => {
            rounded!(name, R => unary(Rare, |a: u16| h::f32_to_bf16_round(h::f16_to_f32(a), R)))
        }
        _ => return None,
    })
}
