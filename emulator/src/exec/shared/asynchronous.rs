//! Checks of what the asynchronous proxy does to shared memory: bulk copies and `wgmma`, issued by a thread and done some
//! time later. A write is in flight until its mbarrier's phase is complete, a read until its group was waited for.

use super::{ASYNC, CLOCK, EVER, FLIGHT, MANY, READERS, READERS_MASK, Touch, VALID, Word};
use super::{after_reads, after_write, race, read, variable, write};
use crate::exec::context::Context;
use crate::exec::global::Mode;
use crate::report::Kind;

/// What a report says of a word that is read asynchronously.
pub(super) const READS: &str = "an asynchronous copy or matrix product reads that was not waited for";

/// Checks and notes an asynchronous read: whole words, which must be there for the asynchronous proxy. False after a fault.
pub fn reads(context: &mut Context<'_>, lane: usize, address: u64, bytes: u64) -> bool {
    each(context, lane, address, bytes, Mode::Read, |word, _| {
        let readers = (word.write & READERS_MASK) + (1 << READERS);
        // A word with 4095 readers forgets the next one.
        if readers <= READERS_MASK {
            word.write = word.write & !READERS_MASK | readers;
        }
    })
}

/// Checks and notes an asynchronous write of an epoch of its own ([`super::super::clocks::Clocks::apart`]). False after a
/// fault.
pub fn writes(context: &mut Context<'_>, lane: usize, address: u64, bytes: u64, epoch: u32) -> bool {
    let clock = u64::from(epoch);
    each(context, lane, address, bytes, Mode::Write, |word, touch| {
        write(word, Touch { clock, ..touch }, true);
        // No lane has written it: the one that issued the copy has to wait for it like the others.
        word.write |= MANY | ASYNC;
    })
}

/// Whether the words may be touched; then what is noted of them.
fn each(
    context: &mut Context<'_>,
    lane: usize,
    address: u64,
    bytes: u64,
    mode: Mode,
    note: impl Fn(&mut Word, Touch),
) -> bool {
    let words = context.block.words.len() as u64;
    if !(address | bytes).is_multiple_of(4) || address / 4 + bytes / 4 > words {
        outside(context, lane, address, bytes);
        return false;
    }
    if !context.launch.checks {
        return true;
    }
    let clock = u64::from(context.block.clocks.epoch(context.warp));
    let touch = Touch { lane: lane as u64, warp: context.warp as u64, clock, bytes: 15, strong: false };
    for index in address / 4..(address + bytes) / 4 {
        let mut word = context.block.words[index as usize];
        let place = 4 * index;
        if word.nibble(VALID) != 15 {
            outside(context, lane, place, 4);
            return false;
        }
        let busy = match mode {
            _ if word.nibble(FLIGHT) != 0 => Some("a copy writes that was not waited for"),
            Mode::Write if word.write & READERS_MASK != 0 => Some(READS),
            _ => None,
        };
        if let Some(who) = busy {
            let verb = if mode == Mode::Read { "reads" } else { "writes" };
            let detail = format!("{verb} shared address {place:#x}, which {who}");
            context.fail(Kind::AsyncCopyNotAwaited, lane as u32, detail);
            return false;
        }
        if mode == Mode::Read && word.nibble(EVER) != 15 {
            let detail = format!("reads shared address {place:#x}, {}", variable(context, place));
            context.fail(Kind::UninitialisedShared, lane as u32, detail);
            return false;
        }
        if !after_write(context, word, touch) || (mode == Mode::Write && !after_reads(context, word, touch)) {
            race(context, mode, lane, place, word);
            return false;
        }
        let (writer, written) = ((word.write >> 39 & 31) as usize, word.write >> CLOCK);
        let fenced = u64::from(context.block.clocks.fenced(context.warp, writer));
        if word.write & ASYNC == 0 && written > fenced {
            let detail = format!(
                "shared address {place:#x} ({}) was written by a store of warp {writer}, and no fence.proxy.async \
                 stands between that and this instruction",
                variable(context, place)
            );
            context.fail(Kind::MissingProxyFence, lane as u32, detail);
            return false;
        }
        note(&mut word, touch);
        context.block.words[index as usize] = word;
    }
    true
}

fn outside(context: &mut Context<'_>, lane: usize, address: u64, bytes: u64) {
    let detail = format!("{bytes} bytes at shared address {address:#x}: {}", variable(context, address));
    context.fail(Kind::OutOfBounds, lane as u32, detail);
}

/// An asynchronous write is complete: whoever waits for it may use the bytes.
pub fn written(words: &mut [Word], address: u64, bytes: u64) {
    for index in address / 4..(address + bytes) / 4 {
        if let Some(word) = words.get_mut(index as usize) {
            word.write &= !(15 << FLIGHT);
        }
    }
}

/// An asynchronous read is complete and was waited for: from now on it is a read of the waiting warp.
pub fn was_read(context: &mut Context<'_>, lane: usize, address: u64, bytes: u64) {
    let clock = u64::from(context.block.clocks.epoch(context.warp));
    let floor = u64::from(context.block.clocks.floor(context.warp));
    let touch = Touch { lane: lane as u64, warp: context.warp as u64, clock, bytes: 15, strong: false };
    for index in address / 4..(address + bytes) / 4 {
        let Some(word) = context.block.words.get_mut(index as usize) else { return };
        let readers = (word.write & READERS_MASK).saturating_sub(1 << READERS);
        word.write = word.write & !READERS_MASK | readers;
        read(word, touch, floor);
    }
}
