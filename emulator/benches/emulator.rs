//! How fast the emulator is: three kernels, with checks and without, on one thread and on two.
//!
//! `cargo bench -p emulator --bench emulator` prints a table of medians; `-- matmul` only the kernels of that name. Every result is verified after it was timed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a wrong result must not be timed")]

#[path = "../tests/support/mod.rs"]
mod support;

use emulator::exec::Options;
use std::time::Instant;
use support::{Case, Ready, benchmarks};

/// Timed launches a row of the table.
const LAUNCHES: usize = 7;

fn main() {
    println!("{:<44} {:>7} {:>7} {:>10} {:>22}", "kernel", "checks", "threads", "ms", "M thread instr. / s");
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted =
        |case: &Case| wanted.is_empty() || wanted.iter().any(|name| case.entry.contains(name.as_str()));
    for case in benchmarks().into_iter().filter(is_wanted) {
        for checks in [true, false] {
            for workers in [1, 2] {
                row(&case, checks, workers);
            }
        }
    }
}

/// Times a case and prints a row.
fn row(case: &Case, checks: bool, workers: usize) {
    // Counters are a matter of a run of its own: they cost time, and every run has the same.
    let counted = case.run(&Options { workers, ..Options::default() });
    let options = Options { checks, counters: false, workers, ..Options::default() };
    let ready = Ready::new(case);
    let mut times: Vec<f64> = (0..=LAUNCHES)
        .map(|_| {
            let start = Instant::now();
            let outcome = ready.launch(&options);
            let time = start.elapsed().as_secs_f64();
            assert!(outcome.report.is_none(), "{}: {:?}", case.name(), outcome.report);
            time
        })
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[LAUNCHES / 2];
    for (buffer, bytes) in case.buffers.iter().zip(ready.read()) {
        buffer
            .expected
            .check(&bytes)
            .unwrap_or_else(|wrong| panic!("{}: {}: {wrong}", case.name(), buffer.name));
    }
    let rate = counted.outcome.counters.thread_instructions as f64 / median / 1e6;
    let name = format!("{} {}", case.entry, case.shape);
    println!(
        "{name:<44} {:>7} {workers:>7} {:>10.2} {rate:>22.0}",
        if checks { "on" } else { "off" },
        median * 1e3
    );
}
