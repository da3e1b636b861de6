//! Runs every form of a table, each in an entry of its own, a case a thread: once as it is, once under a guard that is
//! true for some lanes, whose other lanes must keep what the destination held.

use super::device::{Device, HEAD, plain};
use super::form::{Form, T, Table};
use super::inputs::cases;
use std::fmt::Write;

/// The register of an operand: class and number.
fn register(t: T, number: usize) -> String {
    match t {
        T::P => format!("%p{number}"),
        _ if t.bits() <= 16 => format!("%h{number}"),
        _ if t.bits() == 64 => format!("%l{number}"),
        _ => format!("%r{number}"),
    }
}

/// The type of moves, loads and stores of an operand.
fn width(t: T) -> &'static str {
    match t.bits() {
        1 => "pred",
        8 | 16 => "b16",
        32 => "b32",
        _ => "b64",
    }
}

/// What a guarded destination holds before.
fn old(t: T) -> u64 {
    0x5A5A_5A5A_5A5A_5A5B & t.mask()
}

/// Lanes whose guard is true.
fn guarded(case: usize) -> bool {
    (case as u32).wrapping_mul(0x9E37_79B1) >> 31 == 1
}

/// The entry of a form.
pub fn entry(number: usize, form: &Form) -> String {
    let mut text = format!(
        ".visible .entry k{number}(.param .u64 in, .param .u64 out, .param .u64 n)\n{{\n\
         .reg .pred %p<12>;\n.reg .b16 %h<12>;\n.reg .b32 %r<16>;\n.reg .b64 %l<16>;\n\
         mov.u32 %r10, %ctaid.x;\nmov.u32 %r11, %ntid.x;\nmov.u32 %r12, %tid.x;\n\
         mad.lo.u32 %r10, %r10, %r11, %r12;\nld.param.u32 %r11, [n];\nsetp.ge.u32 %p10, %r10, %r11;\n@%p10 exit;\n\
         ld.param.u64 %l10, [in];\nmul.wide.u32 %l11, %r10, 32;\nadd.u64 %l10, %l10, %l11;\n\
         ld.param.u64 %l12, [out];\nmul.wide.u32 %l11, %r10, 16;\nadd.u64 %l12, %l12, %l11;\n\
         mul.lo.u32 %r11, %r10, 0x9E3779B1;\nsetp.ge.u32 %p11, %r11, 0x80000000;\n"
    );
    for (index, t) in form.from.iter().enumerate() {
        if *t == T::P {
            writeln!(text, "ld.global.b32 %r13, [%l10+{}];", 8 * index).unwrap();
            writeln!(text, "setp.ne.u32 %p{index}, %r13, 0;").unwrap();
        } else {
            let place = 8 * index;
            writeln!(text, "ld.global.{} {}, [%l10+{place}];", width(*t), register(*t, index)).unwrap();
        }
    }
    for (index, guard) in [(5, ""), (6, "@%p11 ")] {
        let d = register(form.to, index);
        match form.to {
            T::P => writeln!(text, "setp.eq.u32 {d}, %r10, %r10;").unwrap(),
            to => writeln!(text, "mov.{} {d}, {:#x};", width(to), old(to)).unwrap(),
        }
        let mut body = form.text.replace("$d", &d);
        for (number, (name, t)) in ["$a", "$b", "$c", "$e"].iter().zip(&form.from).enumerate() {
            body = body.replace(name, &register(*t, number));
        }
        for statement in body.split(';').map(str::trim) {
            // Declarations stand in front of the first round only.
            match statement.starts_with('.') {
                true if guard.is_empty() => writeln!(text, "{statement};").unwrap(),
                true => {}
                false => writeln!(text, "{guard}{statement};").unwrap(),
            }
        }
    }
    for index in [5, 6] {
        let (d, place) = (register(form.to, index), 8 * (index - 5));
        if form.to == T::P {
            writeln!(text, "selp.u32 %r13, 1, 0, {d};\nst.global.b32 [%l12+{place}], %r13;").unwrap();
        } else {
            writeln!(text, "st.global.{} [%l12+{place}], {d};", width(form.to)).unwrap();
        }
    }
    text + "ret;\n}\n"
}

/// Runs all forms on `count` random cases (and up to twice as many special ones) each.
pub fn check(table: &Table, count: usize) {
    let device = Device::new();
    let mut ptx = HEAD.to_owned();
    for (number, form) in table.forms.iter().enumerate() {
        ptx += &entry(number, form);
    }
    let image = device.load(&ptx);
    let mut failures = Vec::new();
    for (number, form) in table.forms.iter().enumerate() {
        let cases = cases(&form.from, count, number as u64);
        let mut input = Vec::with_capacity(32 * cases.len());
        for case in &cases {
            for index in 0..4 {
                let value = case.get(index).copied().unwrap_or_default();
                // The upper half of a register with an 8-bit value is anything.
                let junk = form.from.get(index).is_some_and(|t| *t == T::B8);
                input.extend((value | if junk { 0xA500 } else { 0 }).to_le_bytes());
            }
        }
        let from = device.upload(&input);
        let to = device.upload(&vec![0; 16 * cases.len()]);
        let (grid, n) = (cases.len().div_ceil(256) as u32, cases.len() as u64);
        let report = device.run(&image, &format!("k{number}"), grid, 256, &[from, to, n], &plain());
        if let Some(report) = report {
            failures.push(format!("{}: {report}", form.opcode));
        } else {
            failures.extend(compare(form, &cases, &device.download(to, 16 * cases.len())));
        }
        device.memory.free(from).unwrap();
        device.memory.free(to).unwrap();
    }
    let shown = failures.iter().take(200).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {} forms fail:\n{shown}", failures.len(), table.forms.len());
}

/// The form's first disagreements, in one line.
fn compare(form: &Form, cases: &[Vec<u64>], output: &[u8]) -> Option<String> {
    let mut wrong = Vec::new();
    let read = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().unwrap());
    for (index, case) in cases.iter().enumerate() {
        let want = (form.oracle)(case);
        // Forms on memory use the place of the results, so bits above them are anything.
        let mask = form.to.mask() | if form.to == T::P { 0xFFFF_FFFF } else { 0 };
        let (plain, blended) = (read(16 * index) & mask, read(16 * index + 8) & mask);
        if !want.holds(plain) {
            wrong.push(format!("{case:#x?} gives {plain:#x}, not {want:x?}"));
        }
        let kept = if guarded(index) { plain } else { old(form.to) };
        if blended != kept {
            wrong.push(format!("{case:#x?} under a guard gives {blended:#x}, not {kept:#x}"));
        }
    }
    let first = wrong.iter().take(2).cloned().collect::<Vec<_>>().join("; ").replace(['\n', ' '], " ");
    let squeezed = first.split_whitespace().collect::<Vec<_>>().join(" ");
    (!wrong.is_empty()).then(|| format!("{} ({} of {}): {squeezed}", form.opcode, wrong.len(), cases.len()))
}
