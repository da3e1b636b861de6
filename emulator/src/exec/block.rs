//! A block while it runs: its warps, its memory, its barriers.

use super::barrier::BarrierState;
use super::bulk::BulkGroups;
use super::clocks::Clocks;
use super::context::{LaunchState, SHARED_START};
use super::copies::Copies;
use super::global::Released;
use super::lanes::{LANES, Row};
use super::mbarrier::{State, Waiting};
use super::shared::Word;
use super::warp::Group;
use super::wgmma::{Products, Warpgroup};
use crate::program::{Program, Special};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// Memory of a block, and what is known of it.
#[derive(Debug, Default)]
pub struct BlockMemory {
    /// The block's index in the grid.
    pub index: [u32; 3],
    /// The same as one number.
    pub linear: u64,
    storage: Vec<u128>,
    /// Shadow of shared memory, a word each 4 bytes.
    pub words: Vec<Word>,
    /// (offset, bytes) of the shared variables, dynamic memory included.
    pub variables: Vec<(u32, u32)>,
    /// Who has seen what.
    pub clocks: Clocks,
    /// The block executed a fence.
    pub fenced: bool,
    /// What other blocks have released and this one has acquired.
    pub acquired: Released,
    /// Local memory: thread after thread.
    pub local: Vec<u8>,
    /// A byte of local memory was written.
    pub local_written: Vec<bool>,
    /// Asynchronous copies, a warp each.
    pub copies: Vec<Copies>,
    /// Bulk copies out of shared memory, a warp each.
    pub bulk: Vec<BulkGroups>,
    /// The mbarriers by their shared address.
    pub mbarriers: BTreeMap<u64, State>,
    /// The mbarrier that each warp last waited for in vain.
    pub waiting: Vec<Waiting>,
    /// `wgmma` in flight, a warp each.
    pub products: Vec<Products>,
    /// What the warps of each warpgroup have executed.
    pub warpgroups: Vec<Warpgroup>,
}

impl BlockMemory {
    /// What the block leaves in flight at its end: instruction, warp and lane, and what it is.
    pub fn left_in_flight(&self) -> Option<(u32, usize, u32, &'static str)> {
        let copy = "the block ends, and nothing waited for this copy";
        let loads = self.mbarriers.values().filter_map(State::unfinished);
        let stores = self
            .bulk
            .iter()
            .enumerate()
            .filter_map(|(warp, groups)| groups.unfinished().map(|(pc, lane)| (pc, warp, lane)));
        let copies = loads.chain(stores).map(|(pc, warp, lane)| (pc, warp, lane as u32, copy));
        let alone = "the block ends, and not all four warps of the warpgroup executed this product";
        let groups = self.warpgroups.iter().enumerate();
        let products = self.products.iter().enumerate().filter_map(|(warp, products)| {
            products
                .unfinished()
                .map(|pc| (pc, warp, 0, "the block ends, and nothing waited for this product"))
        });
        copies
            .chain(groups.filter_map(|(group, state)| state.unfinished().map(|pc| (pc, 4 * group, 0, alone))))
            .chain(products)
            .next()
    }

    /// Shared memory as bytes; the first KiB belongs to the system.
    pub fn shared(&self) -> &[u8] {
        // SAFETY: u128 has no padding and no invalid bytes.
        unsafe { std::slice::from_raw_parts(self.storage.as_ptr().cast(), self.storage.len() * 16) }
    }

    /// The same, to be written.
    pub fn shared_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the storage is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.storage.as_mut_ptr().cast(), self.storage.len() * 16) }
    }
}

/// A warp while it runs.
#[derive(Debug)]
pub struct Warp {
    pub(super) file: Vec<Row>,
    pub(super) predicates: Vec<u32>,
    pub(super) groups: Vec<Group>,
    /// Lanes that exist.
    pub(super) present: u32,
    /// Lanes that have not exited.
    pub(super) live: u32,
    pub(super) carry: u32,
    pub(super) clock: u64,
    pub(super) spin: Spin,
}

