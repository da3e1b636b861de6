//! What a kernel could take of a device at best: how many warps fit, and how long an H100 needs for what was counted.

use engine::cuda::profile::Counters;

/// Bytes of shared memory of a multiprocessor of an A100.
pub const A100: u32 = 164 * 1024;
/// Bytes of shared memory of a multiprocessor of an H100.
pub const H100: u32 = 228 * 1024;

/// What a block takes.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Registers of a thread.
    pub registers: u32,
    /// Threads of the block.
    pub threads: u32,
    /// Bytes of shared memory.
    pub shared: u32,
}

impl Usage {
    /// Warps that a multiprocessor with `shared` bytes of shared memory holds, of 64.
    pub fn occupancy(&self, shared: u32) -> f64 {
        const REGISTERS: u32 = 65_536;
        const WARPS: u32 = 64;
        const BLOCKS: u32 = 32;
        // Registers are handed out by 256 a warp; the driver keeps a kilobyte of shared memory a block.
        let warps = self.threads.div_ceil(32).max(1);
        let of_a_warp = (self.registers * 32).next_multiple_of(256).max(256);
        let by_registers = REGISTERS / of_a_warp / warps;
        let by_shared = shared / (self.shared + 1024);
        let blocks = by_registers.min(by_shared).min(WARPS / warps).min(BLOCKS);
        f64::from(blocks * warps) / f64::from(WARPS)
    }
}

/// The time that a launch needs at least, and for what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// In seconds.
    pub seconds: f64,
    /// What takes that long.
    pub resource: &'static str,
}

/// For an H100 (SXM): the longest of what each of its parts needs for what a launch of `blocks` blocks did, whose products are
/// those of warps or `of_warpgroups`.
pub fn predict(counters: &Counters, blocks: u32, of_warpgroups: bool) -> Prediction {
    /// Bytes a second that memory reaches.
    const MEMORY: f64 = 3.0e12;
    /// Multiprocessors, and cycles a second.
    const PROCESSORS: u32 = 132;
    const CLOCK: f64 = 1.83e9;
    /// Operations a cycle of a multiprocessor's tensor cores, and what mma.sync and wgmma reach of them.
    const TENSOR: f64 = 4096.0;
    const REACHED: [f64; 2] = [0.63, 0.95];
    /// Operations of an mma.sync m16n8k16; m16n8k8 of tf32 takes as long.
    const MMA: f64 = 4096.0;
    let cycles = f64::from(PROCESSORS.min(blocks).max(1)) * CLOCK;
    let parts = [
        ("memory", counters.unique_half_line_bytes() as f64 / MEMORY),
        (
            "tensor cores",
            counters.tensor as f64 * MMA / (TENSOR * REACHED[usize::from(of_warpgroups)]) / cycles,
        ),
        ("shared memory", counters.shared_waves as f64 / cycles),
        ("issue", counters.warp_instructions as f64 / 4.0 / cycles),
        ("special functions", 32.0 * counters.special as f64 / 16.0 / cycles),
    ];
    let longest = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("memory", 0.0));
    Prediction { seconds: longest.1, resource: longest.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_as_the_occupancy_calculator_says() {
        let of = |registers, threads, shared| Usage { registers, threads, shared }.occupancy(H100);
        assert_eq!(of(32, 256, 0), 1.0);
        assert_eq!(of(40, 256, 0), 0.75);
        assert_eq!(of(255, 256, 0), 0.125);
        assert_eq!(of(33, 256, 0), 0.75);
        assert_eq!(of(16, 32, 0), 0.5);
        assert_eq!(of(32, 128, 98_816), 0.125);
        assert_eq!(Usage { registers: 32, threads: 128, shared: 98_816 }.occupancy(A100), 0.0625);
    }

    #[test]
    fn the_longest_part_is_the_bound() {
        let copy =
            Counters { unique_half_lines_read: 3_000_000, warp_instructions: 1000, ..Counters::default() };
        assert_eq!(predict(&copy, 1000, false), Prediction { seconds: 64e-6, resource: "memory" });
        let product = Counters { tensor: 1_000_000, shared_waves: 100, ..copy };
        let found = predict(&product, 132, false);
        assert_eq!(found.resource, "memory");
        // Half of the multiprocessors need twice as long.
        let [half, tenth] = [66, 13].map(|blocks| predict(&product, blocks, false));
        assert_eq!(tenth.resource, "tensor cores");
        assert!(half.seconds <= tenth.seconds);
        assert_eq!(predict(&Counters::default(), 0, true).seconds, 0.0);
    }
}
