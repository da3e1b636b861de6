//! The bytes behind tensors, shared by their views.

use crate::cuda;
use crate::memory::Block;
use crate::{Device, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// A block of bytes on a device, and how often it was written in place.
pub(crate) struct Storage {
    memory: Memory,
    version: AtomicU64,
}

pub(crate) enum Memory {
    Cpu(Block),
    Cuda(cuda::memory::Block),
}

impl Storage {
    /// New memory of `len` bytes.
    #[track_caller]
    pub(crate) fn new(device: Device, len: usize) -> Result<Storage> {
        let memory = match device {
            Device::Cpu => Memory::Cpu(Block::new(len)?),
            Device::Cuda(ordinal) => Memory::Cuda(cuda::memory::Block::new(cuda::context(ordinal)?, len)?),
        };
        Ok(Storage { memory, version: AtomicU64::new(0) })
    }

    /// A copy of all bytes on the same device.
    #[track_caller]
    pub(crate) fn duplicate(&self) -> Result<Storage> {
        let mut copy = Storage::new(self.device(), self.len())?;
        match (&self.memory, &mut copy.memory) {
            (Memory::Cpu(from), Memory::Cpu(to)) => to.bytes_mut().copy_from_slice(from.bytes()),
            (Memory::Cuda(from), Memory::Cuda(to)) => cuda::transfer::duplicate(from, to)?,
            _ => {}
        }
        Ok(copy)
    }

    /// Bytes of content.
    pub(crate) fn len(&self) -> usize {
        match &self.memory {
            Memory::Cpu(block) => block.bytes().len(),
            Memory::Cuda(block) => block.len(),
        }
    }

    pub(crate) fn device(&self) -> Device {
        match &self.memory {
            Memory::Cpu(_) => Device::Cpu,
            Memory::Cuda(block) => Device::Cuda(block.context().ordinal()),
        }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn bump_version(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}
