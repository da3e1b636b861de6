//! f16 and bf16 arithmetic, one or two to a register: PTX ISA 9.7.4.

use super::super::lanes::{Compile, Level, Rare, binary, ternary, unary};
use super::{Name, Operation, same};
use crate::numeric::half as h;
use crate::program::{Class, Run};

const C: Class = Class::Half;

/// Finds a half-precision operation.
pub fn find(name: &Name<'_>, l: Level) -> Option<Operation> {
    let t = name.last();
    let known = ["rn", "ftz", "sat", "relu", "NaN", "xorsign", "abs", "approx"];
    if !["f16", "f16x2", "bf16", "bf16x2"].contains(&t) || !name.only(&known) {
        return None;
    }
    let packed = t.ends_with("x2");
    let bf = t.starts_with('b');
    // Subnormal f16 results are flushed by .ftz alone, which NVRTC emits only with its own option.
    if name.has("ftz") && bf && name.base != "ex2" {
        return None;
    }
    let ftz = name.has("ftz");
    match name.base {
        "fma" => {
            let run = match (bf, name.has("sat"), name.has("relu")) {
                (false, false, false) if ftz => three(l, packed, |a, b, c| {
                    h::f16_ftz(h::f16_fma(h::f16_ftz(a), h::f16_ftz(b), h::f16_ftz(c)))
                }),
                (false, false, false) => three(l, packed, |a, b, c| h::f16_fma(a, b, c)),
                (false, true, false) if !ftz => {
                    three(Rare, packed, |a, b, c| h::f16_saturate(h::f16_fma(a, b, c)))
                }
                (false, false, true) if !ftz => {
                    three(Rare, packed, |a, b, c| h::f16_relu(h::f16_fma(a, b, c)))
                }
                (true, false, false) => three(l, packed, |a, b, c| h::bf16_fma(a, b, c)),
                (true, false, true) => three(Rare, packed, |a, b, c| h::bf16_relu(h::bf16_fma(a, b, c))),
                _ => return None,
            };
            same(run, C, t, 3)
        }
        "add" | "sub" | "mul" if !name.has("relu") => {
            let run = match (name.base, bf, name.has("sat"), ftz) {
                ("add", false, false, false) => two(l, packed, |a, b| h::f16_add(a, b)),
                ("sub", false, false, false) => two(l, packed, |a, b| h::f16_sub(a, b)),
                ("mul", false, false, false) => two(l, packed, |a, b| h::f16_mul(a, b)),
                ("add", false, true, false) => two(Rare, packed, |a, b| h::f16_saturate(h::f16_add(a, b))),
                ("sub", false, true, false) => two(Rare, packed, |a, b| h::f16_saturate(h::f16_sub(a, b))),
                ("mul", false, true, false) => two(Rare, packed, |a, b| h::f16_saturate(h::f16_mul(a, b))),
                ("add", false, false, true) => {
                    two(Rare, packed, |a, b| h::f16_ftz(h::f16_add(h::f16_ftz(a), h::f16_ftz(b))))
                }
                ("sub", false, false, true) => {
                    two(Rare, packed, |a, b| h::f16_ftz(h::f16_sub(h::f16_ftz(a), h::f16_ftz(b))))
                }
                ("mul", false, false, true) => {
                    two(Rare, packed, |a, b| h::f16_ftz(h::f16_mul(h::f16_ftz(a), h::f16_ftz(b))))
                }
                ("add", true, false, _) => two(l, packed, |a, b| h::bf16_add(a, b)),
                ("sub", true, false, _) => two(l, packed, |a, b| h::bf16_sub(a, b)),
                ("mul", true, false, _) => two(l, packed, |a, b| h::bf16_mul(a, b)),
                _ => return None,
            };
            same(run, C, t, 2)
        }
        "neg" | "abs" => {
            let run = match (name.base, bf, ftz) {
                ("neg", false, false) => one(l, packed, |a| h::f16_neg(a)),
                ("neg", false, true) => one(Rare, packed, |a| h::f16_neg(h::f16_ftz(a))),
                ("neg", true, _) => one(l, packed, |a| h::bf16_neg(a)),
                ("abs", false, false) => one(l, packed, |a| h::f16_abs(a)),
                ("abs", false, true) => one(Rare, packed, |a| h::f16_abs(h::f16_ftz(a))),
                _ => one(l, packed, |a| h::bf16_abs(a)),
            };
            same(run, C, t, 1)
        }
        "min" | "max" => extremum(name, l, packed, bf),
        "ex2" | "tanh" if name.has("approx") => {
            let run = match (name.base, bf) {
                ("ex2", false) if ftz => one(Rare, packed, |a| h::f16_ftz(h::f16_ex2(h::f16_ftz(a)))),
                ("ex2", false) => one(Rare, packed, |a| h::f16_ex2(a)),
                ("ex2", true) if ftz => one(Rare, packed, |a| h::bf16_ex2(a)),
                ("tanh", false) => one(Rare, packed, |a| h::f16_tanh(a)),
                ("tanh", true) => one(Rare, packed, |a| h::bf16_tanh(a)),
                _ => return None,
            };
            same(run, Class::Special, t, 1)
        }
        _ => None,
    }
}

fn extremum(name: &Name<'_>, l: Level, packed: bool, bf: bool) -> Option<Operation> {
    let xorsign = name.has("xorsign");
    if xorsign != name.has("abs") || name.has("ftz") {
        return None;
    }
    let run = match (name.base, bf, name.has("NaN"), xorsign) {
        ("min", false, false, false) => two(l, packed, |a, b| h::f16_min(a, b)),
        ("max", false, false, false) => two(l, packed, |a, b| h::f16_max(a, b)),
        ("min", false, true, false) => two(Rare, packed, |a, b| h::f16_min_nan(a, b)),
        ("max", false, true, false) => two(Rare, packed, |a, b| h::f16_max_nan(a, b)),
        ("min", false, nan, true) if !nan => two(Rare, packed, |a, b| h::f16_min_xorsign(a, b, false)),
        ("max", false, nan, true) if !nan => two(Rare, packed, |a, b| h::f16_max_xorsign(a, b, false)),
        ("min", true, false, false) => two(l, packed, |a, b| h::bf16_min(a, b)),
        ("max", true, false, false) => two(l, packed, |a, b| h::bf16_max(a, b)),
        ("min", true, true, false) => two(Rare, packed, |a, b| h::bf16_min_nan(a, b)),
        ("max", true, true, false) => two(Rare, packed, |a, b| h::bf16_max_nan(a, b)),
        _ => return None,
    };
    same(run, C, name.last(), 2)
}

fn one<F: Fn(u16) -> u16 + Copy>(l: impl Compile, packed: bool, f: F) -> Run {
    if packed {
        unary(l, move |a: u32| u32::from(f(a as u16)) | u32::from(f((a >> 16) as u16)) << 16)
    } else {
        unary(l, f)
    }
}

fn two<F: Fn(u16, u16) -> u16 + Copy>(l: impl Compile, packed: bool, f: F) -> Run {
    if packed {
        binary(l, move |a: u32, b: u32| {
            u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
        })
    } else {
        binary(l, f)
    }
}

fn three<F: Fn(u16, u16, u16) -> u16 + Copy>(l: impl Compile, packed: bool, f: F) -> Run {
    if packed {
        ternary(l, move |a: u32, b: u32, c: u32| {
            let high = f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
            u32::from(f(a as u16, b as u16, c as u16)) | u32::from(high) << 16
        })
    } else {
        ternary(l, f)
    }
}
