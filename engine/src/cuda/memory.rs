//! Device memory: a stream-ordered pool, an exact-size free list above it, statistics, and guarded blocks for tests.
//!
//! A block that is dropped waits in the free list while kernels that use it may still be queued: whoever gets it next
//! uses it on the same stream, behind them. After the first steps no memory comes from the driver. See
//! [`crate::memory`] for names of operations and guards, which hold here too.

mod capture;

pub(super) use capture::{Captured, begin_capture, capturing, end_capture, keep_for_capture, release_graph};

use super::context::{Context, explain, started};
use super::extension;
use crate::memory::{self as host, FENCE, FENCE_BYTE, POISON_BYTE};
use crate::{Device, Error, ErrorKind, Result};
use cudarc::driver::{result, sys};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sizes are rounded up to this many bytes: what the driver aligns to.
pub const ALIGNMENT: usize = 512;

/// What the allocator of a device holds, in bytes and counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in live blocks.
    pub live: usize,
    /// The most `live` has been since the start or [`reset_peak`].
    pub peak: usize,
    /// Bytes waiting in the free list.
    pub cached: usize,
    /// Bytes that belong to captured graphs and are in no tensor now.
    pub reserved: usize,
    /// Blocks taken from the driver so far.
    pub from_driver: usize,
    /// Blocks served from the free list so far.
    pub reused: usize,
    /// Copies from the host to the device so far.
    pub uploads: usize,
    /// Copies from the device to the host so far, each of which waits for the device.
    pub read_backs: usize,
    /// Live bytes by the operation that asked for them, largest first.
    pub by_operation: Vec<(&'static str, usize)>,
}

/// The allocator of one device.
pub(super) struct Pool {
    /// Whether the device has stream-ordered allocation.
    ordered: bool,
    state: Mutex<State>,
    pub(super) uploads: AtomicUsize,
    pub(super) read_backs: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// By size. The lowest address goes first: a step that finds the same regions free gets the same addresses, whatever
    /// the order in which they were given back, so that tables of addresses (see [`super::constant`]) repeat.
    free: HashMap<usize, BTreeSet<u64>>,
    live: usize,
    peak: usize,
    cached: usize,
    reserved: usize,
    from_driver: usize,
    reused: usize,
    by_tag: HashMap<&'static str, usize>,
    /// What was handed out since the capture that is going on began.
    capture: Option<Capture>,
    /// Regions of captured graphs: the address, and whether a block holds it.
    graphs: HashMap<u64, bool>,
}

#[derive(Default)]
struct Capture {
    /// Regions by address, with their sizes.
    taken: HashMap<u64, usize>,
    constants: Vec<Arc<Block>>,
}

