//! The instructions of the asynchronous proxy: `mbarrier`, bulk copies, `wgmma`, and its fences.

use super::builder::Builder;
use super::instruction::Decoded;
use crate::exec::LoadError;
use crate::exec::bulk::{BulkCommit, BulkCopy, BulkWait};
use crate::exec::lanes::compiled;
use crate::exec::mbarrier::Mbarrier;
use crate::exec::moves::ProxyFence;
use crate::exec::operations::Name;
use crate::exec::wgmma::{MatrixProduct, WgmmaCommit, WgmmaFence, WgmmaWait};
use crate::program::{
    Access, AccessSpace, BulkForm, Class, Instruction, Kind, MbarrierForm, MbarrierOperation, NONE,
    Reference, WgmmaForm,
};
use crate::ptx::ast::{Instruction as Syntax, Operand, Type};

/// Qualifiers of `mbarrier` that say nothing more than where it is and what it orders.
const PLAIN: &[&str] = &[
    "shared",
    "shared::cta",
    "shared::cluster",
    "b64",
    "release",
    "acquire",
    "relaxed",
    "cta",
    "cluster",
    "noComplete",
];

impl Builder<'_> {
    /// Decodes an instruction of the asynchronous proxy.
    pub fn asynchronous_instruction(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        match name.base {
            "mbarrier" => self.mbarrier(syntax, name),
            "cp" if name.qualifiers.starts_with(&["async", "bulk"]) => self.bulk(syntax, name),
            "wgmma" => self.wgmma(syntax, name),
            "fence" if name.has("mbarrier_init") || name.has("proxy") => self.proxy_fence(syntax, name),
            "setmaxnreg" => self.registers_of_warp(syntax, name),
            _ => Ok(false),
        }
    }

    /// Instructions that only the target with the `a` has.
    fn needs_sm_90a(&self, syntax: &Syntax) -> Result<(), LoadError> {
        match self.module.target.first().is_some_and(|target| target.ends_with('a')) {
            true => Ok(()),
            false => self.error(format!("{} needs .target sm_90a: compile for compute_90a", syntax.opcode)),
        }
    }

    fn reference(&mut self, operand: &Operand) -> Result<Reference, LoadError> {
        let address = self.address(operand)?;
        Ok(Reference { slot: address.slot, narrow: address.narrow, offset: address.offset })
    }

    fn mbarrier(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let expects = name.has("expect_tx");
        let arrive = |drops: bool| MbarrierOperation::Arrive { expects, drops };
        let (operation, extra): (_, &[&str]) = match name.qualifiers.first().copied().unwrap_or_default() {
            "init" => (MbarrierOperation::Initialise, &["init"]),
            "inval" => (MbarrierOperation::Invalidate, &["inval"]),
            "expect_tx" => (MbarrierOperation::Expect, &["expect_tx"]),
            "complete_tx" => (MbarrierOperation::Complete, &["complete_tx"]),
            "arrive" => (arrive(false), &["arrive", "expect_tx"]),
            "arrive_drop" => (arrive(true), &["arrive_drop", "expect_tx"]),
            wait @ ("test_wait" | "try_wait") => {
                let parity = name.has("parity");
                (
                    MbarrierOperation::Wait { parity },
                    if wait == "test_wait" { &["test_wait", "parity"] } else { &["try_wait", "parity"] },
                )
            }
            _ => return Ok(false),
        };
        if name.last() != "b64" || !name.qualifiers.iter().all(|q| PLAIN.contains(q) || extra.contains(q)) {
            return Ok(false);
        }
        let mut instruction = self.guarded(syntax)?;
        (instruction.b, instruction.d) = (NONE, NONE);
        // A result stands first; `arrive` may be without, where the barrier is the first operand.
        let first = syntax.operands.first();
        let returns = !matches!(first, Some(Operand::Address { .. }));
        if returns {
            let result = self.operand(&syntax.operands, 0)?;
            instruction.d = match (operation, result) {
                (_, Operand::Sink) => NONE,
                (MbarrierOperation::Wait { .. }, result) => self.written_predicate(result)?,
                (_, result) => self.destination(result, Type::B64)?,
            };
        }
        let address = self.address(self.operand(&syntax.operands, usize::from(returns))?)?;
        let value = syntax.operands.get(usize::from(returns) + 1);
        let needed = !matches!(operation, MbarrierOperation::Invalidate)
            && (expects || !matches!(operation, MbarrierOperation::Arrive { .. }));
        if needed && value.is_none() {
            return self.error(format!("{} takes a count, a number of bytes or a phase", syntax.opcode));
        }
        if let Some(value) = value {
            let state = operation == MbarrierOperation::Wait { parity: false };
            instruction.b = self.source(value, if state { Type::B64 } else { Type::U32 })?;
        }
        let generic = !name.qualifiers.iter().any(|q| q.starts_with("shared"));
        instruction.a = address.slot;
        instruction.word = self.access(Access {
            space: if generic && address.space.is_none() {
                AccessSpace::Generic
            } else {
                AccessSpace::Shared
            },
            element: 8,
            signed: false,
            slots: vec![NONE],
            wide: true,
            narrow: address.narrow,
            offset: address.offset,
            strong: true,
            release: false,
        });
        self.program.mbarriers.push(MbarrierForm { operation, relaxed: name.has("relaxed") });
        instruction.e = self.program.mbarriers.len() as u32 - 1;
        self.program.named_barriers = true;
        let waits = matches!(operation, MbarrierOperation::Wait { .. });
        instruction.kind = if waits { Kind::Wait } else { Kind::Memory };
        instruction.class = Class::Barrier;
        instruction.run = compiled::<Mbarrier>(self.level);
        self.push(instruction);
        Ok(true)
    }

    /// A fence for the asynchronous proxy; fences of other proxies are not known.
    fn proxy_fence(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let asynchronous = name.qualifiers.starts_with(&["proxy", "async"])
            && name.qualifiers[2..].iter().all(|q| ["shared::cta", "shared::cluster", "global"].contains(q));
        if !asynchronous && name.qualifiers != ["mbarrier_init", "release", "cluster"] {
            return Ok(false);
        }
        let instruction = self.guarded(syntax)?;
        let run = match name.has("global") {
            // Global memory is the same for both proxies here.
            true => Instruction::NOTHING.run,
            false => compiled::<ProxyFence>(self.level),
        };
        self.push(Instruction { run, class: Class::Barrier, ..instruction });
        Ok(true)
    }

    fn bulk(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.guarded(syntax)?;
        instruction.kind = Kind::Memory;
        instruction.class = Class::Barrier;
        let rest = &name.qualifiers[2..];
        match rest.first().copied().unwrap_or_default() {
            "commit_group" => {
                instruction.run = compiled::<BulkCommit>(self.level);
                self.push(instruction);
                return Ok(true);
            }
            "wait_group" if rest.len() == 1 || rest[1..] == ["read"] => {
                instruction.run = compiled::<BulkWait>(self.level);
                instruction.word = self.constant_operand(self.operand(&syntax.operands, 0)?)?;
                self.push(instruction);
                return Ok(true);
            }
            _ => {}
        }
        let tensor = rest.first() == Some(&"tensor");
        let rest = if tensor { &rest[1..] } else { rest };
        let rank = match rest.first().copied() {
            Some("1d" | "2d" | "3d" | "4d" | "5d") if tensor => usize::from(rest[0].as_bytes()[0] - b'0'),
            _ if tensor => return Ok(false),
            _ => 0,
        };
        let rest: Vec<&str> = rest[usize::from(tensor)..]
            .iter()
            .copied()
            .filter(|q| *q != "tile" && !q.starts_with("L2::"))
            .collect();
        let loads = match rest.as_slice() {
            ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes"] => true,
            ["global", "shared::cta", "bulk_group"] => false,
            _ => return Ok(false),
        };
        let operands = &syntax.operands;
        let (to, from) = (self.operand(operands, 0)?, self.operand(operands, 1)?);
        let (shared, global) = if loads { (to, from) } else { (from, to) };
        let (global, values) = if tensor {
            self.tensor_operand(global, rank)?
        } else {
            let global = self.reference(global)?;
            let size = self.source(self.operand(operands, 2)?, Type::U32)?;
            (global, vec![size])
        };
        let shared = self.reference(shared)?;
        let mbarrier = match loads {
            true => Some(self.reference(self.operand(operands, if tensor { 2 } else { 3 })?)?),
            false => None,
        };
        self.program.bulks.push(BulkForm { shared, global, mbarrier, tensor, values });
        instruction.e = self.program.bulks.len() as u32 - 1;
        instruction.run = compiled::<BulkCopy>(self.level);
        instruction.class = Class::Global;
        self.push(instruction);
        Ok(true)
    }

    /// `[map, {x, y}]`: where the map lies, and the slots of the coordinates.
    fn tensor_operand(&mut self, operand: &Operand, rank: usize) -> Result<(Reference, Vec<u32>), LoadError> {
        let Operand::Address { base, offset, tensor } = operand else {
            return self.error("a tensor map and coordinates are needed here");
        };
        if tensor.len() != rank {
            return self.error(format!("{} coordinates, the instruction takes {rank}", tensor.len()));
        }
        let map = Operand::Address { base: base.clone(), offset: *offset, tensor: Vec::new() };
        let coordinates = tensor.iter().map(|part| self.source(part, Type::S32)).collect::<Result<_, _>>()?;
        Ok((self.reference(&map)?, coordinates))
    }

    fn wgmma(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let mut instruction = self.guarded(syntax)?;
        instruction.kind = Kind::WarpAligned;
        instruction.class = Class::Barrier;
        match name.qualifiers.as_slice() {
            ["fence", "sync", "aligned"] => instruction.run = compiled::<WgmmaFence>(self.level),
            ["commit_group", "sync", "aligned"] => instruction.run = compiled::<WgmmaCommit>(self.level),
            ["wait_group", "sync", "aligned"] => {
                instruction.run = compiled::<WgmmaWait>(self.level);
                instruction.word = self.constant_operand(self.operand(&syntax.operands, 0)?)?;
            }
            ["mma_async", "sync", "aligned", shape, "f32", "bf16", "bf16"] => {
                let Some(n) = columns(shape) else { return Ok(false) };
                self.needs_sm_90a(syntax)?;
                return self.product(syntax, n, instruction);
            }
            _ => return Ok(false),
        }
        self.needs_sm_90a(syntax)?;
        self.push(instruction);
        Ok(true)
    }

    fn product(&mut self, syntax: &Syntax, n: usize, mut instruction: Instruction) -> Decoded {
        let operands = &syntax.operands;
        let list = |builder: &mut Self, index: usize, expected: usize, element: Type| {
            let parts = builder.parts(builder.operand(operands, index)?);
            if parts.len() != expected {
                let (place, count) = (index + 1, parts.len());
                return builder.error(format!("operand {place} has {count} registers, not {expected}"));
            }
            let slots =
                parts.into_iter().map(|part| builder.source(part, element)).collect::<Result<_, _>>()?;
            Ok(builder.list(slots))
        };
        instruction.d = list(self, 0, n / 2, Type::F32)?;
        let a_in_registers = matches!(self.operand(operands, 1)?, Operand::Vector(_));
        instruction.a = match a_in_registers {
            true => list(self, 1, 4, Type::B32)?,
            false => self.source(self.operand(operands, 1)?, Type::B64)?,
        };
        instruction.b = self.source(self.operand(operands, 2)?, Type::B64)?;
        let (predicate, negated) = self.predicate(self.operand(operands, 3)?)?;
        (instruction.c, instruction.target) = (predicate, u32::from(negated));
        let flag = |builder: &Self, index: usize, words: [i64; 2]| match builder.operand(operands, index)? {
            Operand::Integer(value) if words.contains(value) => Ok(*value == words[1]),
            other => builder.error(format!("{other:?} is neither {} nor {}", words[0], words[1])),
        };
        let negated = [flag(self, 4, [1, -1])?, flag(self, 5, [1, -1])?];
        let transposed = match a_in_registers {
            true => [false, flag(self, 6, [0, 1])?],
            false => [flag(self, 6, [0, 1])?, flag(self, 7, [0, 1])?],
        };
        self.program.wgmmas.push(WgmmaForm { n, a_in_registers, transposed, negated });
        instruction.word = self.program.wgmmas.len() as u64 - 1;
        instruction.run = compiled::<MatrixProduct>(self.level);
        instruction.class = Class::Warpgroup;
        self.push(instruction);
        Ok(true)
    }

    /// `setmaxnreg`: registers are not counted here; what cannot be is refused.
    fn registers_of_warp(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        if !matches!(name.qualifiers.as_slice(), ["inc" | "dec", "sync", "aligned", "u32"]) {
            return Ok(false);
        }
        self.needs_sm_90a(syntax)?;
        let count = self.constant_operand(self.operand(&syntax.operands, 0)?)?;
        if count % 8 != 0 || !(24..=256).contains(&count) {
            return self.error(format!("setmaxnreg of {count} registers: a multiple of 8 from 24 to 256"));
        }
        let instruction = Instruction { kind: Kind::WarpAligned, ..self.guarded(syntax)? };
        self.push(instruction);
        Ok(true)
    }
}

/// N of `m64n128k16`.
fn columns(shape: &str) -> Option<usize> {
    let n = shape.strip_prefix("m64n")?.strip_suffix("k16")?.parse().ok()?;
    (n % 8 == 0 && (8..=256).contains(&n)).then_some(n)
}
