//! float32 and float64 arithmetic: PTX ISA 9.7.3. Results that are rounded come from exact numbers; approximations are
//! held to the manual's bounds against float64 functions.

use super::exact::{self, Format, MODES, Mode, Value};
use super::form::{T, Table, Want};
use std::f64::consts::PI;

pub fn table() -> Table {
    let mut table = Table::default();
    rounded(&mut table);
    extrema(&mut table);
    signs(&mut table);
    approximations(&mut table);
    table
}

/// `.ftz` on inputs and result, `.sat` on the result: NaN becomes +0.
#[derive(Clone, Copy)]
pub struct Finish {
    pub format: Format,
    pub ftz: bool,
    pub sat: bool,
}

impl Finish {
    pub fn input(self, raw: u64) -> Value {
        self.format.value(if self.ftz { self.format.flush(raw) } else { raw })
    }

    pub fn output(self, bits: u64) -> Want {
        let f = self.format;
        let bits = if self.ftz { f.flush(bits) } else { bits };
        if self.sat {
            return Want::Bits(saturate(f, bits));
        }
        // float64 keeps some payload; which one is not said.
        if f == exact::F64 && f.is_nan(bits) { Want::AnyNan(f) } else { Want::Bits(bits) }
    }
}

/// Clamps to [0, 1]; NaN and negative numbers give +0.
pub fn saturate(f: Format, bits: u64) -> u64 {
    if f.is_nan(bits) || bits & f.sign() != 0 { 0 } else { bits.min(f.one()) }
}

type Arithmetic = fn(&[Value], Mode) -> Value;

fn rounded(table: &mut Table) {
    let operations: [(&str, usize, Arithmetic); 7] = [
        ("add", 2, |v, mode| exact::add(v[0], v[1], mode)),
        ("sub", 2, |v, mode| exact::add(v[0], exact::negate(v[1]), mode)),
        ("mul", 2, |v, _| exact::multiply(v[0], v[1])),
        ("fma", 3, |v, mode| exact::add(exact::multiply(v[0], v[1]), v[2], mode)),
        ("div", 2, |v, _| exact::divide(v[0], v[1])),
        ("rcp", 1, |v, _| exact::divide(exact::Finite(exact::Exact::integer(1)), v[0])),
        ("sqrt", 1, |v, _| exact::root(v[0])),
    ];
    for (base, count, compute) in operations {
        for t in [T::F32, T::F64] {
            for (suffix, mode) in MODES {
                for (ftz, sat) in [(false, false), (true, false), (false, true), (true, true)] {
                    let saturates = ["add", "sub", "mul", "fma"].contains(&base);
                    if t == T::F64 && (ftz || sat) || sat && !saturates {
                        continue;
                    }
                    let finish = Finish { format: t.format(), ftz, sat };
                    let rest = format!(
                        "{}{}.{}",
                        if ftz { ".ftz" } else { "" },
                        if sat { ".sat" } else { "" },
                        t.name()
                    );
                    let oracle = move |v: &[u64]| {
                        let values: Vec<Value> = v.iter().map(|raw| finish.input(*raw)).collect();
                        finish.output(finish.format.encode(compute(&values, mode), mode))
                    };
                    table.add(format!("{base}.{suffix}{rest}"), t, &vec![t; count], oracle);
                    // Without a rounding: to nearest even.
                    if mode == Mode::Nearest && ["add", "sub", "mul"].contains(&base) {
                        table.add(format!("{base}{rest}"), t, &vec![t; count], oracle);
                    }
                    if base == "fma" {
                        table.add(format!("mad.{suffix}{rest}"), t, &vec![t; count], oracle);
                    }
                }
            }
        }
    }
}

/// `min` and `max` as the manual's code has them, with -0 < +0.
pub fn extremum(f: Format, max: bool, nan: bool, xorsign: bool, a: u64, b: u64) -> u64 {
    let sign = (a ^ b) & f.sign();
    let (a, b) = if xorsign { (a & !f.sign(), b & !f.sign()) } else { (a, b) };
    // The order of floats as that of integers.
    let key = |bits: u64| {
        if bits & f.sign() != 0 { -((bits & !f.sign()) as i64) - 1 } else { bits as i64 }
    };
    let result = match (f.is_nan(a), f.is_nan(b)) {
        (true, true) => return f.nan(),
        (true, false) | (false, true) if nan => return f.nan(),
        (true, false) => b,
        (false, true) => a,
        _ if (key(a) < key(b)) != max => a,
        _ => b,
    };
    if xorsign { result | sign } else { result }
}