/// How a warp looked when it had jumped back often, to tell a loop that can never end from one that works.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spin {
    /// Backward jumps since the last look.
    pub(super) jumps: u32,
    looks: u32,
    saved: u64,
    /// The registers are those of an earlier look: without help from outside the warp goes round for ever.
    pub(super) stuck: bool,
}

impl Warp {
    /// Looks at the registers. A state that comes again means a loop without end, unless memory changes; states are kept
    /// at looks 1, 2, 4, 8, ..., so that a loop of any length is found (Brent's cycle detection).
    pub(super) fn look(&mut self) {
        let mut hasher = std::hash::DefaultHasher::new();
        for row in &self.file {
            row.0.hash(&mut hasher);
        }
        self.predicates.hash(&mut hasher);
        for group in &self.groups {
            // The jumps too: a group that spins is not stuck before the others have had their turn.
            (group.pc, group.mask, group.jumps, group.yields).hash(&mut hasher);
        }
        let now = hasher.finish();
        self.spin.jumps = 0;
        self.spin.looks += 1;
        self.spin.stuck = self.spin.looks > 1 && now == self.spin.saved;
        if self.spin.looks.is_power_of_two() {
            self.spin.saved = now;
        }
    }
}

/// A block and its warps.
#[derive(Debug, Default)]
pub struct Block {
    pub(super) memory: BlockMemory,
    pub(super) warps: Vec<Warp>,
    pub(super) barriers: Vec<BarrierState>,
    /// Warp instructions run since the block began.
    pub(super) instructions: u64,
    /// The loops in which its warps were last seen to be stuck.
    waits: u64,
}

// SAFETY: its raw addresses, of copies that are in flight, lie in the device's memory, which every worker may use.
unsafe impl Send for Block {}

/// Shape of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) dynamic_shared: u32,
    pub(super) id: u64,
}

impl Shape {
    pub(super) fn threads(&self) -> u32 {
        self.block.iter().product()
    }
}

impl Block {
    /// A block that can be started again and again: constants are written into the register files once.
    pub(super) fn new(program: &Program, shape: &Shape) -> Block {
        let warps = shape.threads().div_ceil(32) as usize;
        let warp = |number: usize| {
            let mut file = vec![Row([0; LANES]); program.rows as usize + 1];
            for &(slot, value, wide) in &program.constants {
                if wide {
                    let lanes: [u64; LANES] = [value; LANES];
                    let halves: &[u32; 64] = as_rows(&lanes);
                    file[slot as usize].0.copy_from_slice(&halves[..32]);
                    file[slot as usize + 1].0.copy_from_slice(&halves[32..]);
                } else {
                    file[slot as usize].0 = [value as u32; LANES];
                }
            }
            let rest = shape.threads() - 32 * number as u32;
            let present = if rest >= 32 { u32::MAX } else { (1 << rest) - 1 };
            let predicates = vec![0; program.predicates as usize + 1];
            Warp {
                file,
                predicates,
                groups: Vec::new(),
                present,
                live: 0,
                carry: 0,
                clock: 0,
                spin: Spin::default(),
            }
        };
        let mut memory = BlockMemory::default();
        memory.variables.clone_from(&program.shared);
        if shape.dynamic_shared > 0 {
            memory.variables.push((program.dynamic_shared, shape.dynamic_shared));
        }
        let end = memory.variables.iter().map(|(start, size)| start + size).max().unwrap_or(0);
        memory.storage = vec![0; end.max(SHARED_START).div_ceil(16) as usize + 1];
        let local = program.local_bytes as usize * shape.threads().next_multiple_of(32) as usize;
        memory.local = vec![0; local];
        memory.local_written = vec![false; local];
        Block {
            memory,
            warps: (0..warps).map(warp).collect(),
            barriers: Vec::new(),
            instructions: 0,
            waits: 0,
        }
    }

    /// Every warp is stuck or waits: whether in other loops than the last time.
    pub(super) fn went_on(&mut self) -> bool {
        let mut hasher = std::hash::DefaultHasher::new();
        for warp in &self.warps {
            (warp.live, warp.spin.stuck.then_some(warp.spin.saved)).hash(&mut hasher);
        }
        let waits = hasher.finish();
        std::mem::replace(&mut self.waits, waits) != waits
    }

