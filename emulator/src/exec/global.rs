//! Checks of global memory: bounds, lifetime, initialisation, races between and within blocks.

use super::context::{Context, lanes};
use super::tally::Touched;
use crate::memory::{FREED, UNWRITTEN, View, WRITTEN};
use crate::report::Kind;
use std::collections::HashMap;

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Loads.
    Read,
    /// Stores.
    Write,
    /// Reads and writes at once.
    Atomic,
}

/// One request to global or shared memory.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Address of each lane.
    pub addresses: &'a [u64; 32],
    /// Lanes that take part.
    pub mask: u32,
    /// Bytes a lane.
    pub bytes: u64,
    /// What it does.
    pub mode: Mode,
    /// Volatile, relaxed, acquire, release or atomic: no race with others of its kind.
    pub strong: bool,
    /// Byte by lane and position that is written, where equal values make a race harmless.
    pub data: Option<&'a dyn Fn(usize, usize) -> u8>,
}

/// Race entry of 4 bytes: `tag 12 | kind 2 | many blocks 1 | many warps 1 | block 20 | warp 5 | clock 19 | bytes 4`.
/// It tells of the last accesses of this launch; it may forget some (bytes of one word with different owners, block
/// numbers modulo 2^20), which loses a report and never invents one.
mod entry {
    pub const READ: u64 = 1;
    pub const WRITE: u64 = 2;
    pub const STRONG: u64 = 3;
    pub const MANY_BLOCKS: u64 = 1 << 49;
    pub const MANY_WARPS: u64 = 1 << 48;
    pub const CLOCK: u64 = (1 << 19) - 1;

    pub fn new(tag: u64, kind: u64, block: u64, warp: u64, clock: u64, bytes: u64) -> u64 {
        tag << 52 | kind << 50 | (block & 0xF_FFFF) << 28 | warp << 23 | clock.min(CLOCK) << 4 | bytes
    }
    pub fn tag(entry: u64) -> u64 {
        entry >> 52
    }
    pub fn kind(entry: u64) -> u64 {
        entry >> 50 & 3
    }
    pub fn block(entry: u64) -> u64 {
        entry >> 28 & 0xF_FFFF
    }
    pub fn warp(entry: u64) -> u64 {
        entry >> 23 & 31
    }
    pub fn clock(entry: u64) -> u64 {
        entry >> 4 & CLOCK
    }
    pub fn bytes(entry: u64) -> u64 {
        entry & 15
    }
}

/// Lanes of `mask` whose whole access lies in the view.
#[inline(always)]
fn within(view: &View, addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    let mut inside = 0u32;
    let last = view.bytes.saturating_sub(bytes);
    for (lane, address) in addresses.iter().enumerate() {
        inside |= u32::from(address.wrapping_sub(view.base) <= last) << lane;
    }
    inside & mask
}

/// The lanes lie one after another without gap.
#[inline(always)]
fn contiguous(addresses: &[u64; 32], mask: u32, bytes: u64) -> bool {
    let first = addresses[0];
    mask == u32::MAX
        && addresses
            .iter()
            .enumerate()
            .fold(true, |all, (lane, address)| all & (*address == first.wrapping_add(lane as u64 * bytes)))
}

/// Checks alignment to the access's size. True: all lanes are aligned.
pub fn aligned(context: &mut Context<'_>, addresses: &[u64; 32], mask: u32, bytes: u64) -> bool {
    let mut off = 0u32;
    for (lane, address) in addresses.iter().enumerate() {
        off |= u32::from(address & (bytes - 1) != 0) << lane;
    }
    let off = off & mask;
    if off != 0 {
        let lane = off.trailing_zeros();
        let address = addresses[lane as usize];
        context.fail(Kind::Misaligned, lane, format!("an access of {bytes} bytes at {address:#x}"));
    }
    off == 0
}

/// Checks a request and yields the view it lies in; None after a fault. `request.bytes` is a power of two, or the
/// alignment was checked by the caller.
pub fn check(context: &mut Context<'_>, request: &Request<'_>) -> Option<View> {
    let views = context.launch.views;
    let mut view = views[0];
    let mut inside = within(&view, request.addresses, request.mask, request.bytes);
    if inside == 0 {
        view = views[1];
        inside = within(&view, request.addresses, request.mask, request.bytes);
    }
    if inside != request.mask {
        let lane = (request.mask & !inside).trailing_zeros();
        let address = request.addresses[lane as usize];
        if views.iter().any(|view| within(view, request.addresses, 1 << lane, request.bytes) != 0) {
            let text = "one warp instruction reaches device memory and page-locked host memory at once";
            context.fail(Kind::UnknownInstruction, lane, text.to_owned());
        } else {
            let place = context.launch.memory.describe(address);
            context.fail(
                Kind::OutOfBounds,
                lane,
                format!("{} bytes at {address:#x}: {place}", request.bytes),
            );
        }
        return None;
    }
    let together = contiguous(request.addresses, request.mask, request.bytes);
    if context.launch.counters {
        count(context, request, together);
    }
    if context.launch.checks {
        if !state(context, &view, request, together) {
            return None;
        }
        races(context, &view, request, together);
        if context.fault.is_some() {
            return None;
        }
    }
    Some(view)
}

