//! Runs all blocks of a launch: workers that take blocks in order (or in a permuted order), keep those that wait for
//! others, and stop at the first fault.

use super::block::{Block, Shape, Warp};
use super::context::{Fault, LaunchState};
use super::tally::Tally;
use super::warp::{Group, State, TURN_JUMPS, Turn};
use super::{Kernel, Launch, Options};
use crate::counters::Counters;
use crate::memory::DeviceMemory;
use crate::program::Program;
use crate::report::{Kind, Report};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Multiprocessors of the emulated device.
pub const MULTIPROCESSORS: u32 = 132;

/// A small generator of numbers (splitmix64), for orders.
#[derive(Clone, Debug)]
struct Order(u64);

impl Order {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// What workers share.
struct Shared<'a> {
    launch: LaunchState<'a>,
    program: &'a Program,
    kernel: &'a Kernel,
    shape: Shape,
    blocks: u64,
    seed: Option<u64>,
    limit: u64,
    resident: usize,
    workers: usize,
    next: AtomicU64,
    stop: AtomicBool,
    /// Grows when a block ends or a waiting one goes on.
    progress: AtomicU64,
    /// For each worker how often in a row it found nothing that moves: `progress at that time << 8 | times`, or
    /// [`FINISHED`].
    idle: Vec<AtomicU64>,
    reports: Mutex<Vec<(u64, Report)>>,
    spare: &'a Spare,
}

/// Blocks that have ended, to be started again: their register files are large. They belong to one kernel and shape.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Block>>);

