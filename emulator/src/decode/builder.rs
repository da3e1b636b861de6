//! The program under construction: names to slots, labels to places, and the walk over statements.

use super::operand::Place;
use super::variables::{Globals, SharedLayout, size_of};
use crate::exec::LoadError;
use crate::exec::lanes::Level;
use crate::exec::operations::is_wide;
use crate::program::{Instruction, NONE, Program, Special};
use crate::ptx::ast::{Function, Instruction as Syntax, Module, Operand, Space, Statement, Type};
use crate::report::SourceLine;
use std::collections::{HashMap, HashSet};

/// A declared register.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// Slot in the file, or number of the predicate.
    pub slot: u32,
    /// Its declared type.
    pub element: Type,
}

/// Names of one function body; an inlined call opens its own.
#[derive(Debug, Default)]
pub struct Scope {
    pub registers: HashMap<String, Register>,
    pub places: HashMap<String, Place>,
    labels: HashMap<String, u32>,
    jumps: Vec<(u32, String, u32)>,
    pub targets: HashMap<String, Vec<String>>,
    /// Jump tables to fill in: index, labels, PTX line.
    pub tables: Vec<(u32, Vec<String>, u32)>,
    /// The function is put in place of a call: `ret` jumps behind it.
    pub inlined: bool,
    returns: Vec<u32>,
}

/// What is being built.
#[derive(Debug)]
pub struct Builder<'a> {
    pub module: &'a Module,
    pub globals: &'a Globals,
    pub level: Level,
    pub program: Program,
    pub scope: Scope,
    pub shared: SharedLayout,
    module_shared: HashMap<String, Place>,
    constants: HashMap<(u64, bool), u32>,
    specials: HashMap<Special, u32>,
    /// Functions whose bodies are open: a call to one of them is recursion.
    pub open: Vec<String>,
    line: u32,
    text: String,
    location: Option<SourceLine>,
    registers: u32,
}

/// Instructions that one kernel may have, inlined calls included.
const MAX_INSTRUCTIONS: usize = 1 << 22;

