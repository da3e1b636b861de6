//! The primary context: one for all who retain it, and the only one that outlives a fault by being reset.

use super::context::{FLAGS, LIMITS};
use super::error::{CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE};
use super::session::{put, with_driver};
use super::{CUresult, Handle, device};

/// Makes the primary context, or counts one more user of it.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: Option<&mut Handle>, device: i32) -> CUresult {
    with_driver(|mut session| {
        device::check(device)?;
        let context = context.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let flags = session.primary_flags;
        if session.primary == 0 {
            session.primary = session.make_context(flags);
        } else if session.retained == 0 {
            let primary = session.primary;
            session.add_legacy_stream(primary);
            let found = session.contexts.get_mut(primary)?;
            (found.active, found.fault, found.flags, found.limits) = (true, None, flags, LIMITS);
        }
        session.retained += 1;
        *context = session.primary;
        Ok(())
    })
}

/// Counts one user less of the primary context; the last takes everything in it away.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> CUresult {
    with_driver(|mut session| {
        device::check(device)?;
        if session.retained == 0 {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        session.retained -= 1;
        if session.retained == 0 {
            let primary = session.primary;
            let mut session = session.clear_context(primary);
            let found = session.contexts.get_mut(primary)?;
            found.active = false;
            found.threads.clear();
        }
        Ok(())
    })
}

/// Takes away everything in the primary context, a fault included. Its users keep it.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(device: i32) -> CUresult {
    with_driver(|session| {
        device::check(device)?;
        let primary = session.primary;
        if session.retained == 0 {
            return Ok(());
        }
        let mut session = session.clear_context(primary);
        session.add_legacy_stream(primary);
        let found = session.contexts.get_mut(primary)?;
        (found.fault, found.limits) = (None, LIMITS);
        found.threads.clear();
        Ok(())
    })
}

/// The primary context's flags, and whether it is active.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: i32,
    flags: Option<&mut u32>,
    active: Option<&mut i32>,
) -> CUresult {
    with_driver(|session| {
        device::check(device)?;
        put(flags, session.primary_flags)?;
        put(active, i32::from(session.retained > 0))
    })
}

/// Sets the primary context's flags.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) -> CUresult {
    with_driver(|mut session| {
        device::check(device)?;
        if flags & !FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if session.retained > 0 && session.primary_flags != flags {
            return Err(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE);
        }
        session.primary_flags = flags;
        Ok(())
    })
}
