//! Input for a device, brought by the copy stream while the compute stream works on earlier input.
//!
//! A [`Staging`] has a few slots, two as a rule. A slot is page-locked host memory and device memory of one size, and
//! two events. [`Staging::put`] writes a batch into the next slot's host memory and queues its copy to the device;
//! [`Staging::take_into`] queues copies from the slot to tensors, behind it on the compute stream. Batches come out in
//! the order in which they were put in.
//!
//! ```text
//! host     write slot 0        write slot 1        wait for `copied` of slot 0, write it again
//! copy     copy 0 [copied 0]   copy 1 [copied 1]   wait for `free` of slot 0, copy 0 [copied 0]
//! compute    wait for copied 0, to the tensors [free 0], a step, wait for copied 1, ...
//! ```
//!
//! So the host waits only where it is a whole round of slots ahead of the device. Nothing is allocated after
//! [`Staging::new`]. The tensors keep their addresses: a captured graph that reads them sees each batch in turn.

use super::context::{Context, context, explain};
use super::memory::Block;
use crate::{Device, Error, ErrorKind, Result, Tensor};
use cudarc::driver::{result, sys};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// Parts of a batch at most.
pub const PARTS: usize = 16;
/// Parts start at multiples of this many bytes of a slot.
const ALIGNMENT: usize = 256;

/// Slots through which batches of bytes go to a device. See the module.
///
/// It may be handed to another thread, which then puts and takes.
pub struct Staging {
    context: &'static Context,
    bytes: usize,
    slots: Vec<Slot>,
    /// Batches put in so far, and taken out.
    put: usize,
    taken: usize,
    waits: usize,
}

struct Slot {
    host: Pinned,
    device: Block,
    /// Recorded on the copy stream when the host memory was read and the device memory is written.
    copied: Event,
    /// Recorded on the compute stream when the device memory was read.
    free: Event,
    /// Where each part starts, and its bytes.
    parts: [(usize, usize); PARTS],
    count: usize,
}

/// Page-locked host memory; not write-combined, so that it is written through the caches like any other.
struct Pinned {
    context: &'static Context,
    start: NonNull<u8>,
}

// SAFETY: the memory is this value's own and the driver's calls may come from any thread.
unsafe impl Send for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _bound = self.context.bind();
        // SAFETY: allocated by `result::malloc_host`; its owner has waited for the copies that read it.
        let _ = unsafe { result::free_host(self.start.as_ptr().cast()) };
    }
}

struct Event {
    context: &'static Context,
    handle: sys::CUevent,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    #[track_caller]
    fn new(context: &'static Context) -> Result<Event> {
        let handle = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        Ok(Event { context, handle: handle.map_err(|e| explain("staging", e))? })
    }

    /// Marks this point of a stream.
    fn record(&self, stream: sys::CUstream) -> std::result::Result<(), result::DriverError> {
        // SAFETY: both handles are live.
        unsafe { result::event::record(self.handle, stream) }
    }

    /// Makes what comes next on a stream wait for the event.
    fn before(&self, stream: sys::CUstream) -> std::result::Result<(), result::DriverError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both handles are live.
        unsafe { result::stream::wait_event(stream, self.handle, flags) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _bound = self.context.bind();
        // SAFETY: the handle is used here last; what waits for it goes on waiting for the place in the stream.
        let _ = unsafe { result::event::destroy(self.handle) };
    }
}

impl Slot {
    /// The context is the thread's.
    #[track_caller]
    fn new(context: &'static Context, bytes: usize) -> Result<Slot> {
        let fail = |e| explain("staging", e);
        // SAFETY: the size is not zero, and the context is bound.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(fail)?;
        let Some(start) = NonNull::new(start.cast()) else {
            return Err(Error::new(ErrorKind::Memory, "staging", "the driver gave no host memory"));
        };
        let host = Pinned { context, start };
        let device = Block::new(context, bytes)?;
        let (copied, free) = (Event::new(context)?, Event::new(context)?);
        // The device memory is the compute stream's until here: it may have had another owner.
        free.record(context.compute_stream()).map_err(fail)?;
        Ok(Slot { host, device, copied, free, parts: [(0, 0); PARTS], count: 0 })
    }
}

impl Staging {
    /// `slots` slots for batches of at most `bytes` bytes each, all parts together.
    ///
    /// # Errors
    ///
    /// The device is the CPU or cannot be used; no slot; no memory.
    #[track_caller]
    pub fn new(device: Device, bytes: usize, slots: usize) -> Result<Staging> {
        let Device::Cuda(ordinal) = device else {
            return Err(Error::new(
                ErrorKind::Device,
                "staging",
                "only CUDA devices need input copied to them",
            ));
        };
        if slots == 0 {
            return Err(Error::value("staging", "needs at least one slot, and two to copy ahead"));
        }
        let context = context(ordinal)?;
        let _bound = context.bind()?;
        let _operation = crate::memory::operation("staging");
        let size = bytes.checked_add(PARTS * ALIGNMENT);
        let size = size.ok_or_else(|| Error::value("staging", "too many bytes").with("bytes", bytes))?;
        let slots = (0..slots).map(|_| Slot::new(context, size)).collect::<Result<Vec<_>>>()?;
        Ok(Staging { context, bytes, slots, put: 0, taken: 0, waits: 0 })
    }

    /// Bytes of a batch at most.
    pub fn capacity(&self) -> usize {
        self.bytes
    }

