//! Host memory: an exact-size free list, statistics by operation, and guarded allocations for tests.
//!
//! A training step asks for the same sizes again and again; blocks that are given back wait in a free list,
//! so that after the first step no memory comes from (or goes to) the system, and no page is faulted in
//! twice. [`trim`] empties the list.
//!
//! Under [`guard`] every new block is filled with NaN and fenced by sentinels, which are checked when it is
//! freed: a kernel that leaves an element unwritten shows NaN, one that writes outside shows a violation.

use crate::cuda::profile;
use crate::{Element, Error, ErrorKind, Result};
use std::alloc::Layout as AllocLayout;
use std::cell::Cell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Alignment of every block in bytes: one cache line, one AVX-512 register.
pub const ALIGNMENT: usize = 64;
/// Bytes of sentinel on each side of a guarded block.
pub(crate) const FENCE: usize = 256;
/// What a fence holds; seldom the bytes of a real value.
pub(crate) const FENCE_BYTE: u8 = 0xA5;
/// What a guarded block holds before it is written: NaN in every float type, -1 in i32, 255 in u8.
pub(crate) const POISON_BYTE: u8 = 0xFF;

#[derive(Default)]
struct Pool {
    free: HashMap<usize, Vec<Region>>,
    cached: usize,
    live: usize,
    peak: usize,
    from_system: usize,
    reused: usize,
    by_tag: HashMap<&'static str, usize>,
    violations: Vec<(usize, String)>,
}

/// A raw allocation of `size` bytes.
struct Region {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: a region is plain memory with one owner; nothing in it is tied to a thread.
unsafe impl Send for Region {}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
static NEXT_GUARD: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    static TAG: Cell<&'static str> = const { Cell::new("other") };
    static GUARD: Cell<usize> = const { Cell::new(0) };
    static THREAD_LIVE: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(0));
}

fn pool() -> MutexGuard<'static, Option<Pool>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the allocator holds, in bytes and counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in live blocks.
    pub live: usize,
    /// The most `live` has been since the start or [`reset_peak`].
    pub peak: usize,
    /// Bytes waiting in the free list.
    pub cached: usize,
    /// Blocks taken from the system so far.
    pub from_system: usize,
    /// Blocks served from the free list so far.
    pub reused: usize,
    /// Live bytes by the operation that asked for them, largest first.
    pub by_operation: Vec<(&'static str, usize)>,
}

/// The allocator's figures now, for the whole process.
pub fn stats() -> Stats {
    let mut pool = pool();
    let pool = pool.get_or_insert_default();
    let mut by_operation: Vec<_> = pool.by_tag.iter().map(|(&k, &v)| (k, v)).filter(|e| e.1 > 0).collect();
    by_operation.sort_by_key(|e| (std::cmp::Reverse(e.1), e.0));
    Stats {
        live: pool.live,
        peak: pool.peak,
        cached: pool.cached,
        from_system: pool.from_system,
        reused: pool.reused,
        by_operation,
    }
}

/// The operation that allocates on this thread now, and the guard that its blocks belong to (0: none).
pub(crate) fn scope() -> (&'static str, usize) {
    (TAG.get(), GUARD.get())
}

/// Counts the live bytes that this thread allocated, on the host and on devices.
pub(crate) fn thread_counter() -> Arc<AtomicUsize> {
    THREAD_LIVE.with(Arc::clone)
}

/// Notes for [`GuardScope::finish`] that a block was written outside its bounds.
pub(crate) fn report_violation(guard: usize, text: String) {
    pool().get_or_insert_default().violations.push((guard, text));
}

/// Live bytes in blocks that the calling thread allocated, on the host and on devices, wherever they are now.
pub fn thread_live() -> usize {
    THREAD_LIVE.with(|c| c.load(Ordering::Relaxed))
}

/// Starts a new measurement of [`Stats::peak`].
pub fn reset_peak() {
    let mut pool = pool();
    let pool = pool.get_or_insert_default();
    pool.peak = pool.live;
}

/// Gives all cached blocks back to the system.
pub fn trim() {
    let regions: Vec<Region> = {
        let mut pool = pool();
        let pool = pool.get_or_insert_default();
        pool.cached = 0;
        pool.free.drain().flat_map(|(_, v)| v).collect()
    };
    regions.into_iter().for_each(release);
}

