//! `cp.async.bulk`: copies of many bytes that one thread issues (PTX ISA 9.7.9.27), of a tile of a tensor or of bytes one after
//! another. Copies into shared memory complete bytes of an mbarrier's phase; copies out of it belong to groups of the thread
//! that issued them, as `cp.async` does. A copy lands when it is issued, or as late as the program allows.

use super::access::writable;
use super::block::BlockMemory;
use super::context::{Context, LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, WINDOW_BYTES, lanes};
use super::global::{self, Mode, Request};
use super::lanes::{LANES, Lane, Operation};
use super::mbarrier;
use super::shared::asynchronous;
use crate::program::{BulkForm, Instruction, Program, Reference};
use crate::report::Kind;
use crate::tensor_map::{self, Chunk, TensorMap};

/// `cp.async.bulk` and `cp.async.bulk.tensor`; e is the form.
pub struct BulkCopy;
/// `cp.async.bulk.commit_group`.
pub struct BulkCommit;
/// `cp.async.bulk.wait_group`: `word` groups may stay in flight. With `.read` or without, the groups are done: nothing else
/// would tell the two apart here, where memory is sequentially consistent.
pub struct BulkWait;

/// Bytes that lie together in both memories.
#[derive(Clone, Copy, Debug)]
struct Piece {
    shared: u64,
    global: *mut u8,
    bytes: usize,
}

/// A copy that was issued.
#[derive(Debug)]
pub struct Landing {
    /// The instruction.
    pub pc: u32,
    /// The warp that issued it.
    pub warp: usize,
    /// The lane.
    pub lane: usize,
    /// The epoch that its writes belong to.
    pub epoch: u32,
    /// Shared addresses of its chunks of 16 bytes.
    chunks: Vec<u64>,
    pieces: Vec<Piece>,
    landed: bool,
}

impl Landing {
    /// The bytes have moved.
    pub fn has_landed(&self) -> bool {
        self.landed
    }

    /// Moves the bytes into shared memory, zeros where the tensor has none. Yields the bytes that are completed by this.
    pub fn land(&mut self, block: &mut BlockMemory) -> u64 {
        if std::mem::replace(&mut self.landed, true) {
            return 0;
        }
        let memory = block.shared_mut();
        for chunk in &self.chunks {
            if let Some(place) = memory.get_mut(*chunk as usize..*chunk as usize + 16) {
                place.fill(0);
            }
        }
        for piece in &self.pieces {
            if let Some(place) = memory.get_mut(piece.shared as usize..piece.shared as usize + piece.bytes) {
                // SAFETY: the source was checked when the copy was issued; the arena behind it stays mapped.
                unsafe { piece.global.cast_const().copy_to(place.as_mut_ptr(), piece.bytes) };
            }
        }
        16 * self.chunks.len() as u64
    }

    /// Moves the bytes out of shared memory.
    fn land_outside(&mut self, block: &mut BlockMemory) {
        if std::mem::replace(&mut self.landed, true) {
            return;
        }
        for piece in &self.pieces {
            let source = block.shared().get(piece.shared as usize..piece.shared as usize + piece.bytes);
            if let Some(source) = source {
                // SAFETY: the destination was checked when the copy was issued; the arena behind it stays mapped.
                unsafe { piece.global.copy_from(source.as_ptr(), piece.bytes) };
            }
        }
    }

    /// The stretches of shared memory: address and bytes.
    pub fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        self.chunks.iter().map(|chunk| (*chunk, 16))
    }
}

/// The copies out of shared memory of a warp.
#[derive(Debug, Default)]
pub struct BulkGroups {
    /// With the number of their group.
    pending: Vec<(u32, Landing)>,
    committed: [u32; LANES],
}

impl BulkGroups {
    /// The first copy that nobody waited for: its instruction and lane.
    pub fn unfinished(&self) -> Option<(u32, usize)> {
        self.pending.first().map(|(_, landing)| (landing.pc, landing.lane))
    }
}

/// The number of an instruction in its program.
pub(super) fn place_of(program: &Program, instruction: &Instruction) -> u32 {
    let bytes = std::ptr::from_ref(instruction) as usize - program.code.as_ptr() as usize;
    (bytes / size_of::<Instruction>()) as u32
}

