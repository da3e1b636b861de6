//! Checks of shared memory: bounds, initialisation, races, asynchronous copies in flight.

pub mod asynchronous;

use super::context::{Context, lanes};
use super::global::{Mode, Request};
use super::tally::shared_waves;
use crate::report::Kind;

/// What is known of 4 bytes of shared memory.
///
/// `write`: `clock 20 | warp 5 | lane 5 | many lanes 1 | strong 1 | bytes written last 4 | written ever 4 | in flight 4 |
/// inside a variable 4 | asynchronous reads in flight 12 | unused 3 | written by the asynchronous proxy 1`. `read`:
/// `clock 20 | lane 5 | many lanes 1 | bytes 4 | unused 1 | all strong 1 | warps 32`. As for global memory an entry may
/// forget (several owners of one word), which loses a report and never invents one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Word {
    write: u64,
    read: u64,
}

const MANY: u64 = 1 << 33;
const STRONG: u64 = 1 << 32;
const LAST: u32 = 28;
const EVER: u32 = 24;
const FLIGHT: u32 = 20;
const VALID: u32 = 16;
const READERS: u32 = 4;
const READERS_MASK: u64 = 0xFFF << READERS;
const ASYNC: u64 = 1;
const CLOCK: u32 = 44;
const READ_LANE: u32 = 39;
const READ_MANY: u64 = 1 << 38;
const READ_BYTES: u32 = 34;
const READ_STRONG: u64 = 1 << 32;

impl Word {
    /// Memory that belongs to a variable, never written.
    pub const UNWRITTEN: Word = Word { write: 15 << VALID, read: 0 };
    /// Outside every variable.
    pub const OUTSIDE: Word = Word { write: 0, read: 0 };

    #[inline(always)]
    fn nibble(self, shift: u32) -> u64 {
        self.write >> shift & 15
    }
}

/// One lane's access to (part of) one word.
#[derive(Clone, Copy)]
struct Touch {
    lane: u64,
    warp: u64,
    clock: u64,
    bytes: u64,
    strong: bool,
}

/// The last write is ordered before the access.
#[inline(always)]
fn after_write(context: &Context<'_>, word: Word, touch: Touch) -> bool {
    let (clock, warp, lane) = (word.write >> CLOCK, word.write >> 39 & 31, word.write >> 34 & 31);
    let seen = u64::from(context.block.clocks.seen(context.warp, warp as usize));
    clock <= seen
        || word.nibble(LAST) & touch.bytes == 0
        || (warp == touch.warp && lane == touch.lane && word.write & MANY == 0)
        || (touch.strong && word.write & STRONG != 0)
}

/// The last reads are ordered before the access.
#[inline(always)]
fn after_reads(context: &Context<'_>, word: Word, touch: Touch) -> bool {
    let (clock, readers) = (word.read >> CLOCK, word.read & 0xFFFF_FFFF);
    if readers == 0 || clock <= u64::from(context.block.clocks.floor(context.warp)) {
        return true;
    }
    if word.read >> READ_BYTES & 15 & touch.bytes == 0 || (touch.strong && word.read & READ_STRONG != 0) {
        return true;
    }
    lanes(readers as u32).all(|warp| {
        clock <= u64::from(context.block.clocks.seen(context.warp, warp))
            || (warp as u64 == touch.warp
                && word.read >> READ_LANE & 31 == touch.lane
                && word.read & READ_MANY == 0)
    })
}

#[inline(always)]
fn read(word: &mut Word, touch: Touch, floor: u64) {
    let strong = if touch.strong { READ_STRONG } else { 0 };
    let fresh =
        touch.clock << CLOCK | touch.lane << READ_LANE | touch.bytes << READ_BYTES | strong | 1 << touch.warp;
    let (clock, bytes) = (word.read >> CLOCK, word.read >> READ_BYTES & 15);
    if clock <= floor || clock != touch.clock || bytes != touch.bytes {
        word.read = fresh;
        return;
    }
    let other_lane = word.read & READ_MANY != 0
        || word.read >> READ_LANE & 31 != touch.lane
        || word.read & 0xFFFF_FFFF != 1 << touch.warp;
    word.read |= fresh & 0xFFFF_FFFF | if other_lane { READ_MANY } else { 0 };
    if !touch.strong {
        word.read &= !READ_STRONG;
    }
}

#[inline(always)]
fn write(word: &mut Word, touch: Touch, flight: bool) {
    let kept = word.write & (15 << EVER | 15 << FLIGHT | 15 << VALID | READERS_MASK);
    let mut new = touch.clock << CLOCK | touch.warp << 39 | touch.lane << 34 | touch.bytes << LAST;
    if touch.strong {
        new |= STRONG;
    }
    word.write = new | kept | touch.bytes << EVER | if flight { touch.bytes << FLIGHT } else { 0 };
}

