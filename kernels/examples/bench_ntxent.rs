//! NT-Xent of 8192 pairs, forward and backward: time, arithmetic rate and extra memory at the peak.
//!
//! `cargo run --release -p kernels --example bench_ntxent [PAIRS [D]]`

use engine::memory;
use kernels::ntxent::cases::{Case, Values, positive};
use kernels::ntxent::{backward, forward};
use std::time::Instant;

/// Bytes in a MiB.
const MIB: f64 = 1048576.0;

fn main() -> engine::Result<()> {
    let argument = |i: usize, default: usize| {
        std::env::args().nth(i).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (pairs, d) = (argument(1, 8192), argument(2, 128));
    let case = Case::simclr(pairs, d, 0.1, Values::Unit);
    let data = case.data();
    let (z, of) = (data.rows.to_tensor()?, data.positive_tensor()?);
    let dloss = data.dloss.to_tensor()?;
    let threads = rayon::current_num_threads();
    println!("R = C = {}, D = {d}, {threads} threads", case.r);
    let product = case.product_flops();
    for round in 0..3 {
        let live = memory::stats().live;
        memory::reset_peak();
        let start = Instant::now();
        let (loss, lse) = forward(&z, &z, positive(&of), case.spec)?;
        let forward_time = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let gradients = backward(&dloss, &z, &z, positive(&of), case.spec, &lse, true)?;
        let backward_time = start.elapsed().as_secs_f64();
        let extra = (memory::stats().peak - live) as f64 / MIB;
        let outputs = (loss.len() + lse.len() + 2 * gradients.drows.len()) as f64 * 4.0 / MIB;
        println!(
            "round {round}: forward {forward_time:.3} s ({:.0} GFLOP/s), backward {backward_time:.3} s ({:.0} \
             GFLOP/s), together {:.3} s, extra memory {extra:.1} MiB of which results {outputs:.1} MiB",
            product / forward_time / 1e9,
            3.0 * product / backward_time / 1e9,
            forward_time + backward_time
        );
    }
    Ok(())
}
