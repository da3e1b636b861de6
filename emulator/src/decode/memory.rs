//! Loads, stores, atomics, asynchronous copies, matrix loads.

use super::builder::Builder;
use super::instruction::Decoded;
use super::operand::Address;
use super::variables::size_of;
use crate::exec::LoadError;
use crate::exec::access::{Load, Store};
use crate::exec::atomics::{self, Atomic, Change, Value};
use crate::exec::copies::{Commit, CopyAsync, Wait};
use crate::exec::lanes::compiled;
use crate::exec::matrix::{LoadMatrix, StoreMatrix};
use crate::exec::operations::{Name, is_wide, type_of};
use crate::program::{Access, AccessSpace, Class, Instruction, Kind, NONE};
use crate::ptx::ast::{Instruction as Syntax, Operand, Space, Type};

fn space_of(space: Space) -> Option<AccessSpace> {
    Some(match space {
        Space::Global => AccessSpace::Global,
        Space::Constant => AccessSpace::Constant,
        Space::Shared => AccessSpace::Shared,
        Space::Local => AccessSpace::Local,
        Space::Parameter => AccessSpace::Parameter,
        Space::Register => return None,
    })
}

/// The state space that the qualifiers name.
fn named_space(name: &Name<'_>) -> AccessSpace {
    for qualifier in &name.qualifiers {
        match qualifier.split("::").next().unwrap_or_default() {
            "global" => return AccessSpace::Global,
            "const" => return AccessSpace::Constant,
            "shared" => return AccessSpace::Shared,
            "local" => return AccessSpace::Local,
            "param" => return AccessSpace::Parameter,
            _ => {}
        }
    }
    AccessSpace::Generic
}

fn class_of(space: AccessSpace) -> Class {
    match space {
        AccessSpace::Global | AccessSpace::Generic => Class::Global,
        AccessSpace::Shared => Class::Shared,
        AccessSpace::Local => Class::Local,
        AccessSpace::Parameter | AccessSpace::Constant => Class::Constant,
    }
}

/// Qualifiers that loads and stores may carry besides space, vector and type; caching hints change nothing here.
fn harmless(qualifier: &str) -> bool {
    const WORDS: &[&str] = &[
        "nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "weak", "volatile", "relaxed", "acquire", "release",
        "acq_rel", "cta", "cluster", "gpu", "sys", "mmio", "global", "const", "shared", "local", "param",
        "v2", "v4", "v8", "unified", "noftz",
    ];
    let base = qualifier.split("::").next().unwrap_or_default();
    WORDS.contains(&qualifier)
        || ["L1", "L2", "shared", "param", "level", "evict_normal"].contains(&base)
        || qualifier.starts_with("evict")
}

