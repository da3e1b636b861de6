//! Device memory and page-locked host memory: allocating, freeing, asking about pointers.

use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OUT_OF_MEMORY, Cuda};
use super::session::{Session, in_context, put, with_driver};
use super::state::{Origin, Owned, State};
use super::{CUresult, Handle};
use crate::memory::MemoryError;
use std::ffi::c_void;

/// Rows of pitched allocations start at multiples of this.
const PITCH: usize = 512;

/// All flags of `cuMemHostAlloc`: portable, mapped, write-combined.
const HOST_FLAGS: u32 = 7;

/// The code for an error of the device's memory.
pub(super) fn code(error: &MemoryError) -> CUresult {
    match error {
        MemoryError::OutOfMemory { .. } => CUDA_ERROR_OUT_OF_MEMORY,
        MemoryError::Invalid { .. } => CUDA_ERROR_INVALID_VALUE,
    }
}

impl State {
    /// Allocates and notes whose it is.
    pub fn allocate(&mut self, context: Handle, bytes: usize, origin: Origin) -> Cuda<u64> {
        let size = bytes as u64;
        if size == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let memory = self.memory.clone().ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let address = match origin {
            Origin::Pinned { .. } => memory.allocate_pinned(size),
            Origin::Device | Origin::Pool { .. } => memory.allocate(size),
        };
        let address = address.map_err(|error| code(&error))?;
        self.allocated += 1;
        self.allocations.insert(address, Owned { context, size, origin, freeing: false, id: self.allocated });
        Ok(address)
    }

    /// Gives an allocation back.
    pub fn release(&mut self, address: u64) {
        let Some(owned) = self.allocations.remove(&address) else { return };
        if let Some(memory) = &self.memory
            && let Err(error) = memory.free(address)
        {
            eprintln!("pretext emulated device: free: {error}");
        }
        if let Origin::Pool { pool } = owned.origin {
            self.release_from_pool(pool, owned.size);
        }
    }

    /// The program's allocation that contains an address, and where it starts.
    pub fn owner(&self, address: u64) -> Option<(u64, &Owned)> {
        let (&start, owned) = self.allocations.range(..=address).next_back()?;
        (address - start < owned.size).then_some((start, owned))
    }
}

impl Session {
    /// Waits for the context's work and frees, if the allocation is of the kind that the call frees.
    fn free(mut self, context: Handle, address: u64, pinned: bool) -> Cuda<()> {
        if address == 0 {
            return Ok(());
        }
        let owned = self.allocations.get(&address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if matches!(owned.origin, Origin::Pinned { .. }) != pinned || owned.freeing {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        self.refuse_unsafe()?;
        let mut session = self.run_context(context);
        session.release(address);
        session.healthy(context)
    }
}

/// Allocates device memory.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemAlloc_v2(address: Option<&mut u64>, bytes: usize) -> CUresult {
    in_context(|mut session, context| {
        session.refuse_unsafe()?;
        put(address, session.allocate(context, bytes, Origin::Device)?)
    })
}

/// Allocates rows of device memory, each aligned.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemAllocPitch_v2(
    address: Option<&mut u64>,
    pitch: Option<&mut usize>,
    width: usize,
    height: usize,
    element: u32,
) -> CUresult {
    in_context(|mut session, context| {
        session.refuse_unsafe()?;
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(PITCH).ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        let bytes = row.checked_mul(height).ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        put(pitch, row)?;
        put(address, session.allocate(context, bytes, Origin::Device)?)
    })
}

/// Waits for the context's work and frees device memory. Null is allowed.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> CUresult {
    in_context(|session, context| session.free(context, address, false))
}

/// Free and total device memory.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: Option<&mut usize>, total: Option<&mut usize>) -> CUresult {
    in_context(|session, _| {
        let capacity = session.device()?.capacity();
        put(free, capacity.0 as usize)?;
        put(total, capacity.1 as usize)
    })
}

/// Start and size of the allocation that contains an address.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(
    base: Option<&mut u64>,
    size: Option<&mut usize>,
    address: u64,
) -> CUresult {
    in_context(|session, _| {
        let found = session.device()?.find(address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if let Some(base) = base {
            *base = found.address;
        }
        if let Some(size) = size {
            *size = found.size as usize;
        }
        Ok(())
    })
}

/// Allocates page-locked host memory.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemAllocHost_v2(pointer: Option<&mut *mut c_void>, bytes: usize) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuMemHostAlloc(pointer, bytes, 0) }
}

/// Allocates page-locked host memory, which kernels may use by the same address.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemHostAlloc(
    pointer: Option<&mut *mut c_void>,
    bytes: usize,
    flags: u32,
) -> CUresult {
    in_context(|mut session, context| {
        if flags & !HOST_FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        session.refuse_unsafe()?;
        put(pointer, session.allocate(context, bytes, Origin::Pinned { flags })? as *mut c_void)
    })
}

