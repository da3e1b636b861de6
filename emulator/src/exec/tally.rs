//! What a worker counts while it runs blocks; workers' tallies add up to a launch's [`Counters`].

use super::global::Mode;
use crate::counters::{Counters, Instructions};
use crate::program::{Class, Program};
use std::collections::HashMap;

const PAGE: u64 = 4096;
const WORDS: usize = PAGE as usize / 64;

/// A set of bytes of global memory, as bits by page.
#[derive(Debug)]
struct Coverage {
    index: HashMap<u64, usize>,
    pages: Vec<[u64; WORDS]>,
    last: (u64, usize),
}

impl Coverage {
    fn new() -> Coverage {
        Coverage { index: HashMap::new(), pages: Vec::new(), last: (u64::MAX, 0) }
    }

    #[inline(always)]
    fn page(&mut self, number: u64) -> &mut [u64; WORDS] {
        if self.last.0 != number {
            let pages = &mut self.pages;
            let at = *self.index.entry(number).or_insert_with(|| {
                pages.push([0; WORDS]);
                pages.len() - 1
            });
            self.last = (number, at);
        }
        &mut self.pages[self.last.1]
    }

    fn insert(&mut self, half_line: u64, bytes: u64) {
        self.page(half_line / WORDS as u64)[half_line as usize % WORDS] |= bytes;
    }

    fn merge(&mut self, other: &Coverage) {
        for (&number, &at) in &other.index {
            for (mine, theirs) in self.page(number).iter_mut().zip(&other.pages[at]) {
                *mine |= theirs;
            }
        }
    }

    /// Half-lines with any byte in the set: a word is one.
    fn half_lines(&self) -> u64 {
        self.pages.iter().flatten().filter(|word| **word != 0).count() as u64
    }

