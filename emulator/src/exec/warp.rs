//! The loop that runs a warp. Lanes that went different ways are groups; the one with the lowest program counter runs
//! first, so that groups meet again where the ways do. A group that comes to an instruction which needs other lanes is
//! parked until they come.

use super::barrier::Arrival;
use super::block::Block;
use super::context::{Context, Fault, LaunchState, lanes};
use super::lanes::{File, Lane};
use super::tally::Tally;
use crate::program::{Instruction, Kind, NONE, Program};
use crate::report;

/// Why a group does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It can run.
    Ready,
    /// It waits for lanes of its warp.
    Parked,
    /// It waits at a barrier of the block.
    Barrier(u32),
}

/// Lanes with one program counter.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Next instruction.
    pub pc: u32,
    /// Its lanes.
    pub mask: u32,
    /// Whether it can run.
    pub state: State,
    /// Backward jumps while there were other groups.
    pub jumps: u32,
    /// It lets the others run first.
    pub yields: bool,
}

impl Group {
    /// Lanes that can run.
    pub fn new(pc: u32, mask: u32) -> Group {
        Group { pc, mask, state: State::Ready, jumps: 0, yields: false }
    }

    fn runs(&self) -> bool {
        self.state == State::Ready && !self.yields
    }
}

/// How a turn of a warp ended.
#[derive(Debug)]
pub enum Turn {
    /// Every group waits, or all lanes have exited.
    Blocked,
    /// The budget is used up.
    Paused,
    /// A check failed at this instruction.
    Fault(u32, Fault),
}

/// Backward jumps after which a group lets the warp's other groups run: they may hold what it waits for.
const GROUP_JUMPS: u32 = 512;

/// Backward jumps after which a warp lets the block's others run.
pub(super) const TURN_JUMPS: u32 = 4096;

impl Block {
    /// Runs a warp until it blocks, or about `budget` instructions long.
    pub(super) fn turn(
        &mut self,
        number: usize,
        program: &Program,
        launch: &LaunchState<'_>,
        tally: &mut Tally,
        budget: u64,
    ) -> Turn {
        let mut left = budget;
        let mut jumps = TURN_JUMPS.saturating_sub(self.warps[number].spin.jumps).max(1);
        loop {
            let warp = &mut self.warps[number];
            if !warp.groups.iter().any(|group| group.state == State::Ready) {
                return Turn::Blocked;
            }
            if left == 0 || jumps == 0 {
                warp.spin.jumps = TURN_JUMPS - jumps;
                return Turn::Paused;
            }
            if !warp.groups.iter().any(Group::runs) {
                warp.groups.iter_mut().for_each(|group| group.yields = false);
            }
            let running = warp.groups.iter().enumerate().filter(|(_, group)| group.runs());
            let Some((chosen, _)) = running.min_by_key(|(_, group)| group.pc) else { return Turn::Blocked };
            let step = self.run_group(number, chosen, program, launch, tally, &mut left, &mut jumps);
            if let Err((pc, fault)) = step {
                return Turn::Fault(pc, fault);
            }
        }
    }

