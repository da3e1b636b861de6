//! Copies. As with a real driver: a copy from pageable memory takes its bytes at the call, one to pageable memory has
//! returned them when the call returns, page-locked memory is read and written when the stream gets there, and a copy
//! within the device does not make the host wait, whatever its name.

use super::abi::{Memcpy2D, Memcpy3D, Side2D, Side3D};
use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, Cuda};
use super::memory::code;
use super::session::{Session, in_context};
use super::work::{CopyTask, Place, Side, Task};
use super::{CUresult, Handle};
use std::ffi::c_void;
use std::sync::Arc;

/// What a program says a pointer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Claim {
    Host,
    Device,
    /// The driver finds out.
    Any,
}

/// When a copy is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// On the legacy stream; the host waits if host memory takes part.
    Now,
    /// On the stream.
    Queued(Handle),
}

/// Host or device memory, by the address.
fn place(session: &Session, claim: Claim, address: u64) -> Cuda<Place> {
    let found = session.device()?.find(address);
    match (claim, found) {
        (_, _) if address == 0 => Err(CUDA_ERROR_INVALID_VALUE),
        (Claim::Device, None) => Err(CUDA_ERROR_INVALID_VALUE),
        (Claim::Device, Some(_)) => Ok(Place::Device(address)),
        (Claim::Host | Claim::Any, Some(found)) if !found.pinned => Ok(Place::Device(address)),
        (Claim::Host | Claim::Any, _) => Ok(Place::Host(address as usize)),
    }
}

impl Session {
    /// Host memory that the driver did not allocate.
    fn pageable(&self, side: &Side) -> Cuda<bool> {
        let Place::Host(address) = side.place else { return Ok(false) };
        Ok(self.device()?.find(address as u64).is_none())
    }

    /// Refuses rows that leave their allocation.
    fn check_range(&self, side: &Side, copy: &CopyTask) -> Cuda<()> {
        let address = match side.place {
            Place::Host(address) => address as u64,
            Place::Device(address) => address,
            Place::Staged(_) => return Ok(()),
        };
        let extent = side.extent(copy.width, copy.height, copy.depth).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        match self.device()?.find(address) {
            Some(found) if extent > found.size - (address - found.address) => Err(CUDA_ERROR_INVALID_VALUE),
            _ => Ok(()),
        }
    }

    /// Checks a copy and does it when it is due.
    fn copy(mut self, context: Handle, mut copy: CopyTask, when: When) -> Cuda<()> {
        if copy.width == 0 || copy.height == 0 || copy.depth == 0 {
            return Ok(());
        }
        for side in [&copy.to, &copy.from] {
            let overlapping = (copy.height > 1 && side.pitch < copy.width)
                || (copy.depth > 1 && side.slice < copy.height.saturating_mul(side.pitch));
            if overlapping {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            self.check_range(side, &copy)?;
        }
        let device_only = matches!((&copy.to.place, &copy.from.place), (Place::Device(_), Place::Device(_)));
        let stream = match when {
            When::Now => {
                self.refuse_unsafe()?;
                self.stream(context, 0)?
            }
            When::Queued(stream) => self.stream(context, stream)?,
        };
        let mut wait = when == When::Now && !device_only;
        if !self.capturing(stream)? {
            self.refuse_implicit(stream)?;
            if self.pageable(&copy.to)? {
                wait = true;
            } else if !wait && self.pageable(&copy.from)? {
                let place = copy.stage(&*self.device()?).map_err(|error| code(&error))?;
                copy.from = Side { place, pitch: copy.width, slice: copy.width * copy.height };
            }
        }
        self.submit(stream, Task::Copy(Arc::new(copy)), wait)
    }
}

/// A copy of bytes in a row.
fn linear(name: &'static str, to: (Claim, u64), from: (Claim, u64), bytes: usize, when: When) -> CUresult {
    in_context(|session, context| {
        if bytes == 0 {
            return Ok(());
        }
        let to = Side::linear(place(&session, to.0, to.1)?);
        let from = Side::linear(place(&session, from.0, from.1)?);
        session.copy(context, CopyTask { name, to, from, width: bytes as u64, height: 1, depth: 1 }, when)
    })
}

/// Copies to the device, and waits.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> CUresult {
    linear("cuMemcpyHtoD", (Claim::Device, to), (Claim::Host, from as u64), bytes, When::Now)
}

/// Copies to the device when the stream gets there; pageable memory is read now.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    linear("cuMemcpyHtoDAsync", (Claim::Device, to), (Claim::Host, from as u64), bytes, When::Queued(stream))
}

/// Copies from the device, and waits.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> CUresult {
    linear("cuMemcpyDtoH", (Claim::Host, to as u64), (Claim::Device, from), bytes, When::Now)
}

/// Copies from the device when the stream gets there; to pageable memory that is before the call returns.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    linear("cuMemcpyDtoHAsync", (Claim::Host, to as u64), (Claim::Device, from), bytes, When::Queued(stream))
}

/// Copies within the device, on the legacy stream; the host does not wait.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> CUresult {
    linear("cuMemcpyDtoD", (Claim::Device, to), (Claim::Device, from), bytes, When::Now)
}

/// Copies within the device when the stream gets there.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> CUresult {
    linear("cuMemcpyDtoDAsync", (Claim::Device, to), (Claim::Device, from), bytes, When::Queued(stream))
}

/// Copies between any two places.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpy(to: u64, from: u64, bytes: usize) -> CUresult {
    linear("cuMemcpy", (Claim::Any, to), (Claim::Any, from), bytes, When::Now)
}