    fn bytes(&self) -> u64 {
        self.pages.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Counts of one worker.
#[derive(Debug)]
pub struct Tally {
    /// Times each instruction ran (with at least one lane).
    pub warps: Vec<u64>,
    /// Lanes that ran it.
    pub lanes: Vec<u64>,
    /// All the rest; `instructions` is filled in at the end.
    pub counters: Counters,
    read: Coverage,
    written: Coverage,
}

impl Tally {
    /// Counts for a program of `instructions` instructions.
    pub fn new(instructions: usize) -> Tally {
        let (warps, lanes) = (vec![0; instructions], vec![0; instructions]);
        Tally { warps, lanes, counters: Counters::default(), read: Coverage::new(), written: Coverage::new() }
    }

    /// Counts a request to global memory of `lane_bytes` a lane.
    pub fn request(&mut self, touched: &Touched, mode: Mode, lane_bytes: u64) {
        let (sectors, half_lines, bytes) = touched.counts();
        let counters = &mut self.counters;
        if lane_bytes >= 16 {
            counters.global_wide_bytes += bytes;
        }
        if mode == Mode::Read {
            counters.global_load_requests += 1;
            counters.global_load_sectors += sectors;
            counters.global_load_half_lines += half_lines;
            counters.global_load_bytes += bytes;
        } else {
            counters.global_store_requests += 1;
            counters.global_store_sectors += sectors;
            counters.global_store_half_lines += half_lines;
            counters.global_store_bytes += bytes;
        }
        for &(half_line, bytes) in touched.half_lines() {
            if mode != Mode::Write {
                self.read.insert(half_line, bytes);
            }
            if mode != Mode::Read {
                self.written.insert(half_line, bytes);
            }
        }
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &Tally) {
        for (mine, theirs) in [(&mut self.warps, &other.warps), (&mut self.lanes, &other.lanes)] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
        self.read.merge(&other.read);
        self.written.merge(&other.written);
        let (a, b) = (&mut self.counters, &other.counters);
        a.global_load_requests += b.global_load_requests;
        a.global_load_sectors += b.global_load_sectors;
        a.global_load_half_lines += b.global_load_half_lines;
        a.global_load_bytes += b.global_load_bytes;
        a.global_store_requests += b.global_store_requests;
        a.global_store_sectors += b.global_store_sectors;
        a.global_store_half_lines += b.global_store_half_lines;
        a.global_store_bytes += b.global_store_bytes;
        a.global_wide_bytes += b.global_wide_bytes;
        a.shared_requests += b.shared_requests;
        a.shared_waves += b.shared_waves;
        a.shared_waves_minimum += b.shared_waves_minimum;
        a.divergent_branches += b.divergent_branches;
        a.barriers += b.barriers;
    }

    /// The launch's counters.
    pub fn finish(&self, program: &Program) -> Counters {
        let mut counters = self.counters;
        counters.warp_instructions = self.warps.iter().sum();
        counters.thread_instructions = self.lanes.iter().sum();
        counters.unique_bytes_read = self.read.bytes();
        counters.unique_bytes_written = self.written.bytes();
        counters.unique_half_lines_read = self.read.half_lines();
        counters.unique_half_lines_written = self.written.half_lines();
        let mut classes = Instructions::default();
        for (instruction, count) in program.code.iter().zip(&self.warps) {
            let place = match instruction.class {
                Class::Integer => &mut classes.integer,
                Class::Float => &mut classes.float,
                Class::Half => &mut classes.half,
                Class::Special => &mut classes.special,
                Class::Tensor => &mut classes.tensor,
                Class::Warpgroup => {
                    classes.tensor += count * program.wgmmas[instruction.word as usize].n as u64 / 8;
                    continue;
                }
                Class::Global => &mut classes.global,
                Class::Shared => &mut classes.shared,
                Class::Local => &mut classes.local,
                Class::Constant => &mut classes.constant,
                Class::Warp => &mut classes.warp,
                Class::Barrier => &mut classes.barrier,
                Class::Control => &mut classes.control,
            };
            *place += count;
        }
        counters.instructions = classes;
        counters
    }
}

/// What a request to global memory touches: half-lines of 64 bytes, each once, and the bytes of each as bits.
pub struct Touched {
    half_lines: [(u64, u64); 64],
    count: usize,
}

impl Touched {
    /// By the accesses `[address, address + bytes)` of the lanes of `mask`; a lane has at most 32 bytes.
    pub fn by_lanes(addresses: &[u64; 32], mask: u32, bytes: u64) -> Touched {
        let mut touched = Touched { half_lines: [(0, 0); 64], count: 0 };
        for lane in super::context::lanes(mask) {
            touched.access(addresses[lane], bytes, true);
        }
        touched
    }

    /// By one stretch of memory, at most 1 KiB.
    pub fn by_stretch(address: u64, bytes: u64) -> Touched {
        let mut touched = Touched { half_lines: [(0, 0); 64], count: 0 };
        touched.access(address, bytes, false);
        touched
    }

    /// Adds the bytes of one access; `find`: its half-lines may be known already.
    #[inline(always)]
    fn access(&mut self, mut address: u64, mut bytes: u64, find: bool) {
        while bytes > 0 {
            let (half_line, bit) = (address / 64, address % 64);
            let take = bytes.min(64 - bit);
            let mask = u64::MAX >> (64 - take) << bit;
            let known = &mut self.half_lines[..if find { self.count } else { 0 }];
            // Neighbouring lanes mostly share a half-line, so the newest are looked at first.
            match known.iter_mut().rev().find(|(other, _)| *other == half_line) {
                Some((_, bytes)) => *bytes |= mask,
                None => {
                    self.half_lines[self.count] = (half_line, mask);
                    self.count += 1;
                }
            }
            address += take;
            bytes -= take;
        }
    }

    fn half_lines(&self) -> &[(u64, u64)] {
        &self.half_lines[..self.count]
    }

    /// (sectors of 32 bytes, half-lines, bytes).
    fn counts(&self) -> (u64, u64, u64) {
        let (mut sectors, mut all) = (0, 0);
        for &(_, bytes) in self.half_lines() {
            sectors += u64::from(bytes as u32 != 0) + u64::from(bytes >> 32 != 0);
            all += u64::from(bytes.count_ones());
        }
        (sectors, self.count as u64, all)
    }
}

/// (waves, minimum waves) of a request to shared memory: 32 banks of 4 bytes. Lanes are served in turns of 32, 16 or 8
/// for 4 (or fewer), 8 and 16 bytes a lane; each turn takes as many waves as the fullest bank has different words.
pub fn shared_waves(addresses: &[u64; 32], mask: u32, bytes: u64) -> (u64, u64) {
    let turn = match bytes {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    };
    let (mut waves, mut minimum) = (0, 0);
    for first in (0..32).step_by(turn) {
        let part = mask & (u32::MAX >> (32 - turn) << first);
        if part == 0 {
            continue;
        }
        let mut words = [0u64; 64];
        let mut count = 0usize;
        let mut load = [0u8; 32];
        for lane in super::context::lanes(part) {
            for word in addresses[lane] / 4..=(addresses[lane] + bytes - 1) / 4 {
                if count < words.len() && !words[..count].iter().rev().any(|other| *other == word) {
                    words[count] = word;
                    count += 1;
                    load[(word % 32) as usize] += 1;
                }
            }
        }
        waves += u64::from(load.iter().copied().max().unwrap_or(0));
        minimum += (count as u64).div_ceil(32);
    }
    (waves, minimum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stride(step: u64) -> [u64; 32] {
        std::array::from_fn(|lane| 4096 + lane as u64 * step)
    }

    /// (sectors, half-lines, bytes) of a request.
    fn counts(addresses: [u64; 32], mask: u32, bytes: u64) -> (u64, u64, u64) {
        Touched::by_lanes(&addresses, mask, bytes).counts()
    }

    #[test]
    fn requests_use_their_sectors_wholly() {
        assert_eq!(counts(stride(16), u32::MAX, 16), (16, 8, 512));
        assert_eq!(counts(stride(8), u32::MAX, 8), (8, 4, 256));
        assert_eq!(counts(stride(4), u32::MAX, 4), (4, 2, 128));
        assert_eq!(counts(stride(2), u32::MAX, 2), (2, 1, 64));
        assert_eq!(counts(stride(1), u32::MAX, 1), (1, 1, 32));
        assert_eq!(counts(stride(64), u32::MAX, 32), (32, 32, 1024));
        // In any order of the lanes.
        let mut backwards = stride(16);
        backwards.reverse();
        assert_eq!(counts(backwards, u32::MAX, 16), (16, 8, 512));
    }

    #[test]
    fn requests_use_parts_of_their_sectors() {
        // Every second float; one float of each line; one float for all lanes; one lane alone.
        assert_eq!(counts(stride(8), u32::MAX, 4), (8, 4, 128));
        assert_eq!(counts(stride(128), u32::MAX, 4), (32, 32, 128));
        assert_eq!(counts(stride(0), u32::MAX, 4), (1, 1, 4));
        assert_eq!(counts(stride(4), 1, 4), (1, 1, 4));
        assert_eq!(counts(stride(4), 0, 4), (0, 0, 0));
        // Two lanes share each float; pairs of floats overlap by one.
        assert_eq!(counts(stride(4).map(|a| a & !4), u32::MAX, 4), (4, 2, 64));
        assert_eq!(counts(stride(4), u32::MAX, 8), (5, 3, 132));
    }

    #[test]
    fn misaligned_requests_touch_a_sector_more() {
        assert_eq!(counts(stride(4).map(|a| a + 4), u32::MAX, 4), (5, 3, 128));
        assert_eq!(counts(stride(4).map(|a| a + 32), u32::MAX, 4), (4, 3, 128));
        assert_eq!(counts(stride(2).map(|a| a + 2), u32::MAX, 2), (3, 2, 64));
        assert_eq!(counts(stride(16).map(|a| a + 16), u32::MAX, 16), (17, 9, 512));
        // A lane whose bytes lie on both sides of a half-line's end.
        assert_eq!(counts(stride(0).map(|a| a + 62), u32::MAX, 3), (2, 2, 3));
    }

    #[test]
    fn stretches_are_counted_as_their_lanes() {
        for bytes in [1, 2, 4, 8, 16] {
            for offset in 0..64 {
                let addresses = stride(bytes).map(|a| a + offset);
                let touched = Touched::by_stretch(addresses[0], 32 * bytes);
                assert_eq!(touched.counts(), counts(addresses, u32::MAX, bytes), "{bytes} at {offset}");
            }
        }
        assert_eq!(Touched::by_stretch(4097, 1024).counts(), (33, 17, 1024));
    }

    #[test]
    fn requests_add_up() {
        let mut tally = Tally::new(0);
        tally.request(&Touched::by_stretch(4096, 128), Mode::Read, 4);
        tally.request(&Touched::by_lanes(&stride(0), u32::MAX, 4), Mode::Read, 4);
        tally.request(&Touched::by_lanes(&stride(8), u32::MAX, 4), Mode::Write, 4);
        let mut other = Tally::new(0);
        other.request(&Touched::by_lanes(&stride(0), u32::MAX, 4), Mode::Atomic, 4);
        tally.merge(&other);
        let c = &tally.counters;
        assert_eq!((c.global_load_requests, c.global_load_sectors, c.global_load_bytes), (2, 5, 132));
        assert_eq!((c.global_store_requests, c.global_store_sectors, c.global_store_bytes), (2, 9, 132));
        assert_eq!((c.global_load_half_lines, c.global_store_half_lines), (3, 5));
        assert_eq!((tally.read.bytes(), tally.written.bytes()), (128, 128));
        assert_eq!(c.global_wide_bytes, 0);
    }

    #[test]
    fn wide_requests_are_counted_by_their_bytes() {
        let mut tally = Tally::new(0);
        tally.request(&Touched::by_lanes(&stride(16), u32::MAX, 16), Mode::Read, 16);
        tally.request(&Touched::by_lanes(&stride(8), u32::MAX, 8), Mode::Write, 8);
        let mut other = Tally::new(0);
        other.request(&Touched::by_lanes(&stride(16), 3, 16), Mode::Write, 16);
        tally.merge(&other);
        let c = &tally.counters;
        assert_eq!((c.global_wide_bytes, c.global_load_bytes + c.global_store_bytes), (544, 800));
    }

    #[test]
    fn bank_conflicts_of_usual_requests() {
        assert_eq!(shared_waves(&stride(4), u32::MAX, 4), (1, 1));
        assert_eq!(shared_waves(&stride(0), u32::MAX, 4), (1, 1));
        assert_eq!(shared_waves(&stride(128), u32::MAX, 4), (32, 1));
        assert_eq!(shared_waves(&stride(132), u32::MAX, 4), (1, 1));
        assert_eq!(shared_waves(&stride(16), u32::MAX, 16), (4, 4));
        assert_eq!(shared_waves(&stride(8), u32::MAX, 8), (2, 2));
        assert_eq!(shared_waves(&stride(8), u32::MAX, 4), (2, 1));
    }

    #[test]
    fn coverage_counts_each_byte_once() {
        let read = |tally: &mut Tally, address, bytes| {
            tally.request(&Touched::by_stretch(address, bytes), Mode::Read, 1);
        };
        let mut tally = Tally::new(0);
        read(&mut tally, 4090, 20);
        read(&mut tally, 4095, 2);
        read(&mut tally, 8000, 64);
        let mut other = Tally::new(0);
        read(&mut other, 4100, 20);
        tally.merge(&other);
        assert_eq!(tally.read.bytes(), 30 + 64);
    }
}
