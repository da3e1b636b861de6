//! `mbarrier`: barriers in shared memory whose phases count arrivals and bytes of asynchronous copies (PTX ISA 9.7.13.15).
//!
//! What a barrier counts is kept beside shared memory; the 8 bytes there hold a mark, so that a store over them shows. A
//! phase is complete when no arrival and no byte is missing; whoever then waits for it has seen what the arriving threads had
//! done, and the bytes of the copies. Copies that land late do so when somebody waits: nothing tells of it earlier.

use super::access::by_space;
use super::block::BlockMemory;
use super::bulk::Landing;
use super::clocks::Handed;
use super::context::{Context, lanes};
use super::global::{self, Mode, Request};
use super::lanes::{LANES, Lane, Operation};
use super::shared::{self, asynchronous};
use crate::program::{AccessSpace, Instruction, MbarrierForm, MbarrierOperation, NONE};
use crate::report::Kind;

/// Any `mbarrier` instruction: a is the address, `word` its access, e the form; b and d are told at [`MbarrierOperation`].
pub struct Mbarrier;

/// The largest count of arrivals, and the largest number of bytes on their way.
const LARGEST: i64 = (1 << 20) - 1;

/// One barrier.
#[derive(Debug)]
pub struct State {
    /// Arrivals of a phase.
    expected: u32,
    /// Arrivals that are missing in this phase.
    pending: u32,
    /// Bytes that are missing in this phase; below zero where more came than were expected so far.
    bytes: i64,
    /// Phases that are complete.
    phase: u64,
    /// What the arrivals of this phase hand on.
    current: Handed,
    /// What those of all complete phases have.
    released: Handed,
    /// Warp and epoch of `init`.
    pub initialised: (usize, u32),
    /// Copies that this phase waits for.
    landings: Vec<Landing>,
}

impl State {
    /// A copy is issued: it will complete bytes of this phase.
    pub fn attach(&mut self, landing: Landing) {
        self.landings.push(landing);
    }

    /// The instruction that issued a copy of this phase, with its warp and lane, if there is one.
    pub fn unfinished(&self) -> Option<(u32, usize, usize)> {
        self.landings.first().map(|landing| (landing.pc, landing.warp, landing.lane))
    }

    /// What the phase waits for, in words.
    pub fn missing(&self) -> String {
        format!("phase {} misses {} arrivals and {} bytes", self.phase, self.pending, self.bytes)
    }

    /// What 8 bytes of shared memory hold for this state: no number that a program would store.
    fn mark(&self) -> u64 {
        0x6D62_6172_0000_0000 | u64::from(self.pending) << 1 ^ self.phase
    }
}

/// A wait in vain: the barrier's address, for the report of a deadlock.
pub type Waiting = Option<u64>;

impl Operation for Mbarrier {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let program = context.program;
        let form = program.mbarriers[i.e as usize];
        let access = &program.accesses[i.word as usize];
        let addresses = context.addresses(i.a, access.narrow, access.offset);
        let file = context.file;
        let wide = matches!(form.operation, MbarrierOperation::Wait { parity: false });
        let operand = |lane: usize| match i.b {
            NONE => 1,
            // SAFETY: the decoder gave the slot, which is wide for a state.
            slot if wide => unsafe { u64::get(file, slot, lane) },
            // SAFETY: the decoder gave the slot.
            slot => u64::from(unsafe { u32::get(file, slot, lane) }),
        };
        by_space(context, access, &addresses, mask, |context, space, addresses, mask| {
            if space != AccessSpace::Shared {
                let detail = "an mbarrier lies in shared memory, this address does not".to_owned();
                context.fail(Kind::OutOfBounds, mask.trailing_zeros(), detail);
                return;
            }
            if !touch(context, form, addresses, mask) {
                return;
            }
            for lane in lanes(mask) {
                let Some(result) = step(context, form, addresses[lane], lane, operand(lane)) else { return };
                match form.operation {
                    MbarrierOperation::Wait { .. } => {
                        context.waits |= result == 0;
                        context.set_predicate(i.d, (result as u32) << lane, 1 << lane);
                    }
                    // SAFETY: the decoder gave the slot.
                    _ if i.d != NONE => unsafe { u64::set(file, i.d, lane, result) },
                    _ => {}
                }
            }
        });
    }
}

/// The access to the 8 bytes: `init` and `inval` write them, all else is atomic. False after a fault.
fn touch(context: &mut Context<'_>, form: MbarrierForm, addresses: &[u64; LANES], mask: u32) -> bool {
    use MbarrierOperation::{Initialise, Invalidate, Wait};
    if !global::aligned(context, addresses, mask, 8) {
        return false;
    }
    let (mode, strong) = match form.operation {
        Initialise | Invalidate => (Mode::Write, false),
        Wait { .. } => (Mode::Read, true),
        _ => (Mode::Atomic, true),
    };
    if form.operation != Initialise
        && let Some(lane) = lanes(mask).find(|lane| !context.block.mbarriers.contains_key(&addresses[*lane]))
    {
        let detail = format!("there is no initialised mbarrier at shared address {:#x}", addresses[lane]);
        context.fail(Kind::AsyncMisuse, lane as u32, detail);
        return false;
    }
    shared::check(context, &Request { addresses, mask, bytes: 8, mode, strong, data: None }, false)
}