impl Pool {
    /// The pool of a device, which keeps what it is given back.
    pub(super) fn new(device: sys::CUdevice) -> std::result::Result<Pool, result::DriverError> {
        use sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED as POOLS;
        use sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD as THRESHOLD;
        // SAFETY: the device is valid; the threshold is a u64 as the driver asks.
        let ordered = unsafe { result::device::get_attribute(device, POOLS)? } != 0;
        if ordered {
            let mut never = u64::MAX;
            // SAFETY: as above.
            unsafe {
                let pool = result::device::get_default_mem_pool(device)?;
                sys::cuMemPoolSetAttribute(pool, THRESHOLD, (&raw mut never).cast()).result()?;
            }
        }
        Ok(Pool {
            ordered,
            state: Mutex::default(),
            uploads: AtomicUsize::new(0),
            read_backs: AtomicUsize::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The allocator's figures for a device.
#[track_caller]
pub fn stats(ordinal: usize) -> Result<Stats> {
    let context = super::context(ordinal)?;
    let state = context.pool.state();
    let mut by_operation: Vec<_> = state.by_tag.iter().map(|(&k, &v)| (k, v)).filter(|e| e.1 > 0).collect();
    by_operation.sort_by_key(|e| (std::cmp::Reverse(e.1), e.0));
    Ok(Stats {
        live: state.live,
        peak: state.peak,
        cached: state.cached,
        reserved: state.reserved,
        from_driver: state.from_driver,
        reused: state.reused,
        uploads: context.pool.uploads.load(Ordering::Relaxed),
        read_backs: context.pool.read_backs.load(Ordering::Relaxed),
        by_operation,
    })
}

/// Starts a new measurement of [`Stats::peak`].
#[track_caller]
pub fn reset_peak(ordinal: usize) -> Result<()> {
    let mut state = super::context(ordinal)?.pool.state();
    state.peak = state.live;
    Ok(())
}

/// Gives all cached blocks of all devices back to their drivers.
#[track_caller]
pub fn trim() -> Result<()> {
    started().try_for_each(trim_device)
}

#[track_caller]
fn trim_device(context: &'static Context) -> Result<()> {
    let free = {
        let mut state = context.pool.state();
        state.cached = 0;
        std::mem::take(&mut state.free)
    };
    context.synchronize()?;
    let fail = |e| explain("free device memory", e);
    for address in free.into_values().flatten() {
        // SAFETY: the address was allocated by `from_driver` and no block holds it; nothing is queued.
        unsafe {
            match context.pool.ordered {
                true => result::free_async(address, context.compute_stream()).map_err(fail)?,
                false => result::free_sync(address).map_err(fail)?,
            }
        }
    }
    context.synchronize()?;
    if context.pool.ordered {
        // SAFETY: the pool is the device's own.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.device()).map_err(fail)?;
            result::mem_pool::trim_to(pool, 0).map_err(fail)?;
        }
    }
    Ok(())
}

/// An owned block of device memory. Its content is arbitrary until written.
pub struct Block {
    context: &'static Context,
    /// Where the region starts.
    region: u64,
    size: usize,
    len: usize,
    tag: &'static str,
    guard: usize,
    thread: Arc<AtomicUsize>,
}

impl Block {
    /// A block of `len` bytes on a device. When its memory is used up, cached blocks are given back first; then it is
    /// an error with a table of who holds what.
    #[track_caller]
    pub fn new(context: &'static Context, len: usize) -> Result<Block> {
        let (tag, guard) = host::scope();
        Block::of(context, len, tag, guard, host::thread_counter(), true)
    }

    /// A block that no operation and no thread answers for: a constant's.
    #[track_caller]
    pub(super) fn unowned(context: &'static Context, len: usize) -> Result<Block> {
        Block::of(context, len, "constants", 0, Arc::default(), true)
    }

    /// As [`Block::unowned`], in memory that the graph being captured does not use otherwise.
    #[track_caller]
    pub(super) fn outside_capture(context: &'static Context, len: usize) -> Result<Block> {
        Block::of(context, len, "constants", 0, Arc::default(), false)
    }

    /// `pooled` blocks come from the free list where it has one, and belong to the graph that is being captured.
    #[track_caller]
    fn of(
        context: &'static Context,
        len: usize,
        tag: &'static str,
        guard: usize,
        thread: Arc<AtomicUsize>,
        pooled: bool,
    ) -> Result<Block> {
        let fences = if guard != 0 { 2 * FENCE } else { 0 };
        let size = len.max(1).checked_add(fences).and_then(|n| n.checked_next_multiple_of(ALIGNMENT));
        let size = size.ok_or_else(|| Error::value("allocate", "too many bytes").with("bytes", len))?;
        let _bound = context.bind()?;
        let reused = {
            let mut state = context.pool.state();
            let found = if pooled { state.free.get_mut(&size).and_then(BTreeSet::pop_first) } else { None };
            if found.is_some() {
                state.cached -= size;
                state.reused += 1;
            }
            found
        };
        let region = match reused {
            Some(region) => region,
            None => from_driver(context, size)?,
        };
        thread.fetch_add(size, Ordering::Relaxed);
        {
            let mut state = context.pool.state();
            state.live += size;
            state.peak = state.peak.max(state.live);
            *state.by_tag.entry(tag).or_default() += size;
            if let (Some(capture), true) = (&mut state.capture, pooled) {
                capture.taken.insert(region, size);
            }
        }
        if extension::is_emulated() {
            extension::set_tag(region, tag);
        }
        let block = Block { context, region, size, len, tag, guard, thread };
        if guard != 0 {
            block.poison()?;
        }
        Ok(block)
    }

    /// The device.
    pub fn context(&self) -> &'static Context {
        self.context
    }

    /// Where the content starts.
    pub fn address(&self) -> u64 {
        self.region + if self.guard != 0 { FENCE as u64 } else { 0 }
    }

    /// Bytes of content.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills fences and content, and tells the emulated device that the content was never written.
    #[track_caller]
    fn poison(&self) -> Result<()> {
        let stream = self.context.compute_stream();
        // SAFETY: the region has `size` bytes: a fence, the content, another fence.
        let filled = unsafe {
            result::memset_d8_async(self.region, FENCE_BYTE, self.size, stream)
                .and_then(|()| result::memset_d8_async(self.address(), POISON_BYTE, self.len.max(1), stream))
        };
        filled.map_err(|e| explain("guard device memory", e))?;
        self.context.synchronize()?;
        extension::mark_uninitialised(self.address(), self.len);
        Ok(())
    }

    /// Notes if a fence was written.
    fn check_fences(&self) {
        let Ok(_bound) = self.context.bind() else { return };
        let start = FENCE + self.len.max(1);
        for (offset, len) in [(0, FENCE), (start, self.size - start)] {
            let mut bytes = vec![0u8; len];
            let at = self.region + offset as u64;
            // SAFETY: both ranges lie in the region.
            let read = self.context.synchronize().is_ok()
                && unsafe { result::memcpy_dtoh_sync(&mut bytes, at) }.is_ok();
            let wrong = bytes.iter().position(|&b| b != FENCE_BYTE);
            if let (true, Some(i)) = (read, wrong) {
                let at = (offset + i) as isize - FENCE as isize;
                let text =
                    format!("{}: wrote at byte {at} of a device block of {} bytes", self.tag, self.len);
                host::report_violation(self.guard, text);
            }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.guard != 0 {
            self.check_fences();
        }
        self.thread.fetch_sub(self.size, Ordering::Relaxed);
        let mut state = self.context.pool.state();
        state.live -= self.size;
        if let Some(held) = state.by_tag.get_mut(self.tag) {
            *held -= self.size;
        }
        if let Some(held) = state.graphs.get_mut(&self.region) {
            *held = false;
            state.reserved += self.size;
            return;
        }
        state.cached += self.size;
        state.free.entry(self.size).or_default().insert(self.region);
    }
}

/// New memory from the driver; after an out-of-memory error the cached blocks are given back and it is tried again.
#[track_caller]
fn from_driver(context: &'static Context, size: usize) -> Result<u64> {
    let capturing = capturing(context);
    let allocate = || {
        // SAFETY: the size is not zero; the stream is the context's. While a graph is captured an allocation on its
        // stream would become a part of it, so plain memory is taken, which cuMemFreeAsync takes back all the same.
        unsafe {
            match context.pool.ordered && !capturing {
                true => result::malloc_async(context.compute_stream(), size),
                false => result::malloc_sync(size),
            }
        }
    };
    let full = |e: &result::DriverError| e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    let mut answer = allocate();
    if answer.as_ref().is_err_and(full) && !capturing {
        trim_device(context)?;
        answer = allocate();
    }
    match answer {
        Ok(region) => {
            context.pool.state().from_driver += 1;
            Ok(region)
        }
        Err(error) if full(&error) => Err(out_of_memory(context, size)),
        Err(error) => Err(explain("allocate device memory", error)),
    }
}

/// Bytes as people read them.
fn amount(bytes: usize) -> String {
    match bytes >> 20 {
        0..10 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

#[track_caller]
fn out_of_memory(context: &Context, size: usize) -> Error {
    let state = context.pool.state();
    let mut held: Vec<_> = state.by_tag.iter().filter(|e| *e.1 > 0).collect();
    held.sort_by_key(|e| (std::cmp::Reverse(*e.1), *e.0));
    let held: Vec<String> = held.iter().take(8).map(|(tag, n)| format!("{tag} {}", amount(**n))).collect();
    let message = format!(
        "no memory for {size} bytes on {}; live: {} in all, {}. A smaller batch or model needs less",
        Device::Cuda(context.ordinal()),
        amount(state.live),
        if held.is_empty() { "nothing".to_string() } else { held.join(", ") }
    );
    Error::new(ErrorKind::Memory, "allocate", message)
}
