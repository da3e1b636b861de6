//! Shuffles, votes, matches, reductions, matrix products.

use super::builder::Builder;
use super::instruction::Decoded;
use crate::exec::lanes::compiled;
use crate::exec::matrix::MultiplyAccumulate;
use crate::exec::operations::Name;
use crate::exec::warp_ops::{ActiveMask, Elect, Match, Reduce, Shuffle, Vote, WarpBarrier};
use crate::numeric::tensor_core::{Int8, Mma};
use crate::program::{Class, Instruction, Kind, NONE};
use crate::ptx::ast::{Instruction as Syntax, Operand, Type};

impl Builder<'_> {
    /// Decodes an instruction of the whole warp.
    pub fn warp_instruction(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        match name.base {
            "shfl" if name.has("sync") => self.shuffle(syntax, name),
            "vote" if name.has("sync") => self.vote(syntax, name),
            "match" if name.has("sync") => self.match_values(syntax, name),
            "redux" if name.has("sync") => self.reduce(syntax, name),
            "elect" if name.has("sync") => self.elect(syntax),
            "activemask" if name.last() == "b32" => {
                let mut instruction = self.guarded(syntax)?;
                instruction.run = compiled::<ActiveMask>(self.level);
                instruction.class = Class::Warp;
                instruction.d = self.destination(self.operand(&syntax.operands, 0)?, Type::B32)?;
                self.push(instruction);
                Ok(true)
            }
            "bar" | "barrier" if name.has("warp") => {
                let mut instruction = self.guarded(syntax)?;
                instruction.run = compiled::<WarpBarrier>(self.level);
                instruction.kind = Kind::WarpMask;
                instruction.class = Class::Barrier;
                instruction.target = self.source(self.operand(&syntax.operands, 0)?, Type::B32)?;
                self.push(instruction);
                Ok(true)
            }
            "mma" => self.mma(syntax),
            _ => Ok(false),
        }
    }

    fn member(&mut self, syntax: &Syntax, mask: usize) -> Result<Instruction, crate::exec::LoadError> {
        let mut instruction = self.guarded(syntax)?;
        instruction.kind = Kind::WarpMask;
        instruction.class = Class::Warp;
        instruction.target = self.source(self.operand(&syntax.operands, mask)?, Type::B32)?;
        Ok(instruction)
    }

    /// `d|p`, or d alone.
    fn with_predicate(&mut self, operand: &Operand) -> Result<(u32, u32), crate::exec::LoadError> {
        match operand {
            Operand::Pair(d, p) => Ok((self.destination(d, Type::B32)?, self.written_predicate(p)?)),
            single => Ok((self.destination(single, Type::B32)?, NONE)),
        }
    }

    fn shuffle(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        if name.last() != "b32" {
            return Ok(false);
        }
        let mut instruction = self.member(syntax, 4)?;
        instruction.word = match name.qualifiers.get(1).copied() {
            Some("up") => 0,
            Some("down") => 1,
            Some("bfly") => 2,
            Some("idx") => 3,
            _ => return Ok(false),
        };
        let operands = &syntax.operands;
        (instruction.d, instruction.e) = self.with_predicate(self.operand(operands, 0)?)?;
        instruction.a = self.source(self.operand(operands, 1)?, Type::B32)?;
        instruction.b = self.source(self.operand(operands, 2)?, Type::B32)?;
        instruction.c = self.source(self.operand(operands, 3)?, Type::B32)?;
        instruction.run = compiled::<Shuffle>(self.level);
        self.push(instruction);
        Ok(true)
    }

    fn vote(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.member(syntax, 2)?;
        let operands = &syntax.operands;
        instruction.word = match name.qualifiers.get(1).copied() {
            Some("all") => 0,
            Some("any") => 1,
            Some("uni") => 2,
            Some("ballot") => 3,
            _ => return Ok(false),
        };
        instruction.d = match instruction.word {
            3 => self.destination(self.operand(operands, 0)?, Type::B32)?,
            _ => self.written_predicate(self.operand(operands, 0)?)?,
        };
        let (predicate, negated) = self.predicate(self.operand(operands, 1)?)?;
        instruction.a = predicate;
        instruction.word |= u64::from(negated) << 8;
        instruction.run = compiled::<Vote>(self.level);
        self.push(instruction);
        Ok(true)
    }

    fn match_values(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.member(syntax, 2)?;
        let wide = name.last() == "b64";
        let operands = &syntax.operands;
        (instruction.d, instruction.e) = self.with_predicate(self.operand(operands, 0)?)?;
        let element = if wide { Type::B64 } else { Type::B32 };
        instruction.a = self.source(self.operand(operands, 1)?, element)?;
        instruction.word = u64::from(name.has("all")) | u64::from(wide) << 8;
        instruction.run = compiled::<Match>(self.level);
        self.push(instruction);
        Ok(true)
    }

    fn reduce(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.member(syntax, 2)?;
        instruction.word = match name.qualifiers.get(1).copied() {
            Some("add") => 0,
            Some("min") => 1,
            Some("max") => 2,
            Some("and") => 3,
            Some("or") => 4,
            Some("xor") => 5,
            _ => return Ok(false),
        };
        match name.last() {
            "s32" => instruction.word |= 1 << 8,
            "u32" | "b32" => {}
            _ => return Ok(false),
        }
        instruction.d = self.destination(self.operand(&syntax.operands, 0)?, Type::B32)?;
        instruction.a = self.source(self.operand(&syntax.operands, 1)?, Type::B32)?;
        instruction.run = compiled::<Reduce>(self.level);
        self.push(instruction);
        Ok(true)
    }

    fn elect(&mut self, syntax: &Syntax) -> Decoded {
        let mut instruction = self.member(syntax, 1)?;
        (instruction.d, instruction.e) = self.with_predicate(self.operand(&syntax.operands, 0)?)?;
        instruction.run = compiled::<Elect>(self.level);
        self.push(instruction);
        Ok(true)
    }

    fn mma(&mut self, syntax: &Syntax) -> Decoded {
        let Some(shape) = shape(&syntax.opcode) else { return Ok(false) };
        let mut instruction = self.guarded(syntax)?;
        let mut lists = [0; 4];
        let (na, nb, nc) = shape.registers();
        for (index, (list, expected)) in lists.iter_mut().zip([nc, na, nb, nc]).enumerate() {
            let mut slots = Vec::new();
            for part in self.parts(self.operand(&syntax.operands, index)?) {
                slots.push(self.source(part, Type::B32)?);
            }
            if slots.len() != expected {
                return self.error(format!(
                    "operand {} has {} registers, not {expected}",
                    index + 1,
                    slots.len()
                ));
            }
            *list = self.list(slots);
        }
        [instruction.d, instruction.a, instruction.b, instruction.c] = lists;
        self.program.shapes.push(shape);
        instruction.word = self.program.shapes.len() as u64 - 1;
        instruction.run = compiled::<MultiplyAccumulate>(self.level);
        instruction.kind = Kind::WarpAligned;
        instruction.class = Class::Tensor;
        self.push(instruction);
        Ok(true)
    }
}

