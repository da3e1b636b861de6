//! float32 and float64 arithmetic: PTX ISA 9.7.3. Results that are no number are the GPU's canonical NaN.

use super::super::lanes::{Level, Rare, binary, compare, ternary, unary};
use super::{Name, Operation, same, with};
use crate::numeric::approx;
use crate::numeric::round::{self, Rounding, TestP, canonical_f32, canonical_f64, ftz_f32, saturate_f32};
use crate::program::{Class, Run};

const C: Class = Class::Float;
const S: Class = Class::Special;
const MODES: &[&str] = &["rn", "rz", "rm", "rp", "ftz", "sat", "approx", "full", "NaN", "xorsign", "abs"];

/// Finds a float32 or float64 operation.
pub fn find(name: &Name<'_>, l: Level) -> Option<Operation> {
    match (name.last(), name.base) {
        ("f32", "testp") | ("f64", "testp") => test(name),
        (t @ ("f32" | "f64"), "copysign") if name.qualifiers.len() == 1 => match t {
            "f32" => same(binary(l, |a: f32, b: f32| round::copysign_f32(a, b)), C, t, 2),
            _ => same(binary(l, |a: f64, b: f64| round::copysign_f64(a, b)), C, t, 2),
        },
        ("f32", _) if name.only(MODES) => single(name, l),
        ("f64", _) if name.only(MODES) => double(name, l),
        _ => None,
    }
}

#[inline(always)]
fn input<const FTZ: bool>(value: f32) -> f32 {
    if FTZ { ftz_f32(value) } else { value }
}

#[inline(always)]
fn output<const FTZ: bool, const SAT: bool>(value: f32) -> f32 {
    let value = if FTZ { ftz_f32(value) } else { value };
    if SAT { saturate_f32(value) } else { canonical_f32(value) }
}

/// The four roundings, as constants.
macro_rules! rounded {
    ($name:expr, $R:ident => $body:expr) => {
        if $name.has("rz") {
            const $R: Rounding = Rounding::Zero;
            $body
        } else if $name.has("rm") {
            const $R: Rounding = Rounding::Down;
            $body
        } else if $name.has("rp") {
            const $R: Rounding = Rounding::Up;
            $body
        } else {
            const $R: Rounding = Rounding::Nearest;
            $body
        }
    };
}
pub(super) use rounded;

/// `.ftz` and `.sat`, as constants; the form with neither is compiled for every level, the others are rare.
macro_rules! modes {
    ($name:expr, $level:expr, $L:ident, $F:ident, $T:ident => $body:expr) => {
        match ($name.has("ftz"), $name.has("sat")) {
            (false, false) => {
                let $L = $level;
                const $F: bool = false;
                const $T: bool = false;
                $body
            }
            (false, true) => {
                let $L = Rare;
                const $F: bool = false;
                const $T: bool = true;
                $body
            }
            (true, false) => {
                let $L = Rare;
                const $F: bool = true;
                const $T: bool = false;
                $body
            }
            (true, true) => {
                let $L = Rare;
                const $F: bool = true;
                const $T: bool = true;
                $body
            }
        }
    };
}

