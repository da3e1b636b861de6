//! Branches, calls, barriers, fences.

use super::builder::{Builder, Scope};
use super::instruction::Decoded;
use crate::exec::lanes::compiled;
use crate::exec::moves::Fence;
use crate::exec::operations::Name;
use crate::program::{BarrierForm, BarrierReduction, Class, Instruction, Kind, NONE};
use crate::ptx::ast::{Function, Instruction as Syntax, Operand, Type};

impl Builder<'_> {
    /// Decodes an instruction of control.
    pub fn control_instruction(&mut self, syntax: &Syntax, name: &Name<'_>) -> Decoded {
        let instruction = self.guarded(syntax)?;
        match name.base {
            "bra" => match syntax.operands.first() {
                Some(Operand::Symbol(label, 0)) => {
                    self.jump(Instruction { kind: Kind::Branch, ..instruction }, label);
                    Ok(true)
                }
                _ => self.error("bra takes a label"),
            },
            "brx" if name.has("idx") => self.indexed(syntax, instruction),
            "ret" | "exit" => {
                if name.base == "ret" && self.scope.inlined {
                    self.return_jump(Instruction { kind: Kind::Branch, ..instruction });
                } else {
                    self.push(Instruction { kind: Kind::Exit, ..instruction });
                }
                Ok(true)
            }
            "trap" | "brkpt" => {
                self.trap(instruction, format!("the kernel executed {}", name.base));
                Ok(true)
            }
            "call" => self.call(syntax, instruction),
            "bar" | "barrier" => self.barrier(syntax, name, instruction),
            "membar" | "fence" => {
                let known = ["cta", "gl", "sys", "sc", "acq_rel", "gpu", "cluster", "acquire", "release"];
                if !name.qualifiers.iter().all(|q| known.contains(q)) {
                    return Ok(false);
                }
                let wide = !name.has("cta");
                self.program.has_fence |= wide;
                let run = if wide { compiled::<Fence>(self.level) } else { Instruction::NOTHING.run };
                self.push(Instruction { run, class: Class::Barrier, ..instruction });
                Ok(true)
            }
            "nanosleep" | "pmevent" | "griddepcontrol" => {
                self.push(instruction);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn trap(&mut self, instruction: Instruction, message: String) {
        self.program.strings.push(message);
        let word = self.program.strings.len() as u64 - 1;
        self.push(Instruction { kind: Kind::Trap, word, ..instruction });
    }

    fn indexed(&mut self, syntax: &Syntax, mut instruction: Instruction) -> Decoded {
        instruction.a = self.source(self.operand(&syntax.operands, 0)?, Type::U32)?;
        let labels = match self.operand(&syntax.operands, 1)? {
            Operand::Symbol(name, 0) => self.scope.targets.get(name).cloned(),
            _ => None,
        };
        let Some(labels) = labels else { return self.error("brx.idx takes a list of .branchtargets") };
        self.program.tables.push(Vec::new());
        instruction.e = self.program.tables.len() as u32 - 1;
        instruction.kind = Kind::BranchIndexed;
        let line = self.current_line();
        self.scope.tables.push((instruction.e, labels, line));
        self.push(instruction);
        Ok(true)
    }

    /// A call: the function's body is put here, its parameters are the caller's variables.
    fn call(&mut self, syntax: &Syntax, guard: Instruction) -> Decoded {
        let mut lists = Vec::new();
        let mut callee = None;
        for operand in &syntax.operands {
            match operand {
                Operand::List(parts) => lists.push((callee.is_some(), parts.as_slice())),
                Operand::Symbol(name, 0) if callee.is_none() => callee = Some(name.as_str()),
                _ => {}
            }
        }
        let Some(callee) = callee else { return Ok(false) };
        let module = self.module;
        let with_body = module.functions.iter().find(|f| f.name == callee && f.body.is_some());
        let Some(function) = with_body else {
            let message = if callee == "__assertfail" {
                "a device-side assertion failed".to_owned()
            } else {
                format!("calls {callee}, which the emulated device does not have")
            };
            self.trap(guard, message);
            return Ok(true);
        };
        if self.open.iter().any(|open| open == callee) {
            return self.error(format!("{callee} calls itself; recursion is not supported"));
        }
        let list =
            |after: bool| lists.iter().find(|(is_after, _)| *is_after == after).map_or(&[][..], |(_, l)| *l);
        // Lanes that do not call go round the body.
        let around = (guard.guard != NONE).then(|| {
            self.push(Instruction { kind: Kind::Branch, guard_negated: !guard.guard_negated, ..guard });
            self.program.code.len() - 1
        });
        self.inline(function, list(false), list(true))?;
        if let Some(index) = around {
            self.program.code[index].target = self.program.code.len() as u32;
        }
        Ok(true)
    }

    fn inline(
        &mut self,
        function: &Function,
        returns: &[Operand],
        arguments: &[Operand],
    ) -> Result<(), crate::exec::LoadError> {
        let mut scope = Scope::default();
        scope.inlined = true;
        for (declared, given) in [(&function.returns, returns), (&function.parameters, arguments)] {
            if declared.len() != given.len() {
                let counts = format!("{} values, {} are given", declared.len(), given.len());
                return self.error(format!("{} takes {counts}", function.name));
            }
            for (variable, operand) in declared.iter().zip(given) {
                let place = match operand {
                    Operand::Symbol(name, 0) => self.place(name),
                    _ => None,
                };
                let Some(place) = place else {
                    return self
                        .error(format!("the arguments of {} must be .param variables", function.name));
                };
                scope.places.insert(variable.name.clone(), place);
            }
        }
        let outer = std::mem::replace(&mut self.scope, scope);
        let result = self.body(function);
        let inner = std::mem::replace(&mut self.scope, outer);
        result?;
        // A jump may lead to the very end of the body.
        self.push(Instruction::NOTHING);
        self.finish_scope(inner)
    }

    fn barrier(&mut self, syntax: &Syntax, name: &Name<'_>, mut instruction: Instruction) -> Decoded {
        let known = ["cta", "sync", "arrive", "red", "popc", "and", "or", "aligned", "pred", "u32"];
        if !name.qualifiers.iter().all(|q| known.contains(q)) {
            return Ok(false);
        }
        let reduction = match () {
            () if !name.has("red") => None,
            () if name.has("popc") => Some(BarrierReduction::Popc),
            () if name.has("and") => Some(BarrierReduction::And),
            () if name.has("or") => Some(BarrierReduction::Or),
            () => return Ok(false),
        };
        let form = BarrierForm {
            waits: !name.has("arrive"),
            aligned: name.base == "bar" || name.has("aligned"),
            reduction,
        };
        let mut operands = syntax.operands.as_slice();
        instruction.c = NONE;
        if let Some(reduction) = reduction {
            let (Some((first, rest)), Some(last)) = (operands.split_first(), operands.last()) else {
                return self.error("a barrier reduction takes a result, a barrier and a predicate");
            };
            instruction.d = match reduction {
                BarrierReduction::Popc => self.destination(first, Type::U32)?,
                _ => self.written_predicate(first)?,
            };
            let (predicate, negated) = self.predicate(last)?;
            instruction.c = predicate;
            instruction.target = u32::from(negated);
            operands = &rest[..rest.len().saturating_sub(1)];
        }
        instruction.a = self.source(self.operand(operands, 0)?, Type::U32)?;
        instruction.b = match operands.get(1) {
            Some(count) => self.source(count, Type::U32)?,
            None => NONE,
        };
        self.program.named_barriers |=
            operands.len() > 1 || !matches!(operands.first(), Some(Operand::Integer(0)));
        self.program.barriers.push(form);
        instruction.word = self.program.barriers.len() as u64 - 1;
        instruction.kind = Kind::Barrier;
        instruction.class = Class::Barrier;
        self.push(instruction);
        Ok(true)
    }
}
