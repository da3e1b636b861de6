//! Everything the driver knows: tables of objects by handle.

use super::abi::{HostFunction, StreamCallback};
use super::error::{CUDA_ERROR_INVALID_HANDLE, Cuda};
use super::options::Settings;
use super::work::Task;
use super::{CUresult, Handle};
use crate::exec::{Image, Kernel};
use crate::memory::DeviceMemory;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A handle that no other object has or had. The first is far above 1 and 2, the special streams.
pub(super) fn new_handle() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(0x1_0000);
    NEXT.fetch_add(16, Ordering::Relaxed)
}

/// Objects of one kind by handle, in the order of their making.
#[derive(Debug)]
pub(super) struct Table<T>(BTreeMap<Handle, T>);

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(BTreeMap::new())
    }
}

impl<T> Table<T> {
    pub fn add(&mut self, value: T) -> Handle {
        let handle = new_handle();
        self.0.insert(handle, value);
        handle
    }

    pub fn get(&self, handle: Handle) -> Cuda<&T> {
        self.0.get(&handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    pub fn get_mut(&mut self, handle: Handle) -> Cuda<&mut T> {
        self.0.get_mut(&handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    pub fn remove(&mut self, handle: Handle) -> Cuda<T> {
        self.0.remove(&handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    pub fn contains(&self, handle: Handle) -> bool {
        self.0.contains_key(&handle)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.0.iter().map(|(&handle, value)| (handle, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Handle, &mut T)> {
        self.0.iter_mut().map(|(&handle, value)| (handle, value))
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|_, value| keep(value));
    }
}

/// A context. The primary context keeps its handle for the life of the process, active or not.
#[derive(Debug)]
pub(super) struct Context {
    pub flags: u32,
    pub active: bool,
    /// The code that every call returns since a kernel or copy failed.
    pub fault: Option<CUresult>,
    /// `CUlimit` 0 to 6.
    pub limits: [usize; 7],
    pub cache: u32,
    pub banks: u32,
    pub legacy: Handle,
    /// The per-thread default streams, by thread number.
    pub threads: BTreeMap<u64, Handle>,
}

/// What a queue holds; see `queue`.
pub(super) enum Work {
    Task(Task),
    /// An event is recorded.
    Record {
        event: Handle,
    },
    /// Memory is given back.
    Free {
        address: u64,
    },
    Callback {
        function: StreamCallback,
        data: usize,
    },
}

/// One call's worth of work on a stream.
pub(super) struct Operation {
    /// Grows from operation to operation over all streams, so that dependencies always point to smaller numbers.
    pub number: u64,
    /// Streams and operations that come first. Earlier operations of the same stream do anyway.
    pub after: Vec<(Handle, u64)>,
    pub work: VecDeque<Work>,
}

/// A stream's part in a capture: the nodes that its next node depends on.
#[derive(Clone, Debug)]
pub(super) struct Capturing {
    pub capture: Handle,
    pub after: Vec<Handle>,
}

/// A stream: a queue.
pub(super) struct Stream {
    pub context: Handle,
    /// `CU_STREAM_NON_BLOCKING` is 1.
    pub flags: u32,
    pub priority: i32,
    pub legacy: bool,
    /// Not made by the program, so not to be destroyed by it.
    pub built_in: bool,
    pub queue: VecDeque<Operation>,
    /// Number of the last operation queued.
    pub last: u64,
    pub capturing: Option<Capturing>,
}

/// Where an event was last recorded.
#[derive(Clone, Debug)]
pub(super) enum Recorded {
    Never,
    /// Stream and operation.
    Queued(Handle, u64),
    /// In a capture, after these nodes.
    Captured(Handle, Vec<Handle>),
}

#[derive(Debug)]
pub(super) struct Event {
    pub context: Handle,
    pub timed: bool,
    pub recorded: Recorded,
    /// When the last record was reached, and by which operation.
    pub time: Option<(u64, Instant)>,
}

pub(super) struct Module {
    pub context: Handle,
    pub image: Arc<Image>,
    pub functions: BTreeMap<String, Handle>,
}

pub(super) struct Function {
    pub module: Handle,
    pub context: Handle,
    pub image: Arc<Image>,
    pub kernel: Arc<Kernel>,
    pub name: CString,
    /// Dynamic shared memory that launches may ask for.
    pub max_dynamic_shared: u32,
    pub carveout: i32,
    pub non_portable_cluster: i32,
    pub scheduling: i32,
}

/// What kind of memory an allocation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Device,
    Pinned { flags: u32 },
    Pool { pool: Handle },
}

/// An allocation of the program's.
#[derive(Debug)]
pub(super) struct Owned {
    pub context: Handle,
    pub size: u64,
    pub origin: Origin,
    /// A stream-ordered free is queued.
    pub freeing: bool,
    pub id: u64,
}

/// A memory pool. It holds no memory in reserve: what is free goes back to the device.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub is_default: bool,
    /// Destroyed by the program, but allocations are left.
    pub destroyed: bool,
    pub limit: u64,
    pub threshold: u64,
    /// `CU_MEMPOOL_ATTR_REUSE_*`: attributes 1 to 3.
    pub reuse: [i32; 3],
    pub used: u64,
    pub used_high: u64,
    pub reserved_high: u64,
}

/// A capture in progress.
#[derive(Debug)]
pub(super) struct Capture {
    pub origin: Handle,
    /// `CUstreamCaptureMode`: 0 global, 1 thread-local, 2 relaxed.
    pub mode: u32,
    pub thread: u64,
    pub graph: Handle,
    pub valid: bool,
    /// What `cuStreamGetCaptureInfo` last handed out.
    pub shown: Vec<Handle>,
}

/// A node of a graph: None is an empty node.
#[derive(Clone)]
pub(super) struct Node {
    pub graph: Handle,
    pub task: Option<Task>,
    pub after: Vec<Handle>,
    /// Pointers to a kernel node's parameters, which `cuGraphKernelNodeGetParams` hands out.
    pub shown: Arc<Vec<usize>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    /// In the order of their making.
    pub nodes: Vec<Handle>,
    /// In a graph made by `cuGraphClone`: original node to its copy.
    pub origin: BTreeMap<Handle, Handle>,
}

/// A node of an executable graph.
#[derive(Clone)]
pub(super) struct Step {
    pub node: Handle,
    pub task: Option<Task>,
    /// Indices of steps.
    pub after: Vec<usize>,
    pub enabled: bool,
}

pub(super) struct Executable {
    pub flags: u64,
    /// In the order of the nodes' making.
    pub steps: Vec<Step>,
    /// The steps in an order that respects their dependencies.
    pub order: Vec<usize>,
    /// Stream and operation of the last launch: launches of one executable graph run one after another.
    pub last: Option<(Handle, u64)>,
}

/// A host function and its argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostCall {
    pub function: HostFunction,
    pub data: usize,
}

/// The driver's state.
#[derive(Default)]
pub(super) struct State {
    pub settings: Settings,
    /// What is wrong with the environment.
    pub settings_error: Option<String>,
    /// Set by `cuInit`.
    pub memory: Option<Arc<DeviceMemory>>,
    pub contexts: Table<Context>,
    /// The primary context: handle (0 before the first retain), retain count, flags.
    pub primary: Handle,
    pub retained: u32,
    pub primary_flags: u32,
    pub streams: Table<Stream>,
    pub events: Table<Event>,
    pub modules: Table<Module>,
    pub functions: Table<Function>,
    pub graphs: Table<Graph>,
    pub nodes: Table<Node>,
    pub executables: Table<Executable>,
    pub captures: Table<Capture>,
    pub pools: Table<Pool>,
    pub default_pool: Handle,
    pub current_pool: Handle,
    pub allocations: BTreeMap<u64, Owned>,
    pub allocated: u64,
    pub operations: u64,
    /// A thread is running queued work.
    pub running: bool,
    pub last_report: String,
    pub counters: VecDeque<String>,
}
