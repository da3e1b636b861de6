//! Loads, stores, atomics, address windows: PTX ISA 9.7.9, 9.7.13. A thread uses 16 bytes of its own: in global memory
//! the place of its results, in shared and local memory a variable.

use super::exact::{self, Mode};
use super::float::extremum;
use super::form::{T, Table, Want};

/// Declaration and address of a thread's 16 bytes, by state space; `generic` ones are the others through a window.
const SPACES: [(&str, &str, &str); 6] = [
    ("global", "", "%l12"),
    (
        "shared",
        ".shared .align 16 .b8 box[8192]; mov.u32 %r14, box; mad.lo.u32 %r14, %r12, 32, %r14; ",
        "%r14",
    ),
    ("local", ".local .align 16 .b8 own[32]; mov.u64 %l14, own; ", "%l14"),
    ("", "", "%l12"),
    (
        "",
        ".shared .align 16 .b8 box[8192]; mov.u64 %l14, box; mad.wide.u32 %l14, %r12, 32, %l14; \
         cvta.shared.u64 %l14, %l14; ",
        "%l14",
    ),
    ("", ".local .align 16 .b8 own[32]; mov.u64 %l14, own; cvta.local.u64 %l14, %l14; ", "%l14"),
];

/// Types of memory: name, bytes, signed.
const CELLS: [(&str, u32, bool); 14] = [
    ("b8", 1, false),
    ("u8", 1, false),
    ("s8", 1, true),
    ("b16", 2, false),
    ("u16", 2, false),
    ("s16", 2, true),
    ("b32", 4, false),
    ("u32", 4, false),
    ("s32", 4, true),
    ("f32", 4, false),
    ("b64", 8, false),
    ("u64", 8, false),
    ("s64", 8, true),
    ("f64", 8, false),
];

fn part(value: u64, at: u32, bytes: u32, signed: bool, to: T) -> u64 {
    let bits = 8 * bytes;
    let raw = value >> (8 * at) & (u64::MAX >> (64 - bits));
    let negative = signed && raw >> (bits - 1) == 1;
    (if negative { raw | (u64::MAX << (bits - 1)) } else { raw }) & to.mask()
}

fn dotted(words: &[&str]) -> String {
    words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(".")
}

pub fn table() -> Table {
    let mut table = Table::default();
    for (space, before, at) in SPACES {
        for (cell, bytes, signed) in CELLS {
            for to in [T::B16, T::B32, T::B64] {
                // Registers may be wider than what is loaded or stored, floats must fit.
                if to.bits() < 8 * bytes || cell.starts_with('f') && to.bits() != 8 * bytes {
                    continue;
                }
                let place = 8 - bytes;
                let load = dotted(&["ld", space, cell]);
                let fill = dotted(&["st", space, "b64"]);
                let text = format!("{before}{fill} [{at}], $a; {load} $d, [{at}+{place}]");
                let name = format!("{load} ({} bits, {before:.6})", to.bits());
                table.text(name, &text, to, &[T::B64], move |v| {
                    Want::Bits(part(v[0], place, bytes, signed, to))
                });
                let store = dotted(&["st", space, cell]);
                let all = dotted(&["ld", space, "b64"]);
                let text = format!("{before}{fill} [{at}], $a; {store} [{at}+{place}], $b; {all} $d, [{at}]");
                let name = format!("{store} ({} bits, {before:.6})", to.bits());
                table.text(name, &text, T::B64, &[T::B64, to], move |v| {
                    let field = (u64::MAX >> (64 - 8 * bytes)) << (8 * place);
                    Want::Bits(v[0] & !field | (v[1] << (8 * place)) & field)
                });
            }
        }
        vectors(&mut table, space, before, at);
    }
    qualifiers(&mut table);
    windows(&mut table);
    for (space, before, at) in SPACES {
        if space != "local" && !before.contains("own") {
            atomics(&mut table, space, before, at);
        }
    }
    table
}

