//! How many blocks of a kernel a multiprocessor holds: threads, registers, shared memory, block slots, as the CUDA
//! occupancy calculator counts them for compute capability 8.0 and 9.0.

use super::device::{
    BLOCKS_OF_MULTIPROCESSOR, MAX_THREADS, Model, REGISTERS, SHARED_RESERVED, THREADS_OF_MULTIPROCESSOR, WARP,
};
use super::error::{CUDA_ERROR_INVALID_VALUE, Cuda};
use super::session::{Session, in_context, put};
use super::{CUresult, Handle};
use crate::exec::Kernel;

/// Registers are given to warps in pieces of this size.
const REGISTER_UNIT: u32 = 256;
/// Warps are spread over this many schedulers, each with its part of the registers.
const SCHEDULERS: u32 = 4;
/// Shared memory is given to blocks in pieces of this size.
const SHARED_UNIT: u32 = 128;

/// What one block takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// Threads of the block.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Shared memory, static and dynamic, in bytes.
    pub shared: u32,
}

impl Need {
    /// What a block of a kernel takes.
    pub(super) fn of(kernel: &Kernel, threads: u32, dynamic: u32) -> Need {
        let shared = kernel.static_shared_bytes().saturating_add(dynamic);
        Need { threads, registers: registers(kernel), shared }
    }
}

/// A kernel's registers: the emulator's estimate, but no more than let its largest block start, as ptxas keeps it.
pub(super) fn registers(kernel: &Kernel) -> u32 {
    let warps = kernel.max_threads().clamp(1, MAX_THREADS).div_ceil(WARP).next_multiple_of(SCHEDULERS);
    let most = REGISTERS / (warps * WARP) / 8 * 8;
    kernel.registers().clamp(1, 255).min(most)
}

/// Blocks that a multiprocessor holds at once; 0 where one block does not fit.
pub fn blocks(model: &Model, need: Need) -> u32 {
    if need.threads == 0 || need.threads > MAX_THREADS || need.shared > model.shared_of_block {
        return 0;
    }
    let warps = need.threads.div_ceil(WARP);
    let by_threads = THREADS_OF_MULTIPROCESSOR / WARP / warps;
    let of_warp = (need.registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
    if of_warp * warps.next_multiple_of(SCHEDULERS) > REGISTERS {
        return 0;
    }
    let by_registers = REGISTERS / SCHEDULERS / of_warp * SCHEDULERS / warps;
    let shared = need.shared.next_multiple_of(SHARED_UNIT) + SHARED_RESERVED;
    let by_shared = model.shared_of_multiprocessor / shared;
    by_threads.min(by_registers).min(by_shared).min(BLOCKS_OF_MULTIPROCESSOR)
}

fn active(session: &Session, function: Handle, threads: i32, dynamic: usize) -> Cuda<u32> {
    let found = session.functions.get(function)?;
    let threads =
        u32::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if threads > found.kernel.max_threads() {
        return Ok(0);
    }
    let dynamic = u32::try_from(dynamic).unwrap_or(u32::MAX);
    Ok(blocks(&session.model(), Need::of(&found.kernel, threads, dynamic)))
}

/// Blocks of a kernel that a multiprocessor holds at once.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    count: Option<&mut i32>,
    function: Handle,
    threads: i32,
    dynamic: usize,
) -> CUresult {
    in_context(|session, _| put(count, active(&session, function, threads, dynamic)? as i32))
}

/// Blocks of a kernel that a multiprocessor holds at once. The flag, about caches, changes nothing.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    count: Option<&mut i32>,
    function: Handle,
    threads: i32,
    dynamic: usize,
    flags: u32,
) -> CUresult {
    in_context(|session, _| {
        if flags > 1 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        put(count, active(&session, function, threads, dynamic)? as i32)
    })
}

