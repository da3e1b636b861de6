//! Small texts around the construct under test, and short ways to look at the result.

use emulator::ptx::ast::{Function, Instruction, Module, Operand, Statement};
use emulator::ptx::{ParseError, parse};

/// What every module starts with: three lines.
pub const HEADER: &str = ".version 8.8\n.target sm_90a\n.address_size 64\n";

/// A module of these directives, from line 4.
pub fn module(text: &str) -> Module {
    parse(&format!("{HEADER}{text}")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Why a module of these directives, from line 4, is refused.
pub fn refused(text: &str) -> ParseError {
    match parse(&format!("{HEADER}{text}")) {
        Ok(module) => panic!("accepted: {text}\n{module:#?}"),
        Err(error) => error,
    }
}

const REGISTERS: &str =
    ".reg .b32 %r<10>; .reg .b64 %rd<10>; .reg .pred %p<5>; .reg .f32 %f<9>; .reg .v4 .u32 %q;";

fn kernel(body: &str) -> String {
    format!(".global .u32 g[4];\n.visible .entry k(.param .u64 k0) {{ {REGISTERS}\n{body}\n}}\n")
}

/// A kernel `k(k0)` with this body, from line 6, with registers %r, %rd, %p, %f and %q, and a global `g`.
pub fn function(body: &str) -> Function {
    module(&kernel(body)).functions.into_iter().next().unwrap()
}

/// Why a kernel with this body, from line 6, is refused.
pub fn refused_body(body: &str) -> ParseError {
    refused(&kernel(body))
}

/// The instructions of a function.
pub fn instructions(function: &Function) -> Vec<&Instruction> {
    let body = function.body.as_deref().unwrap_or_default();
    let instructions = body.iter().filter_map(|statement| match statement {
        Statement::Instruction(instruction) => Some(instruction),
        _ => None,
    });
    instructions.collect()
}

/// The operands of the one instruction in this body.
pub fn operands(body: &str) -> Vec<Operand> {
    let function = function(body);
    match instructions(&function)[..] {
        [instruction] => instruction.operands.clone(),
        _ => panic!("{body} is not one instruction"),
    }
}
