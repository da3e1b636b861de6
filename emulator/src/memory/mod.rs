//! Device memory: reserved ranges of addresses, an allocator with red zones and quarantine, and a shadow byte a byte
//! that says whether a byte is allocated and written.
//!
//! A device address is no host address: the range that the program sees is reserved without access, so that a host
//! which reads through a device pointer faults as with a real device. Page-locked host memory is a second range where
//! both addresses are the same.

mod allocator;
mod map;
mod snapshot;

use allocator::Allocator;
use map::Mapping;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use snapshot::Snapshot;

/// Why a memory operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemoryError {
    /// Not enough device memory (`CUDA_ERROR_OUT_OF_MEMORY`).
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Bytes free.
        free: u64,
    },
    /// The pointer is not the start of a live allocation, or a range is not inside one (`CUDA_ERROR_INVALID_VALUE`).
    Invalid {
        /// What is wrong, in a sentence.
        detail: String,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::OutOfMemory { requested, free } => {
                write!(f, "out of memory: {requested} bytes asked for, {free} bytes free")
            }
            MemoryError::Invalid { detail } => f.write_str(detail),
        }
    }
}

impl std::error::Error for MemoryError {}

/// One live allocation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// First byte.
    pub address: u64,
    /// Bytes asked for.
    pub size: u64,
    /// A name that the program gave it, or "".
    pub tag: String,
    /// Host memory made visible to the device (page-locked), not device memory.
    pub pinned: bool,
}

/// What a shadow byte says of its byte: outside every allocation.
pub const UNALLOCATED: u8 = 0;
/// Inside an allocation that was freed.
pub const FREED: u8 = 1;
/// Allocated, never written.
pub const UNWRITTEN: u8 = 2;
/// Allocated and written.
pub const WRITTEN: u8 = 3;

/// A range of addresses with its memory and shadow.
#[derive(Debug)]
struct Region {
    /// The address range as programs see it; None where that is `data` itself.
    _reserved: Option<Mapping>,
    data: Mapping,
    shadow: Mapping,
    races: Mapping,
    base: u64,
    bytes: u64,
    table: Mutex<Allocator>,
    used: AtomicU64,
    capacity: u64,
}

/// A region as the executor sees it: addresses and raw memory. Valid while its `DeviceMemory` lives.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// First device address.
    pub base: u64,
    /// Bytes in the range.
    pub bytes: u64,
    /// Host memory behind `base`.
    pub data: *mut u8,
    /// Shadow byte of `base`.
    pub shadow: *mut u8,
    /// Race entry (64 bits for each 4 bytes) of `base`.
    pub races: *mut u64,
}

// SAFETY: raw addresses of memory that is shared on purpose; whoever dereferences them orders the accesses.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl Region {
    fn new(capacity: u64, same_address: bool) -> Option<Region> {
        let mut bytes = capacity.checked_mul(4)?.max(1 << 32).checked_next_multiple_of(1 << 21)?;
        while bytes >= capacity {
            let size = usize::try_from(bytes).ok()?;
            let reserved = if same_address { None } else { Mapping::reserve(size) };
            let parts = (Mapping::new(size), Mapping::new(size), Mapping::new(size * 2));
            if let (Some(data), Some(shadow), Some(races)) = parts
                && (same_address || reserved.is_some())
            {
                let base = reserved.as_ref().map_or(data.start(), Mapping::start) as u64;
                let table = Mutex::new(Allocator::new(bytes));
                let used = AtomicU64::new(0);
                return Some(Region {
                    _reserved: reserved,
                    data,
                    shadow,
                    races,
                    base,
                    bytes,
                    table,
                    used,
                    capacity,
                });
            }
            bytes /= 2;
        }
        None
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Allocator> {
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.bytes
    }

    fn set_shadow(&self, offset: u64, size: u64, state: u8) {
        // SAFETY: callers pass ranges of allocations, which lie inside the shadow mapping.
        unsafe { self.shadow.start().add(offset as usize).write_bytes(state, size as usize) };
    }

    fn allocate(&self, size: u64, state: u8) -> Result<u64, MemoryError> {
        let charged = size.max(1).checked_next_multiple_of(allocator::ALIGNMENT);
        let free = self.capacity - self.used.load(Ordering::Relaxed).min(self.capacity);
        let Some(charged) = charged.filter(|bytes| *bytes <= free) else {
            return Err(MemoryError::OutOfMemory { requested: size, free });
        };
        let mut table = self.table();
        let Some(offset) = table.allocate(size.max(1)) else {
            return Err(MemoryError::OutOfMemory { requested: size, free });
        };
        self.set_shadow(offset, size, state);
        self.used.fetch_add(charged, Ordering::Relaxed);
        Ok(self.base + offset)
    }

    fn free(&self, address: u64) -> Result<(), MemoryError> {
        let offset = address - self.base;
        let mut table = self.table();
        let Some(block) = table.free(offset) else {
            let detail = if table.find_freed(offset).is_some() {
                format!("{address:#x} was freed already")
            } else {
                format!("{address:#x} is not the start of an allocation")
            };
            return Err(MemoryError::Invalid { detail });
        };
        self.set_shadow(offset, block.size, FREED);
        self.data.release(offset as usize, block.size as usize);
        let charged = block.size.max(1).next_multiple_of(allocator::ALIGNMENT);
        self.used.fetch_sub(charged, Ordering::Relaxed);
        Ok(())
    }
}