impl<'a> Builder<'a> {
    /// Nothing built yet.
    pub fn new(module: &'a Module, globals: &'a Globals) -> Builder<'a> {
        Builder {
            module,
            globals,
            level: Level::best(),
            program: Program::empty(),
            scope: Scope::default(),
            shared: SharedLayout::new(),
            module_shared: HashMap::new(),
            constants: HashMap::new(),
            specials: HashMap::new(),
            open: Vec::new(),
            line: 0,
            text: String::new(),
            location: None,
            registers: 0,
        }
    }

    /// An error at the statement that is being decoded.
    pub fn error<T>(&self, detail: impl Into<String>) -> Result<T, LoadError> {
        Err(LoadError { line: self.line, detail: detail.into() })
    }

    /// Decodes an entry; yields program, bytes of static shared memory, a guess of registers a thread.
    pub fn build(
        mut self,
        function: &Function,
        parameters: &[(usize, usize)],
    ) -> Result<(Program, u32, u32), LoadError> {
        self.line = function.line;
        self.place_shared(function)?;
        for (parameter, (offset, _)) in function.parameters.iter().zip(parameters) {
            let place = Place { space: Space::Parameter, address: *offset as u64 };
            self.scope.places.insert(parameter.name.clone(), place);
        }
        self.body(function)?;
        self.push(Instruction { kind: crate::program::Kind::Exit, ..Instruction::NOTHING });
        let scope = std::mem::take(&mut self.scope);
        self.finish_scope(scope)?;
        self.program.shared.clone_from(&self.shared.places);
        let static_shared = self.shared.bytes();
        let guess = (self.registers / 4).clamp(16, 255);
        Ok((self.program, static_shared, guess))
    }

    /// Places the shared variables of the entry and of everything it calls, then the start of dynamic memory.
    fn place_shared(&mut self, entry: &Function) -> Result<(), LoadError> {
        let mut seen = HashSet::new();
        let mut work = vec![entry];
        let (mut dynamic, mut dynamic_align) = (Vec::new(), 16);
        while let Some(function) = work.pop() {
            if !seen.insert(function.name.as_str()) {
                continue;
            }
            for variable in function.variables.iter().filter(|v| v.space == Space::Shared) {
                if variable.external || variable.size == 0 {
                    dynamic.push(variable.name.clone());
                    dynamic_align = dynamic_align.max(variable.align);
                } else {
                    self.place_one(&variable.name, variable.align, variable.size)?;
                }
            }
            let mut names = HashSet::new();
            for statement in function.body.iter().flatten() {
                if let Statement::Instruction(instruction) = statement {
                    instruction.operands.iter().for_each(|operand| symbols(operand, &mut names));
                }
            }
            let mut names: Vec<&str> = names.into_iter().collect();
            names.sort_unstable();
            for name in names {
                work.extend(self.module.functions.iter().filter(|f| f.name == name && f.body.is_some()));
                for variable in
                    self.module.variables.iter().filter(|v| v.name == name && v.space == Space::Shared)
                {
                    if variable.external || variable.size == 0 {
                        dynamic.push(variable.name.clone());
                        dynamic_align = dynamic_align.max(variable.align);
                    } else if !self.module_shared.contains_key(name) {
                        self.place_one(name, variable.align, variable.size)?;
                    }
                }
            }
        }
        let count = self.shared.places.len();
        let Some(offset) = self.shared.place(dynamic_align, 0) else {
            return self.error("shared variables take more than a GiB");
        };
        self.shared.places.truncate(count);
        self.program.dynamic_shared = offset;
        for name in dynamic {
            let place = Place { space: Space::Shared, address: u64::from(offset) };
            self.module_shared.insert(name, place);
        }
        Ok(())
    }

    fn place_one(&mut self, name: &str, align: u32, size: u64) -> Result<(), LoadError> {
        match self.shared.place(align, size) {
            Some(offset) => {
                let place = Place { space: Space::Shared, address: u64::from(offset) };
                self.module_shared.insert(name.to_owned(), place);
                Ok(())
            }
            None => self.error("shared variables take more than a GiB"),
        }
    }

    /// A shared variable's place.
    pub fn shared_place(&self, name: &str) -> Option<Place> {
        self.module_shared.get(name).copied()
    }

    /// Room in local memory.
    pub fn local(&mut self, align: u32, size: u64) -> Result<u64, LoadError> {
        let start = u64::from(self.program.local_bytes).next_multiple_of(u64::from(align.max(1)));
        let end = start.saturating_add(size).next_multiple_of(16);
        if end > 512 * 1024 {
            return self.error(format!("{end} bytes of local memory a thread; a thread has 512 KiB"));
        }
        self.program.local_bytes = end as u32;
        Ok(start)
    }

    /// Declares a function's registers and variables and decodes its statements into the open scope.
    pub fn body(&mut self, function: &Function) -> Result<(), LoadError> {
        self.open.push(function.name.clone());
        for registers in &function.registers {
            if registers.vector != 1 {
                return self.error(format!("vector register {}: not supported", registers.name));
            }
            let rows =
                if registers.element == Type::B128 { 4 } else { 1 + u32::from(is_wide(registers.element)) };
            let count = registers.count.unwrap_or(1);
            for index in 0..count {
                let name = match registers.count {
                    Some(_) => format!("{}{index}", registers.name),
                    None => registers.name.clone(),
                };
                let slot = if registers.element == Type::Pred {
                    self.program.predicates += 1;
                    self.program.predicates - 1
                } else {
                    self.registers += rows;
                    self.rows(rows)?
                };
                self.scope.registers.insert(name, Register { slot, element: registers.element });
            }
        }
        for variable in &function.variables {
            if matches!(variable.space, Space::Local | Space::Parameter) {
                let address =
                    self.local(variable.align.max(size_of(variable.element) as u32), variable.size)?;
                self.scope.places.insert(variable.name.clone(), Place { space: Space::Local, address });
            }
        }
        let statements = function.body.iter().flatten();
        for statement in statements.clone() {
            if let Statement::BranchTargets(name, labels) = statement {
                self.scope.targets.insert(name.clone(), labels.clone());
            }
        }
        for statement in statements {
            match statement {
                Statement::Label(name) => {
                    let here = self.program.code.len() as u32;
                    self.scope.labels.insert(name.clone(), here);
                }
                Statement::Location { file, line } if *line != 0 => {
                    let name = self.module.files.iter().find(|(number, _)| number == file);
                    self.location = name.map(|(_, name)| SourceLine { file: name.clone(), line: *line });
                }
                Statement::Location { .. } | Statement::BranchTargets(..) => {}
                Statement::Instruction(instruction) => {
                    self.line = instruction.line;
                    self.text = describe(instruction);
                    self.instruction(instruction)?;
                    if self.program.code.len() > MAX_INSTRUCTIONS {
                        return self.error("the kernel is too long once its calls are inlined");
                    }
                }
            }
        }
        self.open.pop();
        Ok(())
    }

    /// Resolves the jumps of a scope; returns jump here.
    pub fn finish_scope(&mut self, scope: Scope) -> Result<(), LoadError> {
        let end = self.program.code.len() as u32;
        let find = |label: &String, line: u32| {
            scope
                .labels
                .get(label)
                .copied()
                .ok_or_else(|| LoadError { line, detail: format!("no label {label}") })
        };
        for (index, label, line) in &scope.jumps {
            self.program.code[*index as usize].target = find(label, *line)?;
        }
        for (table, labels, line) in &scope.tables {
            let targets = labels.iter().map(|label| find(label, *line)).collect::<Result<Vec<_>, _>>()?;
            self.program.tables[*table as usize] = targets;
        }
        for index in &scope.returns {
            self.program.code[*index as usize].target = end;
        }
        Ok(())
    }

    /// A jump to a label of the open scope.
    pub fn jump(&mut self, instruction: Instruction, label: &str) {
        let (index, line) = (self.program.code.len() as u32, self.line);
        self.scope.jumps.push((index, label.to_owned(), line));
        self.push(instruction);
    }

    /// A jump behind an inlined function.
    pub fn return_jump(&mut self, instruction: Instruction) {
        self.scope.returns.push(self.program.code.len() as u32);
        self.push(instruction);
    }

    /// The PTX line in work.
    pub fn current_line(&self) -> u32 {
        self.line
    }

    /// Adds an instruction.
    pub fn push(&mut self, instruction: Instruction) {
        self.program.code.push(instruction);
        self.program.text.push((self.text.clone(), self.line));
        self.program.lines.push(self.location.clone());
    }

    /// New rows of the file, 64-bit values at even ones.
    pub fn rows(&mut self, count: u32) -> Result<u32, LoadError> {
        let slot = self.program.rows;
        self.program.rows += count;
        if self.program.rows > 1 << 20 {
            return self.error("the kernel has too many registers");
        }
        Ok(slot)
    }

    /// The slot of a constant.
    pub fn constant(&mut self, value: u64, wide: bool) -> Result<u32, LoadError> {
        let value = if wide { value } else { value & 0xFFFF_FFFF };
        if let Some(&slot) = self.constants.get(&(value, wide)) {
            return Ok(slot);
        }
        let slot = self.rows(1 + u32::from(wide))?;
        self.constants.insert((value, wide), slot);
        self.program.constants.push((slot, value, wide));
        Ok(slot)
    }

    /// The slot of a special register.
    pub fn special(&mut self, special: Special) -> Result<u32, LoadError> {
        if let Some(&slot) = self.specials.get(&special) {
            return Ok(slot);
        }
        let slot = self.rows(1)?;
        self.specials.insert(special, slot);
        self.program.specials.push((slot, special));
        Ok(slot)
    }

    /// A list of slots.
    pub fn list(&mut self, slots: Vec<u32>) -> u32 {
        self.program.lists.push(slots);
        self.program.lists.len() as u32 - 1
    }

    /// An instruction with the guard of the syntax.
    pub fn guarded(&self, syntax: &Syntax) -> Result<Instruction, LoadError> {
        let mut instruction = Instruction::NOTHING;
        if let Some((name, negated)) = &syntax.guard {
            match self.scope.registers.get(name) {
                Some(register) if register.element == Type::Pred => instruction.guard = register.slot,
                _ => return self.error(format!("the guard {name} is no predicate")),
            }
            instruction.guard_negated = *negated;
        }
        debug_assert!(instruction.guard != NONE || syntax.guard.is_none());
        Ok(instruction)
    }
}

