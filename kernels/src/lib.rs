//! One folder a kernel family: everything about one computation, buffers in and buffers out.
//!
//! A family's `mod.rs` says what it computes and holds the public launchers, which check shapes and
//! dispatch on the device; `cpu.rs` is the CPU backend, `reference.rs` the naive oracle (in any precision),
//! `cases.rs` the shapes and values that tests and benchmarks share. Nothing here knows of gradients as a
//! concept: a backward kernel is one more computation.

pub mod array;
pub mod check;
#[cfg(test)]
mod common_tests;
pub mod compare;
pub mod cuda;
mod divisor;
pub mod math;
pub mod parallel;
pub mod registry;
pub mod simd;
#[cfg(any(test, feature = "emulated"))]
pub mod testing;

pub mod attention;
pub mod augment;
pub mod color;
pub mod conv2d;
pub mod copy;
pub mod distill;
pub mod elementwise;
pub mod instructions;
pub mod matmul;
pub mod norm;
pub mod ntxent;
pub mod optim;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod softmax_xent;
