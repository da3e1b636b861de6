//! CUDA: which driver this process uses, its devices, their memory, the compiler of kernels, and launches.
//!
//! Nothing of CUDA is needed to build, and nothing to run on the CPU: [`driver`] and [`nvrtc`] look for their
//! libraries when they are asked, and say what is missing and how to get it. A kernel is a static [`Kernel`]; every
//! launch goes through [`Launch`]; everything on a device is ordered by the compute stream of its [`Context`].

pub mod cache;
pub mod compile;
pub mod constant;
pub mod context;
pub mod driver;
pub mod extension;
pub mod graph;
mod kernel;
pub mod launch;
pub mod memory;
pub mod nvrtc;
pub mod profile;
mod staging;
pub mod tensor_map;
pub mod transfer;

pub use constant::constant;
pub use context::{Context, MAX_DEVICES, context};
pub use driver::{DeviceInfo, Driver};
pub use kernel::{Kernel, Module};
pub use launch::Launch;
pub use nvrtc::Nvrtc;
pub use staging::{PARTS, Staging};
pub use tensor_map::TensorMap;

/// Gives back all memory of all devices that no tensor holds: constants, and what waits to be handed out again. For the
/// end of a program, so that the driver's own count shows what was forgotten.
#[track_caller]
pub fn release() -> crate::Result<()> {
    context::started().for_each(|context| context.constants.clear());
    memory::trim()
}

/// What the loader says was wrong, which libloading keeps behind "dlopen failed".
fn explain(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| source.to_string())
}
