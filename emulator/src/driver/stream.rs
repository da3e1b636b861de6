//! Streams: making, waiting, asking, and capturing.

use super::abi::EdgeData;
use super::context::{PRIORITIES, stream_flags};
use super::error::{
    CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_READY, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION, CUDA_ERROR_STREAM_CAPTURE_MERGE,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, Cuda,
};
use super::graph::handles;
use super::session::{Session, capture_mode, in_context, put, with_driver};
use super::state::{Capturing, Recorded, Stream};
use super::{CUresult, Handle};

/// Makes a stream.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamCreate(stream: Option<&mut Handle>, flags: u32) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

/// Makes a stream. Priorities are remembered; they change nothing here.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: Option<&mut Handle>,
    flags: u32,
    priority: i32,
) -> CUresult {
    in_context(|mut session, context| {
        let flags = stream_flags(flags)?;
        let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
        put(stream, session.streams.add(Stream::new(context, flags, priority)))
    })
}

/// Refuses to wait for a stream that captures, and waiting at all where a capture forbids it.
fn refuse_waiting(session: &mut Session, stream: Handle) -> Cuda<()> {
    if session.capturing(stream)? {
        session.invalidate(stream);
        return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    session.refuse_implicit(stream)?;
    session.refuse_unsafe()
}

/// Finishes a stream's work and destroys it.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        if session.streams.get(stream)?.built_in {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        if session.streams.get(stream)?.capturing.is_some() {
            session.invalidate(stream);
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        let mut session = session.run_stream(stream);
        session.streams.remove(stream)?;
        session.healthy(context)
    })
}

/// Waits for a stream's work.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamSynchronize(stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        refuse_waiting(&mut session, stream)?;
        let legacy = session.streams.get(stream)?.legacy;
        // The legacy stream stands behind all blocking streams of its context.
        let session = if legacy { wait_for_legacy(session, context) } else { session.run_stream(stream) };
        session.healthy(context)
    })
}

fn wait_for_legacy(mut session: Session, context: Handle) -> Session {
    let blocking: Vec<Handle> = session
        .streams
        .iter()
        .filter(|(_, stream)| stream.context == context && stream.flags & super::queue::NON_BLOCKING == 0)
        .map(|(handle, _)| handle)
        .collect();
    for stream in blocking {
        session = session.run_stream(stream);
    }
    session
}

/// Whether a stream's work is done. Each call that finds it is not does a piece of it, so that polling ends.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamQuery(stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        refuse_waiting(&mut session, stream)?;
        let last = session.streams.get(stream)?.last;
        let (session, done) = session.poll(stream, last);
        session.healthy(context)?;
        if done { Ok(()) } else { Err(CUDA_ERROR_NOT_READY) }
    })
}

/// Makes a stream wait for an event; in a capture, joins the streams.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        let recorded = session.events.get(event)?.recorded.clone();
        match flags {
            0 => {}
            // `CU_EVENT_WAIT_EXTERNAL`: an event node.
            1 => return Err(CUDA_ERROR_NOT_SUPPORTED),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        let capturing = session.capturing(stream)?;
        match recorded {
            Recorded::Captured(capture, nodes) => join(&mut session, stream, capture, nodes),
            Recorded::Never | Recorded::Queued(..) if capturing => {
                session.invalidate(stream);
                Err(CUDA_ERROR_STREAM_CAPTURE_ISOLATION)
            }
            Recorded::Never => Ok(()),
            Recorded::Queued(other, operation) => {
                session.refuse_implicit(stream)?;
                session.enqueue(stream, [], vec![(other, operation)]).map(|_| ())
            }
        }
    })
}

/// Makes what a stream does next in a capture depend on an event of the capture, and brings the stream in.
fn join(session: &mut Session, stream: Handle, capture: Handle, nodes: Vec<Handle>) -> Cuda<()> {
    if !session.captures.get(capture).is_ok_and(|capture| capture.valid) {
        return Err(CUDA_ERROR_CAPTURED_EVENT);
    }
    let found = session.streams.get_mut(stream)?;
    if found.legacy {
        session.invalidate_capture(capture);
        return Err(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    }
    match &mut found.capturing {
        None => found.capturing = Some(Capturing { capture, after: nodes }),
        Some(capturing) if capturing.capture == capture => {
            for node in nodes {
                if !capturing.after.contains(&node) {
                    capturing.after.push(node);
                }
            }
        }
        Some(capturing) => {
            let other = capturing.capture;
            session.invalidate_capture(other);
            session.invalidate_capture(capture);
            return Err(CUDA_ERROR_STREAM_CAPTURE_MERGE);
        }
    }
    Ok(())
}

/// A stream's flags.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetFlags(stream: Handle, flags: Option<&mut u32>) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        put(flags, session.streams.get(stream)?.flags)
    })
}

/// A stream's priority.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetPriority(stream: Handle, priority: Option<&mut i32>) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        put(priority, session.streams.get(stream)?.priority)
    })
}

