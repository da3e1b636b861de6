//! Copies between host and device. Each is explicit and counted ([`super::memory::Stats`]).

use super::context::{Context, explain};
use super::memory::Block;
use crate::Result;
use cudarc::driver::{result, sys};
use std::sync::atomic::Ordering;

/// Copies bytes to the start of a block, and waits until they are read.
#[track_caller]
pub(crate) fn upload(bytes: &[u8], block: &Block) -> Result<()> {
    upload_on(block.context().compute_stream(), bytes, block)
}

/// Copies bytes to the start of a block on the copy stream, and waits until they are there. No kernel may be using the
/// block.
#[track_caller]
pub(super) fn upload_beside(bytes: &[u8], block: &Block) -> Result<()> {
    upload_on(block.context().copy_stream(), bytes, block)
}

#[track_caller]
fn upload_on(stream: sys::CUstream, bytes: &[u8], block: &Block) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let context = block.context();
    let _bound = context.bind()?;
    context.pool.uploads.fetch_add(1, Ordering::Relaxed);
    let fail = |e| explain("copy to the device", e);
    // SAFETY: the block has at least as many bytes (its owner made it for them); the host's bytes outlive the wait.
    unsafe {
        result::memcpy_htod_async(block.address(), bytes, stream).map_err(fail)?;
        result::stream::synchronize(stream).map_err(fail)
    }
}

/// Copies bytes that start `offset` bytes into a block, and waits for them.
#[track_caller]
pub(crate) fn read_back(block: &Block, offset: usize, bytes: &mut [u8]) -> Result<()> {
    let context = block.context();
    if bytes.is_empty() {
        return Ok(());
    }
    let _bound = context.bind()?;
    context.pool.read_backs.fetch_add(1, Ordering::Relaxed);
    let fail = |e| explain("copy from the device", e);
    let from = block.address() + offset as u64;
    // SAFETY: the range lies in the block (its owner checked it); the buffer outlives the wait.
    unsafe {
        result::memcpy_dtoh_async(bytes, from, context.compute_stream()).map_err(fail)?;
        result::stream::synchronize(context.compute_stream()).map_err(fail)
    }
}

/// Copies a whole block to another of the same length, in stream order.
#[track_caller]
pub(crate) fn duplicate(from: &Block, to: &Block) -> Result<()> {
    let context: &Context = from.context();
    let bytes = from.len().min(to.len());
    if bytes == 0 {
        return Ok(());
    }
    let _bound = context.bind()?;
    // SAFETY: both blocks have these bytes and lie on one device; they are freed in stream order.
    unsafe { result::memcpy_dtod_async(to.address(), from.address(), bytes, context.compute_stream()) }
        .map_err(|e| explain("copy on the device", e))
}

/// Fills a block with one byte, in stream order.
#[track_caller]
pub(crate) fn fill(block: &Block, byte: u8) -> Result<()> {
    let context = block.context();
    if block.is_empty() {
        return Ok(());
    }
    let _bound = context.bind()?;
    // SAFETY: the block has these bytes.
    unsafe { result::memset_d8_async(block.address(), byte, block.len(), context.compute_stream()) }
        .map_err(|e| explain("fill device memory", e))
}

/// Fills a block with one 4-byte word, in stream order. The length must be a multiple of 4.
#[track_caller]
pub(crate) fn fill_words(block: &Block, word: u32) -> Result<()> {
    let context = block.context();
    let words = block.len() / 4;
    if words == 0 {
        return Ok(());
    }
    let _bound = context.bind()?;
    // SAFETY: the block has this many words.
    unsafe { cudarc::driver::sys::cuMemsetD32Async(block.address(), word, words, context.compute_stream()) }
        .result()
        .map_err(|e| explain("fill device memory", e))
}
