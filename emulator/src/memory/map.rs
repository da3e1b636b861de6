//! Anonymous memory mappings: address space first, pages when touched. The three calls of the C library that it needs
//! are declared here.

use std::ffi::c_void;

unsafe extern "C" {
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: i32,
        flags: i32,
        file: i32,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, length: usize) -> i32;
    fn madvise(address: *mut c_void, length: usize, advice: i32) -> i32;
}

const PROTECTION_NONE: i32 = 0;
const PROTECTION_READ_WRITE: i32 = 1 | 2;
/// `MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE` on Linux.
const FLAGS: i32 = 0x02 | 0x20 | 0x4000;
const DONT_NEED: i32 = 4;
const HUGE: usize = 2 << 20;

/// A private anonymous mapping, zero where nothing was written. Pages are taken from the machine when they are touched.
#[derive(Debug)]
pub struct Mapping {
    mapped: *mut c_void,
    mapped_bytes: usize,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping is plain memory; those who share it are the ones who order their accesses.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` readable and writable bytes, aligned to 2 MiB. None: the system refuses.
    pub fn new(bytes: usize) -> Option<Mapping> {
        Mapping::with(bytes, PROTECTION_READ_WRITE)
    }

    /// Reserves addresses that no access can reach.
    pub fn reserve(bytes: usize) -> Option<Mapping> {
        Mapping::with(bytes, PROTECTION_NONE)
    }

    fn with(bytes: usize, protection: i32) -> Option<Mapping> {
        let mapped_bytes = bytes.checked_add(HUGE)?;
        // SAFETY: a new private mapping at an address of the system's choice touches nothing that exists.
        let mapped = unsafe { mmap(std::ptr::null_mut(), mapped_bytes, protection, FLAGS, -1, 0) };
        if mapped as isize == -1 {
            return None;
        }
        let offset = (mapped as usize).next_multiple_of(HUGE) - mapped as usize;
        Some(Mapping { mapped, mapped_bytes, start: mapped.cast::<u8>().wrapping_add(offset), bytes })
    }

    /// First byte.
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// Gives the whole pages inside a range back to the system; they read as zero afterwards.
    pub fn release(&self, offset: usize, bytes: usize) {
        const PAGE: usize = 4096;
        let from = offset.next_multiple_of(PAGE);
        let to = offset.saturating_add(bytes).min(self.bytes) / PAGE * PAGE;
        if from < to {
            // SAFETY: [from, to) lies inside this mapping, which is anonymous and private.
            unsafe { madvise(self.start.wrapping_add(from).cast(), to - from, DONT_NEED) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `with` mapped; nobody holds the mapping any more.
        unsafe { munmap(self.mapped, self.mapped_bytes) };
    }
}
