//! The bytes behind tensors, shared by their views.

use crate::cuda;
use crate::memory::Block;
use crate::{Device, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A block of bytes on a device, and how often it was written in place.
pub(crate) struct Storage {
    memory: Memory,
    version: AtomicU64,
}

pub(crate) enum Memory {
    Cpu(Block),
    Cuda(cuda::memory::Block),
    /// Shared with everyone who asked for the same bytes (see [`cuda::constant`]); never written.
    Constant(Arc<cuda::memory::Block>),
}

/// A storage's bytes, for reading.
pub(crate) enum Content<'a> {
    Cpu(&'a Block),
    Cuda(&'a cuda::memory::Block),
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

    /// These bytes on a device, as a constant that many may hold.
    #[track_caller]
    pub(crate) fn constant(device: Device, bytes: &[u8]) -> Result<Storage> {
        let Device::Cuda(ordinal) = device else {
            let mut storage = Storage::new(device, bytes.len())?;
            if let Memory::Cpu(block) = &mut storage.memory {
                block.bytes_mut().copy_from_slice(bytes);
            }
            return Ok(storage);
        };
        let block = cuda::constant(cuda::context(ordinal)?, bytes)?;
        Ok(Storage { memory: Memory::Constant(block), version: AtomicU64::new(0) })
    }

    /// Whether it may be written where it is.
    pub(crate) fn is_writable(&self) -> bool {
        !matches!(self.memory, Memory::Constant(_))
    }

    /// A copy of all bytes on the same device.
    #[track_caller]
    pub(crate) fn duplicate(&self) -> Result<Storage> {
        let mut copy = Storage::new(self.device(), self.len())?;
        match (self.content(), &mut copy.memory) {
            (Content::Cpu(from), Memory::Cpu(to)) => to.bytes_mut().copy_from_slice(from.bytes()),
            (Content::Cuda(from), Memory::Cuda(to)) => cuda::transfer::duplicate(from, to)?,
            _ => {}
        }
        Ok(copy)
    }

    /// Bytes of content.
    pub(crate) fn len(&self) -> usize {
        match self.content() {
            Content::Cpu(block) => block.bytes().len(),
            Content::Cuda(block) => block.len(),
        }
    }

    pub(crate) fn device(&self) -> Device {
        match self.content() {
            Content::Cpu(_) => Device::Cpu,
            Content::Cuda(block) => Device::Cuda(block.context().ordinal()),
        }
    }

    /// What is there to read.
    pub(crate) fn content(&self) -> Content<'_> {
        match &self.memory {
            Memory::Cpu(block) => Content::Cpu(block),
            Memory::Cuda(block) => Content::Cuda(block),
            Memory::Constant(block) => Content::Cuda(block),
        }
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