fn single(name: &Name<'_>, l: Level) -> Option<Operation> {
    let t = "f32";
    let nearest = !(name.has("rz") || name.has("rm") || name.has("rp"));
    let approximate = name.has("approx") || name.has("full");
    let two = |run: Run| same(run, C, t, 2);
    match name.base {
        "add" if nearest => two(
            modes!(name, l, level, F, T => binary(level, |a: f32, b: f32| output::<F, T>(input::<F>(a) + input::<F>(b)))),
        ),
        "sub" if nearest => two(
            modes!(name, l, level, F, T => binary(level, |a: f32, b: f32| output::<F, T>(input::<F>(a) - input::<F>(b)))),
        ),
        "mul" if nearest => two(
            modes!(name, l, level, F, T => binary(level, |a: f32, b: f32| output::<F, T>(input::<F>(a) * input::<F>(b)))),
        ),
        "fma" | "mad" if nearest => same(
            modes!(name, l, level, F, T => ternary(level, |a: f32, b: f32, c: f32| {
                output::<F, T>(input::<F>(a).mul_add(input::<F>(b), input::<F>(c)))
            })),
            C,
            t,
            3,
        ),
        "add" => two(rounded!(name, R => modes!(name, Rare, level, F, T => binary(level, |a: f32, b: f32| {
            output::<F, T>(round::add_f32(input::<F>(a), input::<F>(b), R))
        })))),
        "sub" => two(rounded!(name, R => modes!(name, Rare, level, F, T => binary(level, |a: f32, b: f32| {
            output::<F, T>(round::sub_f32(input::<F>(a), input::<F>(b), R))
        })))),
        "mul" => two(rounded!(name, R => modes!(name, Rare, level, F, T => binary(level, |a: f32, b: f32| {
            output::<F, T>(round::mul_f32(input::<F>(a), input::<F>(b), R))
        })))),
        // A step of expf without fast math.
        "fma" if name.qualifiers == ["rm", "f32"] => {
            same(ternary(l, |a: f32, b: f32, c: f32| round::fma_f32(a, b, c, Rounding::Down)), C, t, 3)
        }
        "rcp" if name.qualifiers == ["rn", "f32"] => same(unary(l, |a: f32| canonical_f32(1.0 / a)), S, t, 1),
        "sqrt" if name.qualifiers == ["rn", "f32"] => {
            same(unary(l, |a: f32| canonical_f32(a.sqrt())), S, t, 1)
        }
        "fma" | "mad" => same(
            rounded!(name, R => modes!(name, Rare, level, F, T => ternary(level, |a: f32, b: f32, c: f32| {
                output::<F, T>(round::fma_f32(input::<F>(a), input::<F>(b), input::<F>(c), R))
            }))),
            C,
            t,
            3,
        ),
        "div" if name.has("sat") => None,
        "div" if name.has("approx") && name.has("ftz") => {
            same(binary(l, |a: f32, b: f32| approx::div_approx_ftz(a, b)), S, t, 2)
        }
        "div" if name.has("approx") => same(binary(l, |a: f32, b: f32| approx::div_approx(a, b)), S, t, 2),
        "div" if name.has("full") && name.has("ftz") => {
            same(binary(l, |a: f32, b: f32| approx::div_full_ftz(a, b)), S, t, 2)
        }
        "div" if name.has("full") => same(binary(l, |a: f32, b: f32| approx::div_full(a, b)), S, t, 2),
        "div" if nearest => two(
            modes!(name, l, level, F, T => binary(level, |a: f32, b: f32| output::<F, T>(input::<F>(a) / input::<F>(b)))),
        ),
        "div" => two(rounded!(name, R => modes!(name, Rare, level, F, T => binary(level, |a: f32, b: f32| {
            output::<F, T>(round::div_f32(input::<F>(a), input::<F>(b), R))
        })))),
        "rcp" if !approximate => same(
            rounded!(name, R => modes!(name, Rare, level, F, T => unary(level, |a: f32| output::<F, T>(round::rcp_f32(input::<F>(a), R))))),
            S,
            t,
            1,
        ),
        "sqrt" if !approximate => same(
            rounded!(name, R => modes!(name, Rare, level, F, T => unary(level, |a: f32| output::<F, T>(round::sqrt_f32(input::<F>(a), R))))),
            S,
            t,
            1,
        ),
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" if name.has("approx") => {
            special(name, l)
        }
        "abs" => same(
            if name.has("ftz") { unary(l, |a: f32| ftz_f32(a).abs()) } else { unary(l, |a: f32| a.abs()) },
            C,
            t,
            1,
        ),
        "neg" => same(
            if name.has("ftz") { unary(l, |a: f32| -ftz_f32(a)) } else { unary(l, |a: f32| -a) },
            C,
            t,
            1,
        ),
        "min" | "max" => extremum(name, l),
        _ => None,
    }
}

fn special(name: &Name<'_>, l: Level) -> Option<Operation> {
    let run = match (name.base, name.has("ftz")) {
        ("rcp", false) => unary(l, |a: f32| approx::rcp_approx(a)),
        ("rcp", true) => unary(l, |a: f32| approx::rcp_approx_ftz(a)),
        ("sqrt", false) => unary(l, |a: f32| approx::sqrt_approx(a)),
        ("sqrt", true) => unary(l, |a: f32| approx::sqrt_approx_ftz(a)),
        ("rsqrt", false) => unary(l, |a: f32| approx::rsqrt_approx(a)),
        ("rsqrt", true) => unary(l, |a: f32| approx::rsqrt_approx_ftz(a)),
        ("ex2", false) => unary(l, |a: f32| approx::ex2_approx(a)),
        ("ex2", true) => unary(l, |a: f32| approx::ex2_approx_ftz(a)),
        ("lg2", false) => unary(l, |a: f32| approx::lg2_approx(a)),
        ("lg2", true) => unary(l, |a: f32| approx::lg2_approx_ftz(a)),
        ("sin", false) => unary(l, |a: f32| approx::sin_approx(a)),
        ("sin", true) => unary(l, |a: f32| approx::sin_approx_ftz(a)),
        ("cos", false) => unary(l, |a: f32| approx::cos_approx(a)),
        ("cos", true) => unary(l, |a: f32| approx::cos_approx_ftz(a)),
        ("tanh", false) => unary(l, |a: f32| approx::tanh_approx(a)),
        _ => return None,
    };
    same(run, S, "f32", 1)
}