/// Checks a request. `asynchronous`: a write that is in flight until it is awaited. False after a fault.
pub fn check(context: &mut Context<'_>, request: &Request<'_>, asynchronous: bool) -> bool {
    let size = context.block.words.len() as u64 * 4;
    let last = size.saturating_sub(request.bytes);
    let mut out = 0u32;
    for (lane, address) in request.addresses.iter().enumerate() {
        out |= u32::from(*address > last) << lane;
    }
    if out & request.mask != 0 {
        let lane = (out & request.mask).trailing_zeros();
        outside(context, request, lane);
        return false;
    }
    if context.launch.counters {
        let (waves, minimum) = shared_waves(request.addresses, request.mask, request.bytes);
        let counters = &mut context.tally.counters;
        counters.shared_requests += 1;
        counters.shared_waves += waves;
        counters.shared_waves_minimum += minimum;
    }
    if !context.launch.checks {
        return true;
    }
    let clock = u64::from(context.block.clocks.epoch(context.warp));
    let floor = u64::from(context.block.clocks.floor(context.warp));
    for lane in lanes(request.mask) {
        let touch =
            Touch { lane: lane as u64, warp: context.warp as u64, clock, bytes: 15, strong: request.strong };
        if plain(&mut context.block.words, request, lane, touch, floor, asynchronous) {
            continue;
        }
        let (mut address, end) = (request.addresses[lane], request.addresses[lane] + request.bytes);
        while address < end {
            let stop = end.min((address & !3) + 4);
            let bytes = ((1u64 << (stop - address)) - 1) << (address & 3);
            let index = (address / 4) as usize;
            let mut word = context.block.words[index];
            let touch = Touch { bytes, ..touch };
            if word.nibble(VALID) & bytes != bytes {
                outside(context, request, lane as u32);
                return false;
            }
            if word.nibble(FLIGHT) & bytes != 0 {
                let detail =
                    format!("shared address {address:#x}: the copy that writes it was not waited for");
                context.fail(Kind::AsyncCopyNotAwaited, lane as u32, detail);
                return false;
            }
            let writes = request.mode != Mode::Read;
            if writes && word.write & READERS_MASK != 0 {
                let detail = format!("writes shared address {address:#x}, which {}", asynchronous::READS);
                context.fail(Kind::AsyncCopyNotAwaited, lane as u32, detail);
                return false;
            }
            if request.mode != Mode::Write && word.nibble(EVER) & bytes != bytes {
                let detail = format!("reads shared address {address:#x}, {}", variable(context, address));
                context.fail(Kind::UninitialisedShared, lane as u32, detail);
                return false;
            }
            let good = after_write(context, word, touch) && (!writes || after_reads(context, word, touch));
            if !good && !harmless(context, request, lane, address, stop) {
                race(context, request.mode, lane, address, word);
                return false;
            }
            if writes {
                write(&mut word, touch, asynchronous);
                if !asynchronous
                    && request.mode == Mode::Write
                    && clash(context, request, lane, address, stop)
                {
                    return false;
                }
            } else {
                read(&mut word, touch, floor);
            }
            context.block.words[index] = word;
            address = stop;
        }
    }
    true
}

/// The usual case, decided and recorded quickly: whole words, all that was done to them before ordered before. False:
/// nothing is recorded, the words must be looked at one by one.
#[inline(always)]
fn plain(
    words: &mut [Word],
    request: &Request<'_>,
    lane: usize,
    touch: Touch,
    floor: u64,
    asynchronous: bool,
) -> bool {
    const STATE: u64 = 15 << EVER | 15 << FLIGHT | 15 << VALID;
    let address = request.addresses[lane];
    if request.bytes < 4 || request.mode == Mode::Atomic {
        return false;
    }
    let range = address as usize / 4..(address + request.bytes) as usize / 4;
    let Some(words) = words.get_mut(range) else { return false };
    if request.mode == Mode::Read {
        let good =
            |word: &Word| (word.write & STATE == 15 << EVER | 15 << VALID) & (word.write >> CLOCK <= floor);
        if !words.iter().fold(true, |all, word| all & good(word)) {
            return false;
        }
        for word in words {
            read(word, touch, floor);
        }
    } else {
        let good = |word: &Word| {
            (word.write & (15 << FLIGHT | 15 << VALID | READERS_MASK) == 15 << VALID)
                & (word.write >> CLOCK <= floor)
                & (word.read >> CLOCK <= floor)
        };
        if !words.iter().fold(true, |all, word| all & good(word)) {
            return false;
        }
        for word in words {
            write(word, touch, asynchronous);
        }
    }
    true
}

