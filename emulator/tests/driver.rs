//! The driver's C ABI, called as Rust functions: handles, errors, order of streams, capture, graphs, pools, faults.

// Every unsafe block here is a call of the driver whose pointers are to locals of the test.
#![allow(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "driver/setup.rs"]
mod setup;

#[path = "driver/capture.rs"]
mod capture;
#[path = "driver/copies.rs"]
mod copies;
#[path = "driver/faults.rs"]
mod faults;
#[path = "driver/graphs.rs"]
mod graphs;
#[path = "driver/launches.rs"]
mod launches;
#[path = "driver/memory.rs"]
mod memory;
#[path = "driver/names.rs"]
mod names;
#[path = "driver/start.rs"]
mod start;
#[path = "driver/streams.rs"]
mod streams;
#[path = "driver/tensor_maps.rs"]
mod tensor_maps;