/// A number that no other stream has.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetId(stream: Handle, id: Option<&mut u64>) -> CUresult {
    in_context(|mut session, context| put(id, session.stream(context, stream)? as u64))
}

/// A stream's context.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetCtx(stream: Handle, owner: Option<&mut Handle>) -> CUresult {
    in_context(|mut session, context| {
        let stream =
            if session.streams.contains(stream) { stream } else { session.stream(context, stream)? };
        put(owner, session.streams.get(stream)?.context)
    })
}

/// A stream's context, and its green context, which is none.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetCtx_v2(
    stream: Handle,
    owner: Option<&mut Handle>,
    green: Option<&mut Handle>,
) -> CUresult {
    if let Some(green) = green {
        *green = 0;
    }
    // SAFETY: the same contract.
    unsafe { cuStreamGetCtx(stream, owner) }
}

/// A stream's device.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetDevice(stream: Handle, device: Option<&mut i32>) -> CUresult {
    in_context(|mut session, context| {
        session.stream(context, stream)?;
        put(device, 0)
    })
}

/// Begins a capture into a new graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        if mode > 2 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        session.begin_capture(stream, mode)
    })
}

/// Ends a capture and hands out the graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamEndCapture(stream: Handle, graph: Option<&mut Handle>) -> CUresult {
    in_context(|mut session, context| {
        let graph = graph.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let stream = session.stream(context, stream)?;
        *graph = 0;
        *graph = session.end_capture(stream)?;
        Ok(())
    })
}

/// A stream's state: 0 not capturing, 1 capturing, 2 in a spoilt capture.
fn status(session: &Session, stream: Handle) -> Cuda<u32> {
    Ok(match &session.streams.get(stream)?.capturing {
        None => 0,
        Some(capturing) => {
            if session.captures.get(capturing.capture)?.valid {
                1
            } else {
                2
            }
        }
    })
}

/// Whether a stream captures.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: Handle, state: Option<&mut u32>) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        session.refuse_implicit(stream)?;
        put(state, status(&session, stream)?)
    })
}

/// What a stream captures: state, number of the capture, graph, and the nodes that the next will depend on, which stay
/// where they are until the next call about the capture.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: Handle,
    state: Option<&mut u32>,
    id: Option<&mut u64>,
    graph: Option<&mut Handle>,
    nodes: Option<&mut *const Handle>,
    count: Option<&mut usize>,
) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        session.refuse_implicit(stream)?;
        let now = status(&session, stream)?;
        put(state, now)?;
        let Some(Capturing { capture, after }) = session.streams.get(stream)?.capturing.clone() else {
            return Ok(());
        };
        if now != 1 {
            return Ok(());
        }
        let found = session.captures.get_mut(capture)?;
        found.shown = after;
        if let Some(id) = id {
            *id = capture as u64;
        }
        if let Some(graph) = graph {
            *graph = found.graph;
        }
        if let Some(nodes) = nodes {
            *nodes = found.shown.as_ptr();
        }
        if let Some(count) = count {
            *count = found.shown.len();
        }
        Ok(())
    })
}

/// What a stream captures; edges carry no data.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamGetCaptureInfo_v3(
    stream: Handle,
    state: Option<&mut u32>,
    id: Option<&mut u64>,
    graph: Option<&mut Handle>,
    nodes: Option<&mut *const Handle>,
    edges: Option<&mut *const EdgeData>,
    count: Option<&mut usize>,
) -> CUresult {
    if let Some(edges) = edges {
        *edges = std::ptr::null();
    }
    // SAFETY: the same contract.
    unsafe { cuStreamGetCaptureInfo_v2(stream, state, id, graph, nodes, count) }
}

/// Adds to (flags 0) or replaces (flags 1) the nodes that a capturing stream's next node depends on.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamUpdateCaptureDependencies(
    stream: Handle,
    nodes: *const Handle,
    count: usize,
    flags: u32,
) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        if !session.capturing(stream)? {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        }
        // SAFETY: the function's contract.
        let nodes = unsafe { handles(nodes, count) }?;
        let Some(capturing) = session.streams.get(stream)?.capturing.clone() else {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        };
        let graph = session.captures.get(capturing.capture)?.graph;
        for &node in &nodes {
            if session.nodes.get(node).map_err(|_| CUDA_ERROR_INVALID_VALUE)?.graph != graph {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
        }
        let mut after = match flags {
            0 => capturing.after,
            1 => Vec::new(),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        for node in nodes {
            if !after.contains(&node) {
                after.push(node);
            }
        }
        session.streams.get_mut(stream)?.capturing = Some(Capturing { capture: capturing.capture, after });
        Ok(())
    })
}

/// Swaps this thread's capture interaction mode with the given one.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuThreadExchangeStreamCaptureMode(mode: Option<&mut u32>) -> CUresult {
    with_driver(|_| {
        let mode = mode.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if *mode > 2 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        *mode = capture_mode().replace(*mode);
        Ok(())
    })
}