/// The device's memory. All methods may be called from several threads.
#[derive(Debug)]
pub struct DeviceMemory {
    device: Region,
    pinned: Region,
    launches: AtomicU64,
}

impl DeviceMemory {
    /// Reserves `capacity` bytes of device memory (address space only; pages come when touched).
    pub fn new(capacity: u64) -> Result<DeviceMemory, MemoryError> {
        let refuse = || MemoryError::OutOfMemory { requested: capacity, free: 0 };
        let device = Region::new(capacity, false).ok_or_else(refuse)?;
        let pinned = Region::new(capacity, true).ok_or_else(refuse)?;
        Ok(DeviceMemory { device, pinned, launches: AtomicU64::new(0) })
    }

    fn regions(&self) -> [&Region; 2] {
        [&self.device, &self.pinned]
    }

    fn region(&self, address: u64) -> Result<&Region, MemoryError> {
        self.regions()
            .into_iter()
            .find(|region| region.contains(address))
            .ok_or_else(|| MemoryError::Invalid { detail: format!("{address:#x} is no device address") })
    }

    /// The two ranges as the executor uses them: device memory, page-locked host memory.
    pub fn views(&self) -> [View; 2] {
        self.regions().map(|region| View {
            base: region.base,
            bytes: region.bytes,
            data: region.data.start(),
            shadow: region.shadow.start(),
            races: region.races.start().cast(),
        })
    }

    /// A number for the next launch, from 1 to 4095, by which race entries of older launches are told apart. When the
    /// numbers start again the entries are cleared.
    pub fn launch_tag(&self) -> u64 {
        let tag = self.launches.fetch_add(1, Ordering::Relaxed) % 4095 + 1;
        if tag == 1 {
            for region in self.regions() {
                region.races.release(0, region.bytes as usize * 2);
            }
        }
        tag
    }

    /// Allocates `size` (> 0) bytes, aligned to 512, unwritten, between red zones.
    pub fn allocate(&self, size: u64) -> Result<u64, MemoryError> {
        self.device.allocate(size, UNWRITTEN)
    }

    /// Allocates page-locked host memory: its address is a host pointer that kernels may use too. Counts as written.
    pub fn allocate_pinned(&self, size: u64) -> Result<u64, MemoryError> {
        self.pinned.allocate(size, WRITTEN)
    }