    /// Runs one group until groups must be looked at again: there is another at its place or before it, it splits, waits,
    /// exits.
    fn run_group(
        &mut self,
        number: usize,
        chosen: usize,
        program: &Program,
        launch: &LaunchState<'_>,
        tally: &mut Tally,
        left: &mut u64,
        jumps: &mut u32,
    ) -> Result<(), (u32, Fault)> {
        let warp = &mut self.warps[number];
        let Group { mut pc, mut mask, jumps: mut group_jumps, .. } = warp.groups[chosen];
        let several = warp.groups.len() > 1;
        let start = *left;
        let mut context = Context {
            file: File(warp.file.as_mut_ptr()),
            predicates: warp.predicates.as_mut_ptr(),
            warp: number,
            live: warp.live,
            carry: warp.carry,
            clock: warp.clock,
            block: &mut self.memory,
            program,
            launch,
            tally,
            fault: None,
            waits: false,
        };
        let code: &[Instruction] = &program.code;
        let outcome = loop {
            let Some(instruction) = code.get(pc as usize) else {
                break Next::Exit(mask);
            };
            if several {
                let here = |group: &Group| group.pc == pc && !matches!(group.state, State::Barrier(_));
                let others = || warp.groups.iter().enumerate().filter(|(g, _)| *g != chosen);
                if let Some((other, _)) = others().find(|(_, group)| here(group)) {
                    break Next::Merge(other);
                }
                if others().any(|(_, group)| group.runs() && group.pc < pc) {
                    break Next::Pause;
                }
            }
            if *left == 0 {
                break Next::Pause;
            }
            *left -= 1;
            let active = if instruction.guard == NONE {
                mask
            } else {
                let bits = context.predicate(instruction.guard);
                mask & if instruction.guard_negated { !bits } else { bits }
            };
            if active == 0 && instruction.kind != Kind::Branch {
                pc += 1;
                continue;
            }
            if context.launch.counters {
                context.tally.warps[pc as usize] += 1;
                context.tally.lanes[pc as usize] += u64::from(active.count_ones());
            }
            match instruction.kind {
                Kind::Plain => {
                    // SAFETY: the decoder made slots and function together; the file belongs to this program.
                    unsafe { (instruction.run)(&mut context, instruction, active) };
                    pc += 1;
                }
                Kind::Memory => {
                    context.clock = warp.clock + (start - *left);
                    // SAFETY: as above.
                    unsafe { (instruction.run)(&mut context, instruction, active) };
                    if let Some(fault) = context.fault.take() {
                        break Next::Fault(fault);
                    }
                    pc += 1;
                }
                Kind::Wait => {
                    // SAFETY: as above.
                    unsafe { (instruction.run)(&mut context, instruction, active) };
                    if let Some(fault) = context.fault.take() {
                        break Next::Fault(fault);
                    }
                    pc += 1;
                    if context.waits {
                        break Next::Yield;
                    }
                }
                Kind::Branch => {
                    if active == mask {
                        let back = instruction.target <= pc;
                        pc = instruction.target;
                        if back {
                            *jumps = jumps.saturating_sub(1);
                            group_jumps += u32::from(several);
                            if *jumps == 0 || group_jumps >= GROUP_JUMPS {
                                break Next::Pause;
                            }
                        }
                    } else if active == 0 {
                        pc += 1;
                    } else {
                        context.tally.counters.divergent_branches += 1;
                        if instruction.target <= pc {
                            *jumps = jumps.saturating_sub(1);
                        }
                        break Next::Split { taken: active, target: instruction.target };
                    }
                }
                Kind::BranchIndexed => break Next::Indexed(active),
                Kind::Exit => {
                    if active == mask {
                        break Next::Exit(active);
                    }
                    break Next::PartExit(active);
                }
                Kind::WarpMask | Kind::WarpAligned => {
                    let wanted = match members(&context, instruction, active, warp.present) {
                        Ok(wanted) => wanted,
                        Err(fault) => break Next::Fault(fault),
                    };
                    if active != mask {
                        break Next::PartPark(active);
                    }
                    if wanted & !active & context.live != 0 {
                        break Next::Park;
                    }
                    let mut rest = active;
                    while rest != 0 {
                        let part = rest & member_mask(&context, instruction, rest.trailing_zeros());
                        // SAFETY: as above.
                        unsafe { (instruction.run)(&mut context, instruction, part) };
                        rest &= !part;
                    }
                    if let Some(fault) = context.fault.take() {
                        break Next::Fault(fault);
                    }
                    pc += 1;
                }
                Kind::Barrier => {
                    let form = program.barriers[instruction.word as usize];
                    if active != mask {
                        break Next::PartPark(active);
                    }
                    if form.aligned && context.live & !active != 0 {
                        break Next::Park;
                    }
                    break Next::Barrier(active);
                }
                Kind::Trap => {
                    let detail = program.strings.get(instruction.word as usize).cloned().unwrap_or_default();
                    let lane = active.trailing_zeros();
                    break Next::Fault(Fault { kind: report::Kind::Trap, lane, detail });
                }
                Kind::Unknown => {
                    let detail = "the emulated device does not know this instruction".to_owned();
                    let lane = active.trailing_zeros();
                    break Next::Fault(Fault { kind: report::Kind::UnknownInstruction, lane, detail });
                }
            }
        };
        warp.carry = context.carry;
        let spent = start - *left;
        warp.clock += spent;
        self.instructions += spent;
        let group = &mut warp.groups[chosen];
        group.pc = pc;
        group.jumps = group_jumps;
        if group_jumps >= GROUP_JUMPS {
            (group.jumps, group.yields) = (0, true);
        }
        match outcome {
            Next::Pause => {}
            Next::Yield => {
                group.yields = true;
                // The turn ends with the last group of the warp: what they wait for must come from elsewhere.
                if !warp.groups.iter().any(Group::runs) {
                    *jumps = 0;
                }
            }
            Next::Fault(fault) => return Err((pc, fault)),
            Next::Merge(other) => {
                let merged = Group::new(pc, warp.groups[other].mask | mask);
                warp.groups[other] = merged;
                warp.groups.swap_remove(chosen);
            }
            Next::Split { taken, target } => {
                mask &= !taken;
                group.mask = mask;
                group.pc = pc + 1;
                warp.groups.push(Group::new(target, taken));
            }
            Next::Indexed(active) => {
                let instruction = &code[pc as usize];
                group.mask &= !active;
                group.pc = pc + 1;
                if group.mask == 0 {
                    warp.groups.swap_remove(chosen);
                }
                let table = &program.tables[instruction.e as usize];
                for lane in lanes(active) {
                    // SAFETY: the decoder gave the slot.
                    let index = unsafe { u32::get(File(warp.file.as_mut_ptr()), instruction.a, lane) };
                    let Some(&target) = table.get(index as usize) else {
                        let detail = format!("branch index {index} of {} targets", table.len());
                        let kind = report::Kind::OutOfBounds;
                        return Err((pc, Fault { kind, lane: lane as u32, detail }));
                    };
                    match warp.groups.iter_mut().find(|g| g.pc == target && g.state == State::Ready) {
                        Some(group) => group.mask |= 1 << lane,
                        None => warp.groups.push(Group::new(target, 1 << lane)),
                    }
                }
            }
            Next::Park => group.state = State::Parked,
            Next::PartPark(active) => {
                group.mask = mask & !active;
                group.pc = pc + 1;
                let same = |g: &&mut Group| g.pc == pc && g.state == State::Parked;
                // The lanes come back to this instruction as a group of their own.
                match warp.groups.iter_mut().find(same) {
                    Some(group) => {
                        group.mask |= active;
                        group.state = State::Ready;
                    }
                    None => warp.groups.push(Group::new(pc, active)),
                }
                return self.guarded(number, program, pc, active);
            }
            Next::PartExit(active) | Next::Exit(active) => {
                group.mask &= !active;
                group.pc = pc + 1;
                warp.live &= !active;
                if group.mask == 0 {
                    warp.groups.swap_remove(chosen);
                }
                for group in &mut warp.groups {
                    if group.state == State::Parked {
                        group.state = State::Ready;
                    }
                }
                self.exited(program);
            }
            Next::Barrier(active) => {
                let instruction = &code[pc as usize];
                let form = program.barriers[instruction.word as usize];
                let lane = active.trailing_zeros() as usize;
                let file = File(warp.file.as_mut_ptr());
                // SAFETY: the decoder gave the slots.
                let read = |slot: u32| (slot != NONE).then(|| unsafe { u32::get(file, slot, lane) });
                let votes = match instruction.c {
                    NONE => 0,
                    predicate => warp.predicates[predicate as usize],
                };
                let votes = if instruction.target == 1 { !votes } else { votes };
                let (id, count) = (read(instruction.a).unwrap_or(0), read(instruction.b));
                if form.waits {
                    group.state = State::Barrier(id);
                } else {
                    group.pc = pc + 1;
                }
                tally.counters.barriers += u64::from(number == 0 && form.waits);
                let arrival = Arrival { warp: number, mask: active, pc, id, count, votes };
                self.arrive(program, form, arrival).map_err(|fault| (pc, fault))?;
            }
        }
        Ok(())
    }

