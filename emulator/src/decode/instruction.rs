//! One instruction: which rule decodes it. What no rule knows becomes an instruction that reports itself when reached.

use super::builder::Builder;
use crate::exec::LoadError;
use crate::exec::context::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::exec::lanes::{compare, compiled, unary};
use crate::exec::moves::{Clock, Pack, PredicateLogic, Select, Unpack};
use crate::exec::operations::{self, Name, is_wide, type_of};
use crate::program::{Class, Instruction, Kind, NONE};
use crate::ptx::ast::{Instruction as Syntax, Operand, Type};

/// What a rule did: the instruction is decoded, or the rule does not know this form.
pub type Decoded = Result<bool, LoadError>;

impl Builder<'_> {
    /// Decodes an instruction.
    pub fn instruction(&mut self, syntax: &Syntax) -> Result<(), LoadError> {
        let name = Name::new(&syntax.opcode);
        let known = match name.base {
            "mov" => self.mov(syntax, &name)?,
            "selp" => self.select(syntax, &name)?,
            "and" | "or" | "xor" | "not" if name.last() == "pred" => self.predicates(syntax, &name)?,
            "set" => self.set(syntax, &name)?,
            "cvta" => self.window(syntax, &name)?,
            "isspacep" => self.is_space(syntax, &name)?,
            _ => {
                self.asynchronous_instruction(syntax, &name)?
                    || self.memory_instruction(syntax, &name)?
                    || self.warp_instruction(syntax, &name)?
                    || self.control_instruction(syntax, &name)?
                    || self.computation(syntax, &name)?
            }
        };
        if !known {
            let instruction = Instruction { kind: Kind::Unknown, ..self.guarded(syntax)? };
            self.push(instruction);
        }
        Ok(())
    }

    /// The table of computations.
    fn computation(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let Some(operation) = operations::find(name, self.level) else { return Ok(false) };
        let mut instruction = self.guarded(syntax)?;
        let operands = &syntax.operands;
        let mut sources = [0; 4];
        for (index, element) in operation.sources.iter().enumerate() {
            sources[index] = self.source(self.operand(operands, index + 1)?, *element)?;
        }
        [instruction.a, instruction.b, instruction.c, _] = sources;
        if operation.sources.len() == 4 {
            instruction.e = sources[3];
        }
        instruction.run = operation.run;
        instruction.class = operation.class;
        instruction.word = operation.word;
        let mut expected = operation.sources.len() + 1;
        if operation.destination == Type::Pred {
            let first = self.operand(operands, 0)?;
            let (d, e) = match first {
                Operand::Pair(d, e) => (self.written_predicate(d)?, self.written_predicate(e)?),
                single => (self.written_predicate(single)?, NONE),
            };
            (instruction.d, instruction.e) = (d, e);
            if operation.word & 3 != 0 {
                let (predicate, negated) = self.predicate(self.operand(operands, expected)?)?;
                instruction.c = predicate;
                instruction.word |= u64::from(negated) << 8;
                expected += 1;
            }
        } else {
            instruction.d = self.destination(self.operand(operands, 0)?, operation.destination)?;
        }
        if name.base == "lop3" {
            match self.operand(operands, 4)? {
                Operand::Integer(table) => instruction.word = *table as u64 & 255,
                _ => return self.error("the table of lop3 must be a constant"),
            }
            expected += 1;
        }
        if operands.len() != expected {
            return self.error(format!(
                "{} takes {expected} operands, {} are given",
                syntax.opcode,
                operands.len()
            ));
        }
        self.push(instruction);
        Ok(true)
    }

    fn mov(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let Some(element) = type_of(name.last()).filter(|_| name.qualifiers.len() == 1) else {
            return Ok(false);
        };
        let (to, from) = (self.operand(&syntax.operands, 0)?, self.operand(&syntax.operands, 1)?);
        let mut instruction = self.guarded(syntax)?;
        instruction.class = Class::Integer;
        if element == Type::Pred {
            let (source, negated) = self.predicate(from)?;
            instruction.run = compiled::<PredicateLogic>(self.level);
            instruction.d = self.written_predicate(to)?;
            instruction.a = source;
            instruction.word = 4 | u64::from(negated) << 8;
            self.push(instruction);
            return Ok(true);
        }
        let wide = is_wide(element);
        let bits = if wide { 64 } else { 32 };
        match (to, from) {
            (Operand::Vector(parts), _) => {
                let mut slots = Vec::new();
                for part in parts {
                    slots.push(match part {
                        Operand::Sink => NONE,
                        part if self.declared_wide(part) == Some(true) => return Ok(false),
                        part => self.destination(part, Type::B32)?,
                    });
                }
                instruction.run = compiled::<Unpack>(self.level);
                instruction.a = self.source(from, element)?;
                instruction.word = bits / parts.len().max(1) as u64 | u64::from(wide) << 8;
                instruction.e = self.list(slots);
            }
            (_, Operand::Vector(parts)) => {
                let mut slots = Vec::new();
                for part in parts {
                    if self.declared_wide(part) == Some(true) {
                        return Ok(false);
                    }
                    slots.push(self.source(part, Type::B32)?);
                }
                instruction.run = compiled::<Pack>(self.level);
                instruction.d = self.destination(to, element)?;
                instruction.word = bits / parts.len().max(1) as u64 | u64::from(wide) << 8;
                instruction.e = self.list(slots);
            }
            (_, Operand::Special(special))
                if special.starts_with("%clock") || special.starts_with("%globaltimer") =>
            {
                instruction.run = compiled::<Clock>(self.level);
                instruction.kind = Kind::Memory;
                instruction.d = self.destination(to, element)?;
                instruction.word = u64::from(wide);
            }
            _ => {
                instruction.d = self.destination(to, element)?;
                instruction.a = self.source(from, element)?;
                instruction.run =
                    if wide { unary(self.level, |a: u64| a) } else { unary(self.level, |a: u32| a) };
            }
        }
        self.push(instruction);
        Ok(true)
    }

    fn select(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let Some(element) = type_of(name.last()).filter(|_| name.qualifiers.len() == 1) else {
            return Ok(false);
        };
        let operands = &syntax.operands;
        let mut instruction = self.guarded(syntax)?;
        instruction.class = Class::Integer;
        instruction.d = self.destination(self.operand(operands, 0)?, element)?;
        instruction.a = self.source(self.operand(operands, 1)?, element)?;
        instruction.b = self.source(self.operand(operands, 2)?, element)?;
        let (predicate, negated) = self.predicate(self.operand(operands, 3)?)?;
        instruction.c = predicate;
        instruction.word = u64::from(negated) << 8;
        instruction.run = if is_wide(element) {
            compiled::<Select<u64>>(self.level)
        } else {
            compiled::<Select<u32>>(self.level)
        };
        self.push(instruction);
        Ok(true)
    }

    fn predicates(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.guarded(syntax)?;
        instruction.class = Class::Integer;
        instruction.run = compiled::<PredicateLogic>(self.level);
        instruction.d = self.written_predicate(self.operand(&syntax.operands, 0)?)?;
        let (a, negate_a) = self.predicate(self.operand(&syntax.operands, 1)?)?;
        instruction.a = a;
        instruction.word = u64::from(negate_a) << 8;
        if name.base != "not" {
            let (b, negate_b) = self.predicate(self.operand(&syntax.operands, 2)?)?;
            instruction.b = b;
            instruction.word |= u64::from(negate_b) << 9;
        }
        instruction.word |= match name.base {
            "and" => 0,
            "or" => 1,
            "xor" => 2,
            _ => 3,
        };
        self.push(instruction);
        Ok(true)
    }

    /// `set`: a comparison, then a selection of all ones (1.0 for f32) or zero.
    fn set(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let Some(operation) = operations::find(name, self.level) else { return Ok(false) };
        let types: Vec<Type> = name.qualifiers.iter().filter_map(|q| type_of(q)).collect();
        let &[to, _] = types.as_slice() else { return Ok(false) };
        let yes = match to {
            Type::U32 | Type::S32 => u64::from(u32::MAX),
            Type::F32 => u64::from(1f32.to_bits()),
            _ => return Ok(false),
        };
        let operands = &syntax.operands;
        let mut instruction = self.guarded(syntax)?;
        let temporary = self.program.predicates;
        self.program.predicates += 1;
        instruction.run = operation.run;
        instruction.class = operation.class;
        instruction.word = operation.word;
        instruction.d = temporary;
        instruction.a = self.source(self.operand(operands, 1)?, operation.sources[0])?;
        instruction.b = self.source(self.operand(operands, 2)?, operation.sources[1])?;
        if operation.word & 3 != 0 {
            let (predicate, negated) = self.predicate(self.operand(operands, 3)?)?;
            instruction.c = predicate;
            instruction.word |= u64::from(negated) << 8;
        }
        self.push(instruction);
        let selection = Instruction {
            run: compiled::<Select<u32>>(self.level),
            class: Class::Integer,
            d: self.destination(self.operand(operands, 0)?, to)?,
            a: self.constant(yes, false)?,
            b: self.constant(0, false)?,
            c: temporary,
            ..self.guarded(syntax)?
        };
        self.push(selection);
        Ok(true)
    }

    /// `cvta`: device memory has the same addresses everywhere, the others are windows.
    fn window(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        if name.last() != "u64" {
            return Ok(false);
        }
        let to = name.has("to");
        let space = name.qualifiers.iter().find(|q| !["to", "u64"].contains(q)).copied().unwrap_or_default();
        let l = self.level;
        let run = match (space.split("::").next().unwrap_or_default(), to) {
            ("global" | "const", _) => unary(l, |a: u64| a),
            ("shared", false) => unary(l, |a: u64| a.wrapping_add(SHARED_WINDOW)),
            ("shared", true) => unary(l, |a: u64| a.wrapping_sub(SHARED_WINDOW)),
            ("local", false) => unary(l, |a: u64| a.wrapping_add(LOCAL_WINDOW)),
            ("local", true) => unary(l, |a: u64| a.wrapping_sub(LOCAL_WINDOW)),
            ("param", false) => unary(l, |a: u64| a.wrapping_add(PARAMETER_WINDOW)),
            ("param", true) => unary(l, |a: u64| a.wrapping_sub(PARAMETER_WINDOW)),
            _ => return Ok(false),
        };
        let mut instruction = self.guarded(syntax)?;
        instruction.run = run;
        instruction.class = Class::Integer;
        instruction.d = self.destination(self.operand(&syntax.operands, 0)?, Type::U64)?;
        instruction.a = self.source(self.operand(&syntax.operands, 1)?, Type::U64)?;
        self.push(instruction);
        Ok(true)
    }

    fn is_space(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let l = self.level;
        fn in_window(address: u64, window: u64) -> bool {
            address.wrapping_sub(window) < WINDOW_BYTES
        }
        let run = match name.last().split("::").next().unwrap_or_default() {
            "shared" => compare(l, |a: u64, _: u64| in_window(a, SHARED_WINDOW)),
            "local" => compare(l, |a: u64, _: u64| in_window(a, LOCAL_WINDOW)),
            "param" => compare(l, |a: u64, _: u64| in_window(a, PARAMETER_WINDOW)),
            "global" => compare(l, |a: u64, _: u64| {
                !in_window(a, SHARED_WINDOW) && !in_window(a, LOCAL_WINDOW) && !in_window(a, PARAMETER_WINDOW)
            }),
            _ => return Ok(false),
        };
        let mut instruction = self.guarded(syntax)?;
        instruction.run = run;
        instruction.class = Class::Integer;
        instruction.d = self.written_predicate(self.operand(&syntax.operands, 0)?)?;
        instruction.a = self.source(self.operand(&syntax.operands, 1)?, Type::U64)?;
        self.push(instruction);
        Ok(true)
    }
}
