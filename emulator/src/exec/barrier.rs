//! Barriers of a block: who has arrived, when it is complete, what it reduces.

use super::block::Block;
use super::context::{Fault, lanes};
use super::lanes::Lane;
use super::warp::State;
use crate::program::{BarrierForm, BarrierReduction, NONE, Program};
use crate::report::Kind;

/// One of a block's 16 barriers.
#[derive(Clone, Debug, Default)]
pub struct BarrierState {
    /// Lanes that have arrived, a mask each warp.
    arrived: [u32; 32],
    /// Warps of which some lanes wait.
    waiting: u32,
    /// Where the first to wait stands.
    pc: Option<u32>,
    /// Threads that complete it; None: all that have not exited.
    expected: Option<u32>,
    votes: u32,
    threads: u32,
}

/// An arrival at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Which warp.
    pub warp: usize,
    /// Which lanes.
    pub mask: u32,
    /// Where.
    pub pc: u32,
    /// Which barrier.
    pub id: u32,
    /// How many threads complete it.
    pub count: Option<u32>,
    /// What the lanes say to `bar.red`.
    pub votes: u32,
}

impl Block {
    /// Records an arrival; completes the barrier where it is the last one.
    pub(super) fn arrive(
        &mut self,
        program: &Program,
        form: BarrierForm,
        arrival: Arrival,
    ) -> Result<(), Fault> {
        let fail = |detail: String| {
            Err(Fault { kind: Kind::DivergentBarrier, lane: arrival.mask.trailing_zeros(), detail })
        };
        let Some(barrier) = self.barriers.get_mut(arrival.id as usize) else {
            return fail(format!("there are 16 barriers, this is number {}", arrival.id));
        };
        if barrier.waiting != 0 {
            if barrier.expected != arrival.count {
                return fail(format!(
                    "barrier {} is waited for with different counts of threads",
                    arrival.id
                ));
            }
            if let Some(pc) = barrier.pc
                && form.waits
                && pc != arrival.pc
                && arrival.id == 0
                && arrival.count.is_none()
            {
                let other = &program.text[pc as usize];
                let line =
                    program.lines[pc as usize].as_ref().map_or(String::new(), |line| format!(" at {line}"));
                return fail(format!(
                    "other threads of the block wait at another barrier{line} [{}]",
                    other.0
                ));
            }
        }
        if let Some(count) = arrival.count
            && (count == 0 || count % 32 != 0 || count > 1024)
        {
            return fail(format!("a barrier of {count} threads: must be a multiple of 32 up to 1024"));
        }
        barrier.expected = arrival.count;
        barrier.arrived[arrival.warp] |= arrival.mask;
        barrier.votes += (arrival.votes & arrival.mask).count_ones();
        barrier.threads += arrival.mask.count_ones();
        if form.waits {
            barrier.waiting |= 1 << arrival.warp;
            barrier.pc = barrier.pc.or(Some(arrival.pc));
        }
        self.complete(program, arrival.id as usize);
        Ok(())
    }

    /// Releases the barrier's waiters if all that must arrive have arrived.
    fn complete(&mut self, program: &Program, id: usize) {
        let barrier = &self.barriers[id];
        let done = match barrier.expected {
            None => {
                barrier.waiting != 0
                    && self.warps.iter().zip(barrier.arrived).all(|(warp, arrived)| warp.live & !arrived == 0)
            }
            Some(count) => {
                let warps = self.warps.iter().zip(barrier.arrived).filter(|(_, arrived)| *arrived != 0);
                warps.map(|(warp, arrived)| (arrived | !warp.live).count_ones()).sum::<u32>() >= count
            }
        };
        if !done {
            return;
        }
        let barrier = std::mem::take(&mut self.barriers[id]);
        let waiting: Vec<usize> = lanes(barrier.waiting).collect();
        let only_arrived: Vec<usize> = (0..self.warps.len())
            .filter(|w| barrier.arrived[*w] != 0 && barrier.waiting >> w & 1 == 0)
            .collect();
        self.memory.clocks.barrier(&waiting, &only_arrived);
        for warp in waiting {
            let warp = &mut self.warps[warp];
            let file = super::lanes::File(warp.file.as_mut_ptr());
            for group in &mut warp.groups {
                if group.state != State::Barrier(id as u32) {
                    continue;
                }
                let instruction = &program.code[group.pc as usize];
                let form = program.barriers[instruction.word as usize];
                let all = |yes: bool| if yes { group.mask } else { 0 };
                match form.reduction {
                    None => {}
                    Some(BarrierReduction::Popc) => {
                        for lane in lanes(group.mask) {
                            // SAFETY: the decoder gave the slot.
                            unsafe { u32::set(file, instruction.d, lane, barrier.votes) };
                        }
                    }
                    Some(reduction) => {
                        let yes = match reduction {
                            BarrierReduction::And => barrier.votes == barrier.threads,
                            _ => barrier.votes != 0,
                        };
                        if instruction.d != NONE {
                            let place = &mut warp.predicates[instruction.d as usize];
                            *place = *place & !group.mask | all(yes);
                        }
                    }
                }
                group.state = State::Ready;
                group.pc += 1;
            }
        }
    }

    /// Lanes have exited: barriers that waited for them may be complete.
    pub(super) fn exited(&mut self, program: &Program) {
        for id in 0..self.barriers.len() {
            if self.barriers[id].waiting != 0 {
                self.complete(program, id);
            }
        }
    }
}