    /// Frees what either of the two returned; the address is not used again for a while, so that later uses are found.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        self.region(address)?.free(address)
    }

    /// The live allocation that contains the address.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let region = self.region(address).ok()?;
        let table = region.table();
        table.find(address - region.base).map(|block| Allocation {
            address: region.base + block.offset,
            size: block.size,
            tag: block.tag.clone(),
            pinned: std::ptr::eq(region, &self.pinned),
        })
    }

    /// Names the live allocation that starts at the address, for reports.
    pub fn set_tag(&self, address: u64, tag: &str) -> Result<(), MemoryError> {
        let region = self.region(address)?;
        match region.table().get_mut(address - region.base) {
            Some(block) => {
                tag.clone_into(&mut block.tag);
                Ok(())
            }
            None => Err(MemoryError::Invalid {
                detail: format!("{address:#x} is not the start of an allocation"),
            }),
        }
    }

    /// Marks a range as never written (an engine's pool hands a block out again).
    pub fn mark_uninitialised(&self, address: u64, size: u64) -> Result<(), MemoryError> {
        let (region, offset) = self.range(address, size)?;
        region.set_shadow(offset, size, UNWRITTEN);
        Ok(())
    }

    /// (free, total) bytes.
    pub fn capacity(&self) -> (u64, u64) {
        let used = self.device.used.load(Ordering::Relaxed);
        (self.device.capacity - used.min(self.device.capacity), self.device.capacity)
    }

    /// The region and offset of a range inside one live allocation.
    fn range(&self, address: u64, size: u64) -> Result<(&Region, u64), MemoryError> {
        let region = self.region(address)?;
        let offset = address - region.base;
        let inside =
            region.table().find(offset).is_some_and(|block| size <= block.offset + block.size - offset);
        if inside {
            Ok((region, offset))
        } else {
            let detail = format!("{size} bytes at {address:#x}: {}", self.describe(address));
            Err(MemoryError::Invalid { detail })
        }
    }

    /// Host to device. The range must lie in one live allocation.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (region, offset) = self.range(address, bytes.len() as u64)?;
        // SAFETY: the range is inside a live allocation of this region; `bytes` may lie in page-locked memory of the
        // same region, hence `copy`.
        unsafe { region.data.start().add(offset as usize).copy_from(bytes.as_ptr(), bytes.len()) };
        region.set_shadow(offset, bytes.len() as u64, WRITTEN);
        Ok(())
    }

    /// Device to host. The range must lie in one live allocation.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (region, offset) = self.range(address, bytes.len() as u64)?;
        // SAFETY: as in `write`.
        unsafe { region.data.start().add(offset as usize).copy_to(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Device to device, as memmove; what was unwritten stays so.
    pub fn copy(&self, to: u64, from: u64, size: u64) -> Result<(), MemoryError> {
        if size == 0 {
            return Ok(());
        }
        let (source, source_offset) = self.range(from, size)?;
        let (target, target_offset) = self.range(to, size)?;
        for (read, write) in [(&source.data, &target.data), (&source.shadow, &target.shadow)] {
            // SAFETY: both ranges are inside live allocations; they may overlap, and `copy_to` allows it.
            unsafe {
                let read = read.start().add(source_offset as usize);
                read.copy_to(write.start().add(target_offset as usize), size as usize);
            }
        }
        Ok(())
    }

    /// Fills `count` elements of `element` (1, 2 or 4 bytes) each.
    pub fn fill(&self, address: u64, element: &[u8], count: u64) -> Result<(), MemoryError> {
        let size = count.saturating_mul(element.len() as u64);
        if size == 0 {
            return Ok(());
        }
        let (region, offset) = self.range(address, size)?;
        // SAFETY: the range is inside a live allocation; nobody else is handed this memory as a slice.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(region.data.start().add(offset as usize), size as usize)
        };
        for chunk in bytes.chunks_exact_mut(element.len()) {
            chunk.copy_from_slice(element);
        }
        region.set_shadow(offset, size, WRITTEN);
        Ok(())
    }

    /// Where an address lies, in words, for reports.
    pub fn describe(&self, address: u64) -> String {
        let named = |block: &allocator::Block| {
            let tag = if block.tag.is_empty() { String::new() } else { format!(" '{}'", block.tag) };
            format!("allocation{tag} of {} bytes", block.size)
        };
        let Ok(region) = self.region(address) else {
            return format!("{address:#x} is no device address");
        };
        let offset = address - region.base;
        let table = region.table();
        if let Some(block) = table.find(offset) {
            return format!("byte {} of {}", offset - block.offset, named(block));
        }
        if let Some(block) = table.find_freed(offset) {
            return format!("byte {} of a freed {}", offset - block.offset, named(block));
        }
        let (before, after) = table.neighbours(offset);
        let past = before.map(|block| (offset - block.offset - block.size, block));
        let ahead = after.map(|block| (block.offset - offset, block));
        match (past, ahead) {
            (Some((past, block)), ahead) if ahead.is_none_or(|(ahead, _)| past < ahead) => {
                format!("{past} bytes past the end of {}", named(block))
            }
            (_, Some((ahead, block))) => format!("{ahead} bytes before {}", named(block)),
            _ => "nothing is allocated".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
