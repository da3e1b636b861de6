//! `cp.async`: copies from global to shared memory that are in flight until they are waited for. Groups belong to each
//! thread. A copy lands when it is issued, or as late as the program allows, which the launch chooses.

use super::context::{Context, lanes};
use super::global::{self, Mode, Request};
use super::lanes::{LANES, Lane, Operation};
use super::shared;
use crate::program::{Instruction, NONE};
use crate::report::Kind;

/// One lane's copy.
#[derive(Clone, Copy, Debug)]
struct Pending {
    lane: u8,
    bytes: u8,
    from: *const u8,
    from_bytes: u8,
    group: u32,
    to: u64,
}

/// The copies of a warp.
#[derive(Debug, Default)]
pub struct Copies {
    pending: Vec<Pending>,
    committed: [u32; LANES],
}

/// `cp.async`: a and b are the addresses, `word` and `target` their accesses, c the slot of the source's size or
/// [`NONE`], e a predicate that turns the source off or [`NONE`].
pub struct CopyAsync;
/// `cp.async.commit_group`.
pub struct Commit;
/// `cp.async.wait_group` (`word` groups may stay in flight) and `wait_all` (`word` is u64::MAX).
pub struct Wait;

impl Operation for CopyAsync {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let program = context.program;
        let (target, source) = (&program.accesses[i.word as usize], &program.accesses[i.target as usize]);
        let to = context.addresses(i.a, target.narrow, target.offset);
        let from = context.addresses(i.b, source.narrow, source.offset);
        let bytes = target.bytes();
        let mut sizes = [bytes; LANES];
        if i.c != NONE {
            for (lane, size) in sizes.iter_mut().enumerate() {
                // SAFETY: the decoder gave the slot.
                *size = u64::from(unsafe { u32::get(context.file, i.c, lane) });
            }
        }
        if i.e != NONE {
            for lane in lanes(context.predicate(i.e)) {
                sizes[lane] = 0;
            }
        }
        if let Some(lane) = lanes(mask).find(|&lane| sizes[lane] > bytes) {
            let detail = format!("the source's size {} is larger than the copy's {bytes}", sizes[lane]);
            context.fail(Kind::OutOfBounds, lane as u32, detail);
            return;
        }
        if !global::aligned(context, &to, mask, bytes) || !global::aligned(context, &from, mask, bytes) {
            return;
        }
        let whole = lanes(mask).filter(|&lane| sizes[lane] == bytes).fold(0u32, |set, lane| set | 1 << lane);
        let mut origins = [std::ptr::null::<u8>(); LANES];
        let parts = lanes(mask & !whole).map(|lane| (1 << lane, sizes[lane]));
        for (part, size) in std::iter::once((whole, bytes)).chain(parts) {
            if part == 0 || size == 0 {
                continue;
            }
            let request = Request {
                addresses: &from,
                mask: part,
                bytes: size,
                mode: Mode::Read,
                strong: false,
                data: None,
            };
            let Some(view) = global::check(context, &request) else { return };
            for lane in lanes(part) {
                origins[lane] = view.data.wrapping_add((from[lane] - view.base) as usize);
            }
        }
        let request = Request { addresses: &to, mask, bytes, mode: Mode::Write, strong: false, data: None };
        if !shared::check(context, &request, true) {
            return;
        }
        for lane in lanes(mask) {
            let copy = Pending {
                lane: lane as u8,
                bytes: bytes as u8,
                from: origins[lane],
                from_bytes: sizes[lane] as u8,
                group: context.block.copies[context.warp].committed[lane],
                to: to[lane],
            };
            if !context.launch.late_copies {
                land(context, &copy);
            }
            context.block.copies[context.warp].pending.push(copy);
        }
    }
}

/// Moves the bytes; what the source does not give is zero.
fn land(context: &mut Context<'_>, copy: &Pending) {
    let to = copy.to as usize;
    let Some(target) = context.block.shared_mut().get_mut(to..to + usize::from(copy.bytes)) else { return };
    let (given, rest) = target.split_at_mut(usize::from(copy.from_bytes));
    if !given.is_empty() {
        // SAFETY: the source was checked when the copy was issued; the arena behind it stays mapped.
        unsafe { copy.from.copy_to(given.as_mut_ptr(), given.len()) };
    }
    rest.fill(0);
}

impl Operation for Commit {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, mask: u32) {
        for lane in lanes(mask) {
            context.block.copies[context.warp].committed[lane] += 1;
        }
    }
}

impl Operation for Wait {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let copies = &mut context.block.copies[context.warp];
        let committed = copies.committed;
        let done = |copy: &Pending| {
            mask >> copy.lane & 1 == 1
                && (i.word == u64::MAX
                    || u64::from(copy.group) + i.word < u64::from(committed[usize::from(copy.lane)]))
        };
        let mut pending = std::mem::take(&mut copies.pending);
        let mut kept = 0;
        for index in 0..pending.len() {
            let copy = pending[index];
            if !done(&copy) {
                pending[kept] = copy;
                kept += 1;
                continue;
            }
            if context.launch.late_copies {
                land(context, &copy);
            }
            if context.launch.checks {
                shared::landed(context, usize::from(copy.lane), copy.to, u64::from(copy.bytes));
            }
        }
        pending.truncate(kept);
        context.block.copies[context.warp].pending = pending;
    }
}
