//! Damaged PTX all the way: text that a compiler wrote, changed at random, is loaded and launched. It may be refused, it may
//! be reported, it may even run; it must not crash the process or hang.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use emulator::exec::{Image, Launch, Options, launch};
use emulator::memory::DeviceMemory;
use std::sync::Arc;

const TEXTS: [(&str, &str); 4] = [
    ("tma", include_str!("ptx/tma.ptx")),
    ("gemm", include_str!("ptx/gemm.ptx")),
    ("sine", include_str!("ptx/sine.ptx")),
    ("softmax", include_str!("ptx/softmax.ptx")),
];

/// Changes of each text.
const CHANGES: u64 = 1500;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

/// The text with one to three words exchanged, doubled, dropped, or replaced by one that is often trouble.
fn damaged(text: &str, seed: u64) -> String {
    let mut random = Random(seed);
    let mut words: Vec<&str> = text.split_inclusive([' ', '\t', '\n', ',']).collect();
    for _ in 0..=random.below(3) {
        let (at, from) = (random.below(words.len()), random.below(words.len()));
        const TROUBLE: [&str; 8] = ["_", "!%p1", "-1", "0", "{%r1, _}", "[%rd1]", "%rd1", "%p1|%p2"];
        match random.below(5) {
            0 => words.swap(at, from),
            1 => words[at] = words[from],
            2 => words.insert(at, words[from]),
            3 => drop(words.remove(at)),
            _ => words[at] = TROUBLE[random.below(TROUBLE.len())],
        }
    }
    words.concat()
}

#[test]
fn damaged_text_is_refused_or_runs_to_an_end() {
    let memory = Arc::new(DeviceMemory::new(64 << 20).unwrap());
    let buffer = memory.allocate(1 << 16).unwrap();
    memory.fill(buffer, &[0], 1 << 16).unwrap();
    let (mut refused, mut reported, mut ran) = (0, 0, 0);
    for (name, text) in TEXTS {
        if let Err(error) = Image::load(text, &memory) {
            panic!("{name}: {error}");
        }
        for seed in 0..CHANGES {
            let image = match Image::load(&damaged(text, seed), &memory) {
                Ok(image) => image,
                Err(error) => {
                    assert!(!error.detail.is_empty(), "{name}, seed {seed}");
                    refused += 1;
                    continue;
                }
            };
            for kernel in image.kernels() {
                // Pointers and small numbers alike: the buffer's address wherever 8 bytes fit.
                let mut parameters = vec![3u8; kernel.parameter_bytes()];
                for (offset, size) in kernel.parameters() {
                    if *size == 8 {
                        parameters[*offset..offset + 8].copy_from_slice(&buffer.to_le_bytes());
                    }
                }
                let (grid, block) = ([2, 1, 1], [64.min(kernel.max_threads()), 1, 1]);
                let request = Launch { kernel, grid, block, dynamic_shared: 1024, parameters: &parameters };
                let options = Options { workers: 1, instruction_limit: 20_000, ..Options::default() };
                match launch(&memory, &request, &options).report {
                    Some(report) => {
                        assert!(!report.detail.is_empty(), "{name}, seed {seed}");
                        reported += 1;
                    }
                    None => ran += 1,
                }
            }
        }
    }
    assert!(
        refused > 500 && reported > 100 && ran > 100,
        "{refused} refused, {reported} reported, {ran} ran"
    );
}
