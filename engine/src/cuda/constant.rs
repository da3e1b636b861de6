//! Constants on a device: bytes that many launches read and that seldom change, such as the tables of a launch over many
//! tensors. The same bytes give the same memory, so that they are uploaded once.

use super::context::Context;
use super::memory::{self, Block};
use super::transfer;
use crate::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// Constants kept for a device: those used most recently.
pub const KEPT: usize = 64;

/// What a device holds, the most recent first.
#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<Vec<(Vec<u8>, Arc<Block>)>>,
}

impl Cache {
    /// Forgets all: their memory is given back when no one else holds it.
    pub(super) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Device memory with these bytes, which must not be written.
///
/// It stays as it is while the value is held, and behind it for what was launched before it was dropped. A constant
/// that is asked for while a graph is captured lives as long as the graph.
///
/// # Errors
///
/// There is no memory for it, or it cannot be copied.
#[track_caller]
pub fn constant(context: &'static Context, bytes: &[u8]) -> Result<Arc<Block>> {
    let block = find(context, bytes)?;
    memory::keep_for_capture(context, &block);
    Ok(block)
}

#[track_caller]
fn find(context: &'static Context, bytes: &[u8]) -> Result<Arc<Block>> {
    let mut entries = context.constants.entries.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = entries.iter().position(|(known, _)| known == bytes) {
        entries[..=at].rotate_right(1);
        return Ok(entries[0].1.clone());
    }
    let block = if memory::capturing(context) {
        // A copy on the compute stream would become a part of the graph. Memory from the free list may be written by
        // what was captured before, at every replay; this is the driver's and no one else's.
        let block = Block::outside_capture(context, bytes.len())?;
        transfer::upload_beside(bytes, &block)?;
        block
    } else {
        let block = Block::unowned(context, bytes.len())?;
        transfer::upload(bytes, &block)?;
        block
    };
    let block = Arc::new(block);
    entries.truncate(KEPT - 1);
    entries.insert(0, (bytes.to_vec(), block.clone()));
    Ok(block)
}
