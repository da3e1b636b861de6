//! From a [`Module`] to code for a device.

use super::Module;
use super::context::Context;
use super::nvrtc::{Compiled, Nvrtc};
use crate::Result;

/// The architecture that code for a device is compiled for: machine code for hardware, PTX for the emulated device.
pub fn architecture(context: &Context) -> String {
    match context.info().emulated {
        true => format!("compute_{}", context.architecture()),
        false => format!("sm_{}", context.architecture()),
    }
}

/// The options of the compiler, beside the architecture.
fn options(module: &Module) -> Vec<String> {
    let fixed = ["--std=c++17", "-lineinfo", "--ptxas-options=-v"].map(String::from);
    let defines = module.defines.iter().map(|define| format!("--define-macro={define}"));
    fixed.into_iter().chain(defines).chain(module.options.iter().map(|o| o.to_string())).collect()
}

/// Compiles a module for an architecture: `compute_90` for PTX, `sm_90` for machine code.
///
/// # Errors
///
/// NVRTC is not here, or the source does not compile; the message says where.
#[track_caller]
pub fn compile(module: &Module, arch: &str) -> Result<Compiled> {
    let nvrtc = Nvrtc::find()?;
    nvrtc.compile_with(module.source, module.file, module.headers, arch, &options(module))
}

/// The module's code for a device.
#[track_caller]
pub(super) fn for_device(module: &Module, context: &Context) -> Result<Compiled> {
    compile(module, &architecture(context))
}
