//! CUDA graphs: what a closure launches is captured once and replayed as a whole.
//!
//! While a graph is captured nothing runs. What the closure allocates belongs to the graph from then on, so that no
//! one else's values lie where a replay writes. Whatever the captured work reads from outside (parameters, inputs,
//! learning rates) it reads anew at every replay, from the addresses of the capture: such tensors must be written in
//! place and kept alive.

use super::context::{Context, context, explain};
use super::memory::{self, Block, Captured};
use super::profile::{self, Launched};
use crate::{Device, Error, ErrorKind, Result};
use cudarc::driver::{result, sys};
use std::sync::Arc;

/// Whether a graph is being captured on a device.
pub fn capturing(device: Device) -> bool {
    match device {
        Device::Cpu => false,
        Device::Cuda(ordinal) => context(ordinal).is_ok_and(memory::capturing),
    }
}

/// A captured graph, ready to run.
pub struct Graph {
    context: &'static Context,
    graph: sys::CUgraph,
    ready: sys::CUgraphExec,
    regions: Vec<(u64, usize)>,
    /// What it launches, for profiles.
    launches: Vec<Launched>,
    /// Constants that the captured launches read.
    _constants: Vec<Arc<Block>>,
}

// SAFETY: the handles are used by one thread at a time (`launch` takes `&mut self`).
unsafe impl Send for Graph {}

impl Graph {
    /// Captures what `work` puts on the compute stream of `device`, which is not run. Gives the graph and what `work`
    /// returned.
    ///
    /// # Errors
    ///
    /// The device is the CPU, `work` fails, or it did what cannot be captured: a copy to or from the host, or waiting
    /// for the device.
    #[track_caller]
    pub fn capture<T>(device: Device, work: impl FnOnce() -> Result<T>) -> Result<(Graph, T)> {
        let operation = "capture graph";
        let Device::Cuda(ordinal) = device else {
            return Err(Error::new(ErrorKind::Device, operation, "only CUDA devices have graphs"));
        };
        let context = context(ordinal)?;
        let _closed = context.close();
        context.synchronize()?;
        let stream = context.compute_stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let fail = |e| explain(operation, e);
        // SAFETY: the stream lives as long as the process.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(fail)?;
        memory::begin_capture(context);
        profile::begin_capture(ordinal);
        let outcome = work();
        let launches = profile::end_capture(ordinal);
        // SAFETY: the capture began above.
        let graph = unsafe { result::stream::end_capture(stream) };
        let (value, graph) = match (outcome, graph) {
            (Ok(value), Ok(graph)) if !graph.is_null() => (value, graph),
            (outcome, graph) => {
                memory::end_capture(context, false);
                // The closure's own error says what it did; the driver only that the capture is void.
                outcome?;
                graph.map_err(fail)?;
                return Err(Error::new(ErrorKind::Device, operation, "the driver gave no graph"));
            }
        };
        let Captured { regions, constants } = memory::end_capture(context, true);
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was captured above.
        match unsafe { result::graph::instantiate(graph, flags) } {
            Ok(ready) => {
                Ok((Graph { context, graph, ready, regions, launches, _constants: constants }, value))
            }
            Err(error) => {
                memory::release_graph(context, &regions);
                // SAFETY: the graph is not used again.
                let _ = unsafe { result::graph::destroy(graph) };
                Err(fail(error))
            }
        }
    }

    /// Puts a run of all that was captured on the compute stream.
    #[track_caller]
    pub fn launch(&mut self) -> Result<()> {
        let _bound = self.context.bind()?;
        let observed = profile::begin_replay(self.context, &self.launches);
        // SAFETY: the graph is ready; memory that it uses is kept by this value and by its user.
        let launched = unsafe { result::graph::launch(self.ready, self.context.compute_stream()) };
        if let Some(observed) = observed {
            profile::end_replay(observed, &self.launches, launched.is_ok());
        }
        launched.map_err(|e| explain("run graph", e))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // An error here has shown, or will show, where something waits for the device.
        let _ = self.context.synchronize();
        // SAFETY: nothing of the graph is queued any more and both handles are used here last.
        unsafe {
            let _ = result::graph::exec_destroy(self.ready);
            let _ = result::graph::destroy(self.graph);
        }
        memory::release_graph(self.context, &self.regions);
    }
}