/// Copies between any two places when the stream gets there.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) -> CUresult {
    linear("cuMemcpyAsync", (Claim::Any, to), (Claim::Any, from), bytes, When::Queued(stream))
}

/// Copies between contexts: both are on the one device.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyPeer(
    to: u64,
    to_context: Handle,
    from: u64,
    from_context: Handle,
    bytes: usize,
) -> CUresult {
    match peers(to_context, from_context) {
        0 => linear("cuMemcpyPeer", (Claim::Device, to), (Claim::Device, from), bytes, When::Now),
        refused => refused,
    }
}

/// Copies between contexts when the stream gets there.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: Handle,
    from: u64,
    from_context: Handle,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    match peers(to_context, from_context) {
        0 => linear(
            "cuMemcpyPeerAsync",
            (Claim::Device, to),
            (Claim::Device, from),
            bytes,
            When::Queued(stream),
        ),
        refused => refused,
    }
}

/// Refuses contexts that there are not.
fn peers(to: Handle, from: Handle) -> CUresult {
    in_context(|session, _| {
        session.contexts.get(to)?;
        session.contexts.get(from).map(|_| ())
    })
}

/// One side of a 2D or 3D copy, in numbers.
struct Description {
    kind: u32,
    host: *mut c_void,
    device: u64,
    pitch: usize,
    /// Rows of a slice.
    rows: usize,
    offset: [usize; 3],
}

impl From<&Side2D> for Description {
    fn from(side: &Side2D) -> Description {
        let Side2D { kind, host, device, pitch, x, y, .. } = *side;
        Description { kind, host, device, pitch, rows: 0, offset: [x, y, 0] }
    }
}

impl From<&Side3D> for Description {
    fn from(side: &Side3D) -> Description {
        let Side3D { kind, host, device, pitch, height, x, y, z, .. } = *side;
        Description { kind, host, device, pitch, rows: height, offset: [x, y, z] }
    }
}

/// The side of a copy of rows of `width` bytes, `height` to a slice. A pitch of 0 stands for rows without gaps.
fn side(session: &Session, given: Description, width: usize, height: usize) -> Cuda<Side> {
    let (claim, address) = match given.kind {
        1 => (Claim::Host, given.host as u64),
        2 => (Claim::Device, given.device),
        4 => (Claim::Any, given.device),
        3 => return Err(CUDA_ERROR_NOT_SUPPORTED),
        _ => return Err(CUDA_ERROR_INVALID_VALUE),
    };
    let pitch = if given.pitch == 0 { width } else { given.pitch };
    let slice = pitch.checked_mul(if given.rows == 0 { height } else { given.rows });
    let slice = slice.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let [x, y, z] = given.offset;
    let skipped =
        y.checked_mul(pitch).zip(z.checked_mul(slice)).and_then(|(y, z)| x.checked_add(y)?.checked_add(z));
    let start =
        skipped.and_then(|skipped| address.checked_add(skipped as u64)).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if address == 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    Ok(Side { place: place(session, claim, start)?, pitch: pitch as u64, slice: slice as u64 })
}

/// The copy that a structure describes; shared with graph nodes.
pub(super) fn described(session: &Session, name: &'static str, copy: &Memcpy3D) -> Cuda<CopyTask> {
    if copy.source.level != 0 || copy.destination.level != 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let to = side(session, (&copy.destination).into(), copy.width, copy.height)?;
    let from = side(session, (&copy.source).into(), copy.width, copy.height)?;
    let (width, height, depth) = (copy.width as u64, copy.height as u64, copy.depth as u64);
    let task = CopyTask { name, to, from, width, height, depth };
    session.check_range(&task.to, &task)?;
    session.check_range(&task.from, &task)?;
    Ok(task)
}

fn copy_2d(name: &'static str, copy: *const Memcpy2D, when: When) -> CUresult {
    in_context(|session, context| {
        if copy.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: not null; valid by the callers' contract.
        let copy = unsafe { copy.read() };
        if copy.width == 0 || copy.height == 0 {
            return Ok(());
        }
        let to = side(&session, (&copy.destination).into(), copy.width, copy.height)?;
        let from = side(&session, (&copy.source).into(), copy.width, copy.height)?;
        let (width, height) = (copy.width as u64, copy.height as u64);
        session.copy(context, CopyTask { name, to, from, width, height, depth: 1 }, when)
    })
}

fn copy_3d(name: &'static str, copy: *const Memcpy3D, when: When) -> CUresult {
    in_context(|session, context| {
        if copy.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: not null; valid by the callers' contract.
        let copy = unsafe { copy.read() };
        if copy.width == 0 || copy.height == 0 || copy.depth == 0 {
            return Ok(());
        }
        let task = described(&session, name, &copy)?;
        session.copy(context, task, when)
    })
}

/// Copies rows.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpy2D_v2(copy: *const Memcpy2D) -> CUresult {
    copy_2d("cuMemcpy2D", copy, When::Now)
}

/// Copies rows of any pitch.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpy2DUnaligned_v2(copy: *const Memcpy2D) -> CUresult {
    copy_2d("cuMemcpy2DUnaligned", copy, When::Now)
}

/// Copies rows when the stream gets there.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const Memcpy2D, stream: Handle) -> CUresult {
    copy_2d("cuMemcpy2DAsync", copy, When::Queued(stream))
}

/// Copies slices of rows.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpy3D_v2(copy: *const Memcpy3D) -> CUresult {
    copy_3d("cuMemcpy3D", copy, When::Now)
}

/// Copies slices of rows when the stream gets there.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemcpy3DAsync_v2(copy: *const Memcpy3D, stream: Handle) -> CUresult {
    copy_3d("cuMemcpy3DAsync", copy, When::Queued(stream))
}