/// Names the operation on whose behalf this thread allocates and launches kernels, until the returned value is dropped.
/// Profilers see it as an NVTX range.
pub fn operation(name: &'static str) -> OperationScope {
    OperationScope { before: TAG.replace(name), is_range: profile::push_operation(name) }
}

/// See [`operation`].
#[must_use = "the name holds until this is dropped"]
pub struct OperationScope {
    before: &'static str,
    is_range: bool,
}

impl Drop for OperationScope {
    fn drop(&mut self) {
        if self.is_range {
            profile::pop_operation();
        }
        TAG.set(self.before);
    }
}

/// Makes every block that this thread allocates a guarded one, until [`GuardScope::finish`].
pub fn guard() -> GuardScope {
    let id = NEXT_GUARD.fetch_add(1, Ordering::Relaxed);
    GuardScope { id, before: GUARD.replace(id) }
}

/// See [`guard`].
#[must_use = "blocks are guarded until this is dropped"]
pub struct GuardScope {
    id: usize,
    before: usize,
}

impl GuardScope {
    /// Ends the scope. An error names every block freed so far that was written outside its bounds.
    #[track_caller]
    pub fn finish(self) -> Result<()> {
        let mut pool = pool();
        let pool = pool.get_or_insert_default();
        let mine: Vec<String> =
            pool.violations.iter().filter(|v| v.0 == self.id).map(|v| v.1.clone()).collect();
        pool.violations.retain(|v| v.0 != self.id);
        match mine.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Memory, "memory guard", mine.join("; "))),
        }
    }
}

impl Drop for GuardScope {
    fn drop(&mut self) {
        GUARD.set(self.before);
    }
}

/// An owned, aligned block of initialised bytes. Its content is arbitrary until written.
pub struct Block {
    region: Region,
    len: usize,
    tag: &'static str,
    guard: usize,
    thread: Arc<AtomicUsize>,
}