fn extrema(table: &mut Table) {
    for max in [false, true] {
        let base = if max { "max" } else { "min" };
        for ftz in ["", ".ftz"] {
            for nan in ["", ".NaN"] {
                for xorsign in ["", ".xorsign.abs"] {
                    table.add(format!("{base}{ftz}{nan}{xorsign}.f32"), T::F32, &[T::F32; 2], move |v| {
                        let f = exact::F32;
                        let [a, b] = [v[0], v[1]].map(|raw| if ftz.is_empty() { raw } else { f.flush(raw) });
                        Want::Bits(extremum(f, max, !nan.is_empty(), !xorsign.is_empty(), a, b))
                    });
                }
            }
        }
        table.add(format!("{base}.f64"), T::F64, &[T::F64; 2], move |v| {
            let f = exact::F64;
            let result = extremum(f, max, false, false, v[0], v[1]);
            if f.is_nan(result) { Want::AnyNan(f) } else { Want::Bits(result) }
        });
    }
}

fn signs(table: &mut Table) {
    for t in [T::F32, T::F64] {
        let (f, n) = (t.format(), t.name());
        for ftz in [false, true] {
            if ftz && t == T::F64 {
                continue;
            }
            let suffix = if ftz { ".ftz" } else { "" };
            let flush = move |raw: u64| if ftz { f.flush(raw) } else { raw };
            // The NaN that abs and neg give is not said.
            let unless_nan =
                move |raw: u64, bits: u64| if f.is_nan(raw) { Want::AnyNan(f) } else { Want::Bits(bits) };
            table
                .add(format!("abs{suffix}.{n}"), t, &[t], move |v| unless_nan(v[0], flush(v[0]) & !f.sign()));
            table.add(format!("neg{suffix}.{n}"), t, &[t], move |v| unless_nan(v[0], flush(v[0]) ^ f.sign()));
        }
        // copysign d, a, b: a's sign on b's value.
        table.add(format!("copysign.{n}"), t, &[t; 2], move |v| {
            Want::Bits(v[0] & f.sign() | v[1] & !f.sign())
        });
        type Question = fn(Format, u64) -> bool;
        let questions: [(&str, Question); 6] = [
            ("finite", |f, raw| matches!(f.value(raw), Value::Finite(_))),
            ("infinite", |f, raw| matches!(f.value(raw), Value::Infinite(_))),
            ("number", |f, raw| !f.is_nan(raw)),
            ("notanumber", |f, raw| f.is_nan(raw)),
            // "As a special case, positive and negative zero are considered normal numbers."
            ("normal", |f, raw| matches!(f.value(raw), Value::Finite(_)) && !f.is_subnormal(raw)),
            ("subnormal", |f, raw| f.is_subnormal(raw)),
        ];
        for (question, holds) in questions {
            table.add(format!("testp.{question}.{n}"), T::P, &[t], move |v| {
                Want::Bits(u64::from(holds(f, v[0])))
            });
        }
    }
}

const ULP: f64 = 1.0 / 8_388_608.0;

/// An approximation within a bound; no number, infinities and zeros are exact.
fn near(format: Format, value: f64, relative: f64, absolute: f64) -> Want {
    if value.is_nan() { Want::AnyNan(format) } else { Want::Near { format, value, relative, absolute } }
}