    /// Puts the block at its beginning, as block `linear` of the grid.
    pub(super) fn start(&mut self, program: &Program, shape: &Shape, launch: &LaunchState<'_>, linear: u64) {
        let (x, y) = (u64::from(shape.grid[0]), u64::from(shape.grid[1]));
        let index = [(linear % x) as u32, (linear / x % y) as u32, (linear / x / y) as u32];
        let memory = &mut self.memory;
        (memory.index, memory.linear) = (index, linear);
        memory.fenced = false;
        memory.acquired.clear();
        memory.clocks.reset(self.warps.len());
        memory.copies.clear();
        memory.copies.resize_with(self.warps.len(), Copies::default);
        memory.bulk.clear();
        memory.bulk.resize_with(self.warps.len(), BulkGroups::default);
        memory.mbarriers.clear();
        memory.waiting.clear();
        memory.waiting.resize(self.warps.len(), None);
        memory.products.clear();
        memory.products.resize_with(self.warps.len(), Products::default);
        memory.warpgroups.clear();
        memory.warpgroups.resize_with(self.warps.len().div_ceil(4), Warpgroup::default);
        let end = memory.variables.iter().map(|(start, size)| start + size).max().unwrap_or(0);
        memory.words.clear();
        memory.words.resize(end.div_ceil(4) as usize, Word::OUTSIDE);
        if launch.checks {
            for &(start, size) in &memory.variables {
                memory.words[start as usize / 4..(start + size).div_ceil(4) as usize].fill(Word::UNWRITTEN);
            }
            memory.local_written.fill(false);
        }
        // What was left by the block before must not look like data.
        memory.shared_mut().fill(0xA5);
        self.barriers.clear();
        self.barriers.resize_with(16, BarrierState::default);
        self.instructions = 0;
        self.waits = 0;
        let total_shared = end.saturating_sub(SHARED_START);
        for (number, warp) in self.warps.iter_mut().enumerate() {
            warp.live = warp.present;
            warp.groups.clear();
            warp.groups.push(Group::new(0, warp.present));
            warp.carry = 0;
            warp.clock = 0;
            warp.spin = Spin::default();
            for &(slot, special) in &program.specials {
                for lane in 0..LANES {
                    let thread = number as u32 * 32 + lane as u32;
                    let [bx, by, _] = shape.block;
                    let value = match special {
                        Special::Tid(0) => thread % bx,
                        Special::Tid(1) => thread / bx % by,
                        Special::Tid(_) => thread / bx / by,
                        Special::Ntid(axis) => shape.block[usize::from(axis)],
                        Special::Ctaid(axis) => index[usize::from(axis)],
                        Special::Nctaid(axis) => shape.grid[usize::from(axis)],
                        Special::LaneId => lane as u32,
                        Special::WarpId => number as u32,
                        Special::NumWarps => shape.threads().div_ceil(32),
                        Special::SmId => (linear % 132) as u32,
                        Special::NumSms => 132,
                        Special::GridId => shape.id as u32,
                        Special::LaneMaskEq => 1 << lane,
                        Special::LaneMaskLt => (1 << lane) - 1,
                        Special::LaneMaskLe => u32::MAX >> (31 - lane),
                        Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
                        Special::LaneMaskGe => !((1 << lane) - 1),
                        Special::DynamicSharedSize => shape.dynamic_shared,
                        Special::TotalSharedSize => total_shared,
                        Special::Zero => 0,
                        Special::One => 1,
                    };
                    warp.file[slot as usize].0[lane] = value;
                }
            }
        }
    }
}

/// 32 values of 64 bits as two rows.
fn as_rows(lanes: &[u64; LANES]) -> &[u32; 64] {
    // SAFETY: same size, u32 is less aligned, every bit pattern is a value.
    unsafe { &*std::ptr::from_ref(lanes).cast() }
}