// SAFETY: a block owns its memory; shared access only reads, and writing needs `&mut`.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// A block of `len` bytes. Errors, with a table of who holds what, if the system has no more memory.
    #[track_caller]
    pub fn new(len: usize) -> Result<Block> {
        let (tag, guard) = scope();
        let fences = if guard != 0 { 2 * FENCE } else { 0 };
        let size = len.next_multiple_of(ALIGNMENT).max(ALIGNMENT) + fences;
        let reused = {
            let mut pool = pool();
            let pool = pool.get_or_insert_default();
            let found = pool.free.get_mut(&size).and_then(Vec::pop);
            if found.is_some() {
                pool.cached -= size;
                pool.reused += 1;
            }
            found
        };
        let region = match reused {
            Some(region) => region,
            None => Block::from_system(size)?,
        };
        let thread = thread_counter();
        thread.fetch_add(size, Ordering::Relaxed);
        {
            let mut pool = pool();
            let pool = pool.get_or_insert_default();
            pool.live += size;
            pool.peak = pool.peak.max(pool.live);
            *pool.by_tag.entry(tag).or_default() += size;
        }
        if guard != 0 {
            // SAFETY: the region has `size` bytes and is owned by this block alone.
            let all = unsafe { std::slice::from_raw_parts_mut(region.start.as_ptr(), size) };
            all.fill(FENCE_BYTE);
            all[FENCE..FENCE + len].fill(POISON_BYTE);
        }
        Ok(Block { region, len, tag, guard, thread })
    }

    #[track_caller]
    fn from_system(size: usize) -> Result<Region> {
        let out_of_memory = || {
            let held: Vec<String> = stats()
                .by_operation
                .iter()
                .take(8)
                .map(|(tag, n)| format!("{tag} {} MiB", n >> 20))
                .collect();
            Error::new(
                ErrorKind::Memory,
                "allocate",
                format!(
                    "no memory for {size} bytes; live: {}. A smaller batch or model needs less",
                    held.join(", ")
                ),
            )
        };
        let layout = AllocLayout::from_size_align(size, ALIGNMENT).map_err(|_| out_of_memory())?;
        let allocate = || {
            // SAFETY: `size` is never zero.
            NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
        };
        let start = allocate()
            .or_else(|| {
                trim();
                allocate()
            })
            .ok_or_else(out_of_memory)?;
        pool().get_or_insert_default().from_system += 1;
        Ok(Region { start, size })
    }

    fn start(&self) -> *mut u8 {
        let offset = if self.guard != 0 { FENCE } else { 0 };
        // SAFETY: a guarded region has `FENCE` bytes before its content.
        unsafe { self.region.start.as_ptr().add(offset) }
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the block owns `len` initialised bytes from `start`.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    /// The content, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }

    fn check_fences(&self) {
        // SAFETY: the region has `size` initialised bytes.
        let all = unsafe { std::slice::from_raw_parts(self.region.start.as_ptr(), self.region.size) };
        let bad = |part: &[u8]| part.iter().position(|&b| b != FENCE_BYTE);
        let before = bad(&all[..FENCE]).map(|i| i as isize - FENCE as isize);
        let after = bad(&all[FENCE + self.len..]).map(|i| (self.len + i) as isize);
        if let Some(at) = before.or(after) {
            let text = format!("{}: wrote at byte {at} of a block of {} bytes", self.tag, self.len);
            report_violation(self.guard, text);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.guard != 0 {
            self.check_fences();
        }
        let size = self.region.size;
        self.thread.fetch_sub(size, Ordering::Relaxed);
        let region = Region { start: self.region.start, size };
        let mut pool = pool();
        let pool = pool.get_or_insert_default();
        pool.live -= size;
        if let Some(held) = pool.by_tag.get_mut(self.tag) {
            *held -= size;
        }
        pool.cached += size;
        pool.free.entry(size).or_default().push(region);
    }
}

fn release(region: Region) {
    if let Ok(layout) = AllocLayout::from_size_align(region.size, ALIGNMENT) {
        // SAFETY: every region was allocated with this size and alignment, and this is its only owner.
        unsafe { std::alloc::dealloc(region.start.as_ptr(), layout) }
    }
}

/// Typed working space from the same free list, for a kernel's own use. Content is arbitrary until written.
pub struct Scratch<T> {
    block: Block,
    kind: std::marker::PhantomData<T>,
}

impl<T: Element> Scratch<T> {
    /// Space for `len` elements.
    #[track_caller]
    pub fn new(len: usize) -> Result<Scratch<T>> {
        let bytes = len.checked_mul(std::mem::size_of::<T>());
        let bytes = bytes.ok_or_else(|| Error::value("scratch", "too many elements").with("len", len))?;
        Ok(Scratch { block: Block::new(bytes)?, kind: std::marker::PhantomData })
    }
}

impl<T: Element> std::ops::Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.block.bytes())
    }
}

impl<T: Element> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.block.bytes_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_reused_and_counted() {
        let before = thread_live();
        let a = Block::new(1_000_003).unwrap();
        let address = a.bytes().as_ptr();
        assert_eq!(thread_live() - before, 1_000_003usize.next_multiple_of(ALIGNMENT));
        drop(a);
        assert_eq!(thread_live(), before);
        let b = Block::new(1_000_003).unwrap();
        assert_eq!(b.bytes().as_ptr(), address);
        assert_eq!(b.bytes().as_ptr() as usize % ALIGNMENT, 0);
    }

    #[test]
    fn guard_poisons_and_finds_a_write_outside() {
        let scope = guard();
        let block = Block::new(10).unwrap();
        assert!(block.bytes().iter().all(|&b| b == POISON_BYTE));
        drop(block);
        scope.finish().unwrap();

        let scope = guard();
        let _named = operation("planted");
        let block = Block::new(10).unwrap();
        // SAFETY: the fence behind the content belongs to the same region.
        unsafe { *block.start().add(10) = 1 };
        drop(block);
        let error = scope.finish().unwrap_err();
        assert!(error.message().contains("planted: wrote at byte 10 of a block of 10"), "{error}");
    }

    #[test]
    fn too_much_is_an_error_with_a_table() {
        let _named = operation("holder");
        let _held = Block::new(3 << 20).unwrap();
        let error = Block::new(isize::MAX as usize / 2).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Memory);
        assert!(error.message().contains("holder 3 MiB"), "{error}");
    }
}