    /// Batches that were put in and not taken out.
    pub fn waiting(&self) -> usize {
        self.put - self.taken
    }

    /// How often [`Staging::put`] found the slot's last copy unfinished, so that the host had to wait for the device.
    pub fn waits(&self) -> usize {
        self.waits
    }

    /// Queues the copy of a batch, which is free to change when this returns. Parts may be empty.
    ///
    /// # Errors
    ///
    /// Every slot holds a batch that was not taken; more than [`PARTS`] parts; more bytes than
    /// [`Staging::capacity`]. Nothing was queued then.
    #[track_caller]
    pub fn put(&mut self, parts: &[&[u8]]) -> Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if parts.len() > PARTS || total > self.bytes {
            let rule = format!("a batch has at most {PARTS} parts and {} bytes in all", self.bytes);
            return Err(Error::value("staging", rule).with("parts", parts.len()).with("bytes", total));
        }
        if self.waiting() == self.slots.len() {
            let rule =
                format!("all {} slots hold batches that were not taken: take one first", self.slots.len());
            return Err(Error::value("staging", rule));
        }
        let _bound = self.context.bind()?;
        let fail = |e| explain("staging", e);
        let at = self.put % self.slots.len();
        let slot = &mut self.slots[at];
        if !is_done(&slot.copied).map_err(fail)? {
            self.waits += 1;
            // SAFETY: the handle is live.
            unsafe { result::event::synchronize(slot.copied.handle) }.map_err(fail)?;
        }
        let mut end = 0;
        for (part, place) in parts.iter().zip(&mut slot.parts) {
            *place = (end, part.len());
            // SAFETY: the places of all parts fit the slot, which has room for each part's alignment; the last copy
            // from it is done and no one else has the memory. It is written here before it is ever read.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), slot.host.start.as_ptr().add(end), part.len())
            };
            end = (end + part.len()).next_multiple_of(ALIGNMENT);
        }
        slot.count = parts.len();
        let copy = self.context.copy_stream();
        slot.free.before(copy).map_err(fail)?;
        for &(start, len) in slot.parts[..slot.count].iter().filter(|part| part.1 > 0) {
            // SAFETY: both memories have the place, the host's was written above, and nothing writes it before the
            // event below was waited for.
            unsafe {
                let bytes = std::slice::from_raw_parts(slot.host.start.as_ptr().add(start), len);
                result::memcpy_htod_async(slot.device.address() + start as u64, bytes, copy).map_err(fail)?;
            }
            self.context.pool.uploads.fetch_add(1, Ordering::Relaxed);
        }
        slot.copied.record(copy).map_err(fail)?;
        self.put += 1;
        Ok(())
    }

    /// Queues, on the compute stream, the copies of the oldest batch's parts to the starts of `targets`, one a part.
    /// What lies behind a part in its target stays. The addresses of the targets stay what they are.
    ///
    /// # Errors
    ///
    /// There is no batch; the numbers of parts and targets differ; a target is strided, on another device, too small, or
    /// shares its storage with another tensor, so that writing would move it. Nothing was queued then.
    #[track_caller]
    pub fn take_into(&mut self, targets: &mut [&mut Tensor]) -> Result<()> {
        if self.waiting() == 0 {
            return Err(Error::value("staging", "there is no batch: put one first"));
        }
        let at = self.taken % self.slots.len();
        let slot = &self.slots[at];
        let parts = &slot.parts[..slot.count];
        if parts.len() != targets.len() {
            let rule = format!("the batch has {} parts: give a tensor for each", parts.len());
            return Err(Error::value("staging", rule).with("tensors", targets.len()));
        }
        for (target, part) in targets.iter().zip(parts) {
            target.device_address("staging")?;
            if target.device() != Device::Cuda(self.context.ordinal()) {
                return Err(Error::new(ErrorKind::Device, "staging", "batches go to the staging's device")
                    .argument("target", target));
            }
            if target.len() * target.dtype().size() < part.1 {
                return Err(Error::shape("staging", format!("the part has {} bytes", part.1))
                    .argument("target", target));
            }
            if !target.owns_storage() {
                let rule = "the target shares its storage with another tensor: writing would move it";
                return Err(Error::value("staging", rule).argument("target", target));
            }
        }
        let _bound = self.context.bind()?;
        let fail = |e| explain("staging", e);
        let compute = self.context.compute_stream();
        slot.copied.before(compute).map_err(fail)?;
        for (target, &(start, len)) in targets.iter_mut().zip(parts).filter(|(_, part)| part.1 > 0) {
            let to = target.device_address_mut("staging")?;
            let from = slot.device.address() + start as u64;
            // SAFETY: the slot has the place and the target at least as many bytes; both are freed in stream order.
            unsafe { result::memcpy_dtod_async(to, from, len, compute) }.map_err(fail)?;
        }
        slot.free.record(compute).map_err(fail)?;
        self.taken += 1;
        Ok(())
    }
}

/// Whether a stream has reached an event, or it was never recorded.
fn is_done(event: &Event) -> std::result::Result<bool, result::DriverError> {
    // SAFETY: the handle is live.
    match unsafe { result::event::query(event.handle) } {
        Ok(()) => Ok(true),
        Err(result::DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Copies in flight read host memory and write device memory that others get next. An error here has shown, or
        // will show, where something waits for the device.
        let _bound = self.context.bind();
        for slot in &self.slots {
            // SAFETY: the handle is live.
            let _ = unsafe { result::event::synchronize(slot.copied.handle) };
        }
    }
}
