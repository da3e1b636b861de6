//! What holds of every module that the parser accepts.

use std::collections::HashSet;

use emulator::ptx::ast::{Base, Function, Module, Operand, Registers, Statement};

/// The declared registers of a function, families by prefix.
struct Declared<'a> {
    singles: HashSet<&'a str>,
    families: Vec<(&'a str, u32)>,
}

impl<'a> Declared<'a> {
    fn new(registers: &'a [Registers]) -> Self {
        let mut singles = HashSet::new();
        let mut families = Vec::new();
        for register in registers {
            match register.count {
                Some(count) => families.push((register.name.as_str(), count)),
                None => assert!(singles.insert(register.name.as_str()), "register {} twice", register.name),
            }
        }
        Declared { singles, families }
    }

    /// How many declarations give a name.
    fn declarations(&self, name: &str) -> usize {
        let of_family = |&&(prefix, count): &&(&str, u32)| {
            let index = name.strip_prefix(prefix).and_then(|index| index.parse::<u32>().ok());
            index.is_some_and(|index| index < count && format!("{prefix}{index}") == name)
        };
        usize::from(self.singles.contains(name)) + self.families.iter().filter(of_family).count()
    }

    fn check(&self, operand: &Operand) {
        match operand {
            Operand::Register(name) | Operand::Address { base: Base::Register(name), .. } => {
                assert_eq!(self.declarations(name), 1, "declarations of {name}");
            }
            Operand::Vector(operands) | Operand::List(operands) => {
                operands.iter().for_each(|o| self.check(o))
            }
            Operand::Pair(first, second) => [first, second].into_iter().for_each(|o| self.check(o)),
            Operand::Not(operand) | Operand::Negated(operand) | Operand::Element(operand, _) => {
                self.check(operand)
            }
            _ => {}
        }
        if let Operand::Address { tensor, .. } = operand {
            tensor.iter().for_each(|o| self.check(o));
        }
    }
}

/// Checks a function: each register that it uses has one declaration, names of variables and of labels are unique,
/// targets of `.branchtargets` are labels.
pub fn check_function(function: &Function) {
    let declared = Declared::new(&function.registers);
    let memory = function.variables.iter().chain(&function.parameters).chain(&function.returns);
    if function.body.is_some() {
        let mut names = HashSet::new();
        memory.for_each(|v| assert!(names.insert(&v.name), "variable {} twice", v.name));
    }
    let body = function.body.as_deref().unwrap_or_default();
    let mut labels = HashSet::new();
    for statement in body {
        if let Statement::Label(name) | Statement::BranchTargets(name, _) = statement {
            assert!(labels.insert(name), "label {name} twice");
        }
    }
    for statement in body {
        match statement {
            Statement::Instruction(instruction) => {
                assert!(!instruction.opcode.is_empty() && instruction.line > 0);
                instruction.operands.iter().for_each(|operand| declared.check(operand));
                if let Some((guard, _)) = &instruction.guard {
                    assert_eq!(declared.declarations(guard), 1, "declarations of {guard}");
                }
            }
            Statement::BranchTargets(_, targets) => {
                targets.iter().for_each(|target| assert!(labels.contains(target), "{target} is a label"));
            }
            _ => {}
        }
    }
}

/// Checks a module: its functions; the variables' initial values have the variables' sizes, names are unique.
pub fn check(module: &Module) {
    module.functions.iter().for_each(check_function);
    let mut names = HashSet::new();
    for variable in module.variables.iter().filter(|variable| !variable.external) {
        assert!(names.insert(&variable.name), "variable {} twice", variable.name);
    }
    for variable in &module.variables {
        assert!(variable.align.is_power_of_two());
        assert!(variable.initial.is_empty() || variable.initial.len() as u64 == variable.size);
        for (offset, ..) in &variable.addresses {
            assert!(offset + 8 <= variable.size, "an address in {} lies inside it", variable.name);
        }
    }
}
