//! What a launch cost, as numbers that do not depend on the machine it ran on. They are costs, not speed.

/// Warp instructions by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Instructions {
    /// Integer and logic, moves, conversions, comparisons, selections.
    pub integer: u64,
    /// float32 and float64 arithmetic.
    pub float: u64,
    /// f16 and bf16 arithmetic.
    pub half: u64,
    /// `ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`, `sin`, `cos`, `tanh`: the special function unit.
    pub special: u64,
    /// `mma`; a `wgmma` as so many of m16n8k16 as it stands for.
    pub tensor: u64,
    /// Loads, stores and atomics on global memory, `cp.async` included.
    pub global: u64,
    /// Loads, stores and atomics on shared memory, `ldmatrix` and `stmatrix` included.
    pub shared: u64,
    /// Loads and stores on local memory.
    pub local: u64,
    /// Loads from parameters and constant memory.
    pub constant: u64,
    /// Shuffles, votes, matches, warp reductions.
    pub warp: u64,
    /// Barriers and fences.
    pub barrier: u64,
    /// Branches, calls, returns.
    pub control: u64,
}

/// What one launch cost. The same launch gives the same counters on any machine and any number of threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Warp instructions by class.
    pub instructions: Instructions,
    /// Thread instructions (the sum over warp instructions of active lanes).
    pub thread_instructions: u64,
    /// Warp instructions in all.
    pub warp_instructions: u64,
    /// Global load requests (warp instructions with at least one active lane).
    pub global_load_requests: u64,
    /// 32-byte sectors that those requests touch.
    pub global_load_sectors: u64,
    /// 64-byte half-lines that those requests touch.
    pub global_load_half_lines: u64,
    /// Different bytes that each of those requests touches, summed over requests: lanes that overlap count once.
    pub global_load_bytes: u64,
    /// Global store requests, atomics included.
    pub global_store_requests: u64,
    /// 32-byte sectors that those requests touch.
    pub global_store_sectors: u64,
    /// 64-byte half-lines that those requests touch.
    pub global_store_half_lines: u64,
    /// Different bytes that each of those requests touches, summed over requests.
    pub global_store_bytes: u64,
    /// Of the bytes that load and store requests touch, those of requests whose lanes take 16 bytes each.
    pub global_wide_bytes: u64,
    /// Different bytes of global memory that the launch read.
    pub unique_bytes_read: u64,
    /// Different bytes of global memory that the launch wrote.
    pub unique_bytes_written: u64,
    /// Different half-lines (64 bytes) of global memory of which the launch read any byte: what a device with a perfect
    /// cache fetches.
    pub unique_half_lines_read: u64,
    /// Different half-lines of global memory of which the launch wrote any byte.
    pub unique_half_lines_written: u64,
    /// Shared memory requests.
    pub shared_requests: u64,
    /// Passes over the 32 banks that they need; equal to the minimum where there is no bank conflict.
    pub shared_waves: u64,
    /// Passes that they would need without any bank conflict.
    pub shared_waves_minimum: u64,
    /// Branches on which the active lanes of a warp took both ways.
    pub divergent_branches: u64,
    /// Block barriers (each counted once a block).
    pub barriers: u64,
}