fn shape(opcode: &str) -> Option<Mma> {
    let rest = opcode.strip_prefix("mma.sync.aligned.")?;
    Some(match rest {
        "m16n8k16.row.col.f32.bf16.bf16.f32" => Mma::Bf16K16,
        "m16n8k8.row.col.f32.bf16.bf16.f32" => Mma::Bf16K8,
        "m16n8k16.row.col.f32.f16.f16.f32" => Mma::F16K16,
        "m16n8k8.row.col.f32.f16.f16.f32" => Mma::F16K8,
        "m16n8k16.row.col.f16.f16.f16.f16" => Mma::F16K16Half,
        "m16n8k8.row.col.f16.f16.f16.f16" => Mma::F16K8Half,
        "m16n8k8.row.col.f32.tf32.tf32.f32" => Mma::Tf32K8,
        "m16n8k4.row.col.f32.tf32.tf32.f32" => Mma::Tf32K4,
        _ => {
            let parts: Vec<&str> = rest.split('.').collect();
            let (size, saturate, a, b) = match parts.as_slice() {
                [size, "row", "col", "s32", a, b, "s32"] => (*size, false, *a, *b),
                [size, "row", "col", "satfinite", "s32", a, b, "s32"] => (*size, true, *a, *b),
                _ => return None,
            };
            if !["s8", "u8"].contains(&a) || !["s8", "u8"].contains(&b) {
                return None;
            }
            let kind = Int8 { a_signed: a == "s8", b_signed: b == "s8", saturate };
            match size {
                "m16n8k16" => Mma::Int8K16(kind),
                "m16n8k32" => Mma::Int8K32(kind),
                _ => return None,
            }
        }
    })
}