fn count(context: &mut Context<'_>, request: &Request<'_>, together: bool) {
    let touched = if together {
        Touched::by_stretch(request.addresses[0], 32 * request.bytes)
    } else {
        Touched::by_lanes(request.addresses, request.mask, request.bytes)
    };
    context.tally.request(&touched, request.mode, request.bytes);
}

/// Allocation and initialisation, by the shadow. False after a fault.
fn state(context: &mut Context<'_>, view: &View, request: &Request<'_>, together: bool) -> bool {
    let needed = if request.mode == Mode::Write { UNWRITTEN } else { WRITTEN };
    let shadow = |address: u64, bytes: u64| {
        // SAFETY: `within` has shown that the bytes lie in the view, whose shadow is as long. Other workers may write
        // shadow bytes at the same time; they write WRITTEN alone, and a race of the kernel shows elsewhere.
        unsafe {
            std::slice::from_raw_parts_mut(view.shadow.add((address - view.base) as usize), bytes as usize)
        }
    };
    let good = |bytes: &[u8]| bytes.iter().fold(true, |all, state| all & (*state >= needed));
    if together {
        let states = shadow(request.addresses[0], 32 * request.bytes);
        if good(states) {
            if request.mode == Mode::Write {
                states.fill(WRITTEN);
            }
            return true;
        }
    }
    for lane in lanes(request.mask) {
        let address = request.addresses[lane];
        let states = shadow(address, request.bytes);
        if !good(states) {
            let worst = states.iter().copied().min().unwrap_or(0);
            let at = address + states.iter().position(|state| *state == worst).unwrap_or(0) as u64;
            let kind = match worst {
                FREED => Kind::UseAfterFree,
                UNWRITTEN => Kind::UninitialisedGlobal,
                _ => Kind::OutOfBounds,
            };
            let place = context.launch.memory.describe(at);
            let verb = if request.mode == Mode::Read { "reads" } else { "writes" };
            context.fail(
                kind,
                lane as u32,
                format!("{verb} {} bytes at {address:#x}: {place}", request.bytes),
            );
            return false;
        }
        if request.mode == Mode::Write {
            states.fill(WRITTEN);
        }
    }
    true
}

fn races(context: &mut Context<'_>, view: &View, request: &Request<'_>, together: bool) {
    let kind = match (request.mode, request.strong) {
        (Mode::Read, false) => entry::READ,
        (Mode::Write, false) => entry::WRITE,
        _ => entry::STRONG,
    };
    let clock = u64::from(context.block.clocks.epoch(context.warp));
    let make = |bytes: u64| {
        let block = context.block.linear & 0xF_FFFF;
        entry::new(context.launch.tag, kind, block, context.warp as u64, clock, bytes)
    };
    if together && request.bytes >= 4 {
        let new = make(15);
        let words = 32 * request.bytes as usize / 4;
        let first = (request.addresses[0] - view.base) as usize / 4;
        // SAFETY: inside the view, whose race entries are 8 bytes for each 4. Other workers may write them too: an
        // entry lost that way loses a report.
        let entries = unsafe { std::slice::from_raw_parts_mut(view.races.add(first), words) };
        let tag = context.launch.tag;
        let shared_reads = tag << 52 | entry::READ << 50 | entry::MANY_BLOCKS | 15;
        let mask = 0xFFF << 52 | 3 << 50 | entry::MANY_BLOCKS | 15;
        if entries.iter().fold(true, |all, e| all & ((*e >> 52 != tag) | (*e == new))) {
            entries.fill(new);
            return;
        }
        if kind == entry::READ && entries.iter().fold(true, |all, e| all & (*e & mask == shared_reads)) {
            return;
        }
    }
    for lane in lanes(request.mask) {
        let (mut address, end) = (request.addresses[lane], request.addresses[lane] + request.bytes);
        while address < end {
            let stop = end.min((address & !3) + 4);
            let bytes = ((1u64 << (stop - address)) - 1) << (address & 3);
            let place = view.races.wrapping_add((address - view.base) as usize / 4);
            // SAFETY: as above.
            let old = unsafe { *place };
            match update(context, old, make(bytes)) {
                Some(new) => {
                    // SAFETY: as above.
                    unsafe { *place = new };
                }
                None if harmless(view, request, lane, address, stop) => {}
                None => {
                    report(context, view, old, kind, lane, address);
                    return;
                }
            }
            address = stop;
        }
    }
}

/// The bytes that are written are there already: whoever comes first, the memory is the same.
fn harmless(view: &View, request: &Request<'_>, lane: usize, from: u64, to: u64) -> bool {
    let Some(data) = request.data else { return false };
    (from..to).all(|address| {
        // SAFETY: inside the view.
        let there = unsafe { *view.data.add((address - view.base) as usize) };
        data(lane, (address - request.addresses[lane]) as usize) == there
    })
}