/// The barrier at an address, its mark intact, and taken out of the table until [`put`]. None after a fault.
pub fn take(context: &mut Context<'_>, lane: usize, address: u64) -> Option<State> {
    let Some(state) = context.block.mbarriers.remove(&address) else {
        let detail = format!("there is no initialised mbarrier at shared address {address:#x}");
        context.fail(Kind::AsyncMisuse, lane as u32, detail);
        return None;
    };
    let there = context.block.shared().get(address as usize..address as usize + 8);
    if there != Some(&state.mark().to_le_bytes()) {
        let detail = format!("something was stored over the mbarrier at shared address {address:#x}");
        context.fail(Kind::AsyncMisuse, lane as u32, detail);
        return None;
    }
    Some(state)
}

/// Ends the phase if nothing is missing, and puts the barrier back with its mark.
pub fn put(block: &mut BlockMemory, address: u64, mut state: State) {
    if state.pending == 0 && state.bytes == 0 {
        state.phase += 1;
        state.pending = state.expected;
        let landed: Vec<Landing> = state.landings.extract_if(.., |landing| landing.has_landed()).collect();
        for landing in landed {
            state.current.add(landing.warp, landing.epoch);
            for (to, bytes) in landing.stretches() {
                asynchronous::written(&mut block.words, to, bytes);
            }
        }
        let current = std::mem::take(&mut state.current);
        state.released.join(&current);
    }
    if let Some(place) = block.shared_mut().get_mut(address as usize..address as usize + 8) {
        place.copy_from_slice(&state.mark().to_le_bytes());
    }
    block.mbarriers.insert(address, state);
}

/// Bytes of a copy have arrived, or were announced (below zero). False after a fault.
pub fn complete(context: &mut Context<'_>, lane: usize, state: &mut State, bytes: i64) -> bool {
    state.bytes -= bytes;
    if state.bytes.abs() > LARGEST {
        let detail = format!("{} bytes on their way at one mbarrier; at most {LARGEST} may be", state.bytes);
        context.fail(Kind::AsyncMisuse, lane as u32, detail);
    }
    context.fault.is_none()
}

/// One lane's operation; yields the state's token, or whether the wait is over. None after a fault.
fn step(
    context: &mut Context<'_>,
    form: MbarrierForm,
    address: u64,
    lane: usize,
    operand: u64,
) -> Option<u64> {
    if form.operation == MbarrierOperation::Initialise {
        return initialise(context, address, lane, operand);
    }
    let mut state = take(context, lane, address)?;
    let token = state.phase << 20 | u64::from(state.pending);
    let result = match form.operation {
        MbarrierOperation::Initialise => None,
        MbarrierOperation::Invalidate => {
            if let Some(place) = context.block.shared_mut().get_mut(address as usize..address as usize + 8) {
                place.fill(0xA5);
            }
            return Some(0);
        }
        MbarrierOperation::Expect => complete(context, lane, &mut state, -(operand as i64)).then_some(0),
        MbarrierOperation::Complete => complete(context, lane, &mut state, operand as i64).then_some(0),
        MbarrierOperation::Arrive { expects, drops } => {
            let (count, bytes) = if expects { (1, operand as i64) } else { (operand, 0) };
            if count > u64::from(state.pending) {
                let detail = format!(
                    "{count} arrivals at the mbarrier at shared address {address:#x}, whose phase misses {} of {}",
                    state.pending, state.expected
                );
                context.fail(Kind::AsyncMisuse, lane as u32, detail);
                return None;
            }
            state.pending -= count as u32;
            if drops {
                state.expected -= count as u32;
            }
            if !form.relaxed {
                let handed = context.block.clocks.release(context.warp);
                state.current.join(&handed);
            }
            complete(context, lane, &mut state, -bytes).then_some(token)
        }
        MbarrierOperation::Wait { parity } => {
            land(context, &mut state);
            let over = |state: &State| match parity {
                true => state.phase & 1 != operand & 1,
                false => state.phase > operand >> 20,
            };
            put(context.block, address, state);
            let state = &context.block.mbarriers[&address];
            let over = over(state);
            if over && !form.relaxed {
                let released = state.released;
                context.block.clocks.acquire(context.warp, &released);
            }
            context.block.waiting[context.warp] = (!over).then_some(address);
            return Some(u64::from(over));
        }
    };
    put(context.block, address, state);
    result
}

fn initialise(context: &mut Context<'_>, address: u64, lane: usize, count: u64) -> Option<u64> {
    let detail = if count == 0 || count as i64 > LARGEST {
        format!("an mbarrier of {count} arrivals; 1 to {LARGEST} are possible")
    } else if context.block.mbarriers.contains_key(&address) {
        format!("there is an mbarrier at shared address {address:#x} already: it must be invalidated first")
    } else {
        let count = count as u32;
        let initialised = (context.warp, context.block.clocks.epoch(context.warp));
        let (current, released, landings) = (Handed::default(), Handed::default(), Vec::new());
        let state = State {
            expected: count,
            pending: count,
            bytes: 0,
            phase: 0,
            current,
            released,
            initialised,
            landings,
        };
        put(context.block, address, state);
        return Some(0);
    };
    context.fail(Kind::AsyncMisuse, lane as u32, detail);
    None
}

/// Copies that have not landed yet do so now.
fn land(context: &mut Context<'_>, state: &mut State) {
    for landing in &mut state.landings {
        state.bytes -= landing.land(context.block) as i64;
    }
}
