//! Threads that part and meet again: random programs whose threads must compute what each computes alone, and
//! synchronisation between threads that have gone different ways, right and wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "opcodes/device.rs"]
mod device;
#[path = "divergence/generate.rs"]
mod generate;
#[path = "divergence/program.rs"]
mod program;
#[path = "opcodes/random.rs"]
mod random;
#[path = "divergence/synchronisation.rs"]
mod synchronisation;
#[path = "divergence/wrong.rs"]
mod wrong;

use device::{Device, numbered, plain};
use emulator::exec::Options;
use program::Program;

const BLOCKS: [u32; 6] = [1, 31, 32, 33, 97, 256];

/// Runs a program in blocks of all sizes, in order and under two random schedules.
fn compare(program: &Program, name: &str) {
    let device = Device::new();
    let ptx = program.ptx();
    let image = device.load(&ptx);
    for block in BLOCKS {
        let grid = 2;
        let want: Vec<u32> = (0..grid * block)
            .map(|thread| program.interpret(thread, thread % block).unwrap_or(0xDEAD_BEEF))
            .collect();
        for seed in [None, Some(1), Some(u64::from(block) + 7)] {
            let out = device.upload_words(&vec![0xDEAD_BEEF; want.len()]);
            let options = Options { seed, ..plain() };
            let report = device.run(&image, "main", grid, block, &[out], &options);
            let about = format!("{name}, blocks of {block}, schedule {seed:?}");
            if let Some(report) = report {
                panic!("{about}: {report}\n{}", numbered(&ptx));
            }
            let got = device.download_words(out, want.len());
            if let Some(thread) = (0..want.len()).find(|&thread| got[thread] != want[thread]) {
                let (got, want) = (got[thread], want[thread]);
                panic!("{about}: thread {thread} gives {got:#x}, not {want:#x}\n{}", numbered(&ptx));
            }
            device.memory.free(out).unwrap();
        }
    }
}

#[test]
fn structured_programs() {
    for seed in 0..60 {
        compare(&generate::structured(seed), &format!("structured program {seed}"));
    }
}

#[test]
fn unstructured_programs() {
    for seed in 0..60 {
        compare(&generate::unstructured(seed), &format!("unstructured program {seed}"));
    }
}

/// Most threads of a program reach its end, and lanes of a warp get different results: the programs test something.
#[test]
fn programs_diverge() {
    for make in [generate::structured, generate::unstructured] {
        let (mut ended, mut exited, mut results) = (0, 0, std::collections::HashSet::new());
        for seed in 0..60 {
            let program = make(seed);
            for thread in 0..32 {
                match program.interpret(thread, thread) {
                    Some(value) => {
                        ended += 1;
                        results.insert((seed, value));
                    }
                    None => exited += 1,
                }
            }
        }
        assert!(ended > 900 && exited > 20, "{ended} threads end, {exited} exit");
        assert!(results.len() > 700, "{} different results", results.len());
    }
}
