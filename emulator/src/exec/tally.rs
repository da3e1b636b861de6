//! What a worker counts while it runs blocks; workers' tallies add up to a launch's [`Counters`].

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

    fn insert(&mut self, mut address: u64, mut bytes: u64) {
        while bytes > 0 {
            let bit = address % 64;
            let take = bytes.min(64 - bit);
            let mask = if take == 64 { u64::MAX } else { ((1u64 << take) - 1) << bit };
            self.page(address / PAGE)[(address % PAGE / 64) as usize] |= mask;
            address += take;
            bytes -= take;
        }
    }

    fn merge(&mut self, other: &Coverage) {
        for (&number, &at) in &other.index {
            for (mine, theirs) in self.page(number).iter_mut().zip(&other.pages[at]) {
                *mine |= theirs;
            }
        }
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

    /// Bytes of global memory that were read.
    pub fn read(&mut self, address: u64, bytes: u64) {
        self.read.insert(address, bytes);
    }

    /// Bytes of global memory that were written.
    pub fn write(&mut self, address: u64, bytes: u64) {
        self.written.insert(address, bytes);
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
        a.global_store_requests += b.global_store_requests;
        a.global_store_sectors += b.global_store_sectors;
        a.global_store_half_lines += b.global_store_half_lines;
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
        let mut classes = Instructions::default();
        for (instruction, count) in program.code.iter().zip(&self.warps) {
            let place = match instruction.class {
                Class::Integer => &mut classes.integer,
                Class::Float => &mut classes.float,
                Class::Half => &mut classes.half,
                Class::Special => &mut classes.special,
                Class::Tensor => &mut classes.tensor,
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

/// Distinct aligned pieces of `1 << shift` bytes that the accesses `[address, address + bytes)` of a request touch.
pub fn pieces(addresses: &[u64; 32], mask: u32, bytes: u64, shift: u32) -> u64 {
    let mut seen = [u64::MAX; 64];
    let mut count = 0usize;
    for lane in super::context::lanes(mask) {
        let first = addresses[lane] >> shift;
        let last = (addresses[lane] + bytes - 1) >> shift;
        for piece in first..=last {
            // Neighbouring lanes mostly share a piece, so the newest entries are looked at first.
            if !seen[..count].iter().rev().any(|other| *other == piece) {
                seen[count] = piece;
                count += 1;
            }
        }
    }
    count as u64
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

    #[test]
    fn sectors_of_usual_requests() {
        assert_eq!(pieces(&stride(4), u32::MAX, 4, 5), 4);
        assert_eq!(pieces(&stride(16), u32::MAX, 16, 5), 16);
        assert_eq!(pieces(&stride(128), u32::MAX, 4, 5), 32);
        assert_eq!(pieces(&stride(0), u32::MAX, 4, 5), 1);
        assert_eq!(pieces(&stride(4), 1, 4, 5), 1);
        assert_eq!(pieces(&stride(4).map(|a| a + 4), u32::MAX, 4, 6), 3);
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
        let mut tally = Tally::new(0);
        tally.read(4090, 20);
        tally.read(4095, 2);
        tally.read(8000, 64);
        let mut other = Tally::new(0);
        other.read(4100, 20);
        tally.merge(&other);
        assert_eq!(tally.read.bytes(), 30 + 64);
    }
}
