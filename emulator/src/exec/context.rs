//! What an operation sees while it runs: the registers of its warp, the memory of its block, the launch.

use super::block::BlockMemory;
use super::global::Released;
use super::lanes::{File, LANES};
use super::tally::Tally;
use crate::memory::View;
use crate::program::{NONE, Program};
use crate::report::Kind;
use std::collections::HashMap;
use std::sync::Mutex;

/// Generic addresses from here on are the block's shared memory.
pub const SHARED_WINDOW: u64 = 1 << 40;
/// Generic addresses from here on are the thread's local memory.
pub const LOCAL_WINDOW: u64 = 2 << 40;
/// Generic addresses from here on are the kernel's parameters.
pub const PARAMETER_WINDOW: u64 = 3 << 40;
/// Bytes of each of the windows.
pub const WINDOW_BYTES: u64 = 1 << 32;
/// Offset of a block's first shared variable: the first KiB is the system's (as on sm_90), so that a null pointer into
/// shared memory is out of bounds.
pub const SHARED_START: u32 = 1024;

/// A fault, before the warp loop adds where it happened.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind.
    pub kind: Kind,
    /// The lane at fault.
    pub lane: u32,
    /// What happened, in a sentence.
    pub detail: String,
}

/// What all blocks of a launch share.
#[derive(Debug)]
pub struct LaunchState<'a> {
    /// Device memory and page-locked memory.
    pub views: [View; 2],
    /// The memory itself, for descriptions.
    pub memory: &'a crate::memory::DeviceMemory,
    /// Parameter bytes.
    pub parameters: &'a [u8],
    /// Constant memory: `.const` variables are device memory that kernels may not write.
    pub constants: &'a [(u64, u64)],
    /// Memory is checked.
    pub checks: bool,
    /// Costs are counted.
    pub counters: bool,
    /// Asynchronous copies land when they are waited for, not when they are issued.
    pub late_copies: bool,
    /// How `mma` accumulates.
    pub tensor_core: super::TensorCore,
    /// Tells this launch's race entries from older ones.
    pub tag: u64,
    /// The program has fences: blocks may order each other's accesses.
    pub has_fence: bool,
    /// What is ordered before whoever acquires this address.
    pub releases: Mutex<HashMap<u64, Released>>,
}

/// The state that operations work on: one worker's, pointed at one warp at a time.
#[derive(Debug)]
pub struct Context<'a> {
    /// Registers of the warp.
    pub file: File,
    /// Predicates of the warp, a mask each.
    pub predicates: *mut u32,
    /// The warp's index in its block.
    pub warp: usize,
    /// Lanes that exist and have not exited.
    pub live: u32,
    /// The carry flag (`add.cc`), a bit a lane.
    pub carry: u32,
    /// Instructions that the warp has run: what `%clock` shows.
    pub clock: u64,
    /// The block's memory.
    pub block: &'a mut BlockMemory,
    /// The kernel.
    pub program: &'a Program,
    /// The launch.
    pub launch: &'a LaunchState<'a>,
    /// Costs.
    pub tally: &'a mut Tally,
    /// The first fault of the instruction that runs.
    pub fault: Option<Fault>,
    /// The instruction that runs waits for something that is not there yet.
    pub waits: bool,
}

impl Context<'_> {
    /// A predicate's lanes.
    #[inline(always)]
    pub fn predicate(&self, index: u32) -> u32 {
        // SAFETY: the decoder numbers predicates below `Program::predicates`, and the warp has that many.
        unsafe { *self.predicates.add(index as usize) }
    }

    /// Writes the lanes of a predicate that `mask` names. [`NONE`] is a sink.
    #[inline(always)]
    pub fn set_predicate(&mut self, index: u32, bits: u32, mask: u32) {
        if index != NONE {
            // SAFETY: as in `predicate`.
            unsafe {
                let place = self.predicates.add(index as usize);
                *place = *place & !mask | bits & mask;
            }
        }
    }

    /// Records the first fault of an instruction.
    #[cold]
    pub fn fail(&mut self, kind: Kind, lane: u32, detail: String) {
        if self.fault.is_none() {
            self.fault = Some(Fault { kind, lane, detail });
        }
    }

    /// The addresses of an access: register a (64 bits, or 32 where `narrow`) plus the offset.
    #[inline(always)]
    pub fn addresses(&self, slot: u32, narrow: bool, offset: i64) -> [u64; LANES] {
        let mut addresses = [offset as u64; LANES];
        if slot != NONE {
            // SAFETY: the decoder gave the slot.
            unsafe {
                if narrow {
                    let base: [u32; LANES] = self.file.load(slot);
                    for (address, base) in addresses.iter_mut().zip(base) {
                        *address = u64::from(base.wrapping_add(offset as u32));
                    }
                } else {
                    let base: [u64; LANES] = self.file.load(slot);
                    for (address, base) in addresses.iter_mut().zip(base) {
                        *address = base.wrapping_add(offset as u64);
                    }
                }
            }
        } else if narrow {
            addresses = [u64::from(offset as u32); LANES];
        }
        addresses
    }
}

/// The lanes of a mask, in order.
#[inline(always)]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            lane
        })
    })
}
