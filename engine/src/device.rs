//! Devices, chosen at run time.

use crate::cuda::extension;
use crate::{Error, ErrorKind, Result, Tensor};
use std::fmt;

/// Where a tensor's bytes lie and where its computations run.
///
/// Mixing devices in one operation is an error, and nothing is transferred implicitly. Every kernel
/// family dispatches on this with a `match` that has no wildcard arm, so that a new device is a compile
/// error in every place that must know about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor this program runs on.
    Cpu,
    /// A device of the CUDA driver in use (see [`crate::cuda::driver::select`]), hardware or emulated, by its number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(_) if extension::is_emulated() => f.write_str("emulated"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// The device that all `tensors` share; an error that shows them all if they differ.
///
/// `names` are the arguments' names in the message.
#[track_caller]
pub fn common(operation: &str, names: &[&str], tensors: &[&Tensor]) -> Result<Device> {
    let first = match tensors.first() {
        Some(t) => t.device(),
        None => return Err(Error::value(operation, "needs at least one tensor")),
    };
    if tensors.iter().all(|t| t.device() == first) {
        return Ok(first);
    }
    let mut error = Error::new(
        ErrorKind::Device,
        operation,
        "all arguments must lie on one device: move them there explicitly",
    );
    for (name, tensor) in names.iter().zip(tensors) {
        error = error.argument(name, tensor);
    }
    Err(error)
}
