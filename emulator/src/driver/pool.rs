//! Stream-ordered allocation and memory pools. A pool keeps nothing in reserve: memory that is freed goes back to the
//! device when the stream reaches the free, so what is reserved is what is used.

use super::abi::PoolProperties;
use super::error::{
    CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OUT_OF_MEMORY,
    Cuda,
};
use super::session::{Session, in_context, put, with_driver};
use super::state::{Origin, Pool, State, Work};
use super::{CUresult, Handle, device};
use std::ffi::c_void;

impl State {
    /// Notes that memory of a pool was freed; a destroyed pool goes with its last allocation.
    pub fn release_from_pool(&mut self, handle: Handle, bytes: u64) {
        if let Ok(pool) = self.pools.get_mut(handle) {
            pool.used -= bytes.min(pool.used);
            if pool.destroyed && pool.used == 0 {
                let _ = self.pools.remove(handle);
            }
        }
    }

    /// A pool that the program may use.
    fn pool(&mut self, handle: Handle) -> Cuda<&mut Pool> {
        let pool = self.pools.get_mut(handle).map_err(|_| CUDA_ERROR_INVALID_VALUE)?;
        if pool.destroyed { Err(CUDA_ERROR_INVALID_VALUE) } else { Ok(pool) }
    }
}

/// Allocates in stream order. The address is good at once; kernels may use it after this point of the stream. No bytes
/// are at address 0, which may be freed: programs with empty arrays rely on that.
fn allocate(mut session: Session, context: Handle, bytes: usize, pool: Handle, stream: Handle) -> Cuda<u64> {
    let stream = session.stream(context, stream)?;
    if session.capturing(stream)? {
        session.invalidate(stream);
        return Err(CUDA_ERROR_NOT_SUPPORTED);
    }
    session.refuse_implicit(stream)?;
    let size = bytes as u64;
    let found = session.pool(pool)?;
    if size == 0 {
        return Ok(0);
    }
    if found.limit > 0 && size > found.limit - found.used.min(found.limit) {
        return Err(CUDA_ERROR_OUT_OF_MEMORY);
    }
    let origin = Origin::Pool { pool };
    let address = match session.allocate(context, bytes, origin) {
        // What queued frees hold may be enough: a real pool waits for them too.
        Err(CUDA_ERROR_OUT_OF_MEMORY) => {
            session = session.run_context(context);
            session.healthy(context)?;
            session.allocate(context, bytes, origin)?
        }
        other => other?,
    };
    let found = session.pool(pool)?;
    found.used += size;
    found.used_high = found.used_high.max(found.used);
    found.reserved_high = found.reserved_high.max(found.used);
    Ok(address)
}

/// Allocates device memory from the current pool.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemAllocAsync(
    address: Option<&mut u64>,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    in_context(|session, context| {
        let address = address.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let pool = session.current_pool;
        *address = allocate(session, context, bytes, pool, stream)?;
        Ok(())
    })
}

/// Allocates device memory from a pool.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: Option<&mut u64>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> CUresult {
    in_context(|session, context| {
        let address = address.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        *address = allocate(session, context, bytes, pool, stream)?;
        Ok(())
    })
}

/// Frees device memory when the stream gets there. Null is allowed.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        if address == 0 {
            return Ok(());
        }
        let owned = session.allocations.get(&address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if owned.freeing || matches!(owned.origin, Origin::Pinned { .. }) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let eager = session.settings.eager;
        let (mut session, _) = session.submit_uncapturable(stream, Work::Free { address })?;
        // In eager mode the memory is free already.
        if !eager && let Some(owned) = session.allocations.get_mut(&address) {
            owned.freeing = true;
        }
        Ok(())
    })
}

/// Makes a pool.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemPoolCreate(
    pool: Option<&mut Handle>,
    properties: Option<&PoolProperties>,
) -> CUresult {
    with_driver(|mut session| {
        let properties = properties.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if properties.allocation != 1 || properties.location != 1 || properties.device != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if properties.handles != 0 {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        let made = Pool { limit: properties.limit as u64, reuse: [1; 3], ..Pool::default() };
        put(pool, session.pools.add(made))
    })
}

/// Destroys a pool; what was allocated from it stays until it is freed. The default pool cannot be destroyed.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemPoolDestroy(pool: Handle) -> CUresult {
    with_driver(|mut session| {
        if session.pool(pool)?.is_default {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        session.pool(pool)?.destroyed = true;
        session.release_from_pool(pool, 0);
        if session.current_pool == pool {
            session.current_pool = session.default_pool;
        }
        Ok(())
    })
}

/// An attribute of a pool, by `CUmemPool_attribute`: the first three are `int`, the others 64 bits.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: *mut c_void) -> CUresult {
    with_driver(|mut session| {
        let pool = session.pool(pool)?;
        if value.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let long = match attribute {
            1..=3 => {
                // SAFETY: the function's contract: these attributes are `int`.
                unsafe { value.cast::<i32>().write(pool.reuse[attribute as usize - 1]) };
                return Ok(());
            }
            4 => pool.threshold,
            5 | 7 => pool.used,
            6 => pool.reserved_high,
            8 => pool.used_high,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        // SAFETY: the function's contract: these attributes are `cuuint64_t`.
        unsafe { value.cast::<u64>().write(long) };
        Ok(())
    })
}

/// Sets an attribute of a pool. The release threshold is remembered; high-water marks can only be set to zero, which
/// starts them anew.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, value: *mut c_void) -> CUresult {
    with_driver(|mut session| {
        let pool = session.pool(pool)?;
        if value.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if let 1..=3 = attribute {
            // SAFETY: the function's contract: these attributes are `int`.
            pool.reuse[attribute as usize - 1] = i32::from(unsafe { value.cast::<i32>().read() } != 0);
            return Ok(());
        }
        if !matches!(attribute, 4 | 6 | 8) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: the function's contract: these attributes are `cuuint64_t`.
        let long = unsafe { value.cast::<u64>().read() };
        match attribute {
            4 => pool.threshold = long,
            6 if long == 0 => pool.reserved_high = pool.used,
            8 if long == 0 => pool.used_high = pool.used,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        Ok(())
    })
}

/// Gives back what a pool holds in reserve: nothing.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuMemPoolTrimTo(pool: Handle, _keep: usize) -> CUresult {
    with_driver(|mut session| session.pool(pool).map(|_| ()))
}

/// The device's default pool.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: Option<&mut Handle>, device: i32) -> CUresult {
    with_driver(|session| {
        device::check(device)?;
        put(pool, session.default_pool)
    })
}

/// The device's current pool.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetMemPool(pool: Option<&mut Handle>, device: i32) -> CUresult {
    with_driver(|session| {
        device::check(device)?;
        put(pool, session.current_pool)
    })
}

/// Sets the pool that `cuMemAllocAsync` takes memory from.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceSetMemPool(device: i32, pool: Handle) -> CUresult {
    with_driver(|mut session| {
        device::check(device)?;
        session.pool(pool).map_err(|_| CUDA_ERROR_INVALID_HANDLE)?;
        session.current_pool = pool;
        Ok(())
    })
}
