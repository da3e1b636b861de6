//! Every opcode form that the emulator decodes, run from PTX and compared with oracles written from the PTX ISA manual
//! (8.8), which share no code with the emulator: see `opcodes/` for the table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "opcodes/bits.rs"]
mod bits;
#[path = "opcodes/check.rs"]
mod check;
#[path = "opcodes/compare.rs"]
mod compare;
#[path = "opcodes/convert.rs"]
mod convert;
#[path = "opcodes/device.rs"]
mod device;
#[path = "opcodes/exact.rs"]
mod exact;
#[path = "opcodes/float.rs"]
mod float;
#[path = "opcodes/form.rs"]
mod form;
#[path = "opcodes/half.rs"]
mod half;
#[path = "opcodes/inputs.rs"]
mod inputs;
#[path = "opcodes/integer.rs"]
mod integer;
#[path = "opcodes/matrix.rs"]
mod matrix;
#[path = "opcodes/memory.rs"]
mod memory;
#[path = "opcodes/random.rs"]
mod random;
#[path = "opcodes/registers.rs"]
mod registers;
#[path = "opcodes/unsupported.rs"]
mod unsupported;
#[path = "opcodes/warp.rs"]
mod warp;

#[test]
fn integers() {
    check::check(&integer::table(), 600);
}

#[test]
fn floats() {
    check::check(&float::table(), 1500);
}

#[test]
fn halves() {
    check::check(&half::table(), 1500);
}

#[test]
fn conversions() {
    check::check(&convert::table(), 600);
}

#[test]
fn comparisons_and_moves() {
    check::check(&compare::table(), 200);
}

#[test]
fn memory_and_atomics() {
    check::check(&memory::table(), 100);
}

#[test]
fn all_forms_are_known() {
    let tables = [
        integer::table(),
        float::table(),
        half::table(),
        convert::table(),
        compare::table(),
        memory::table(),
    ];
    unsupported::known(&tables);
}

/// The other levels of vector instructions, each in a process of its own: the level is chosen once.
#[test]
fn lower_vector_levels_give_the_same() {
    const LEVEL: &str = "PRETEXT_SIMD";
    if std::env::var_os(LEVEL).is_some() {
        return;
    }
    for level in ["avx2", "baseline"] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.env(LEVEL, level).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("test result: ok"), "{level}: {text}");
    }
}