fn vectors(table: &mut Table, space: &str, before: &str, at: &str) {
    for (cell, bytes) in [("b8", 1), ("u16", 2), ("b32", 4), ("f32", 4), ("u64", 8), ("f64", 8)] {
        for count in [2u32, 4] {
            if count * bytes > 16 {
                continue;
            }
            let to = match bytes {
                1 | 2 => T::B16,
                4 => T::B32,
                _ => T::B64,
            };
            let scratch = match bytes {
                1 | 2 => "%h9",
                4 => "%r9",
                _ => "%l9",
            };
            let vector = format!("v{count}");
            let fill = dotted(&["st", space, "v2", "b64"]);
            let load = dotted(&["ld", space, &vector, cell]);
            for element in 0..count {
                let names: Vec<&str> =
                    (0..count).map(|other| if other == element { "$d" } else { scratch }).collect();
                let text =
                    format!("{before}{fill} [{at}], {{$a, $b}}; {load} {{{}}}, [{at}]", names.join(", "));
                table.text(format!("{load} {element}"), &text, to, &[T::B64; 2], move |v| {
                    let offset = element * bytes;
                    Want::Bits(part(v[(offset / 8) as usize], offset % 8, bytes, false, to))
                });
            }
            // Elements of a store: $c in one place, zeros beside it.
            let store = dotted(&["st", space, &vector, cell]);
            let all = dotted(&["ld", space, "b64"]);
            let zero = match cell {
                "f32" => "0f00000000",
                "f64" => "0d0000000000000000",
                _ => "0",
            };
            for element in 0..count {
                let names: Vec<&str> =
                    (0..count).map(|other| if other == element { "$c" } else { zero }).collect();
                let half = element * bytes / 8 * 8;
                let text = format!(
                    "{before}{fill} [{at}], {{$a, $b}}; {store} [{at}], {{{}}}; {all} $d, [{at}+{half}]",
                    names.join(", ")
                );
                table.text(format!("{store} {element}"), &text, T::B64, &[T::B64, T::B64, to], move |v| {
                    let old = v[(half / 8) as usize];
                    let covered = (count * bytes).saturating_sub(half).min(8);
                    let kept = if covered == 8 { 0 } else { old >> (8 * covered) << (8 * covered) };
                    let cell = v[2] & (u64::MAX >> (64 - 8 * bytes));
                    Want::Bits(kept | cell << (8 * (element * bytes - half)))
                });
            }
        }
    }
}

/// Hints and orders that change no value.
fn qualifiers(table: &mut Table) {
    for how in [
        "ld.global.ca.b32",
        "ld.global.cg.b32",
        "ld.global.cs.b32",
        "ld.global.lu.b32",
        "ld.global.cv.b32",
        "ld.global.nc.b32",
        "ld.global.nc.L1::no_allocate.b32",
        "ld.global.L1::evict_last.b32",
        "ld.global.L2::128B.b32",
        "ld.volatile.global.b32",
        "ld.weak.global.b32",
        "ld.relaxed.gpu.global.b32",
        "ld.relaxed.sys.global.b32",
        "ld.acquire.gpu.global.b32",
        "ld.acquire.cta.global.b32",
    ] {
        let text = format!("st.global.b32 [%l12], $a; {how} $d, [%l12]");
        table.text(how, &text, T::B32, &[T::B32], |v| Want::Bits(v[0]));
    }
    for how in [
        "st.global.wb.b32",
        "st.global.cg.b32",
        "st.global.cs.b32",
        "st.global.wt.b32",
        "st.global.L1::no_allocate.b32",
        "st.volatile.global.b32",
        "st.weak.global.b32",
        "st.relaxed.gpu.global.b32",
        "st.release.gpu.global.b32",
        "st.release.sys.global.b32",
    ] {
        let text = format!("{how} [%l12], $a; ld.global.b32 $d, [%l12]");
        table.text(how, &text, T::B32, &[T::B32], |v| Want::Bits(v[0]));
    }
    for idle in ["prefetch.global.L2 [%l12]", "membar.cta", "membar.gl", "membar.sys", "fence.acq_rel.gpu"] {
        table.text(idle, &format!("{idle}; mov.b32 $d, $a"), T::B32, &[T::B32], |v| Want::Bits(v[0]));
    }
}

fn windows(table: &mut Table) {
    for (space, declaration) in [("shared", ".shared .b32 thing; "), ("local", ".local .b32 thing; ")] {
        let address = format!("{declaration}mov.u64 %l14, thing; cvta.{space}.u64 %l14, %l14; ");
        for asked in ["shared", "local", "global"] {
            let text = format!("{address}isspacep.{asked} $d, %l14");
            table.text(format!("isspacep.{asked} of {space}"), &text, T::P, &[T::B32], move |_| {
                Want::Bits(u64::from(asked == space))
            });
        }
        let text = format!(
            "{declaration}mov.u64 %l13, thing; cvta.{space}.u64 %l14, %l13; cvta.to.{space}.u64 %l14, %l14; \
             sub.u64 $d, %l14, %l13"
        );
        table.text(format!("cvta.to.{space}.u64"), &text, T::B64, &[T::B32], |_| Want::Bits(0));
    }
    table.text("isspacep.global", "isspacep.global $d, %l12", T::P, &[T::B32], |_| Want::Bits(1));
    table.text(
        "cvta.to.global.u64",
        "cvta.to.global.u64 %l14, %l12; sub.u64 $d, %l14, %l12",
        T::B64,
        &[T::B32],
        |_| Want::Bits(0),
    );
}

type Change = Box<dyn Fn(&[u64]) -> Want + Send + Sync>;