/// The written bytes are in memory already, or an earlier lane of the same instruction writes them too (then `clash`
/// decides).
fn harmless(context: &Context<'_>, request: &Request<'_>, lane: usize, from: u64, to: u64) -> bool {
    let Some(data) = request.data else { return false };
    let same = (from..to).all(|address| {
        context.block.shared()[address as usize] == data(lane, (address - request.addresses[lane]) as usize)
    });
    same || lanes(request.mask).take_while(|other| *other < lane).any(|other| {
        let start = request.addresses[other];
        start < to && from < start + request.bytes
    })
}

/// Two lanes of one store write different values to one place: which of them stays is undefined.
fn clash(context: &mut Context<'_>, request: &Request<'_>, lane: usize, from: u64, to: u64) -> bool {
    let Some(data) = request.data else { return false };
    if from != request.addresses[lane] && request.bytes <= 4 {
        return false;
    }
    // Most stores give every lane its own place; the cheap test is the neighbour below.
    if lane == 0 || request.addresses[lane] == request.addresses[lane - 1].wrapping_add(request.bytes) {
        return false;
    }
    for other in lanes(request.mask).take_while(|other| *other < lane) {
        let start = request.addresses[other];
        for address in from.max(start)..to.min(start + request.bytes) {
            if data(lane, (address - request.addresses[lane]) as usize)
                != data(other, (address - start) as usize)
            {
                let detail = format!(
                    "lanes {other} and {lane} write different values to shared address {address:#x} in one instruction"
                );
                context.fail(Kind::SharedRace, lane as u32, detail);
                return true;
            }
        }
    }
    false
}

fn variable(context: &Context<'_>, address: u64) -> String {
    let inside = |&&(start, size): &&(u32, u32)| {
        address >= u64::from(start) && address < u64::from(start) + u64::from(size)
    };
    match context.block.variables.iter().find(inside) {
        Some((start, size)) => {
            format!("byte {} of a shared variable of {size} bytes", address - u64::from(*start))
        }
        None => "outside the block's shared variables".to_owned(),
    }
}

fn outside(context: &mut Context<'_>, request: &Request<'_>, lane: u32) {
    let address = request.addresses[lane as usize];
    let before = context.block.variables.iter().filter(|(start, _)| u64::from(*start) <= address).max();
    let place = match before {
        Some((start, size)) => {
            let past = address.saturating_sub(u64::from(*start) + u64::from(*size));
            format!("{past} bytes past the end of a shared variable of {size} bytes")
        }
        None => "outside the block's shared variables".to_owned(),
    };
    let detail = format!("{} bytes at shared address {address:#x}: {place}", request.bytes);
    context.fail(Kind::OutOfBounds, lane, detail);
}

fn race(context: &mut Context<'_>, mode: Mode, lane: usize, address: u64, word: Word) {
    let touch = Touch { lane: lane as u64, warp: context.warp as u64, clock: 0, bytes: 15, strong: false };
    let verb = if mode == Mode::Read { "reads" } else { "writes" };
    let other = if after_write(context, word, touch) {
        let warps: Vec<usize> = lanes(word.read as u32).collect();
        format!("warps {warps:?} read it")
    } else {
        format!("warp {} lane {} wrote it", word.write >> 39 & 31, word.write >> 34 & 31)
    };
    let detail = format!(
        "{verb} shared address {address:#x} ({}); {other}, with no barrier between",
        variable(context, address)
    );
    context.fail(Kind::SharedRace, lane as u32, detail);
}

/// Asynchronous copies have landed: the bytes count as written now, by the lane that waited.
pub fn landed(context: &mut Context<'_>, lane: usize, address: u64, bytes: u64) {
    let clock = u64::from(context.block.clocks.epoch(context.warp));
    for index in address / 4..(address + bytes).div_ceil(4) {
        let Some(word) = context.block.words.get_mut(index as usize) else { return };
        let flying = word.nibble(FLIGHT);
        word.write &= !(15 << FLIGHT);
        let (warp, lane) = (context.warp as u64, lane as u64);
        write(word, Touch { lane, warp, clock, bytes: flying, strong: false }, false);
    }
}

/// `ldmatrix` and `stmatrix` touch rows that other lanes gave: the record must not take them for the lane's own.
pub fn by_whole_warp(context: &mut Context<'_>, address: u64, bytes: u64, mode: Mode) {
    for index in address / 4..(address + bytes).div_ceil(4) {
        if let Some(word) = context.block.words.get_mut(index as usize) {
            match mode {
                Mode::Read => word.read |= READ_MANY,
                _ => word.write |= MANY,
            }
        }
    }
}