/// The entry after the access, or None where it races with what the entry tells of.
fn update(context: &Context<'_>, old: u64, new: u64) -> Option<u64> {
    if entry::tag(old) != entry::tag(new) || entry::bytes(old) & entry::bytes(new) == 0 {
        return Some(new);
    }
    let (was, is) = (entry::kind(old), entry::kind(new));
    let quiet = was == is && was != entry::WRITE;
    let many = old & (entry::MANY_BLOCKS | entry::MANY_WARPS);
    let same_block = entry::block(old) == entry::block(new) && old & entry::MANY_BLOCKS == 0;
    if same_block {
        let clocks = &context.block.clocks;
        let before = entry::clock(old) == entry::CLOCK
            || if old & entry::MANY_WARPS != 0 {
                context.program.named_barriers || entry::clock(old) <= u64::from(clocks.floor(context.warp))
            } else {
                entry::warp(old) == context.warp as u64
                    || entry::clock(old) <= u64::from(clocks.seen(context.warp, entry::warp(old) as usize))
            };
        if !quiet && !before {
            return None;
        }
        // A write stays on record when the threads that it is ordered before read it: a later block must still meet it.
        if was == entry::WRITE && is == entry::READ {
            return Some(old);
        }
        if quiet && (entry::warp(old) != entry::warp(new) || old & entry::MANY_WARPS != 0) {
            let clock = entry::clock(old).max(entry::clock(new));
            let bytes = entry::bytes(old) | entry::bytes(new);
            return Some((new & !(entry::CLOCK << 4)) | clock << 4 | many | entry::MANY_WARPS | bytes);
        }
        return Some(if quiet { new | entry::bytes(old) } else { new });
    }
    if quiet {
        return Some(new | many | entry::MANY_BLOCKS | entry::bytes(old));
    }
    let seen = context.block.acquired.get(&(entry::block(old) as u32));
    let vague = old & entry::MANY_WARPS != 0 || entry::clock(old) == entry::CLOCK;
    let ordered = context.launch.has_fence
        && (old & entry::MANY_BLOCKS != 0
            || seen.is_some_and(|seen| {
                vague || entry::clock(old) <= u64::from(seen[entry::warp(old) as usize])
            }));
    ordered.then_some(new)
}

fn report(context: &mut Context<'_>, view: &View, old: u64, kind: u64, lane: usize, address: u64) {
    let verb = |kind: u64| match kind {
        entry::READ => "reads",
        entry::WRITE => "writes",
        _ => "atomically accesses",
    };
    let other = if old & entry::MANY_BLOCKS != 0 {
        "threads of several blocks".to_owned()
    } else if entry::block(old) != context.block.linear & 0xF_FFFF {
        format!("a thread of block {}", entry::block(old))
    } else if old & entry::MANY_WARPS != 0 {
        "threads of several warps of the block".to_owned()
    } else {
        format!("a thread of warp {} of the block", entry::warp(old))
    };
    let place = if view.base == context.launch.views[1].base { "page-locked memory, " } else { "" };
    let detail = format!(
        "{} {address:#x} ({place}{}), which {other} {} in the same launch; nothing orders the two",
        verb(kind),
        context.launch.memory.describe(address),
        verb(entry::kind(old)).trim_end_matches('s'),
    );
    context.fail(Kind::GlobalRace, lane as u32, detail);
}

/// A fence: what the block did before is visible to whoever synchronises with it afterwards.
pub fn fence(context: &mut Context<'_>) {
    context.block.fenced = true;
}

/// Before an atomic or strong write: whoever reads it may rely on what this warp did and had seen, if the block has
/// executed a fence.
pub fn release(context: &mut Context<'_>, addresses: &[u64; 32], mask: u32) {
    if !context.launch.has_fence || !context.block.fenced {
        return;
    }
    let block = (context.block.linear & 0xF_FFFF) as u32;
    let seen = context.block.clocks.vector(context.warp);
    let mut releases = context.launch.releases.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for lane in lanes(mask) {
        let released = releases.entry(addresses[lane]).or_default();
        join(released, block, &seen);
        for (other, seen) in &context.block.acquired {
            join(released, *other, seen);
        }
    }
}

/// After an atomic or strong read: what was released at the address before it was read is ordered before this block's
/// accesses from now on. It must come after the read: another worker may release in between, never undo.
pub fn acquire(context: &mut Context<'_>, addresses: &[u64; 32], mask: u32) {
    if !context.launch.has_fence {
        return;
    }
    let releases = context.launch.releases.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for lane in lanes(mask) {
        for (block, seen) in releases.get(&addresses[lane]).into_iter().flatten() {
            join(&mut context.block.acquired, *block, seen);
        }
    }
}

/// Of each block, the last epoch of each of its warps that is ordered before.
pub type Released = HashMap<u32, [u32; 32]>;

fn join(released: &mut Released, block: u32, seen: &[u32; 32]) {
    for (mine, theirs) in released.entry(block).or_insert([0; 32]).iter_mut().zip(seen) {
        *mine = (*mine).max(*theirs);
    }
}
