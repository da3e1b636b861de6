//! What NVRTC emits for whole kernels.

use std::collections::HashSet;

use crate::invariants;
use crate::text::instructions;
use emulator::ptx::ast::{Base, Function, Module, Operand, Space, Statement, Type};
use emulator::ptx::parse;

pub const FIXTURES: [(&str, &str); 5] = [
    ("softmax", include_str!("softmax.ptx")),
    ("gemm", include_str!("gemm.ptx")),
    ("sine", include_str!("sine.ptx")),
    ("tma", include_str!("tma.ptx")),
    ("calls", include_str!("calls.ptx")),
];

fn fixture(name: &str) -> Module {
    let (_, text) = FIXTURES.iter().find(|(known, _)| *known == name).unwrap();
    parse(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// NVRTC writes one instruction a line; only a call takes several. Counted in the text, comments taken off.
fn instruction_lines(text: &str) -> Vec<(u32, &str)> {
    let instruction = |line: &str| {
        let code = line.split("//").next().unwrap_or_default().trim();
        let starts = code.starts_with(|c: char| c.is_ascii_lowercase() || c == '@');
        starts && !code.contains(" : ") && (code.ends_with(';') || code.starts_with("call"))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| instruction(line));
    lines.map(|(index, line)| (index as u32 + 1, line.trim())).collect()
}

#[test]
fn every_instruction_is_there_with_its_line_opcode_and_guard() {
    for (name, text) in FIXTURES {
        let module = fixture(name);
        let found: Vec<_> = module.functions.iter().flat_map(instructions).collect();
        let expected = instruction_lines(text);
        assert!(expected.len() > 50, "{name}");
        assert_eq!(found.len(), expected.len(), "{name}");
        for (instruction, (line, text)) in found.into_iter().zip(expected) {
            assert_eq!(instruction.line, line, "{name}: {text}");
            let (guard, rest) =
                match text.strip_prefix('@').and_then(|rest| rest.split_once(char::is_whitespace)) {
                    Some((guard, rest)) => (Some(guard), rest.trim()),
                    None => (None, text),
                };
            let opcode = rest.split(|c: char| c.is_whitespace() || c == ';').next();
            assert_eq!(Some(instruction.opcode.as_str()), opcode, "{name}: {text}");
            let negated = instruction.guard.as_ref().map(|(_, negated)| *negated);
            assert_eq!(negated, guard.map(|guard| guard.starts_with('!')), "{name}: {text}");
        }
    }
}

/// The symbols of an operand.
fn symbols<'a>(operand: &'a Operand, found: &mut Vec<&'a str>) {
    match operand {
        Operand::Symbol(name, _) | Operand::Address { base: Base::Symbol(name), .. } => found.push(name),
        Operand::List(operands) | Operand::Vector(operands) => {
            operands.iter().for_each(|o| symbols(o, found))
        }
        _ => {}
    }
}

#[test]
fn every_register_is_declared_and_every_symbol_exists() {
    for (name, _) in FIXTURES {
        let module = fixture(name);
        invariants::check(&module);
        for function in &module.functions {
            let body = function.body.as_deref().unwrap_or_default();
            let labels: HashSet<_> = body
                .iter()
                .filter_map(|statement| match statement {
                    Statement::Label(label) => Some(label.as_str()),
                    _ => None,
                })
                .collect();
            let variables = function.parameters.iter().chain(&function.returns).chain(&function.variables);
            let mut known: HashSet<_> = variables.chain(&module.variables).map(|v| v.name.as_str()).collect();
            known.extend(module.functions.iter().map(|f| f.name.as_str()));
            for instruction in instructions(function) {
                let mut found = Vec::new();
                instruction.operands.iter().for_each(|operand| symbols(operand, &mut found));
                for symbol in found {
                    let branch = instruction.opcode.starts_with("bra");
                    let prototype =
                        instruction.opcode.starts_with("call") && symbol.starts_with("prototype_");
                    let exists =
                        if branch { labels.contains(symbol) } else { known.contains(symbol) || prototype };
                    assert!(exists, "{name} line {}: {symbol}", instruction.line);
                }
            }
        }
    }
}

#[test]
fn every_declared_register_count_is_kept() {
    for (name, text) in FIXTURES {
        let declared = text.lines().filter(|line| line.trim().starts_with(".reg")).count();
        let found: usize = fixture(name).functions.iter().map(|f| f.registers.len()).sum();
        assert_eq!(found, declared, "{name}");
    }
}

fn named<'a>(module: &'a Module, name: &str) -> &'a Function {
    module.functions.iter().find(|f| f.name == name && f.body.is_some()).unwrap()
}

#[test]
fn details_of_the_fixtures() {
    let calls = fixture("calls");
    assert_eq!((calls.version, calls.target.as_slice()), ((8, 8), &["sm_90".to_string()][..]));
    assert_eq!(calls.files, [(1, "calls.cu".to_string())]);
    let variable = |name: &str| calls.variables.iter().find(|v| v.name == name).unwrap();
    let table: Vec<u8> = [1.0f32, -2.5, 3e10, 0.0].into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(variable("table").initial, table);
    assert_eq!(variable("table").space, Space::Constant);
    assert_eq!(variable("message").addresses, [(0, "$str".to_string(), 0, true)]);
    let operations = [(0, "_Z4plusii".to_string(), 0, false), (8, "_Z5minusii".to_string(), 0, false)];
    assert_eq!(variable("ops").addresses, operations);
    assert_eq!(named(&calls, "_Z7genericIfEvPT_").min_blocks, Some(2));
    assert_eq!(named(&calls, "_Z5twist3Bigif").returns[0].size, 24);
    assert!(calls.functions.iter().any(|f| f.name == "vprintf" && f.external && f.body.is_none()));

    let tma = fixture("tma");
    let kernel = named(&tma, "tma");
    assert_eq!((kernel.cluster, kernel.max_threads), (Some([2, 1, 1]), Some([128, 1, 1])));
    assert_eq!((kernel.parameters[0].size, kernel.parameters[0].align), (128, 64));
    let bar = &kernel.variables[0];
    assert_eq!((bar.space, bar.element, bar.size, bar.align), (Space::Shared, Type::U64, 8, 8));
    let waits = |label: &str| {
        let body = kernel.body.as_deref().unwrap().iter();
        body.filter(|s| matches!(s, Statement::Label(name) if name.split('#').next() == Some(label))).count()
    };
    assert_eq!((waits("LAB_WAIT"), waits("DONE")), (4, 2));

    let gemm = fixture("gemm");
    let body = named(&gemm, "gemm").body.as_deref().unwrap();
    let inlined = include_str!("gemm.ptx").lines().find(|line| line.contains("inlined_at")).unwrap();
    let line: u32 = inlined.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(body.contains(&Statement::Location { file: 1, line }));
    let sine = fixture("sine");
    assert_eq!(named(&sine, "sine").variables[0].space, Space::Local);
}
