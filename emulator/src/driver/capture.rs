//! Stream capture: what streams in a capture do becomes nodes of a graph, and calls that cannot be captured are refused
//! and spoil it.

use super::Handle;
use super::error::{
    CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, Cuda,
};
use super::queue::NON_BLOCKING;
use super::session::{capture_mode, thread_number};
use super::state::{Capture, Capturing, Graph, Node, State};
use super::work::Task;
use std::sync::Arc;

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`.
pub(super) const GLOBAL: u32 = 0;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
pub(super) const RELAXED: u32 = 2;

impl State {
    /// Whether the stream captures; an error where its capture is spoilt.
    pub fn capturing(&self, stream: Handle) -> Cuda<bool> {
        match &self.streams.get(stream)?.capturing {
            None => Ok(false),
            Some(capturing) if self.captures.get(capturing.capture)?.valid => Ok(true),
            Some(_) => Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
        }
    }

    /// Spoils the capture that the stream is in.
    pub fn invalidate(&mut self, stream: Handle) {
        let capture = self.streams.get(stream).ok().and_then(|stream| stream.capturing.as_ref());
        if let Some(capture) = capture.map(|capturing| capturing.capture) {
            self.invalidate_capture(capture);
        }
    }

    pub fn invalidate_capture(&mut self, capture: Handle) {
        if let Ok(capture) = self.captures.get_mut(capture) {
            capture.valid = false;
        }
    }

    /// Refuses a call that is unsafe while captures are going on (`cuThreadExchangeStreamCaptureMode` has the rules).
    pub fn refuse_unsafe(&mut self) -> Cuda<()> {
        let (mode, thread) = (capture_mode().get(), thread_number());
        let offended = |capture: &Capture| {
            capture.valid
                && mode != RELAXED
                && if capture.thread == thread {
                    capture.mode != RELAXED
                } else {
                    capture.mode == GLOBAL && mode == GLOBAL
                }
        };
        let mut refused = false;
        for (_, capture) in self.captures.iter_mut() {
            if offended(capture) {
                capture.valid = false;
                refused = true;
            }
        }
        if refused { Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    /// Refuses work on the legacy stream while a blocking stream of its context captures.
    pub fn refuse_implicit(&mut self, stream: Handle) -> Cuda<()> {
        let own = self.streams.get(stream)?;
        if !own.legacy {
            return Ok(());
        }
        let context = own.context;
        let captures: Vec<Handle> = self
            .streams
            .iter()
            .filter(|(_, other)| other.context == context && other.flags & NON_BLOCKING == 0)
            .filter_map(|(_, other)| Some(other.capturing.as_ref()?.capture))
            .collect();
        for &capture in &captures {
            self.invalidate_capture(capture);
        }
        if captures.is_empty() { Ok(()) } else { Err(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) }
    }

    /// Adds a node to a graph.
    pub fn add_node(&mut self, graph: Handle, task: Option<Task>, after: Vec<Handle>) -> Cuda<Handle> {
        self.graphs.get(graph)?;
        let shown = Arc::new(shown_parameters(task.as_ref()));
        let node = self.nodes.add(Node { graph, task, after, shown });
        self.graphs.get_mut(graph)?.nodes.push(node);
        Ok(node)
    }

    /// Adds what a capturing stream is asked to do to the graph.
    pub fn capture_task(&mut self, stream: Handle, task: Option<Task>) -> Cuda<()> {
        let Some(capturing) = self.streams.get(stream)?.capturing.clone() else {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        };
        let graph = self.captures.get(capturing.capture)?.graph;
        let node = self.add_node(graph, task, capturing.after)?;
        self.streams.get_mut(stream)?.capturing =
            Some(Capturing { capture: capturing.capture, after: vec![node] });
        Ok(())
    }

    /// Begins a capture into a new graph.
    pub fn begin_capture(&mut self, stream: Handle, mode: u32) -> Cuda<()> {
        let own = self.streams.get(stream)?;
        if own.legacy {
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        if own.capturing.is_some() {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        }
        let graph = self.graphs.add(Graph::default());
        let capture =
            Capture { origin: stream, mode, thread: thread_number(), graph, valid: true, shown: Vec::new() };
        let capture = self.captures.add(capture);
        self.streams.get_mut(stream)?.capturing = Some(Capturing { capture, after: Vec::new() });
        Ok(())
    }

    /// Ends a capture. The graph is given to the caller, or is lost where the capture was spoilt or not joined.
    pub fn end_capture(&mut self, stream: Handle) -> Cuda<Handle> {
        let Some(Capturing { capture, after }) = self.streams.get(stream)?.capturing.clone() else {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        };
        let (origin, mode, thread, graph) = {
            let capture = self.captures.get(capture)?;
            (capture.origin, capture.mode, capture.thread, capture.graph)
        };
        if origin != stream {
            self.invalidate_capture(capture);
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        if mode != RELAXED && thread != thread_number() {
            return Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
        }
        let joined = self.ancestors(&after);
        let mut unjoined = false;
        for (_, stream) in self.streams.iter_mut() {
            if let Some(capturing) = stream.capturing.take_if(|capturing| capturing.capture == capture) {
                unjoined |= capturing.after.iter().any(|node| !joined.contains(node));
            }
        }
        let capture = self.captures.remove(capture)?;
        let result = match capture.valid {
            false => Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
            true if unjoined => Err(CUDA_ERROR_STREAM_CAPTURE_UNJOINED),
            true => Ok(graph),
        };
        if result.is_err() {
            self.destroy_graph(graph)?;
        }
        result
    }

    /// The nodes and all that they depend on.
    fn ancestors(&self, nodes: &[Handle]) -> std::collections::BTreeSet<Handle> {
        let mut found = std::collections::BTreeSet::new();
        let mut open = nodes.to_vec();
        while let Some(node) = open.pop() {
            if found.insert(node)
                && let Ok(node) = self.nodes.get(node)
            {
                open.extend(&node.after);
            }
        }
        found
    }

    pub fn destroy_graph(&mut self, graph: Handle) -> Cuda<()> {
        for node in self.graphs.remove(graph)?.nodes {
            self.nodes.remove(node)?;
        }
        Ok(())
    }
}

/// The addresses of a launch's parameters in its buffer, as `kernelParams` wants them.
pub(super) fn shown_parameters(task: Option<&Task>) -> Vec<usize> {
    let Some(Task::Launch(launch)) = task else { return Vec::new() };
    let base = launch.parameters.as_ptr() as usize;
    launch.kernel.parameters().iter().map(|&(offset, _)| base + offset).collect()
}
