//! The CUDA driver's C ABI (the driver API of CUDA 12.8) over the emulator.
//!
//! Read in this order: [`error`] (codes), [`options`] (how the device behaves), [`abi`] (structures), `state` (everything
//! the driver knows, in tables by handle), `session` (one lock, who may call, the current context), `queue` (streams as
//! queues, run when something waits), `work` (what is queued and how it runs), then the API by subject: [`device`],
//! [`primary`], [`context`], [`module`], [`function`], [`launch`], [`occupancy`], [`memory`], [`pool`], [`copy`], [`fill`], [`stream`], [`event`],
//! `capture`, [`graph`], [`graph_edge`], [`graph_node`], [`graph_exec`], [`symbol`], [`tensor_map`]; [`unsupported`] holds the rest of the API, [`extension`] what no
//! real driver has.
//!
//! # Rules
//! * Functions are exported by name only in the shared library (`--cfg driver_library`); a program that links this crate
//!   calls them as Rust functions and does not define `cuInit`.
//! * Handles are numbers looked up in tables, never pointers: a wrong one is an error code, not a crash.
//! * A panic does not cross the ABI: it becomes `CUDA_ERROR_UNKNOWN`.
//! * One mutex guards all state. It is free while kernels, copies and the program's callbacks run.
//!
//! # Safety
//! As in C: a pointer argument is null or valid for what the driver API reads or writes through it, strings end in NUL,
//! and host memory of an asynchronous copy stays valid until the stream has passed it. Nothing else is asked of callers.

#![allow(non_snake_case, clippy::missing_safety_doc)]

pub mod abi;
mod capture;
pub mod context;
pub mod copy;
pub mod device;
pub mod error;
pub mod event;
pub mod extension;
pub mod fill;
pub mod function;
pub mod graph;
pub mod graph_edge;
pub mod graph_exec;
pub mod graph_node;
pub mod launch;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod options;
pub mod pool;
pub mod primary;
mod queue;
mod session;
mod state;
pub mod stream;
pub mod symbol;
pub mod tensor_map;
pub mod unsupported;
mod work;

/// A result code; see [`error`].
pub type CUresult = u32;

/// A context, module, function, stream, event, graph, node, executable graph or memory pool: a number, 0 for none.
pub type Handle = usize;
