//! Devices, chosen at run time.

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
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Device> {
        match text {
            "cpu" => Ok(Device::Cpu),
            _ => Err(Error::new(
                ErrorKind::Usage,
                "device",
                format!("'{text}' is not a device of this build; it has: cpu"),
            )),
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
