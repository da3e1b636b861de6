//! A CUDA driver in software. It takes the PTX that NVRTC makes of a kernel and runs it on the CPU, instruction by
//! instruction, checking as it goes: bounds, initialisation, races, barriers, alignment.
//!
//! Read in this order: [`ptx`] (text to syntax tree), `decode` (syntax tree to a flat program whose operands are slots),
//! [`exec`] (warps, blocks, launches), [`memory`] (device memory and its shadow), [`report`] (what a check says),
//! [`counters`] (what a launch cost), [`tensor_map`] (tiles of tensors), [`numeric`] (rounding, approximations, tensor cores as the manual defines them).
//! [`driver`] is the driver's C ABI on top. Its functions have C names only where this source is compiled as the shared
//! library (`cfg(driver_library)`, done by `build.rs`), so that a program which links this crate does not define `cuInit`;
//! [`library`] hands that shared library out. A program that only wants the library does not compile the rest a second
//! time: it is behind the feature `inside`, which this crate's own tests turn on.

#![allow(clippy::precedence, reason = "bit fields read better without a parenthesis round every shift")]

#[cfg(any(driver_library, feature = "inside"))]
pub mod counters;
#[cfg(any(driver_library, feature = "inside"))]
mod decode;
#[cfg(any(driver_library, feature = "inside"))]
pub mod driver;
#[cfg(any(driver_library, feature = "inside"))]
pub mod exec;
#[cfg(any(driver_library, feature = "inside"))]
pub mod memory;
#[cfg(any(driver_library, feature = "inside"))]
pub mod numeric;
#[cfg(any(driver_library, feature = "inside"))]
mod program;
#[cfg(any(driver_library, feature = "inside"))]
pub mod ptx;
#[cfg(any(driver_library, feature = "inside"))]
pub mod report;
#[cfg(any(driver_library, feature = "inside"))]
pub mod tensor_map;

#[cfg(not(driver_library))]
pub mod library;