impl Operation for BulkCopy {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let program = context.program;
        let form = &program.bulks[i.e as usize];
        let pc = place_of(program, i);
        for lane in lanes(mask) {
            issue(context, form, pc, lane);
            if let Some(fault) = &mut context.fault {
                // Checks number the parts of a copy as if they were lanes.
                fault.lane = lane as u32;
                return;
            }
        }
    }
}

/// The address that a lane gives.
fn at(context: &Context<'_>, reference: Reference, lane: usize) -> u64 {
    context.addresses(reference.slot, reference.narrow, reference.offset)[lane]
}

/// One lane's copy.
fn issue(context: &mut Context<'_>, form: &BulkForm, pc: u32, lane: usize) {
    let (shared, global) = (at(context, form.shared, lane), at(context, form.global, lane));
    let file = context.file;
    // SAFETY: the decoder gave the slots.
    let values: Vec<i32> = form.values.iter().map(|slot| unsafe { i32::get(file, *slot, lane) }).collect();
    let chunks = match form.tensor {
        true => tile(context, global, shared, &values),
        false => stretch(context, global, shared, values[0] as u32),
    };
    let Some(chunks) = chunks else { return };
    let mut pieces: Vec<Piece> = Vec::with_capacity(chunks.len());
    let mode = if form.mbarrier.is_some() { Mode::Read } else { Mode::Write };
    if !places(context, &chunks, mode, &mut pieces) {
        return;
    }
    let chunks = chunks.iter().map(|chunk| chunk.shared).collect();
    let warp = context.warp;
    let landing = Landing { pc, warp, lane, epoch: 0, chunks, pieces, landed: false };
    match form.mbarrier {
        Some(reference) => load(context, landing, at(context, reference, lane)),
        None => store(context, landing),
    }
}

/// A copy into shared memory.
fn load(context: &mut Context<'_>, mut landing: Landing, barrier: u64) {
    let lane = landing.lane;
    landing.epoch = context.block.clocks.apart(context.warp);
    for (address, bytes) in landing.stretches() {
        if !asynchronous::writes(context, lane, address, bytes, landing.epoch) {
            return;
        }
    }
    let Some(mut state) = mbarrier::take(context, lane, barrier) else { return };
    let (warp, epoch) = state.initialised;
    if context.launch.checks && context.block.clocks.fenced(context.warp, warp) < epoch {
        let detail = format!(
            "the mbarrier at shared address {barrier:#x} was initialised by warp {warp}, and no fence.mbarrier_init or \
             fence.proxy.async stands between that and this copy"
        );
        context.fail(Kind::MissingProxyFence, lane as u32, detail);
        return;
    }
    let bytes = if context.launch.late_copies { 0 } else { landing.land(context.block) };
    state.attach(landing);
    if mbarrier::complete(context, lane, &mut state, bytes as i64) {
        mbarrier::put(context.block, barrier, state);
    }
}

/// A copy out of shared memory.
fn store(context: &mut Context<'_>, mut landing: Landing) {
    let lane = landing.lane;
    for (address, bytes) in landing.stretches() {
        if !asynchronous::reads(context, lane, address, bytes) {
            return;
        }
    }
    if !context.launch.late_copies {
        landing.land_outside(context.block);
    }
    let groups = &mut context.block.bulk[context.warp];
    groups.pending.push((groups.committed[lane], landing));
}

/// The chunks of a copy of bytes one after another.
fn stretch(context: &mut Context<'_>, global: u64, shared: u64, bytes: u32) -> Option<Vec<Chunk>> {
    if !(global | shared | u64::from(bytes)).is_multiple_of(16) {
        let detail = format!(
            "{bytes} bytes at {global:#x} and shared address {shared:#x}: all must be multiples of 16"
        );
        context.fail(Kind::Misaligned, 0, detail);
        return None;
    }
    if !fits(context, shared, u64::from(bytes)) {
        return None;
    }
    let chunk = |offset: u64| {
        let (shared, global) = (shared.wrapping_add(offset), global.wrapping_add(offset));
        Chunk { shared, global, inside: (0, 16) }
    };
    Some((0..u64::from(bytes)).step_by(16).map(chunk).collect())
}

