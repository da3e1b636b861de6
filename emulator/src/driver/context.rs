//! Contexts: making them, each thread's stack of them, and what can be set on them.

use super::error::{
    CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, CUDA_ERROR_UNSUPPORTED_LIMIT, Cuda,
};
use super::queue::NON_BLOCKING;
use super::session::{Session, context_stack, current, in_context, put, with_driver};
use super::state::{Context, Stream};
use super::{CUresult, Handle, device};
use std::collections::BTreeMap;

/// Limits of a new context: stack, printf buffer, heap, synchronisation depth, pending launches, L2 fetch, persisting L2.
pub(super) const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];

/// All `CUctx_flags` of CUDA 12.8.
pub(super) const FLAGS: u32 = 0x1ff;

/// Streams' priorities: least and greatest.
pub(super) const PRIORITIES: (i32, i32) = (0, -5);

impl Session {
    /// A new context's handle, with its legacy stream.
    pub(super) fn make_context(&mut self, flags: u32) -> Handle {
        let context = self.contexts.add(Context {
            flags,
            active: true,
            fault: None,
            limits: LIMITS,
            cache: 0,
            banks: 1,
            legacy: 0,
            threads: BTreeMap::new(),
        });
        self.add_legacy_stream(context);
        context
    }

    pub(super) fn add_legacy_stream(&mut self, context: Handle) {
        let mut stream = Stream::new(context, 0, 0);
        (stream.legacy, stream.built_in) = (true, true);
        let legacy = self.streams.add(stream);
        if let Ok(context) = self.contexts.get_mut(context) {
            context.legacy = legacy;
        }
    }

    /// Finishes a context's work and takes away all that it owns.
    pub(super) fn clear_context(self, context: Handle) -> Session {
        let mut session = self.run_context(context);
        let captures: Vec<Handle> = session
            .captures
            .iter()
            .filter(|(_, capture)| {
                session.streams.get(capture.origin).is_ok_and(|stream| stream.context == context)
            })
            .map(|(handle, _)| handle)
            .collect();
        for capture in captures {
            let graph = session.captures.remove(capture).map(|capture| capture.graph);
            let _ = graph.and_then(|graph| session.destroy_graph(graph));
        }
        session.streams.retain(|stream| stream.context != context);
        session.events.retain(|event| event.context != context);
        session.modules.retain(|module| module.context != context);
        session.functions.retain(|function| function.context != context);
        let addresses: Vec<u64> = session
            .allocations
            .iter()
            .filter(|(_, owned)| owned.context == context)
            .map(|(&address, _)| address)
            .collect();
        for address in addresses {
            session.release(address);
        }
        session
    }

    fn existing(&self, context: Handle) -> Cuda<Handle> {
        match self.contexts.get(context) {
            Ok(found) if found.active => Ok(context),
            _ => Err(CUDA_ERROR_INVALID_CONTEXT),
        }
    }
}

/// Makes a context, current on this thread.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxCreate_v2(context: Option<&mut Handle>, flags: u32, device: i32) -> CUresult {
    with_driver(|mut session| {
        device::check(device)?;
        let context = context.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if flags & !FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        *context = session.make_context(flags);
        context_stack(|stack| stack.push(*context));
        Ok(())
    })
}

/// Makes a context; affinities are not supported.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxCreate_v3(
    context: Option<&mut Handle>,
    _affinities: *mut u8,
    count: i32,
    flags: u32,
    device: i32,
) -> CUresult {
    if count != 0 {
        return with_driver(|_| Err(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY));
    }
    // SAFETY: the same contract.
    unsafe { cuCtxCreate_v2(context, flags, device) }
}

/// Makes a context; its parameters have to be null.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxCreate_v4(
    context: Option<&mut Handle>,
    parameters: *mut u8,
    flags: u32,
    device: i32,
) -> CUresult {
    if !parameters.is_null() {
        return with_driver(|_| Err(CUDA_ERROR_NOT_SUPPORTED));
    }
    // SAFETY: the same contract.
    unsafe { cuCtxCreate_v2(context, flags, device) }
}

/// Finishes a context's work and destroys it with all that it owns.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxDestroy_v2(context: Handle) -> CUresult {
    with_driver(|session| {
        session.existing(context)?;
        if context == session.primary {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        let mut session = session.clear_context(context);
        session.contexts.remove(context)?;
        context_stack(|stack| stack.pop_if(|last| *last == context));
        Ok(())
    })
}

/// Makes a context current on top of the present one.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> CUresult {
    with_driver(|session| {
        session.existing(context)?;
        context_stack(|stack| stack.push(context));
        Ok(())
    })
}

