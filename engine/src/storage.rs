//! The bytes behind tensors, shared by their views.

use crate::Device;
use crate::memory::Block;
use std::sync::atomic::{AtomicU64, Ordering};

/// A block of bytes on a device, and how often it was written in place.
pub(crate) struct Storage {
    memory: Memory,
    version: AtomicU64,
}

enum Memory {
    Cpu(Block),
}

impl Storage {
    pub(crate) fn cpu(block: Block) -> Storage {
        Storage { memory: Memory::Cpu(block), version: AtomicU64::new(0) }
    }

    pub(crate) fn device(&self) -> Device {
        match self.memory {
            Memory::Cpu(_) => Device::Cpu,
        }
    }

    pub(crate) fn block(&self) -> &Block {
        match &self.memory {
            Memory::Cpu(block) => block,
        }
    }

    pub(crate) fn block_mut(&mut self) -> &mut Block {
        match &mut self.memory {
            Memory::Cpu(block) => block,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn bump_version(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}
