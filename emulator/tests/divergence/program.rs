//! Random programs of one thread each: as PTX, and as what a thread of it computes when it runs alone.

use std::collections::HashMap;
use std::fmt::Write;

/// A predicate register, and whether the guard is its opposite.
pub type Guard = Option<(usize, bool)>;

/// An operand: register or constant.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    Register(usize),
    Constant(u32),
}

/// Operations with a PTX opcode and a meaning.
pub type Operation = (&'static str, fn(u32, u32) -> u32);

pub const OPERATIONS: [Operation; 11] = [
    ("add.u32", u32::wrapping_add),
    ("sub.u32", u32::wrapping_sub),
    ("mul.lo.u32", u32::wrapping_mul),
    ("xor.b32", |a, b| a ^ b),
    ("and.b32", |a, b| a & b),
    ("or.b32", |a, b| a | b),
    ("min.u32", |a, b| a.min(b)),
    ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
    ("shl.b32", |a, b| if b < 32 { a << b } else { 0 }),
    ("shr.u32", |a, b| if b < 32 { a >> b } else { 0 }),
    ("rem.u32", |a, b| if b == 0 { a } else { a % b }),
];

/// A comparison's name and what it says of two values.
pub type Comparison = (&'static str, fn(u32, u32) -> bool);

pub const COMPARISONS: [Comparison; 4] = [
    ("setp.lt.u32", |a, b| a < b),
    ("setp.eq.u32", |a, b| a == b),
    ("setp.ge.s32", |a, b| a as i32 >= b as i32),
    ("setp.ne.u32", |a, b| a != b),
];

/// An instruction.
#[derive(Clone, Debug)]
pub enum Step {
    Compute { operation: usize, to: usize, a: Source, b: Source, guard: Guard },
    Compare { comparison: usize, to: usize, a: Source, b: Source },
    Label(usize),
    Jump { to: usize, guard: Guard },
    Switch { by: usize, labels: Vec<usize>, guard: Guard },
    Call { function: usize, to: usize, arguments: [usize; 2], guard: Guard },
    Return { value: usize, guard: Guard },
    Exit { guard: Guard },
    Barrier,
}

/// Registers of a function: predicates, values.
pub const PREDICATES: usize = 4;
pub const VALUES: usize = 8;
/// Values, counters of loops, scratch.
pub const REGISTERS: usize = 40;

/// Functions; the last is the entry. A function's arguments are in registers 0 and 1, the entry's global and local
/// thread number as well.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub functions: Vec<Vec<Step>>,
}

/// How a function ended.
enum End {
    Value(u32),
    Exit,
}

impl Program {
    /// What a thread writes; None: it exits before.
    pub fn interpret(&self, global: u32, local: u32) -> Option<u32> {
        match self.call(self.functions.len() - 1, global, local) {
            End::Value(value) => Some(value),
            End::Exit => None,
        }
    }

    fn call(&self, function: usize, first: u32, second: u32) -> End {
        let steps = &self.functions[function];
        let mut labels = HashMap::new();
        for (place, step) in steps.iter().enumerate() {
            if let Step::Label(label) = step {
                labels.insert(*label, place);
            }
        }
        let mut registers = [0u32; REGISTERS];
        (registers[0], registers[1]) = (first, second);
        let mut predicates = [false; PREDICATES];
        let mut place = 0;
        loop {
            let step = &steps[place];
            place += 1;
            let read = |source: Source| match source {
                Source::Register(index) => registers[index],
                Source::Constant(value) => value,
            };
            let passes = |guard: &Guard| guard.is_none_or(|(index, negated)| predicates[index] != negated);
            match step {
                Step::Compute { operation, to, a, b, guard } => {
                    if passes(guard) {
                        registers[*to] = OPERATIONS[*operation].1(read(*a), read(*b));
                    }
                }
                Step::Compare { comparison, to, a, b } => {
                    predicates[*to] = COMPARISONS[*comparison].1(read(*a), read(*b));
                }
                Step::Label(_) | Step::Barrier => {}
                Step::Jump { to, guard } => {
                    if passes(guard) {
                        place = labels[to];
                    }
                }
                Step::Switch { by, labels: targets, guard } => {
                    if passes(guard) {
                        place = labels[&targets[registers[*by] as usize]];
                    }
                }
                Step::Call { function, to, arguments, guard } => {
                    if passes(guard) {
                        match self.call(*function, registers[arguments[0]], registers[arguments[1]]) {
                            End::Value(value) => registers[*to] = value,
                            End::Exit => return End::Exit,
                        }
                    }
                }
                Step::Return { value, guard } => {
                    if passes(guard) {
                        return End::Value(registers[*value]);
                    }
                }
                Step::Exit { guard } => {
                    if passes(guard) {
                        return End::Exit;
                    }
                }
            }
        }
    }

    /// The module. Threads write what they return into the array of words at `out`.
    pub fn ptx(&self) -> String {
        let mut text = ".version 8.8\n.target sm_90a\n.address_size 64\n".to_owned();
        let last = self.functions.len() - 1;
        for (number, steps) in self.functions.iter().enumerate() {
            let entry = number == last;
            if entry {
                text += ".visible .entry main(.param .u64 out)\n{\n.reg .b64 %l<3>;\n";
            } else {
                writeln!(text, ".func (.param .b32 q) f{number}(.param .b32 a, .param .b32 b)\n{{").unwrap();
            }
            writeln!(text, ".reg .pred %p<{PREDICATES}>;\n.reg .b32 %r<{REGISTERS}>;").unwrap();
            for register in 2..REGISTERS {
                writeln!(text, "mov.u32 %r{register}, 0;").unwrap();
            }
            for predicate in 0..PREDICATES {
                writeln!(text, "setp.ne.u32 %p{predicate}, 0, 0;").unwrap();
            }
            if entry {
                text += "mov.u32 %r0, %ctaid.x;\nmov.u32 %r1, %ntid.x;\nmul.lo.u32 %r0, %r0, %r1;\n\
                         mov.u32 %r1, %tid.x;\nadd.u32 %r0, %r0, %r1;\nld.param.u64 %l0, [out];\n\
                         mul.wide.u32 %l1, %r0, 4;\nadd.u64 %l0, %l0, %l1;\n";
            } else {
                text += "ld.param.b32 %r0, [a];\nld.param.b32 %r1, [b];\n";
            }
            for (place, step) in steps.iter().enumerate() {
                text += &write(step, entry, &format!("{number}_{place}"));
            }
            text += "}\n";
        }
        text
    }
}

fn write(step: &Step, entry: bool, unique: &str) -> String {
    let source = |source: &Source| match source {
        Source::Register(index) => format!("%r{index}"),
        Source::Constant(value) => format!("{value}"),
    };
    let prefix = |guard: &Guard| match guard {
        None => String::new(),
        Some((index, true)) => format!("@!%p{index} "),
        Some((index, false)) => format!("@%p{index} "),
    };
    match step {
        Step::Compute { operation, to, a, b, guard } => {
            let opcode = OPERATIONS[*operation].0;
            format!("{}{opcode} %r{to}, {}, {};\n", prefix(guard), source(a), source(b))
        }
        Step::Compare { comparison, to, a, b } => {
            format!("{} %p{to}, {}, {};\n", COMPARISONS[*comparison].0, source(a), source(b))
        }
        Step::Label(label) => format!("L{label}:\n"),
        Step::Jump { to, guard } => format!("{}bra L{to};\n", prefix(guard)),
        Step::Switch { by, labels, guard } => {
            let names: Vec<String> = labels.iter().map(|label| format!("L{label}")).collect();
            let names = names.join(", ");
            format!("t{unique}: .branchtargets {names};\n{}brx.idx %r{by}, t{unique};\n", prefix(guard))
        }
        Step::Call { function, to, arguments: [a, b], guard } => {
            let prefix = prefix(guard);
            format!(
                "{{\n.param .b32 u;\n.param .b32 v;\n.param .b32 w;\n{prefix}st.param.b32 [u], %r{a};\n\
                 {prefix}st.param.b32 [v], %r{b};\n{prefix}call (w), f{function}, (u, v);\n\
                 {prefix}ld.param.b32 %r{to}, [w];\n}}\n"
            )
        }
        Step::Return { value, guard } if entry => {
            format!("{0}st.global.u32 [%l0], %r{value};\n{0}ret;\n", prefix(guard))
        }
        Step::Return { value, guard } => {
            format!("{0}st.param.b32 [q], %r{value};\n{0}ret;\n", prefix(guard))
        }
        Step::Exit { guard } => format!("{}exit;\n", prefix(guard)),
        Step::Barrier => "bar.sync 0;\n".to_owned(),
    }
}
