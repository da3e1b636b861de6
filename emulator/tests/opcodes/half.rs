//! f16 and bf16 arithmetic, one or two a register: PTX ISA 9.7.4.

use super::exact::{self, Format, Mode, Value};
use super::float::{extremum, saturate};
use super::form::{T, Table, Want};

/// An operation on the bits of one half.
type Half = std::sync::Arc<dyn Fn(&[u64]) -> Want + Send + Sync>;

/// Adds the form on one value and the form on two.
fn both(
    table: &mut Table,
    name: &str,
    bf: bool,
    count: usize,
    half: impl Fn(&[u64]) -> Want + Send + Sync + 'static,
) {
    let half: Half = std::sync::Arc::new(half);
    let (one, two) = if bf { (T::Bf16, T::Bf16x2) } else { (T::F16, T::F16x2) };
    let single = half.clone();
    table.add(format!("{name}.{}", one.name()), one, &vec![one; count], move |v| single(v));
    table.add(format!("{name}.{}", two.name()), two, &vec![two; count], move |v| {
        let part = |at: u32| half(&v.iter().map(|raw| raw >> at & 0xFFFF).collect::<Vec<u64>>());
        Want::Halves(Box::new([part(0), part(16)]))
    });
}

/// Negative numbers and NaN: `.relu` clamps to +0, NaN stays the canonical NaN.
fn relu(f: Format, bits: u64) -> u64 {
    if f.is_nan(bits) {
        f.nan()
    } else if bits & f.sign() != 0 {
        0
    } else {
        bits
    }
}

pub fn table() -> Table {
    let mut table = Table::default();
    for bf in [false, true] {
        let f = if bf { exact::BF16 } else { exact::F16 };
        arithmetic(&mut table, bf, f);
        signs_and_extrema(&mut table, bf, f);
        approximations(&mut table, bf, f);
    }
    table
}

fn arithmetic(table: &mut Table, bf: bool, f: Format) {
    type Arithmetic = fn(&[Value]) -> Value;
    let operations: [(&str, usize, Arithmetic); 4] = [
        ("add", 2, |v| exact::add(v[0], v[1], Mode::Nearest)),
        ("sub", 2, |v| exact::add(v[0], exact::negate(v[1]), Mode::Nearest)),
        ("mul", 2, |v| exact::multiply(v[0], v[1])),
        ("fma", 3, |v| exact::add(exact::multiply(v[0], v[1]), v[2], Mode::Nearest)),
    ];
    for (base, count, compute) in operations {
        for suffix in ["", ".ftz", ".sat", ".relu"] {
            if bf && [".ftz", ".sat"].contains(&suffix) || suffix == ".relu" && base != "fma" {
                continue;
            }
            let oracle = move |v: &[u64]| {
                let flush = |raw: u64| if suffix == ".ftz" { f.flush(raw) } else { raw };
                let values: Vec<Value> = v.iter().map(|raw| f.value(flush(*raw))).collect();
                let bits = flush(f.encode(compute(&values), Mode::Nearest));
                Want::Bits(match suffix {
                    ".sat" => saturate(f, bits),
                    ".relu" => relu(f, bits),
                    _ => bits,
                })
            };
            both(table, &format!("{base}.rn{suffix}"), bf, count, oracle);
            if base != "fma" {
                both(table, &format!("{base}{suffix}"), bf, count, oracle);
            }
        }
    }
}

fn signs_and_extrema(table: &mut Table, bf: bool, f: Format) {
    let unless_nan =
        move |raw: u64, bits: u64| if f.is_nan(raw) { Want::AnyNan(f) } else { Want::Bits(bits) };
    for ftz in [false, true] {
        if ftz && bf {
            continue;
        }
        let suffix = if ftz { ".ftz" } else { "" };
        let flush = move |raw: u64| if ftz { f.flush(raw) } else { raw };
        both(table, &format!("neg{suffix}"), bf, 1, move |v| unless_nan(v[0], flush(v[0]) ^ f.sign()));
        both(table, &format!("abs{suffix}"), bf, 1, move |v| unless_nan(v[0], flush(v[0]) & !f.sign()));
    }
    for max in [false, true] {
        let base = if max { "max" } else { "min" };
        for (nan, xorsign) in [(false, false), (true, false), (false, true)] {
            if bf && xorsign {
                continue;
            }
            let suffix = if nan {
                ".NaN"
            } else if xorsign {
                ".xorsign.abs"
            } else {
                ""
            };
            both(table, &format!("{base}{suffix}"), bf, 2, move |v| {
                Want::Bits(extremum(f, max, nan, xorsign, v[0], v[1]))
            });
        }
    }
}

fn approximations(table: &mut Table, bf: bool, f: Format) {
    let near = move |value: f64, relative: f64, absolute: f64| {
        if value.is_nan() { Want::AnyNan(f) } else { Want::Near { format: f, value, relative, absolute } }
    };
    let largest = exact::approximately(f.value(f.infinity(false) - 1));
    let smallest = exact::approximately(f.value(1));
    let bound = if bf { 2f64.powi(-7) } else { 2f64.powf(-9.9) };
    for ftz in ["", ".ftz"] {
        if bf == ftz.is_empty() {
            continue;
        }
        both(table, &format!("ex2.approx{ftz}"), bf, 1, move |v| {
            let y = exact::approximately(f.value(v[0])).exp2();
            if y > largest {
                return near(f64::INFINITY, 0.0, 0.0);
            }
            let floor = if ftz.is_empty() { smallest } else { smallest * f64::from(1u32 << f.mantissa) };
            near(y, bound, floor)
        });
    }
    let absolute = if bf { 2f64.powi(-8) } else { 2f64.powf(-10.987) };
    both(table, "tanh.approx", bf, 1, move |v| {
        near(exact::approximately(f.value(v[0])).tanh(), 0.0, absolute)
    });
}