impl Builder<'_> {
    /// Decodes an instruction on memory.
    pub fn memory_instruction(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        match name.base {
            "ld" | "ldu" | "st" => self.load_store(syntax, name),
            "atom" | "red" if !name.has("async") => self.atomic(syntax, name),
            "cp" if name.has("async") => self.copy(syntax, name),
            "ldmatrix" | "stmatrix" => self.matrix(syntax, name),
            "prefetch" | "prefetchu" | "applypriority" | "discard" => {
                let instruction = self.guarded(syntax)?;
                self.push(instruction);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Adds an access to the program.
    pub fn access(&mut self, access: Access) -> u64 {
        self.program.accesses.push(access);
        self.program.accesses.len() as u64 - 1
    }

    /// The space of an access: that of the qualifiers, unless the variable says better (parameters of inlined calls lie
    /// in local memory).
    fn space(&self, name: &Name<'_>, address: Address) -> AccessSpace {
        let named = named_space(name);
        match address.space.and_then(space_of) {
            Some(space) if named == AccessSpace::Parameter || named == AccessSpace::Generic => space,
            _ => named,
        }
    }

    fn load_store(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let Some(element) = type_of(name.last()) else { return Ok(false) };
        let others = &name.qualifiers[..name.qualifiers.len() - 1];
        if element == Type::B128 || !others.iter().all(|q| harmless(q)) {
            return Ok(false);
        }
        let load = name.base != "st";
        let (data, place) = if load { (0, 1) } else { (1, 0) };
        let address = self.address(self.operand(&syntax.operands, place)?)?;
        let parts = self.parts(self.operand(&syntax.operands, data)?);
        // The registers' width may differ from the type's: a load extends, a store takes the low bits.
        let mut wide = is_wide(element);
        for part in &parts {
            wide |= self.declared_wide(part) == Some(true);
        }
        let width = if wide { Type::B64 } else { Type::B32 };
        let mut slots = Vec::new();
        for part in parts {
            slots.push(match part {
                Operand::Sink => NONE,
                part if load => self.destination(part, width)?,
                part => {
                    let as_type = if wide == is_wide(element) { element } else { width };
                    self.source(part, as_type)?
                }
            });
        }
        let expected = match () {
            () if name.has("v8") => 8,
            () if name.has("v4") => 4,
            () if name.has("v2") => 2,
            () => 1,
        };
        if slots.len() != expected {
            return self.error(format!(
                "{} moves {expected} values, {} are given",
                syntax.opcode,
                slots.len()
            ));
        }
        let space = self.space(name, address);
        if !load && matches!(space, AccessSpace::Constant) {
            return Ok(false);
        }
        let (acquire, release) = (name.has("acquire"), name.has("release"));
        self.program.has_fence |= acquire || release;
        let word = self.access(Access {
            space,
            element: size_of(element) as u32,
            signed: matches!(element, Type::S8 | Type::S16 | Type::S32),
            slots,
            wide,
            narrow: address.narrow,
            offset: address.offset,
            strong: ["volatile", "relaxed", "acquire", "release", "mmio"].iter().any(|q| name.has(q)),
            release,
        });
        let run = if load { compiled::<Load>(self.level) } else { compiled::<Store>(self.level) };
        let instruction = Instruction {
            run,
            kind: Kind::Memory,
            class: class_of(space),
            a: address.slot,
            word,
            ..self.guarded(syntax)?
        };
        self.push(instruction);
        Ok(true)
    }

    fn atomic(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let Some(element) = type_of(name.last()) else { return Ok(false) };
        let change = name.qualifiers.iter().find_map(|q| {
            Some(match *q {
                "add" => Change::Add,
                "min" => Change::Min,
                "max" => Change::Max,
                "and" => Change::And,
                "or" => Change::Or,
                "xor" => Change::Xor,
                "exch" => Change::Exchange,
                "cas" => Change::CompareAndSwap,
                "inc" => Change::Increment,
                "dec" => Change::Decrement,
                _ => return None,
            })
        });
        const CHANGES: [&str; 10] = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];
        let others = &name.qualifiers[..name.qualifiers.len() - 1];
        let (Some(change), true) = (change, others.iter().all(|q| harmless(q) || CHANGES.contains(q))) else {
            return Ok(false);
        };
        let bitwise = matches!(
            change,
            Change::And | Change::Or | Change::Xor | Change::Exchange | Change::CompareAndSwap
        );
        let value = match element {
            Type::B16 if bitwise => Value::B16,
            Type::B32 | Type::U32 | Type::S32 | Type::F32 if bitwise => Value::U32,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 if bitwise => Value::U64,
            Type::U32 => Value::U32,
            Type::S32 => Value::S32,
            Type::U64 => Value::U64,
            Type::S64 => Value::S64,
            Type::F32 if change == Change::Add => Value::F32,
            Type::F64 if change == Change::Add => Value::F64,
            Type::F16 => Value::F16,
            Type::Bf16 => Value::Bf16,
            Type::F16x2 => Value::F16x2,
            Type::Bf16x2 => Value::Bf16x2,
            _ => return Ok(false),
        };
        let (returns, operands) = (name.base == "atom", &syntax.operands);
        let first = usize::from(returns);
        let address = self.address(self.operand(operands, first)?)?;
        let mut slots = Vec::new();
        for part in self.parts(self.operand(operands, first + 1)?) {
            slots.push(self.source(part, element)?);
        }
        let mut instruction = self.guarded(syntax)?;
        (instruction.d, instruction.b) = (NONE, NONE);
        if returns {
            match self.operand(operands, 0)? {
                Operand::Vector(parts) => {
                    let mut destinations = Vec::new();
                    for part in parts {
                        destinations.push(self.destination(part, element)?);
                    }
                    if destinations.len() != slots.len() {
                        return self.error("as many results as operands are needed");
                    }
                    instruction.e = self.list(destinations);
                }
                single => instruction.d = self.destination(single, element)?,
            }
        }
        if change == Change::CompareAndSwap {
            instruction.b = self.source(self.operand(operands, first + 2)?, element)?;
        }
        let ordered = ["acquire", "release", "acq_rel"].iter().any(|q| name.has(q));
        self.program.has_fence |= ordered;
        let space = self.space(name, address);
        instruction.word = self.access(Access {
            space,
            element: size_of(element) as u32,
            signed: false,
            slots,
            wide: is_wide(element),
            narrow: address.narrow,
            offset: address.offset,
            strong: true,
            release: ordered,
        });
        instruction.target = atomics::code(change, value);
        instruction.run = compiled::<Atomic>(self.level);
        instruction.kind = Kind::Memory;
        instruction.class = class_of(space);
        instruction.a = address.slot;
        self.push(instruction);
        Ok(true)
    }

    /// A constant that is not below zero.
    pub fn constant_operand(&self, operand: &Operand) -> Result<u64, LoadError> {
        match operand {
            Operand::Integer(value) if *value >= 0 => Ok(*value as u64),
            _ => self.error("a constant is needed here"),
        }
    }

    fn copy(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.guarded(syntax)?;
        instruction.kind = Kind::Memory;
        instruction.class = Class::Barrier;
        match name.qualifiers.get(1).copied() {
            Some("commit_group") => instruction.run = compiled::<Commit>(self.level),
            Some("wait_all") => {
                instruction.run = compiled::<Wait>(self.level);
                instruction.word = u64::MAX;
            }
            Some("wait_group") => {
                instruction.run = compiled::<Wait>(self.level);
                instruction.word = self.constant_operand(self.operand(&syntax.operands, 0)?)?;
            }
            Some("ca" | "cg") => return self.copy_bytes(syntax, name, instruction),
            _ => return Ok(false),
        }
        self.push(instruction);
        Ok(true)
    }

    fn copy_bytes(&mut self, syntax: &Syntax, name: &Name<'_>, mut instruction: Instruction) -> Decoded {
        let operands = &syntax.operands;
        let (to, from) =
            (self.address(self.operand(operands, 0)?)?, self.address(self.operand(operands, 1)?)?);
        let bytes = self.constant_operand(self.operand(operands, 2)?)?;
        if !matches!(bytes, 4 | 8 | 16) || (name.has("cg") && bytes != 16) {
            return self
                .error(format!("cp.async of {bytes} bytes: 4, 8 or 16 are possible, with .cg 16 only"));
        }
        instruction.c = NONE;
        let hinted = name.qualifiers.iter().any(|q| q.contains("cache_hint"));
        let extra = operands.len().saturating_sub(3 + usize::from(hinted));
        if extra > 0 {
            let operand = self.operand(operands, 3)?;
            match self.predicate_register(operand) {
                Some(predicate) => instruction.e = predicate,
                None => instruction.c = self.source(operand, Type::U32)?,
            }
        }
        let access = |space: AccessSpace, address: Address| Access {
            space,
            element: 4,
            signed: false,
            slots: vec![NONE; bytes as usize / 4],
            wide: false,
            narrow: address.narrow,
            offset: address.offset,
            strong: false,
            release: false,
        };
        instruction.word = self.access(access(AccessSpace::Shared, to));
        instruction.target = self.access(access(AccessSpace::Global, from)) as u32;
        (instruction.a, instruction.b) = (to.slot, from.slot);
        instruction.run = compiled::<CopyAsync>(self.level);
        instruction.class = Class::Global;
        self.push(instruction);
        Ok(true)
    }

    fn predicate_register(&self, operand: &Operand) -> Option<u32> {
        match operand {
            Operand::Register(name) => self
                .scope
                .registers
                .get(name)
                .filter(|register| register.element == Type::Pred)
                .map(|r| r.slot),
            _ => None,
        }
    }

    fn matrix(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let known = ["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta", "b16"];
        if !name.qualifiers.iter().all(|q| known.contains(q)) || name.last() != "b16" || !name.has("m8n8") {
            return Ok(false);
        }
        let load = name.base == "ldmatrix";
        let (data, place) = if load { (0, 1) } else { (1, 0) };
        let address = self.address(self.operand(&syntax.operands, place)?)?;
        let mut slots = Vec::new();
        for part in self.parts(self.operand(&syntax.operands, data)?) {
            slots.push(self.source(part, Type::B32)?);
        }
        let expected = if name.has("x4") { 4 } else { 1 + usize::from(name.has("x2")) };
        if slots.len() != expected {
            return self.error(format!(
                "{} moves {expected} registers, {} are given",
                syntax.opcode,
                slots.len()
            ));
        }
        let word = self.access(Access {
            space: self.space(name, address),
            element: 4,
            signed: false,
            slots,
            wide: false,
            narrow: address.narrow,
            offset: address.offset,
            strong: false,
            release: false,
        });
        let run = if load { compiled::<LoadMatrix>(self.level) } else { compiled::<StoreMatrix>(self.level) };
        let instruction = Instruction {
            run,
            kind: Kind::WarpAligned,
            class: Class::Shared,
            a: address.slot,
            e: u32::from(name.has("trans")),
            word,
            ..self.guarded(syntax)?
        };
        self.push(instruction);
        Ok(true)
    }
}
