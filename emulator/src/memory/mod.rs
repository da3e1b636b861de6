//! Device memory: one reserved range of addresses, an allocator with red zones and quarantine, and a shadow byte a byte
//! that says whether a byte is allocated and written.

use std::fmt;

/// Why an allocation failed.
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

/// One live (or freed, still quarantined) allocation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// First byte.
    pub address: u64,
    /// Bytes asked for.
    pub size: u64,
    /// A name that the program gave it, or "".
    pub tag: String,
    /// Host memory made visible to the device (pinned), not device memory.
    pub pinned: bool,
}

/// The device's memory. All methods may be called from several threads.
pub struct DeviceMemory {
    _private: (),
}

impl DeviceMemory {
    /// Reserves `capacity` bytes of device memory (address space only; pages come when touched).
    pub fn new(capacity: u64) -> Result<DeviceMemory, MemoryError>;
    /// Allocates `size` (> 0) bytes, aligned to 512, uninitialised, between red zones.
    pub fn allocate(&self, size: u64) -> Result<u64, MemoryError>;
    /// Allocates page-locked host memory: its address is a host pointer that kernels may use too. Counts as initialised.
    pub fn allocate_pinned(&self, size: u64) -> Result<u64, MemoryError>;
    /// Frees what either of the two returned; the address is not used again for a while, so that later uses are found.
    pub fn free(&self, address: u64) -> Result<(), MemoryError>;
    /// The live allocation that contains the address.
    pub fn find(&self, address: u64) -> Option<Allocation>;
    /// Names a live allocation for reports.
    pub fn set_tag(&self, address: u64, tag: &str) -> Result<(), MemoryError>;
    /// Marks a range as never written (an engine's pool hands a block out again).
    pub fn mark_uninitialised(&self, address: u64, size: u64) -> Result<(), MemoryError>;
    /// (free, total) bytes.
    pub fn capacity(&self) -> (u64, u64);
    /// Host to device. The range must lie in one live allocation.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError>;
    /// Device to host.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError>;
    /// Device to device (as memmove), initialisation state included.
    pub fn copy(&self, to: u64, from: u64, size: u64) -> Result<(), MemoryError>;
    /// Fills `count` elements of `element` bytes (1, 2 or 4 long) each.
    pub fn fill(&self, address: u64, element: &[u8], count: u64) -> Result<(), MemoryError>;
}