/// Names of variables and functions in an operand.
fn symbols<'a>(operand: &'a Operand, names: &mut HashSet<&'a str>) {
    match operand {
        Operand::Symbol(name, _) => {
            names.insert(name);
        }
        Operand::Address { base: crate::ptx::ast::Base::Symbol(name), .. } => {
            names.insert(name);
        }
        Operand::Vector(parts) | Operand::List(parts) => parts.iter().for_each(|part| symbols(part, names)),
        _ => {}
    }
}

/// The instruction in about the words of the PTX.
fn describe(instruction: &Syntax) -> String {
    let guard = match &instruction.guard {
        Some((name, true)) => format!("@!{name} "),
        Some((name, false)) => format!("@{name} "),
        None => String::new(),
    };
    let operands: Vec<String> = instruction.operands.iter().map(words).collect();
    format!("{guard}{} {}", instruction.opcode, operands.join(", ")).trim_end().to_owned()
}

fn words(operand: &Operand) -> String {
    let signed = |offset: i64| if offset == 0 { String::new() } else { format!("{offset:+}") };
    let all = |parts: &[Operand]| parts.iter().map(words).collect::<Vec<_>>().join(", ");
    match operand {
        Operand::Register(name) | Operand::Special(name) => name.clone(),
        Operand::Integer(value) => value.to_string(),
        Operand::Float32(bits) => f32::from_bits(*bits).to_string(),
        Operand::Float64(bits) => f64::from_bits(*bits).to_string(),
        Operand::Symbol(name, offset) => format!("{name}{}", signed(*offset)),
        Operand::Address { base, offset, .. } => match base {
            crate::ptx::ast::Base::Register(name) | crate::ptx::ast::Base::Symbol(name) => {
                format!("[{name}{}]", signed(*offset))
            }
            crate::ptx::ast::Base::None => format!("[{offset}]"),
        },
        Operand::Vector(parts) => format!("{{{}}}", all(parts)),
        Operand::List(parts) => format!("({})", all(parts)),
        Operand::Pair(a, b) => format!("{}|{}", words(a), words(b)),
        Operand::Not(a) => format!("!{}", words(a)),
        Operand::Negated(a) => format!("-{}", words(a)),
        Operand::Element(a, index) => format!("{}.{index}", words(a)),
        Operand::Sink => "_".to_owned(),
    }
}