/// Operation, type, operands besides the address, and the new value of (old, operand, second operand).
fn changes(global: bool) -> Vec<(&'static str, T, usize, Change)> {
    let mut list: Vec<(&'static str, T, usize, Change)> = Vec::new();
    for t in [T::U32, T::S32, T::U64] {
        list.push(("add", t, 1, Box::new(move |v| Want::Bits(t.wrap(t.integer(v[0]) + t.integer(v[1]))))));
    }
    for t in [T::U32, T::S32, T::U64, T::S64] {
        list.push(("min", t, 1, Box::new(move |v| Want::Bits(t.wrap(t.integer(v[0]).min(t.integer(v[1])))))));
        list.push(("max", t, 1, Box::new(move |v| Want::Bits(t.wrap(t.integer(v[0]).max(t.integer(v[1])))))));
    }
    for t in [T::B32, T::B64] {
        list.push(("and", t, 1, Box::new(|v| Want::Bits(v[0] & v[1]))));
        list.push(("or", t, 1, Box::new(|v| Want::Bits(v[0] | v[1]))));
        list.push(("xor", t, 1, Box::new(|v| Want::Bits(v[0] ^ v[1]))));
        list.push(("exch", t, 1, Box::new(|v| Want::Bits(v[1]))));
    }
    for t in [T::B16, T::B32, T::B64] {
        list.push(("cas", t, 2, Box::new(|v| Want::Bits(if v[0] == v[1] { v[2] } else { v[0] }))));
    }
    list.push(("inc", T::U32, 1, Box::new(|v| Want::Bits(if v[0] >= v[1] { 0 } else { v[0] + 1 }))));
    list.push((
        "dec",
        T::U32,
        1,
        Box::new(|v| Want::Bits(if v[0] == 0 || v[0] > v[1] { v[1] } else { v[0] - 1 })),
    ));
    for t in [T::F32, T::F64] {
        let f = t.format();
        // "atom.add.f32 on global memory flushes subnormal inputs and results; on shared memory it does not."
        let flush = move |raw: u64| if t == T::F32 && global { f.flush(raw) } else { raw };
        list.push((
            "add",
            t,
            1,
            Box::new(move |v| {
                let (a, b) = (f.value(flush(v[0])), f.value(flush(v[1])));
                let sum = flush(f.encode(exact::add(a, b, Mode::Nearest), Mode::Nearest));
                if f.is_nan(sum) { Want::AnyNan(f) } else { Want::Bits(sum) }
            }),
        ));
    }
    for t in [T::F16, T::Bf16, T::F16x2, T::Bf16x2] {
        let f = t.format();
        for op in ["add.noftz", "min.noftz", "max.noftz"] {
            let half = move |a: u64, b: u64| {
                let bits = match op {
                    "add.noftz" => f.encode(exact::add(f.value(a), f.value(b), Mode::Nearest), Mode::Nearest),
                    _ => extremum(f, op == "max.noftz", false, false, a, b),
                };
                if f.is_nan(bits) { Want::AnyNan(f) } else { Want::Bits(bits) }
            };
            list.push((
                op,
                t,
                1,
                Box::new(move |v| {
                    if t.bits() == 16 {
                        return half(v[0], v[1]);
                    }
                    let part = |at: u32| half(v[0] >> at & 0xFFFF, v[1] >> at & 0xFFFF);
                    Want::Halves(Box::new([part(0), part(16)]))
                }),
            ));
        }
    }
    list
}

fn atomics(table: &mut Table, space: &str, before: &str, at: &str) {
    let global = !before.contains("box");
    for (op, t, operands, change) in changes(global) {
        let (n, width) = (t.name(), t.bits());
        let types = vec![t; operands + 1];
        let list = if operands == 2 { "$b, $c" } else { "$b" };
        let fill = dotted(&["st", space, &format!("b{width}")]);
        let read = dotted(&["ld", space, &format!("b{width}")]);
        let atom = dotted(&["atom", space, op, n]);
        let text = format!("{before}{fill} [{at}], $a; {atom} $d, [{at}], {list}");
        table.text(format!("{atom} (old)"), &text, t, &types, |v| Want::Bits(v[0]));
        let change = std::sync::Arc::new(change);
        let same = change.clone();
        let scratch = match width {
            16 => "%h9",
            32 => "%r9",
            _ => "%l9",
        };
        let text = format!("{before}{fill} [{at}], $a; {atom} {scratch}, [{at}], {list}; {read} $d, [{at}]");
        table.text(atom, &text, t, &types, move |v| same(v));
        if operands == 1 && op != "exch" {
            let red = dotted(&["red", space, op, n]);
            let text = format!("{before}{fill} [{at}], $a; {red} [{at}], {list}; {read} $d, [{at}]");
            table.text(red, &text, t, &types, move |v| change(v));
        }
    }
    if space == "global" {
        // Vectors: the second of two.
        let f = exact::F32;
        let text = "st.global.v2.b32 [%l12], {$a, $b}; red.global.add.v2.f32 [%l12], {$b, $c}; ld.global.b32 $d, [%l12+4]";
        table.text("red.global.add.v2.f32", text, T::F32, &[T::F32; 3], move |v| {
            let [b, c] = [v[1], v[2]].map(|raw| f.value(f.flush(raw)));
            let sum = f.flush(f.encode(exact::add(b, c, Mode::Nearest), Mode::Nearest));
            if f.is_nan(sum) { Want::AnyNan(f) } else { Want::Bits(sum) }
        });
    }
}