/// Waits for the context's work and frees page-locked host memory.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> CUresult {
    in_context(|session, context| session.free(context, pointer as u64, true))
}

/// The page-locked allocation that contains a pointer, with its flags.
fn pinned(session: &Session, pointer: *mut c_void) -> Cuda<u32> {
    match session.owner(pointer as u64) {
        Some((_, Owned { origin: Origin::Pinned { flags }, .. })) => Ok(*flags),
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

/// The device's address for page-locked host memory: the same.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemHostGetDevicePointer_v2(
    address: Option<&mut u64>,
    pointer: *mut c_void,
    flags: u32,
) -> CUresult {
    in_context(|session, _| {
        pinned(&session, pointer)?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        put(address, pointer as u64)
    })
}

/// The flags that page-locked host memory was allocated with.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemHostGetFlags(flags: Option<&mut u32>, pointer: *mut c_void) -> CUresult {
    in_context(|session, _| put(flags, pinned(&session, pointer)?))
}

/// What an attribute of a pointer is written as.
enum Value {
    Word(u32),
    Long(u64),
}

/// An attribute of a pointer, by `CUpointer_attribute`.
fn attribute(session: &Session, attribute: u32, address: u64) -> Cuda<Value> {
    let found = session.device()?.find(address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let owned = session.owner(address).map(|(_, owned)| owned);
    Ok(match attribute {
        1 => Value::Long(owned.map_or(session.primary, |owned| owned.context) as u64),
        2 => Value::Word(if found.pinned { 1 } else { 2 }),
        3 => Value::Long(address),
        4 if found.pinned => Value::Long(address),
        // Synchronous memory operations, managed memory, process sharing, GPUDirect: none.
        6 | 8 | 10 | 15 => Value::Word(0),
        7 => Value::Long(owned.map_or(0, |owned| owned.id)),
        9 => Value::Word(0),
        11 | 19 => Value::Long(found.address),
        12 | 18 => Value::Long(found.size),
        13 => Value::Word(1),
        14 => Value::Long(0),
        16 => Value::Word(3),
        17 => Value::Long(match owned.map(|owned| owned.origin) {
            Some(Origin::Pool { pool }) => pool as u64,
            _ => 0,
        }),
        20 => Value::Long(owned.map_or(0, |owned| owned.id)),
        21 => Value::Word(0),
        _ => return Err(CUDA_ERROR_INVALID_VALUE),
    })
}

/// # Safety
/// `to` is valid for a value of the attribute's type.
unsafe fn store(value: &Value, to: *mut c_void) {
    match value {
        // SAFETY: the caller's contract.
        Value::Word(value) => unsafe { to.cast::<u32>().write(*value) },
        // SAFETY: the caller's contract.
        Value::Long(value) => unsafe { to.cast::<u64>().write(*value) },
    }
}

/// One attribute of a pointer that the driver knows.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuPointerGetAttribute(data: *mut c_void, which: u32, address: u64) -> CUresult {
    with_driver(|session| {
        if data.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let value = attribute(&session, which, address)?;
        // SAFETY: the function's contract.
        unsafe { store(&value, data) };
        Ok(())
    })
}

/// Several attributes of any pointer; those of a pointer that the driver does not know are zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuPointerGetAttributes(
    count: u32,
    attributes: *const u32,
    data: *const *mut c_void,
    address: u64,
) -> CUresult {
    with_driver(|session| {
        if attributes.is_null() || data.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let known = session.device()?.find(address).is_some();
        for i in 0..count as usize {
            // SAFETY: the function's contract: `count` attributes and places.
            let (which, to) = unsafe { (attributes.add(i).read(), data.add(i).read()) };
            if to.is_null() {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            let value = match attribute(&session, which, address) {
                Ok(value) => value,
                Err(_) if matches!(which, 2 | 6 | 8 | 10 | 13 | 15 | 16 | 21) => Value::Word(0),
                // An unknown pointer is on no device.
                Err(_) if which == 9 => Value::Word(if known { 0 } else { (-2i32) as u32 }),
                Err(_) if (1..=20).contains(&which) => Value::Long(0),
                Err(code) => return Err(code),
            };
            // SAFETY: the function's contract.
            unsafe { store(&value, to) };
        }
        Ok(())
    })
}

/// Sets an attribute of a pointer: only that memory operations be synchronous exists, and it is not supported.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuPointerSetAttribute(
    _value: *const c_void,
    _which: u32,
    _address: u64,
) -> CUresult {
    with_driver(|_| Err(CUDA_ERROR_NOT_SUPPORTED))
}