impl Spare {
    fn blocks(&self) -> MutexGuard<'_, Vec<Block>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that has no block left.
const FINISHED: u64 = u64::MAX;

/// Times that every worker must find nothing that moves before it is a deadlock.
const FRUITLESS: u64 = 3;

/// How a block's run ended for now.
enum End {
    Done,
    Waiting,
    Faulted,
}

/// Runs a launch once. `spare`: of runs of the same launch.
pub(super) fn run(
    memory: &DeviceMemory,
    launch: &Launch<'_>,
    options: &Options,
    seed: Option<u64>,
    late_copies: bool,
    spare: &Spare,
) -> (Counters, Option<Report>) {
    let kernel = launch.kernel;
    let blocks = launch.grid.iter().map(|side| u64::from(*side)).product::<u64>();
    let threads: u32 = launch.block.iter().product();
    let workers = options.workers.clamp(1, usize::try_from(blocks).unwrap_or(usize::MAX).max(1));
    let tag = memory.launch_tag();
    let shared = Shared {
        launch: LaunchState {
            views: memory.views(),
            memory,
            parameters: launch.parameters,
            constants: &kernel.constants,
            checks: options.checks,
            counters: options.counters,
            late_copies,
            tensor_core: options.tensor_core,
            tag,
            has_fence: kernel.program.has_fence,
            releases: Mutex::new(HashMap::new()),
        },
        program: &kernel.program,
        kernel,
        shape: Shape {
            grid: launch.grid,
            block: launch.block,
            dynamic_shared: launch.dynamic_shared,
            id: tag,
        },
        blocks,
        seed,
        limit: options.instruction_limit,
        resident: (MULTIPROCESSORS * (2048 / threads.max(1)).clamp(1, 32)) as usize / workers + 1,
        workers,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        progress: AtomicU64::new(0),
        idle: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        reports: Mutex::new(Vec::new()),
        spare,
    };
    let mut tally = Tally::new(kernel.program.code.len());
    if workers == 1 {
        shared.work(0, &mut tally);
    } else {
        let tallies: Vec<Tally> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    let shared = &shared;
                    scope.spawn(move || {
                        let mut tally = Tally::new(shared.program.code.len());
                        shared.work(worker, &mut tally);
                        tally
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        for part in &tallies {
            tally.merge(part);
        }
    }
    let mut reports = shared.reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(order, _)| *order);
    let counters = if options.counters { tally.finish(&kernel.program) } else { Counters::default() };
    (counters, reports.into_iter().next().map(|(_, report)| report))
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Shared<'_> {
    /// The block that is started as number `turn`: the grid's order, or a permutation of it.
    fn block_at(&self, turn: u64) -> u64 {
        let Some(seed) = self.seed else { return turn };
        let mut order = Order(seed);
        let mut step = order.next();
        while common_divisor(step, self.blocks) != 1 {
            step = order.next();
        }
        let start = u128::from(order.next() % self.blocks);
        ((u128::from(turn) * u128::from(step) + start) % u128::from(self.blocks)) as u64
    }

    /// One worker, until no block is left.
    fn work(&self, worker: usize, tally: &mut Tally) {
        let mut waiting: Vec<(u64, Block)> = Vec::new();
        let mut spare = self.spare.blocks().pop();
        let mut fruitless = 0;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let fresh = waiting.len() < self.resident;
            let turn = if fresh { self.next.fetch_add(1, Ordering::Relaxed) } else { self.blocks };
            if turn < self.blocks {
                let linear = self.block_at(turn);
                let mut block = spare.take().unwrap_or_else(|| Block::new(self.program, &self.shape));
                block.start(self.program, &self.shape, &self.launch, linear);
                match self.run_block(turn, &mut block, tally) {
                    End::Done => {
                        self.progress.fetch_add(1, Ordering::SeqCst);
                        spare = Some(block);
                    }
                    End::Waiting => waiting.push((turn, block)),
                    End::Faulted => return,
                }
                continue;
            }
            if waiting.is_empty() {
                self.idle[worker].store(FINISHED, Ordering::SeqCst);
                self.spare.blocks().extend(spare);
                return;
            }
            let before = self.progress.load(Ordering::SeqCst);
            let mut index = 0;
            while index < waiting.len() {
                let (turn, block) = &mut waiting[index];
                match self.run_block(*turn, block, tally) {
                    End::Done => {
                        self.progress.fetch_add(1, Ordering::SeqCst);
                        waiting.swap_remove(index);
                    }
                    End::Waiting => index += 1,
                    End::Faulted => return,
                }
            }
            if self.progress.load(Ordering::SeqCst) != before || waiting.is_empty() {
                fruitless = 0;
                continue;
            }
            // Nothing moved here. It is a deadlock once nothing has moved anywhere, several times over.
            fruitless = (fruitless + 1).min(FRUITLESS);
            self.idle[worker].store(before << 8 | fruitless, Ordering::SeqCst);
            if self.idle.iter().all(|idle| {
                let idle = idle.load(Ordering::SeqCst);
                idle == FINISHED || idle == before << 8 | FRUITLESS
            }) {
                // Lanes that wait for others of their warp say more than those that wait for what these would do.
                let parked = |block: &Block| {
                    let is = |state: State| move |group: &Group| group.state == state;
                    let warp = |warp: &Warp| {
                        warp.groups.iter().any(is(State::Parked)) && !warp.groups.iter().any(is(State::Ready))
                    };
                    block.warps.iter().any(warp)
                };
                if let Some((turn, block)) = waiting.iter().find(|(_, block)| parked(block)) {
                    return self.stalled(*turn, block);
                }
                let (turn, block) = &waiting[0];
                let detail =
                    "every thread of the launch waits for something that no thread will do".to_owned();
                self.stuck(*turn, block, Kind::Deadlock, detail);
                return;
            }
            if self.workers > 1 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Runs a block until it ends, faults, or only goes round in loops.
    fn run_block(&self, turn: u64, block: &mut Block, tally: &mut Tally) -> End {
        let warps = block.warps.len();
        let mut order = self.seed.map(|seed| Order(seed ^ turn.wrapping_mul(0xD6E8_FEB8_6659_FD93)));
        let mut schedule: Vec<usize> = (0..warps).collect();
        // What a look found before other blocks ran says nothing any more.
        block.warps.iter_mut().for_each(|warp| warp.spin.stuck = false);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return End::Faulted;
            }
            if let Some(order) = &mut order {
                for last in (1..warps).rev() {
                    schedule.swap(last, (order.next() % (last as u64 + 1)) as usize);
                }
            }
            let (mut moved, mut spinning) = (false, true);
            for &warp in &schedule {
                if !block.warps[warp].groups.iter().any(|group| group.state == State::Ready) {
                    continue;
                }
                moved = true;
                let budget = order.as_mut().map_or(u64::MAX, |order| 1 + order.next() % 200);
                match block.turn(warp, self.program, &self.launch, tally, budget) {
                    Turn::Blocked => spinning = false,
                    Turn::Paused => {
                        if block.warps[warp].spin.jumps >= TURN_JUMPS {
                            block.warps[warp].look();
                        }
                        spinning &= block.warps[warp].spin.stuck;
                    }
                    Turn::Fault(pc, fault) => {
                        self.fault(turn, block, warp, pc, fault);
                        return End::Faulted;
                    }
                }
            }
            if block.warps.iter().all(|warp| warp.live == 0) {
                if self.launch.checks
                    && let Some((pc, warp, lane, detail)) = block.memory.left_in_flight()
                {
                    let fault = Fault { kind: Kind::AsyncCopyNotAwaited, lane, detail: detail.to_owned() };
                    self.fault(turn, block, warp, pc, fault);
                    return End::Faulted;
                }
                return End::Done;
            }
            if !moved {
                self.stalled(turn, block);
                return End::Faulted;
            }
            if block.instructions > self.limit {
                let detail =
                    format!("the block ran {} warp instructions and did not end", block.instructions);
                self.stuck(turn, block, Kind::Deadlock, detail);
                return End::Faulted;
            }
            if spinning {
                if block.went_on() {
                    self.progress.fetch_add(1, Ordering::SeqCst);
                }
                return End::Waiting;
            }
        }
    }

    /// No group of the block can run: threads wait for threads that never come.
    fn stalled(&self, turn: u64, block: &Block) {
        let groups =
            || block.warps.iter().enumerate().flat_map(|(w, warp)| warp.groups.iter().map(move |g| (w, g)));
        let place = |pc: u32| {
            let line =
                self.program.lines[pc as usize].as_ref().map_or(String::new(), |line| format!(" at {line}"));
            format!("[{}]{line}", self.program.text[pc as usize].0)
        };
        let parked = groups().find(|(_, group)| group.state == State::Parked);
        let Some((warp, group)) = parked.or_else(|| groups().next()) else {
            let detail = "lanes are neither running nor waiting nor done: a fault of the emulator".to_owned();
            return self.stuck(turn, block, Kind::Deadlock, detail);
        };
        let missing: Vec<String> = groups()
            .filter(|(w, other)| (*w, other.pc) != (warp, group.pc))
            .take(3)
            .map(|(w, other)| format!("lanes {:#010x} of warp {w} wait {}", other.mask, place(other.pc)))
            .collect();
        let others =
            if missing.is_empty() { "the others have exited".to_owned() } else { missing.join("; ") };
        let detail = format!(
            "lanes {:#010x} of warp {warp} wait here for threads that never come: {others}",
            group.mask
        );
        let barrier = self.program.code[group.pc as usize].kind == crate::program::Kind::Barrier;
        let kind = if barrier { Kind::DivergentBarrier } else { Kind::DivergentWarp };
        self.fault(turn, block, warp, group.pc, Fault { kind, lane: group.mask.trailing_zeros(), detail });
    }

    /// A report at the first thread that has not ended.
    fn stuck(&self, turn: u64, block: &Block, kind: Kind, detail: String) {
        let first = block.warps.iter().enumerate().find_map(|(number, warp)| {
            let ready = warp.groups.iter().find(|group| group.state == State::Ready);
            ready.map(|group| (number, group.pc, group.mask.trailing_zeros()))
        });
        let (warp, pc, lane) = first.unwrap_or((0, 0, 0));
        let mbarrier = block.memory.waiting.get(warp).copied().flatten();
        let detail = match mbarrier.and_then(|at| Some((at, block.memory.mbarriers.get(&at)?))) {
            Some((at, state)) => {
                format!("{detail}; the mbarrier at shared address {at:#x}: {}", state.missing())
            }
            None => detail,
        };
        self.fault(turn, block, warp, pc, Fault { kind, lane, detail });
    }

    fn fault(&self, turn: u64, block: &Block, warp: usize, pc: u32, fault: Fault) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = warp as u32 * 32 + fault.lane.min(31);
        let [x, y, _] = self.shape.block;
        let (text, line) = self.program.text.get(pc as usize).cloned().unwrap_or_default();
        let report = Report {
            kind: fault.kind,
            kernel: self.kernel.name().to_owned(),
            block: block.memory.index,
            thread: [thread % x, thread / x % y, thread / x / y],
            instruction: format!("PTX line {line}: {text}"),
            source: self.program.lines.get(pc as usize).cloned().flatten(),
            detail: fault.detail,
        };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push((turn, report));
    }
}
