//! mbarriers by themselves.

use super::run::{Device, orders, plain};
use emulator::exec::Options;

const SOURCE: &str = include_str!("barriers.cu");

#[test]
fn phases_count_arrivals_and_bytes() {
    let device = Device::new(SOURCE, "barriers.cu", &[]);
    let out = device.upload(&[0xFF; 40]);
    let outcome = device.launch("phases", [1, 1, 1, 0], &[out], &plain());
    assert!(outcome.report.is_none(), "{}", outcome.report.unwrap());
    assert_eq!(device.download_words(out, 10), [1, 0, 0, 1, 0, 1, 0, 1, 1, 0]);
}

/// A waiting warp lets the others run: in order, each warp waits for the one before it; in any order, too.
#[test]
fn warps_wait_for_each_other_in_every_order() {
    for options in orders() {
        let device = Device::new(SOURCE, "barriers.cu", &[]);
        let out = device.upload(&[0xFF; 128]);
        let outcome = device.launch("chain", [1, 1, 128, 0], &[out], &options);
        assert!(outcome.report.is_none(), "seed {:?}: {}", options.seed, outcome.report.unwrap());
        assert_eq!(device.download_words(out, 32), [7; 32]);
    }
    // The last warp first, which then has to wait for all others.
    let source = SOURCE.replace("warp = threadIdx.x / 32,", "warp = 3 - threadIdx.x / 32,");
    let device = Device::new(&source, "barriers.cu", &[]);
    let out = device.upload(&[0xFF; 128]);
    let outcome = device.launch("chain", [1, 1, 128, 0], &[out], &Options { workers: 1, ..plain() });
    assert!(outcome.report.is_none(), "{}", outcome.report.unwrap());
    assert_eq!(device.download_words(out, 32), [7; 32]);
    assert!(outcome.counters.warp_instructions < 1000, "{} instructions", outcome.counters.warp_instructions);
}