/// `min` and `max` of two or three operands.
fn extremum(name: &Name<'_>, l: Level) -> Option<Operation> {
    let xorsign = name.has("xorsign");
    if xorsign != name.has("abs") || name.has("sat") {
        return None;
    }
    macro_rules! both {
        ($l:expr, $f:expr) => {
            if name.has("ftz") {
                binary(Rare, |a: f32, b: f32| $f(ftz_f32(a), ftz_f32(b)))
            } else {
                binary($l, |a: f32, b: f32| $f(a, b))
            }
        };
    }
    let run = match (name.base, name.has("NaN"), xorsign) {
        ("min", false, false) => both!(l, round::min_f32),
        ("max", false, false) => both!(l, round::max_f32),
        ("min", true, false) => both!(l, round::min_nan_f32),
        ("max", true, false) => both!(l, round::max_nan_f32),
        ("min", false, true) => both!(Rare, |a, b| round::min_xorsign_f32(a, b, false)),
        ("max", false, true) => both!(Rare, |a, b| round::max_xorsign_f32(a, b, false)),
        ("min", true, true) => both!(Rare, |a, b| round::min_xorsign_f32(a, b, true)),
        _ => both!(Rare, |a, b| round::max_xorsign_f32(a, b, true)),
    };
    same(run, C, "f32", 2)
}

fn double(name: &Name<'_>, l: Level) -> Option<Operation> {
    let t = "f64";
    let nearest = !(name.has("rz") || name.has("rm") || name.has("rp"));
    if name.has("sat") || name.has("xorsign") || (name.has("ftz") && !name.has("approx")) {
        return None;
    }
    match name.base {
        "add" if nearest => same(binary(l, |a: f64, b: f64| canonical_f64(a + b)), C, t, 2),
        "sub" if nearest => same(binary(l, |a: f64, b: f64| canonical_f64(a - b)), C, t, 2),
        "mul" if nearest => same(binary(l, |a: f64, b: f64| canonical_f64(a * b)), C, t, 2),
        "div" if nearest => same(binary(Rare, |a: f64, b: f64| canonical_f64(a / b)), C, t, 2),
        "fma" | "mad" if nearest => {
            same(ternary(l, |a: f64, b: f64, c: f64| canonical_f64(a.mul_add(b, c))), C, t, 3)
        }
        "add" => same(rounded!(name, R => binary(Rare, |a: f64, b: f64| round::add_f64(a, b, R))), C, t, 2),
        "sub" => same(rounded!(name, R => binary(Rare, |a: f64, b: f64| round::sub_f64(a, b, R))), C, t, 2),
        "mul" => same(rounded!(name, R => binary(Rare, |a: f64, b: f64| round::mul_f64(a, b, R))), C, t, 2),
        "div" => same(rounded!(name, R => binary(Rare, |a: f64, b: f64| round::div_f64(a, b, R))), C, t, 2),
        "fma" | "mad" => same(
            rounded!(name, R => ternary(Rare, |a: f64, b: f64, c: f64| round::fma_f64(a, b, c, R))),
            C,
            t,
            3,
        ),
        "rcp" if name.has("approx") => same(unary(Rare, |a: f64| approx::rcp_approx_ftz_f64(a)), S, t, 1),
        "rsqrt" if name.has("approx") => same(unary(Rare, |a: f64| approx::rsqrt_approx_ftz_f64(a)), S, t, 1),
        "rcp" => same(rounded!(name, R => unary(Rare, |a: f64| round::rcp_f64(a, R))), S, t, 1),
        "sqrt" => same(rounded!(name, R => unary(Rare, |a: f64| round::sqrt_f64(a, R))), S, t, 1),
        "abs" => same(unary(Rare, |a: f64| a.abs()), C, t, 1),
        "neg" => same(unary(Rare, |a: f64| -a), C, t, 1),
        "min" => same(binary(Rare, |a: f64, b: f64| round::min_f64(a, b)), C, t, 2),
        "max" => same(binary(Rare, |a: f64, b: f64| round::max_f64(a, b)), C, t, 2),
        _ => None,
    }
}

/// `testp`, as a comparison that looks at its first operand.
fn test(name: &Name<'_>) -> Option<Operation> {
    macro_rules! question {
        ($variant:ident) => {
            match name.last() {
                "f32" => (compare(Rare, |a: f32, _: f32| round::testp_f32(a, TestP::$variant)), "f32"),
                _ => (compare(Rare, |a: f64, _: f64| round::testp_f64(a, TestP::$variant)), "f64"),
            }
        };
    }
    let (run, t) = match name.qualifiers.first().copied()? {
        "finite" => question!(Finite),
        "infinite" => question!(Infinite),
        "number" => question!(Number),
        "notanumber" => question!(NotANumber),
        "normal" => question!(Normal),
        "subnormal" => question!(Subnormal),
        _ => return None,
    };
    with(run, C, "pred", &[t])
}
