//! Events: marks in streams, and the times at which streams reached them.

use super::error::{
    CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY,
    CUDA_ERROR_NOT_SUPPORTED, Cuda,
};
use super::session::{Session, in_context, put};
use super::state::{Event, Recorded, Work};
use super::{CUresult, Handle};
use std::time::Instant;

/// `CU_EVENT_BLOCKING_SYNC`, `CU_EVENT_DISABLE_TIMING`, `CU_EVENT_INTERPROCESS`.
const FLAGS: (u32, u32, u32) = (1, 2, 4);

/// Makes an event.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventCreate(event: Option<&mut Handle>, flags: u32) -> CUresult {
    in_context(|mut session, context| {
        if flags & !(FLAGS.0 | FLAGS.1 | FLAGS.2) != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if flags & FLAGS.2 != 0 {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        let timed = flags & FLAGS.1 == 0;
        put(event, session.events.add(Event { context, timed, recorded: Recorded::Never, time: None }))
    })
}

/// Destroys an event. What waits for it goes on waiting for the place in the stream.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventDestroy_v2(event: Handle) -> CUresult {
    in_context(|mut session, _| session.events.remove(event).map(|_| ()))
}

/// Marks this point of a stream.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuEventRecordWithFlags(event, stream, 0) }
}

/// Marks this point of a stream. Event nodes in captures (flag 1) are not supported.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        if session.events.get(event)?.context != context {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        match flags {
            0 => {}
            1 => return Err(CUDA_ERROR_NOT_SUPPORTED),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        if session.capturing(stream)?
            && let Some(capturing) = session.streams.get(stream)?.capturing.clone()
        {
            session.events.get_mut(event)?.recorded = Recorded::Captured(capturing.capture, capturing.after);
            return Ok(());
        }
        session.refuse_implicit(stream)?;
        let (mut session, operation) = session.enqueue(stream, [Work::Record { event }], Vec::new())?;
        session.events.get_mut(event)?.recorded = Recorded::Queued(stream, operation);
        Ok(())
    })
}

/// Where an event was recorded; None where it never was. An error in a capture.
fn recorded(session: &Session, event: Handle) -> Cuda<Option<(Handle, u64)>> {
    match session.events.get(event)?.recorded {
        Recorded::Never => Ok(None),
        Recorded::Queued(stream, operation) => Ok(Some((stream, operation))),
        Recorded::Captured(..) => Err(CUDA_ERROR_CAPTURED_EVENT),
    }
}

/// Whether a stream has reached an event. Each call that finds it has not does a piece of the work before it.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventQuery(event: Handle) -> CUresult {
    in_context(|mut session, context| {
        let Some((stream, operation)) = recorded(&session, event)? else { return Ok(()) };
        session.refuse_unsafe()?;
        let (session, done) = session.poll(stream, operation);
        session.healthy(context)?;
        if done { Ok(()) } else { Err(CUDA_ERROR_NOT_READY) }
    })
}

/// Waits until a stream reaches an event.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventSynchronize(event: Handle) -> CUresult {
    in_context(|mut session, context| {
        let Some((stream, operation)) = recorded(&session, event)? else { return Ok(()) };
        session.refuse_unsafe()?;
        session.run_through(stream, operation).healthy(context)
    })
}

/// When an event was reached.
fn time(session: &Session, event: Handle) -> Cuda<Instant> {
    let (stream, operation) = recorded(session, event)?.ok_or(CUDA_ERROR_INVALID_HANDLE)?;
    let event = session.events.get(event)?;
    if !event.timed {
        return Err(CUDA_ERROR_INVALID_HANDLE);
    }
    match event.time {
        Some((reached, time)) if reached == operation && session.is_done(stream, operation) => Ok(time),
        _ => Err(CUDA_ERROR_NOT_READY),
    }
}

/// Milliseconds of host time between the moments at which two events were reached. It says how long the emulation
/// took, not how long a device would take.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: Option<&mut f32>,
    start: Handle,
    end: Handle,
) -> CUresult {
    in_context(|session, _| {
        let (start, end) = (time(&session, start), time(&session, end));
        // An event that is no good is worse than one that is not there yet.
        let (start, end) = match (start, end) {
            (Err(CUDA_ERROR_NOT_READY), Err(worse)) => return Err(worse),
            (start, end) => (start?, end?),
        };
        let seconds = match end.checked_duration_since(start) {
            Some(forward) => forward.as_secs_f64(),
            None => -start.duration_since(end).as_secs_f64(),
        };
        put(milliseconds, (seconds * 1e3) as f32)
    })
}

/// Milliseconds between two events.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: Option<&mut f32>,
    start: Handle,
    end: Handle,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuEventElapsedTime(milliseconds, start, end) }
}
