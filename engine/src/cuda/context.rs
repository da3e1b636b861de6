//! A device at work: its primary context, the stream that computes and the stream that copies.
//!
//! Everything on a device is ordered by one compute stream, so that memory can be handed out again as soon as its
//! owner is dropped. There is one [`Context`] a device for the whole process, made at the first use.

use super::memory::Pool;
use super::{DeviceInfo, constant, driver, extension};
use crate::{Error, ErrorKind, Result};
use cudarc::driver::{result, sys};
use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Devices of one process at most.
pub const MAX_DEVICES: usize = 16;

static CONTEXTS: [OnceLock<Context>; MAX_DEVICES] = [const { OnceLock::new() }; MAX_DEVICES];
/// Held while a context is made, so that there is only one.
static MAKING: Mutex<()> = Mutex::new(());

/// What a launch may ask of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block can have at most, after opting in.
    pub shared_per_block: usize,
}

/// A device with its streams and its memory.
pub struct Context {
    ordinal: usize,
    device: sys::CUdevice,
    handle: sys::CUcontext,
    compute: sys::CUstream,
    copy: sys::CUstream,
    info: DeviceInfo,
    limits: Limits,
    /// Held for reading by whoever puts something on the stream, for writing by whoever captures it.
    gate: RwLock<()>,
    pub(super) pool: Pool,
    pub(super) constants: constant::Cache,
}

// SAFETY: the handles are the driver's, which may be used from any thread; the rest is behind locks or never changes.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// The device `ordinal`, started if it was not.
///
/// # Errors
///
/// There is no driver or no such device, or it cannot be used.
#[track_caller]
pub fn context(ordinal: usize) -> Result<&'static Context> {
    let operation = "open CUDA device";
    let Some(slot) = CONTEXTS.get(ordinal) else {
        let text = format!("there is no device {ordinal}: at most {MAX_DEVICES} are used");
        return Err(Error::new(ErrorKind::Device, operation, text));
    };
    if let Some(context) = slot.get() {
        return Ok(context);
    }
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(context) = slot.get() {
        return Ok(context);
    }
    let devices = driver::probe()?;
    let Some(info) = devices.get(ordinal) else {
        let text = match devices.len() {
            0 => "the CUDA driver finds no device".to_string(),
            n => format!("there is no device {ordinal}: the driver has {n}, counted from 0"),
        };
        return Err(Error::new(ErrorKind::Device, operation, text));
    };
    let context = Context::new(ordinal, info.clone()).map_err(|e| explain(operation, e))?;
    Ok(slot.get_or_init(|| context))
}

/// The devices that were started.
pub(crate) fn started() -> impl Iterator<Item = &'static Context> {
    CONTEXTS.iter().filter_map(OnceLock::get)
}

/// A driver's error as the project's, with the emulated device's report where there is one.
#[track_caller]
pub(super) fn explain(operation: &str, error: result::DriverError) -> Error {
    let report = extension::last_report();
    let text = match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    let described = error.error_string().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut message = format!("the CUDA driver says {text}: {described}");
    if !report.is_empty() {
        message.push('\n');
        message.push_str(report.trim_end());
    }
    Error::new(ErrorKind::Device, operation, message)
}

thread_local! {
    /// How many [`Bound`] and [`Closed`] this thread holds.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// See [`Context::bind`].
#[must_use = "the device is this thread's to use until this is dropped"]
pub(super) struct Bound<'a> {
    _gate: Option<RwLockReadGuard<'a, ()>>,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
    }
}

/// See [`Context::close`].
#[must_use = "the device is closed to others until this is dropped"]
pub(super) struct Closed<'a> {
    _gate: Option<RwLockWriteGuard<'a, ()>>,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
    }
}

impl Context {
    fn new(ordinal: usize, info: DeviceInfo) -> std::result::Result<Context, result::DriverError> {
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED,
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
        };
        result::init()?;
        let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
        // SAFETY: the driver has just given the device; the context is kept for the rest of the process.
        let (handle, multiprocessors, shared) = unsafe {
            let handle = result::primary_ctx::retain(device)?;
            result::ctx::set_current(handle)?;
            let attribute = |which| result::device::get_attribute(device, which);
            (handle, attribute(MULTIPROCESSORS)?, attribute(SHARED)?)
        };
        let compute = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let copy = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let limits = Limits {
            multiprocessors: usize::try_from(multiprocessors).unwrap_or(1).max(1),
            shared_per_block: usize::try_from(shared).unwrap_or(0),
        };
        let pool = Pool::new(device)?;
        Ok(Context {
            ordinal,
            device,
            handle,
            compute,
            copy,
            info,
            limits,
            gate: RwLock::new(()),
            pool,
            constants: constant::Cache::default(),
        })
    }

    /// Makes this device the calling thread's, and keeps other threads from starting a capture until the result is
    /// dropped; waits while another thread captures, for what this one does would become a part of that graph.
    #[track_caller]
    pub(super) fn bind(&self) -> Result<Bound<'_>> {
        let inside = INSIDE.get();
        // A thread that is inside already, or captures, does not wait for itself.
        let gate = (inside == 0).then(|| self.gate.read().unwrap_or_else(PoisonError::into_inner));
        INSIDE.set(inside + 1);
        let bound = Bound { _gate: gate };
        // SAFETY: the context is retained for the rest of the process.
        unsafe { result::ctx::set_current(self.handle) }.map_err(|e| explain("use CUDA device", e))?;
        Ok(bound)
    }

    /// Keeps all other threads off the device until the result is dropped: for a capture.
    pub(super) fn close(&self) -> Closed<'_> {
        let gate = (INSIDE.get() == 0).then(|| self.gate.write().unwrap_or_else(PoisonError::into_inner));
        INSIDE.set(INSIDE.get() + 1);
        Closed { _gate: gate }
    }

    /// Its number, from 0.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// What the driver says of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// What a launch may ask of it.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Compute capability as one number: 90 for 9.0.
    pub fn architecture(&self) -> u32 {
        let (major, minor) = self.info.compute_capability;
        (major * 10 + minor).unsigned_abs()
    }

    /// The driver's number of the device.
    pub(super) fn device(&self) -> sys::CUdevice {
        self.device
    }

    /// The stream that all kernels run on.
    pub fn compute_stream(&self) -> sys::CUstream {
        self.compute
    }

    /// The stream that brings input while kernels run.
    pub fn copy_stream(&self) -> sys::CUstream {
        self.copy
    }

    /// Waits until everything on the compute stream is done; faults of kernels show here.
    #[track_caller]
    pub fn synchronize(&self) -> Result<()> {
        let _bound = self.bind()?;
        // SAFETY: the stream lives as long as the process.
        unsafe { result::stream::synchronize(self.compute) }.map_err(|e| explain("wait for the device", e))
    }
}