    /// A warp instruction under a guard that is true for some lanes only: they run it as a group of their own.
    fn guarded(&self, number: usize, program: &Program, pc: u32, active: u32) -> Result<(), (u32, Fault)> {
        let warp = &self.warps[number];
        let instruction = &program.code[pc as usize];
        let aligned = match instruction.kind {
            Kind::Barrier => program.barriers[instruction.word as usize].aligned,
            kind => kind == Kind::WarpAligned,
        };
        if aligned && warp.live & !active != 0 {
            let kind = match instruction.kind {
                Kind::Barrier => report::Kind::DivergentBarrier,
                _ => report::Kind::DivergentWarp,
            };
            let detail = format!("lanes {:#010x} of the warp's {:#010x} execute it", active, warp.live);
            return Err((pc, Fault { kind, lane: active.trailing_zeros(), detail }));
        }
        Ok(())
    }
}

/// What comes after the inner loop.
enum Next {
    Pause,
    Yield,
    Fault(Fault),
    Merge(usize),
    Split { taken: u32, target: u32 },
    Indexed(u32),
    Park,
    PartPark(u32),
    Exit(u32),
    PartExit(u32),
    Barrier(u32),
}

/// The lanes that a lane's member mask names; all for an aligned instruction.
fn member_mask(context: &Context<'_>, i: &Instruction, lane: u32) -> u32 {
    if i.kind == Kind::WarpAligned {
        return u32::MAX;
    }
    // SAFETY: the decoder gave the slot.
    unsafe { u32::get(context.file, i.target, lane as usize) }
}

/// The lanes that must execute a warp instruction together, or what is wrong with them whoever comes.
fn members(context: &Context<'_>, i: &Instruction, active: u32, present: u32) -> Result<u32, Fault> {
    let fail = |lane: u32, detail: String| Err(Fault { kind: report::Kind::DivergentWarp, lane, detail });
    if i.kind == Kind::WarpAligned {
        return match context.live {
            u32::MAX => Ok(u32::MAX),
            live => fail(
                active.trailing_zeros(),
                format!("needs all 32 lanes; lanes {:#010x} do not exist or have exited", !live),
            ),
        };
    }
    let mut wanted = 0;
    for lane in lanes(active) {
        let mask = member_mask(context, i, lane as u32);
        if mask >> lane & 1 == 0 {
            return fail(
                lane as u32,
                format!("lane {lane} executes it, but its mask {mask:#010x} does not name it"),
            );
        }
        wanted |= mask;
    }
    // Lanes beyond the block's last thread do not exist; a full mask may name them.
    match wanted & present & !context.live {
        0 => Ok(wanted & present),
        gone => fail(
            active.trailing_zeros(),
            format!("its mask {wanted:#010x} names lanes that have exited ({gone:#010x})"),
        ),
    }
}