fn approximations(table: &mut Table) {
    type Function = fn(f64) -> f64;
    // Name, function, relative bound, absolute bound: where the manual says ulp, 2^-23 of the value is an ulp at most.
    let functions: [(&str, Function, f64, f64); 8] = [
        ("rcp", |x| 1.0 / x, ULP, 0.0),
        ("sqrt", f64::sqrt, ULP, 0.0),
        ("rsqrt", |x| 1.0 / x.sqrt(), 2f64.powf(-22.9), 0.0),
        ("ex2", f64::exp2, 2.0 * ULP, 0.0),
        ("lg2", f64::log2, 2f64.powi(-22), 0.0),
        ("sin", f64::sin, 0.0, 0.0),
        ("cos", f64::cos, 0.0, 0.0),
        ("tanh", f64::tanh, 2f64.powi(-11), 0.0),
    ];
    for (base, function, relative, absolute) in functions {
        for ftz in [false, true] {
            if ftz && base == "tanh" {
                continue;
            }
            let f = exact::F32;
            let opcode = format!("{base}.approx{}.f32", if ftz { ".ftz" } else { "" });
            table.add(opcode, T::F32, &[T::F32], move |v| {
                let x = exact::approximately(f.value(if ftz { f.flush(v[0]) } else { v[0] }));
                let y = function(x);
                let (mut relative, mut absolute) = (relative, absolute);
                match base {
                    // Inside (0.5, 2) the bound is absolute.
                    "lg2" if x > 0.5 && x < 2.0 => (relative, absolute) = (0.0, 2f64.powf(-22.6)),
                    "sin" | "cos" if x.abs() <= 2.0 * PI => absolute = 2f64.powf(-20.5),
                    "sin" | "cos" if x.abs() <= 100.0 * PI => absolute = 2f64.powf(-14.7),
                    "sin" | "cos" if x.is_finite() => absolute = 2.0,
                    _ => {}
                }
                // Flushed results, and results below the normal numbers, where an ulp is 2^-149.
                absolute = absolute.max(if ftz { f32::MIN_POSITIVE as f64 } else { 2f64.powi(-148) });
                // Beyond the largest number.
                let y = if y.abs() > f64::from(f32::MAX) { y.signum() * f64::INFINITY } else { y };
                near(f, y, relative, absolute)
            });
        }
    }
    for (kind, ftz) in [("approx", ""), ("approx", ".ftz"), ("full", ""), ("full", ".ftz")] {
        table.add(format!("div.{kind}{ftz}.f32"), T::F32, &[T::F32; 2], move |v| {
            let f = exact::F32;
            let [a, b] = [v[0], v[1]].map(|raw| if ftz.is_empty() { raw } else { f.flush(raw) });
            let exact = exact::approximately(exact::divide(f.value(a), f.value(b)));
            let divisor = exact::approximately(f.value(b)).abs();
            if kind == "approx" && divisor > 2f64.powi(126) && divisor.is_finite() && !f.is_nan(a) {
                // "If a is infinity, NaN, otherwise 0."
                return match f.value(a) {
                    Value::Infinite(_) => Want::AnyNan(f),
                    _ => Want::Bits((a ^ b) & f.sign()),
                };
            }
            if kind == "approx" && divisor < 2f64.powi(-126) && divisor > 0.0 {
                // No bound is given.
                return Want::Anything;
            }
            // Within 2 ulp of the largest number both it and infinity are near.
            let edge = exact.abs() > f64::from(f32::MAX) * (1.0 - 2.0 * ULP);
            if edge && exact.is_finite() {
                return Want::Either(vec![
                    near(f, exact.signum() * f64::INFINITY, 0.0, 0.0),
                    near(f, exact, 2.0 * ULP, 0.0),
                ]);
            }
            let floor = if ftz.is_empty() { 2f64.powi(-148) } else { f64::from(f32::MIN_POSITIVE) };
            near(f, exact, 2.0 * ULP, floor)
        });
    }
    // The upper 20 bits of the mantissa count; subnormal numbers are flushed.
    let doubles: [(&str, Function); 2] = [("rcp", |x| 1.0 / x), ("rsqrt", |x| 1.0 / x.sqrt())];
    for (base, function) in doubles {
        table.add(format!("{base}.approx.ftz.f64"), T::F64, &[T::F64], move |v| {
            let y = function(f64::from_bits(exact::F64.flush(v[0])));
            near(exact::F64, y, 2f64.powi(-19), f64::MIN_POSITIVE)
        });
    }
}
