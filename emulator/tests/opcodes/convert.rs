//! `cvt`: PTX ISA 9.7.9.21 (8.8).

use super::exact::{self, Format, MODES, Mode, Value};
use super::float::saturate;
use super::form::{T, Table, Want};

/// Name, source type, destination type, bits, signed.
type Integer = (&'static str, T, T, u32, bool);

const INTEGERS: [Integer; 8] = [
    ("u8", T::B8, T::U16, 8, false),
    ("s8", T::B8, T::S16, 8, true),
    ("u16", T::U16, T::U16, 16, false),
    ("s16", T::S16, T::S16, 16, true),
    ("u32", T::U32, T::U32, 32, false),
    ("s32", T::S32, T::S32, 32, true),
    ("u64", T::U64, T::U64, 64, false),
    ("s64", T::S64, T::S64, 64, true),
];

const FLOATS: [T; 4] = [T::F16, T::Bf16, T::F32, T::F64];

fn range(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn value(raw: u64, bits: u32, signed: bool) -> i128 {
    let raw = raw & (u64::MAX >> (64 - bits));
    if signed && raw >> (bits - 1) == 1 { i128::from(raw) - (1 << bits) } else { i128::from(raw) }
}

pub fn table() -> Table {
    let mut table = Table::default();
    between_integers(&mut table);
    wide_registers(&mut table);
    from_integers(&mut table);
    to_integers(&mut table);
    narrowing(&mut table);
    widening(&mut table);
    integral(&mut table);
    packed(&mut table);
    table
}

fn between_integers(table: &mut Table) {
    for (to, _, into, to_bits, to_signed) in INTEGERS {
        for (from, source, _, bits, signed) in INTEGERS {
            // An 8-bit result is extended to its 16-bit register, with its sign if it has one.
            let narrow = move |x: i128| Want::Bits(into.wrap(value(x as u64, to_bits, to_signed)));
            table
                .add(format!("cvt.{to}.{from}"), into, &[source], move |v| narrow(value(v[0], bits, signed)));
            table.add(format!("cvt.sat.{to}.{from}"), into, &[source], move |v| {
                let (low, high) = range(to_bits, to_signed);
                narrow(value(v[0], bits, signed).clamp(low, high))
            });
        }
    }
}

/// A destination register that is wider than the type takes the extended value (PTX ISA 9.4.1); of a wider source the
/// low bits count.
fn wide_registers(table: &mut Table) {
    for (to, _, _, bits, signed) in &INTEGERS[..4] {
        for from in [T::U32, T::S32] {
            table.add(format!("cvt.{to}.{}", from.name()), T::B32, &[from], move |v| {
                Want::Bits(T::B32.wrap(value(v[0], *bits, *signed)))
            });
        }
        for into in [T::U32, T::S32] {
            table.add(format!("cvt.{}.{to}", into.name()), into, &[T::B32], move |v| {
                Want::Bits(into.wrap(value(v[0], *bits, *signed)))
            });
        }
    }
}

fn from_integers(table: &mut Table) {
    for (from, source, _, bits, signed) in INTEGERS {
        for to in FLOATS {
            for (suffix, mode) in MODES {
                table.add(format!("cvt.{suffix}.{}.{from}", to.name()), to, &[source], move |v| {
                    let exact = exact::Exact::integer(value(v[0], bits, signed));
                    Want::Bits(to.format().round(exact, mode))
                });
            }
        }
    }
}

const INTEGRAL: [(&str, Mode); 4] =
    [("rni", Mode::Nearest), ("rzi", Mode::Zero), ("rmi", Mode::Down), ("rpi", Mode::Up)];

fn to_integers(table: &mut Table) {
    for (to, _, into, bits, signed) in INTEGERS {
        for from in FLOATS {
            for (suffix, mode) in INTEGRAL {
                for ftz in ["", ".ftz"] {
                    if from != T::F32 && !ftz.is_empty() {
                        continue;
                    }
                    table.add(format!("cvt.{suffix}{ftz}.{to}.{}", from.name()), into, &[from], move |v| {
                        let f = from.format();
                        let (low, high) = range(bits, signed);
                        let raw = if ftz.is_empty() { v[0] } else { f.flush(v[0]) };
                        // Integers clamp. NaN: 0 for all types but f64 and those of 64 bits, whose result is 2^63.
                        let clamped = match exact::integral(f.value(raw), mode) {
                            Value::Nan if from == T::F64 || bits == 64 => return nan_result(into, bits),
                            Value::Nan => 0,
                            Value::Infinite(negative) => {
                                if negative {
                                    low
                                } else {
                                    high
                                }
                            }
                            Value::Finite(x) => {
                                let magnitude = if x.m == 0 {
                                    0
                                } else if x.e >= 70 {
                                    i128::MAX >> 1
                                } else {
                                    (x.m as i128) << x.e.max(0)
                                };
                                (if x.negative { -magnitude } else { magnitude }).clamp(low, high)
                            }
                        };
                        Want::Bits(into.wrap(clamped))
                    });
                }
            }
        }
    }
}

/// "In float-to-integer conversion, NaN inputs are converted to 0", but real devices, and the manual's later text, give
/// the highest bit for 64-bit results and sources; both are taken.
fn nan_result(into: T, bits: u32) -> Want {
    let top = Want::Bits(into.wrap(1 << (bits - 1)));
    Want::Either(vec![Want::Bits(0), top, Want::Bits(into.wrap(-(1 << (bits - 1))))])
}

/// Changes that `cvt` makes to a rounded result.
fn finish(f: Format, bits: u64, how: &str) -> u64 {
    match how {
        ".sat" => saturate(f, bits),
        ".relu" if f.is_nan(bits) => f.nan(),
        ".relu" if bits & f.sign() != 0 => 0,
        // The largest number of that sign; NaN stays.
        ".satfinite" if bits & !f.sign() == f.infinity(false) => bits - 1,
        ".ftz" => f.flush(bits),
        _ => bits,
    }
}

/// float64 results of NaN may have any payload.
fn float_result(f: Format, bits: u64) -> Want {
    if f == exact::F64 && f.is_nan(bits) { Want::AnyNan(f) } else { Want::Bits(bits) }
}

fn narrowing(table: &mut Table) {
    let mut form = |to: T, from: T, mode: (&'static str, Mode), how: &'static str| {
        let opcode = format!("cvt.{}{how}.{}.{}", mode.0, to.name(), from.name());
        table.add(opcode, to, &[from], move |v| {
            let (source, f) = (from.format(), to.format());
            let raw = if how == ".ftz" && from == T::F32 { source.flush(v[0]) } else { v[0] };
            let bits = f.encode(source.value(raw), mode.1);
            // Only float32 results are flushed.
            let how = if how == ".ftz" && to != T::F32 { "" } else { how };
            Want::Bits(finish(f, bits, how))
        });
    };
    for mode in MODES {
        for how in ["", ".ftz", ".sat"] {
            form(T::F32, T::F64, mode, how);
        }
        for how in ["", ".ftz", ".sat", ".relu"] {
            form(T::F16, T::F32, mode, how);
        }
        form(T::F16, T::F64, mode, "");
        form(T::Bf16, T::F64, mode, "");
        form(T::F16, T::Bf16, mode, "");
        form(T::Bf16, T::F16, mode, "");
        form(T::Bf16, T::F32, mode, "");
        form(T::Bf16, T::F32, mode, ".relu");
    }
    // tf32: 10 bits of mantissa, the other 13 zero; NaN is 0x7fffffff.
    for (suffix, mode, hows) in [
        ("rna", Mode::Away, &["", ".satfinite"][..]),
        ("rn", Mode::Nearest, &["", ".relu"]),
        ("rz", Mode::Zero, &["", ".relu"]),
    ] {
        for &how in hows {
            table.add(format!("cvt.{suffix}{how}.tf32.f32"), T::B32, &[T::F32], move |v| {
                let f = exact::TF32;
                let source = exact::F32.value(v[0]);
                if source == Value::Nan {
                    return Want::AnyNan(exact::F32);
                }
                let bits = f.encode(source, mode);
                Want::Bits(finish(f, bits, how) << 13)
            });
        }
    }
}

fn widening(table: &mut Table) {
    for (to, from, hows) in [
        (T::F32, T::F32, &["", ".ftz", ".sat", ".ftz.sat"][..]),
        (T::F64, T::F32, &["", ".ftz"]),
        (T::F64, T::F64, &["", ".sat"]),
        (T::F32, T::F16, &["", ".ftz", ".sat"]),
        (T::F32, T::Bf16, &[""]),
        (T::F64, T::F16, &[""]),
        (T::F64, T::Bf16, &[""]),
    ] {
        for &how in hows {
            table.add(format!("cvt{how}.{}.{}", to.name(), from.name()), to, &[from], move |v| {
                let (source, f) = (from.format(), to.format());
                // A conversion to the same type is a copy.
                let raw = if how.contains(".ftz") { source.flush(v[0]) } else { v[0] };
                let raw = if from == T::F16 { v[0] } else { raw };
                if source.is_nan(raw) && !how.contains(".sat") {
                    return Want::AnyNan(f);
                }
                let bits = f.encode(source.value(raw), Mode::Nearest);
                if how.contains(".sat") { Want::Bits(saturate(f, bits)) } else { float_result(f, bits) }
            });
        }
    }
}

fn integral(table: &mut Table) {
    for t in FLOATS {
        for (suffix, mode) in INTEGRAL {
            let hows: &[&str] = if t == T::F32 { &["", ".ftz", ".sat", ".ftz.sat"] } else { &[""] };
            for &how in hows {
                table.add(format!("cvt.{suffix}{how}.{0}.{0}", t.name()), t, &[t], move |v| {
                    let f = t.format();
                    let raw = if how.contains(".ftz") { f.flush(v[0]) } else { v[0] };
                    let bits = f.encode(exact::integral(f.value(raw), mode), Mode::Nearest);
                    if how.contains(".sat") { Want::Bits(saturate(f, bits)) } else { float_result(f, bits) }
                });
            }
        }
    }
}

/// Two float32 in one register of halves: the first goes to the upper half.
fn packed(table: &mut Table) {
    for to in [T::F16x2, T::Bf16x2] {
        for (suffix, mode, hows) in
            [("rn", Mode::Nearest, &["", ".relu", ".satfinite"][..]), ("rz", Mode::Zero, &["", ".relu"])]
        {
            for &how in hows {
                table.add(format!("cvt.{suffix}{how}.{}.f32", to.name()), to, &[T::F32; 2], move |v| {
                    let f = to.format();
                    let half = |raw: u64| finish(f, f.encode(exact::F32.value(raw), mode), how);
                    Want::Bits(half(v[0]) << 16 | half(v[1]))
                });
            }
        }
    }
}
