//! Which device `--device` means, and the driver that goes with it.

use engine::cuda::{self, Driver, driver};
use engine::{Device, Error, ErrorKind, Result};

/// The device called `text`: `cpu`, `cuda`, `cuda:1`, `emulated`. Chooses the CUDA driver of the process and starts the
/// device.
///
/// # Errors
///
/// It is none of these, or the device is not there.
pub fn choose(text: &str) -> Result<Device> {
    let ordinal = match text {
        "cpu" => return Ok(Device::Cpu),
        "emulated" => {
            let folder = emulator::library::folder()
                .map_err(|e| Error::new(ErrorKind::Device, "emulated device", e.to_string()))?;
            driver::select(Driver::Emulated(folder))?;
            0
        }
        "cuda" => 0,
        _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).ok_or_else(|| {
            let text = format!("'{text}' is not a device: there are cpu, cuda, cuda:N and emulated");
            Error::new(ErrorKind::Usage, "--device", text)
        })?,
    };
    cuda::context(ordinal)?;
    Ok(Device::Cuda(ordinal))
}