/// Dynamic shared memory that each of some blocks on a multiprocessor can have.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: Option<&mut usize>,
    function: Handle,
    count: i32,
    threads: i32,
) -> CUresult {
    in_context(|session, _| {
        let count = u32::try_from(count).ok().filter(|count| *count > 0).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if count > active(&session, function, threads, 0)? {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let model = session.model();
        let part = model.shared_of_multiprocessor / count / SHARED_UNIT * SHARED_UNIT;
        let usable = part.saturating_sub(SHARED_RESERVED).min(model.shared_of_block);
        let own = session.functions.get(function)?.kernel.static_shared_bytes();
        put(bytes, usable.saturating_sub(own) as usize)
    })
}

/// The callback that says how much dynamic shared memory a block of so many threads takes.
pub type SharedOfBlock = unsafe extern "C" fn(i32) -> usize;

/// The block size that keeps most threads on a multiprocessor, and the grid that fills the device with it.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: Option<&mut i32>,
    block: Option<&mut i32>,
    function: Handle,
    shared_of_block: Option<SharedOfBlock>,
    dynamic: usize,
    limit: i32,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe {
        cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, function, shared_of_block, dynamic, limit, 0)
    }
}

/// The block size that keeps most threads on a multiprocessor. The flag, about caches, changes nothing.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: Option<&mut i32>,
    block: Option<&mut i32>,
    function: Handle,
    shared_of_block: Option<SharedOfBlock>,
    dynamic: usize,
    limit: i32,
    flags: u32,
) -> CUresult {
    in_context(|session, _| {
        if flags > 1 || limit < 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let model = session.model();
        let kernel = session.functions.get(function)?.kernel.clone();
        let most = kernel.max_threads().min(MAX_THREADS);
        let most = if limit == 0 { most } else { most.min(limit as u32) };
        let (mut best, mut best_blocks) = (0, 0);
        let mut session = session;
        for size in (1..=most.div_ceil(WARP)).rev() {
            let threads = (size * WARP).min(most);
            let mut shared = dynamic;
            if let Some(function) = shared_of_block {
                // SAFETY: the program gave the function to be called with block sizes.
                session = session.call_back(|| shared = unsafe { function(threads as i32) });
            }
            let shared = u32::try_from(shared).unwrap_or(u32::MAX);
            let count = blocks(&model, Need::of(&kernel, threads, shared));
            if count * threads > best * best_blocks {
                (best, best_blocks) = (threads, count);
            }
            if best * best_blocks == THREADS_OF_MULTIPROCESSOR {
                break;
            }
        }
        put(grid, (best_blocks * model.multiprocessors) as i32)?;
        put(block, best as i32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of NVIDIA's occupancy calculator for compute capability 9.0 and 8.0.
    #[test]
    fn agrees_with_the_occupancy_calculator() {
        let (hopper, ampere) = (Model::of(90), Model::of(80));
        let of = |model, threads, registers, shared| blocks(model, Need { threads, registers, shared });
        assert_eq!(of(&hopper, 256, 32, 0), 8, "threads");
        assert_eq!(of(&hopper, 32, 16, 0), 32, "block slots");
        assert_eq!(of(&hopper, 128, 255, 0), 2, "registers: 8,192 a warp, two warps for each scheduler");
        assert_eq!(of(&hopper, 256, 40, 0), 6, "registers: 1,280 a warp, twelve warps for each scheduler");
        assert_eq!(of(&hopper, 1024, 65, 0), 0, "a block's registers");
        assert_eq!(of(&hopper, 128, 32, 227 << 10), 1);
        assert_eq!(of(&hopper, 128, 32, 113 << 10), 2, "228 KiB hold two times 113 + 1");
        assert_eq!(of(&hopper, 128, 32, (113 << 10) + 1), 1);
        assert_eq!(of(&hopper, 128, 32, (227 << 10) + 1), 0);
        assert_eq!(of(&ampere, 128, 32, 163 << 10), 1);
        assert_eq!(of(&ampere, 128, 32, (163 << 10) + 1), 0);
        assert_eq!(of(&hopper, 0, 32, 0), 0);
        assert_eq!(of(&hopper, 1025, 32, 0), 0);
    }
}