/// The chunks of a tile, by the map at a generic address.
fn tile(context: &mut Context<'_>, map: u64, shared: u64, coordinates: &[i32]) -> Option<Vec<Chunk>> {
    if !shared.is_multiple_of(128) || !map.is_multiple_of(64) {
        let detail = format!(
            "a tile at shared address {shared:#x} by a tensor map at {map:#x}: they must be multiples of 128 and 64"
        );
        context.fail(Kind::Misaligned, 0, detail);
        return None;
    }
    let Some(found) = read_map(context, map).as_ref().and_then(TensorMap::decode) else {
        let detail = format!("no tensor map lies at {map:#x}: cuTensorMapEncodeTiled makes one");
        context.fail(Kind::AsyncMisuse, 0, detail);
        return None;
    };
    if found.rank != coordinates.len() {
        let detail = format!("{} coordinates in a tensor of {} dimensions", coordinates.len(), found.rank);
        context.fail(Kind::AsyncMisuse, 0, detail);
        return None;
    }
    fits(context, shared, found.box_bytes()).then(|| found.tile(coordinates, shared))
}

/// So many bytes lie in shared memory, whatever is there. False after a fault.
fn fits(context: &mut Context<'_>, shared: u64, bytes: u64) -> bool {
    let size = context.block.shared().len() as u64;
    let inside = bytes <= size && shared <= size - bytes;
    if !inside {
        let detail =
            format!("{bytes} bytes at shared address {shared:#x}; the block's memory ends at {size:#x}");
        context.fail(Kind::OutOfBounds, 0, detail);
    }
    inside
}

/// 128 bytes of parameters or of global memory.
fn read_map(context: &Context<'_>, address: u64) -> Option<[u8; tensor_map::BYTES]> {
    let within = |window: u64| address.wrapping_sub(window) < WINDOW_BYTES;
    if within(PARAMETER_WINDOW) {
        let start = (address - PARAMETER_WINDOW) as usize;
        return context.launch.parameters.get(start..start + tensor_map::BYTES)?.try_into().ok();
    }
    if within(SHARED_WINDOW) || within(LOCAL_WINDOW) {
        return None;
    }
    let view = context.launch.views[0];
    let offset = address.wrapping_sub(view.base);
    let last = view.bytes.checked_sub(tensor_map::BYTES as u64)?;
    // SAFETY: the bytes lie in the view.
    (offset <= last)
        .then(|| unsafe { view.data.add(offset as usize).cast::<[u8; tensor_map::BYTES]>().read() })
}

/// Checks the global side, 32 whole chunks a request and the cut ones alone. False after a fault.
fn places(context: &mut Context<'_>, chunks: &[Chunk], mode: Mode, pieces: &mut Vec<Piece>) -> bool {
    let whole: Vec<&Chunk> = chunks.iter().filter(|chunk| chunk.inside.1 == 16).collect();
    let cut: Vec<&Chunk> = chunks.iter().filter(|chunk| !matches!(chunk.inside.1, 0 | 16)).collect();
    for (list, together) in [(whole, LANES), (cut, 1)] {
        for part in list.chunks(together) {
            let mut addresses = [0; LANES];
            for (address, chunk) in addresses.iter_mut().zip(part) {
                *address = chunk.global;
            }
            let (mask, bytes) = (u32::MAX >> (LANES - part.len()), part[0].inside.1);
            if mode == Mode::Write && !writable(context, &addresses, mask, bytes) {
                return false;
            }
            let request = Request { addresses: &addresses, mask, bytes, mode, strong: false, data: None };
            let Some(view) = global::check(context, &request) else { return false };
            for chunk in part {
                let global = view.data.wrapping_add((chunk.global - view.base) as usize);
                pieces.push(Piece { shared: chunk.shared + chunk.inside.0, global, bytes: bytes as usize });
            }
        }
    }
    true
}

impl Operation for BulkCommit {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, mask: u32) {
        for lane in lanes(mask) {
            context.block.bulk[context.warp].committed[lane] += 1;
        }
    }
}

impl Operation for BulkWait {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let groups = &mut context.block.bulk[context.warp];
        let committed = groups.committed;
        let over = |(group, landing): &mut (u32, Landing)| {
            mask >> landing.lane & 1 == 1 && u64::from(*group) + i.word < u64::from(committed[landing.lane])
        };
        let done: Vec<(u32, Landing)> = groups.pending.extract_if(.., over).collect();
        for (_, mut landing) in done {
            landing.land_outside(context.block);
            if context.launch.checks {
                for (address, bytes) in landing.stretches() {
                    asynchronous::was_read(context, landing.lane, address, bytes);
                }
            }
        }
    }
}
