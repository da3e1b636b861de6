//! The tables through which one launch works on many tensors: see `common/tensor_list.cuh`, which has the same structs.
//!
//! Both are constants in device memory: while the tensors stay where they are, nothing is uploaded.

use super::{Follower, Hold, Slot};
use crate::cuda::address_mut;
use engine::cuda::context;
use engine::cuda::memory::Block;
use engine::{DType, Device, Error, ErrorKind, Result, Tensor, cuda};
use std::sync::Arc;

/// Elements of a chunk.
pub(super) const CHUNK: usize = 1 << 14;

/// One parameter. Addresses of tensors that there are not are 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::NoUninit)]
pub(super) struct Entry {
    value: u64,
    gradient: u64,
    first: u64,
    second: u64,
    low: u64,
    average: u64,
    count: u64,
    weight_decay: f32,
    rate_scale: f32,
    flags: u32,
    first_chunk: u32,
    chunks: u32,
    start: u32,
}
const _: () = assert!(size_of::<Entry>() == 80);

const ALIGNED: u32 = 1;
const ADAPT: u32 = 2;
const GRADIENT_BF16: u32 = 4;
const UNTOUCHED: u32 = 8;
const STILL: u32 = 16;

/// The work of a block.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Chunk {
    slot: u32,
    index: u32,
}

/// Whether four elements can be read at once: 16 bytes of f32, 8 of bf16.
fn in_quads(tensor: &Tensor) -> bool {
    tensor.is_aligned(4 * tensor.dtype().size())
}

impl Entry {
    /// A tensor that is only read: its norm is wanted.
    #[track_caller]
    pub(super) fn of_gradient(operation: &str, gradient: &Tensor) -> Result<Entry> {
        let mut entry = Entry { count: gradient.len() as u64, flags: ALIGNED, ..Entry::default() };
        entry.read(operation, gradient)?;
        Ok(entry)
    }

    /// A tensor that follows another.
    #[track_caller]
    pub(super) fn of_follower(operation: &str, follower: &mut Follower) -> Result<Entry> {
        let mut entry = Entry::of_gradient(operation, follower.online)?;
        entry.value = entry.written(operation, "target", follower.target)?;
        if let Some(low) = follower.low.as_mut() {
            entry.low = entry.written(operation, "low", low)?;
        }
        Ok(entry)
    }

    /// A slot.
    #[track_caller]
    pub(super) fn of_slot(operation: &str, slot: &mut Slot) -> Result<Entry> {
        let mut entry = Entry::of_gradient(operation, slot.gradient)?;
        entry.weight_decay = slot.weight_decay;
        entry.rate_scale = slot.rate_scale;
        if slot.adapt {
            entry.flags |= ADAPT;
        }
        (entry.flags, entry.start) = match slot.hold {
            Hold::None => (entry.flags, 0),
            Hold::Untouched(start) => (entry.flags | UNTOUCHED, start),
            Hold::Still(start) => (entry.flags | STILL, start),
        };
        entry.value = entry.written(operation, "value", slot.value)?;
        entry.first = entry.written(operation, "first", slot.first)?;
        if let Some(second) = slot.second.as_mut() {
            entry.second = entry.written(operation, "second", second)?;
        }
        if let Some(low) = slot.low.as_mut() {
            entry.low = entry.written(operation, "low", low)?;
        }
        if let Some(average) = slot.average.as_mut() {
            entry.average = entry.written(operation, "average", average)?;
        }
        Ok(entry)
    }

    #[track_caller]
    fn read(&mut self, operation: &str, gradient: &Tensor) -> Result<()> {
        self.gradient = gradient.device_address(operation)?;
        if gradient.dtype() == DType::BF16 {
            self.flags |= GRADIENT_BF16;
        }
        self.align(gradient);
        Ok(())
    }

    #[track_caller]
    fn written(&mut self, operation: &str, name: &str, tensor: &mut Tensor) -> Result<u64> {
        let address = address_mut(operation, name, tensor)?;
        self.align(tensor);
        Ok(address)
    }

    fn align(&mut self, tensor: &Tensor) {
        if !in_quads(tensor) {
            self.flags &= !ALIGNED;
        }
    }
}

/// The tables of one launch, in device memory. They must be held until the launch is queued.
pub(super) struct Table {
    slots: Arc<Block>,
    chunks: Arc<Block>,
    /// Number of chunks: the launch's blocks.
    pub(super) chunk_count: usize,
}

impl Table {
    /// The tables of these entries.
    ///
    /// # Errors
    ///
    /// There are more than 2^32 chunks, or no memory.
    #[track_caller]
    pub(super) fn new(operation: &str, device: Device, mut entries: Vec<Entry>) -> Result<Table> {
        let Device::Cuda(ordinal) = device else {
            return Err(Error::new(ErrorKind::Device, operation, "tables are for CUDA devices"));
        };
        let context = context(ordinal)?;
        let small = |n: usize| {
            u32::try_from(n).map_err(|_| Error::value(operation, "too many elements for one launch"))
        };
        let mut chunks = Vec::new();
        for (i, entry) in entries.iter_mut().enumerate() {
            entry.first_chunk = small(chunks.len())?;
            entry.chunks = small((entry.count as usize).div_ceil(CHUNK))?;
            let slot = small(i)?;
            chunks.extend((0..entry.chunks).map(|index| Chunk { slot, index }));
        }
        Ok(Table {
            slots: cuda::constant(context, bytemuck::cast_slice(&entries))?,
            chunks: cuda::constant(context, bytemuck::cast_slice(&chunks))?,
            chunk_count: chunks.len(),
        })
    }

    /// Where the slots are.
    pub(super) fn slots(&self) -> u64 {
        self.slots.address()
    }

    /// Where the chunks are.
    pub(super) fn chunks(&self) -> u64 {
        self.chunks.address()
    }

    /// Bytes of both.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() + self.chunks.len()
    }
}
