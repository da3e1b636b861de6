//! `pretext kernels`: what CUDA kernels there are, how they compile, whether they are right, and what they cost.

mod lock;
mod model;
mod profile;
mod record;
mod resources;
mod sass;
mod scorecard;
mod show;

use crate::cli::{Kernels, KernelsCheck};
use crate::output::Output;
use engine::cuda::{Driver, Kernel, driver};
use engine::{Device, Error, ErrorKind, Result};
use kernels::registry::{FAMILIES, Family};
use serde_json::json;
use std::time::Instant;

/// Runs the command.
pub fn run(command: &Kernels, output: &Output) -> Result<()> {
    match command {
        Kernels::List => list(output),
        Kernels::Show(args) => show::run(args, output),
        Kernels::Check(args) => check(args, output),
        Kernels::Lock(args) => lock::run(args, output),
        Kernels::Profile(args) => profile::run(args, output),
        Kernels::Record(args) => record::run(args, output),
        Kernels::Scorecard(args) => scorecard::run(args, output),
    }
}

/// Every kernel with its family.
fn all() -> impl Iterator<Item = (&'static Family, &'static Kernel)> {
    FAMILIES.iter().flat_map(|family| family.kernels().map(move |kernel| (family, kernel)))
}

/// The families with this name, or all.
fn families(name: Option<&str>) -> Result<Vec<&'static Family>> {
    let found: Vec<_> =
        FAMILIES.iter().filter(|family| name.is_none_or(|name| family.name == name)).collect();
    if found.is_empty() {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        let text = format!("'{}' is not a family: there are {}", name.unwrap_or_default(), names.join(", "));
        return Err(Error::new(ErrorKind::Usage, "kernels", text));
    }
    Ok(found)
}

fn list(output: &Output) -> Result<()> {
    for (family, kernel) in all() {
        let module = kernel.module;
        output.event(&json!({
            "event": "kernel", "family": family.name, "entry": kernel.entry, "file": module.file,
            "defines": module.defines, "options": module.options, "arch_min": kernel.arch_min,
            "dynamic_shared": kernel.dynamic_shared,
        }));
        let shared = match kernel.dynamic_shared {
            0 => String::new(),
            bytes => format!(", up to {bytes} bytes of dynamic shared memory"),
        };
        output.result(&format!(
            "{:<13} {:<36} from sm_{}  {} {}{shared}",
            family.name,
            kernel.entry,
            kernel.arch_min,
            module.file,
            module.defines.join(" ")
        ));
    }
    Ok(())
}

/// The device that is named; without a name hardware where there is some, else the emulated device.
fn device(name: Option<&str>) -> Result<Device> {
    let hardware = || driver::select(Driver::System).is_ok();
    crate::device::choose(match name {
        Some(name) => name,
        None if hardware() => "cuda",
        None => "emulated",
    })
}

/// The CUDA device that is named.
fn cuda_device(name: Option<&str>) -> Result<(Device, &'static driver::DeviceInfo)> {
    let device = device(name)?;
    match device {
        Device::Cuda(ordinal) => Ok((device, engine::cuda::context(ordinal)?.info())),
        Device::Cpu => {
            Err(Error::new(ErrorKind::Usage, "--device", "CUDA kernels run on cuda, cuda:N or emulated"))
        }
    }
}

fn check(args: &KernelsCheck, output: &Output) -> Result<()> {
    let families = families(args.family.as_deref())?;
    let (device, info) = cuda_device(args.device.as_deref())?;
    output.say(&format!("on {info}"));
    let mut wrong = Vec::new();
    for family in families {
        let started = Instant::now();
        let result = (family.check)(device);
        let seconds = started.elapsed().as_secs_f64();
        let error = result.as_ref().err().map(ToString::to_string);
        output.event(&json!({
            "event": "check", "family": family.name, "cases": result.as_ref().ok(), "error": error,
            "seconds": seconds, "device": info.name,
        }));
        match result {
            Ok(cases) => {
                output.result(&format!("{:<14} {cases:>5} cases agree  {seconds:.1} s", family.name));
            }
            Err(error) => {
                output.result(&format!("{:<14} wrong: {error}", family.name));
                wrong.push(family.name);
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::value("kernels check", format!("wrong: {}", wrong.join(", ")))),
    }
}
