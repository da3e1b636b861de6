//! Kernels as handles: what they need, and what may be set on them.

use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};
use super::occupancy::registers;
use super::session::{in_context, put};
use super::state::Function;
use super::{CUresult, Handle};
use std::ffi::c_char;

/// A number about a kernel, by `CUfunction_attribute`.
fn attribute(function: &Function, arch: u32, attribute: u32) -> Option<i32> {
    let kernel = &function.kernel;
    let (major, minor) = kernel.ptx_version();
    Some(match attribute {
        0 => kernel.max_threads() as i32,
        1 => kernel.static_shared_bytes() as i32,
        2 => kernel.constant_bytes() as i32,
        3 => kernel.local_bytes() as i32,
        4 => registers(kernel) as i32,
        5 => (major * 10 + minor) as i32,
        6 => arch as i32,
        7 => 0,
        8 => function.max_dynamic_shared as i32,
        9 => function.carveout,
        10..=13 => 0,
        14 => function.non_portable_cluster,
        15 => function.scheduling,
        _ => return None,
    })
}

/// A number about a kernel. Registers are the emulator's estimate, not ptxas'.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncGetAttribute(
    value: Option<&mut i32>,
    which: u32,
    function: Handle,
) -> CUresult {
    in_context(|session, _| {
        let function = session.functions.get(function)?;
        put(value, attribute(function, session.settings.arch, which).ok_or(CUDA_ERROR_INVALID_VALUE)?)
    })
}

/// Sets an attribute of a kernel: dynamic shared memory up to what a block may opt in to, carveout, cluster preferences.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncSetAttribute(function: Handle, which: u32, value: i32) -> CUresult {
    in_context(|mut session, _| {
        let limit = session.model().shared_of_block;
        let function = session.functions.get_mut(function)?;
        match which {
            8 => {
                let dynamic = u32::try_from(value).map_err(|_| CUDA_ERROR_INVALID_VALUE)?;
                if dynamic > limit.saturating_sub(function.kernel.static_shared_bytes()) {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                function.max_dynamic_shared = dynamic;
            }
            9 if (-1..=100).contains(&value) => function.carveout = value,
            14 if matches!(value, 0 | 1) => function.non_portable_cluster = value,
            15 if (0..=2).contains(&value) => function.scheduling = value,
            11..=13 => return Err(CUDA_ERROR_NOT_SUPPORTED),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        Ok(())
    })
}

/// Sets a kernel's preferred split of cache and shared memory, which changes nothing here.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncSetCacheConfig(function: Handle, config: u32) -> CUresult {
    in_context(|session, _| {
        session.functions.get(function)?;
        if config > 3 { Err(CUDA_ERROR_INVALID_VALUE) } else { Ok(()) }
    })
}

/// Sets the width of shared memory's banks, which these architectures do not have.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncSetSharedMemConfig(function: Handle, config: u32) -> CUresult {
    in_context(|session, _| {
        session.functions.get(function)?;
        if config > 2 { Err(CUDA_ERROR_INVALID_VALUE) } else { Ok(()) }
    })
}

/// A kernel's name; it lives as long as the module.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncGetName(name: Option<&mut *const c_char>, function: Handle) -> CUresult {
    in_context(|session, _| put(name, session.functions.get(function)?.name.as_ptr()))
}

/// A kernel's module.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncGetModule(module: Option<&mut Handle>, function: Handle) -> CUresult {
    in_context(|session, _| put(module, session.functions.get(function)?.module))
}

/// Offset and size of a kernel's parameter.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncGetParamInfo(
    function: Handle,
    index: usize,
    offset: Option<&mut usize>,
    size: Option<&mut usize>,
) -> CUresult {
    in_context(|session, _| {
        let kernel = &session.functions.get(function)?.kernel;
        let &parameter = kernel.parameters().get(index).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        put(offset, parameter.0)?;
        if let Some(size) = size {
            *size = parameter.1;
        }
        Ok(())
    })
}

/// Whether a kernel is loaded: it is.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncIsLoaded(loaded: Option<&mut u32>, function: Handle) -> CUresult {
    in_context(|session, _| {
        session.functions.get(function)?;
        put(loaded, 1)
    })
}

/// Loads a kernel: it is loaded.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuFuncLoad(function: Handle) -> CUresult {
    in_context(|session, _| session.functions.get(function).map(|_| ()))
}
