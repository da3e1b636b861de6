//! CUDA: which driver this process uses, what devices it has, and the compiler of kernels.
//!
//! Nothing of CUDA is needed to build, and nothing to run on the CPU: [`driver`] and [`nvrtc`] look for their
//! libraries when they are asked, and say what is missing and how to get it.

pub mod driver;
pub mod nvrtc;

pub use driver::{DeviceInfo, Driver};
pub use nvrtc::Nvrtc;

/// What the loader says was wrong, which libloading keeps behind "dlopen failed".
fn explain(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| source.to_string())
}