/// Takes the current context from the stack.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: Option<&mut Handle>) -> CUresult {
    with_driver(|_| {
        let popped = context_stack(Vec::pop).ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
        if let Some(context) = context {
            *context = popped;
        }
        Ok(())
    })
}

/// Makes a context current in place of the present one; null leaves none.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxSetCurrent(context: Handle) -> CUresult {
    with_driver(|session| {
        if context != 0 {
            session.existing(context)?;
        }
        context_stack(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        });
        Ok(())
    })
}

/// The current context, null where there is none.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetCurrent(context: Option<&mut Handle>) -> CUresult {
    with_driver(|_| put(context, context_stack(|stack| stack.last().copied().unwrap_or(0))))
}

/// The current context's device.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetDevice(device: Option<&mut i32>) -> CUresult {
    with_driver(|session| {
        current(&session)?;
        put(device, 0)
    })
}

/// The current context's flags.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetFlags(flags: Option<&mut u32>) -> CUresult {
    in_context(|session, context| put(flags, session.contexts.get(context)?.flags))
}

/// Sets the current context's flags.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxSetFlags(flags: u32) -> CUresult {
    in_context(|mut session, context| {
        if flags & !FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        session.contexts.get_mut(context)?.flags = flags;
        Ok(())
    })
}

/// A number that no other context has.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetId(context: Handle, id: Option<&mut u64>) -> CUresult {
    with_driver(|session| {
        let context = if context == 0 { current(&session)? } else { session.existing(context)? };
        put(id, context as u64)
    })
}

/// The API version that a context was made for: 3.2, as of `cuCtxCreate_v2`.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetApiVersion(context: Handle, version: Option<&mut u32>) -> CUresult {
    with_driver(|session| {
        if context == 0 {
            current(&session)?
        } else {
            session.existing(context)?
        };
        put(version, 3020)
    })
}

/// Waits for all work of the current context.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxSynchronize() -> CUresult {
    in_context(|mut session, context| {
        session.refuse_unsafe()?;
        let session = session.run_context(context);
        session.healthy(context)
    })
}

fn limit_index(limit: u32) -> Cuda<usize> {
    let index = limit as usize;
    if index < LIMITS.len() { Ok(index) } else { Err(CUDA_ERROR_UNSUPPORTED_LIMIT) }
}

/// A limit of the current context.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetLimit(value: Option<&mut usize>, limit: u32) -> CUresult {
    in_context(|session, context| put(value, session.contexts.get(context)?.limits[limit_index(limit)?]))
}

/// Sets a limit of the current context. They are remembered; nothing in the emulator is bounded by them.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxSetLimit(limit: u32, value: usize) -> CUresult {
    in_context(|mut session, context| {
        let index = limit_index(limit)?;
        session.contexts.get_mut(context)?.limits[index] = value;
        Ok(())
    })
}

/// The preferred split of cache and shared memory.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetCacheConfig(config: Option<&mut u32>) -> CUresult {
    in_context(|session, context| put(config, session.contexts.get(context)?.cache))
}

/// Sets the preferred split of cache and shared memory, which changes nothing here.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxSetCacheConfig(config: u32) -> CUresult {
    in_context(|mut session, context| {
        if config > 3 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        session.contexts.get_mut(context)?.cache = config;
        Ok(())
    })
}

/// The width of shared memory's banks.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetSharedMemConfig(config: Option<&mut u32>) -> CUresult {
    in_context(|session, context| put(config, session.contexts.get(context)?.banks))
}

/// Sets the width of shared memory's banks, which these architectures do not have: four bytes is the only one.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxSetSharedMemConfig(config: u32) -> CUresult {
    in_context(|_, _| if config > 2 { Err(CUDA_ERROR_INVALID_VALUE) } else { Ok(()) })
}

/// The streams' priorities: least and greatest.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(
    least: Option<&mut i32>,
    greatest: Option<&mut i32>,
) -> CUresult {
    in_context(|_, _| {
        if let Some(least) = least {
            *least = PRIORITIES.0;
        }
        if let Some(greatest) = greatest {
            *greatest = PRIORITIES.1;
        }
        Ok(())
    })
}

/// Forgets persisting lines of the L2 cache: there is no cache.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuCtxResetPersistingL2Cache() -> CUresult {
    in_context(|_, _| Ok(()))
}

/// Starts profiling: nothing to start.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuProfilerStart() -> CUresult {
    in_context(|_, _| Ok(()))
}

/// Stops profiling: nothing to stop.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuProfilerStop() -> CUresult {
    in_context(|_, _| Ok(()))
}

/// The flags that a stream may be made with.
pub(super) fn stream_flags(flags: u32) -> Cuda<u32> {
    if flags & !NON_BLOCKING == 0 { Ok(flags) } else { Err(CUDA_ERROR_INVALID_VALUE) }
}
