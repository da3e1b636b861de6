//! From a [`Module`] to code for a device.

use super::Module;
use super::cache::{self, Cache, Key};
use super::context::Context;
use super::nvrtc::{Compiled, Nvrtc};
use crate::{Error, ErrorKind, Result};

/// The architecture that code for a device is compiled for: machine code for hardware, PTX for the emulated device.
pub fn architecture(context: &Context) -> String {
    match context.info().emulated {
        true => format!("compute_{}", context.architecture()),
        false => format!("sm_{}", context.architecture()),
    }
}

/// The name of an architecture as a module is compiled for it: `sm_90a` for `sm_90` where it has instructions of that one
/// alone.
fn exact(module: &Module, arch: &str) -> String {
    format!("{arch}{}", if module.is_specific { "a" } else { "" })
}

/// The options of the compiler, beside the architecture.
fn options(module: &Module) -> Vec<String> {
    let fixed = ["--std=c++17", "-lineinfo", "--ptxas-options=-v"].map(String::from);
    let defines = module.defines.iter().map(|define| format!("--define-macro={define}"));
    fixed.into_iter().chain(defines).chain(module.options.iter().map(|o| o.to_string())).collect()
}

/// The key of a module's code for an architecture in the [`Cache`].
pub fn key(module: &Module, arch: &str) -> Key {
    Key::new(module, &exact(module, arch), &options(module))
}

/// Compiles a module for an architecture: `compute_90` for PTX, `sm_90` for machine code; for `compute_90a` and `sm_90a` where
/// it has specific instructions.
///
/// # Errors
///
/// NVRTC is not here, or the source does not compile; the message says where.
#[track_caller]
pub fn compile(module: &Module, arch: &str) -> Result<Compiled> {
    compile_with(Nvrtc::find()?, module, arch)
}

/// As [`compile`], from the cache if it is there, and kept there.
#[track_caller]
pub fn cached(module: &Module, arch: &str) -> Result<Compiled> {
    let nvrtc = Nvrtc::find()?;
    let (key, compiler, cache) = (key(module, arch), cache::compiler(nvrtc), Cache::of_environment());
    if let Some(found) = cache.as_ref().and_then(|cache| cache.load(&key, &compiler)) {
        return Ok(found);
    }
    let compiled = compile_with(nvrtc, module, arch)?;
    cache::keep(cache.as_ref(), &key, &compiler, &compiled);
    Ok(compiled)
}

#[track_caller]
fn compile_with(nvrtc: &Nvrtc, module: &Module, arch: &str) -> Result<Compiled> {
    let arch = exact(module, arch);
    nvrtc.compile_with(module.source, module.file, module.headers, &arch, &options(module))
}

/// Where code comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An earlier process, or this one, compiled it.
    Cache,
    /// It was compiled now.
    Compiler,
}

/// The module's code for a device: from the cache, else compiled and kept there. Without NVRTC, what the cache has of
/// any compiler.
#[track_caller]
pub(super) fn for_device(module: &Module, context: &Context) -> Result<(Compiled, Origin)> {
    let key = key(module, &architecture(context));
    let cache = Cache::of_environment();
    let cached = match Nvrtc::find() {
        Ok(nvrtc) => cache.as_ref().and_then(|cache| cache.load(&key, &cache::compiler(nvrtc))),
        Err(missing) => match cache.as_ref().and_then(|cache| cache.load_any(&key)) {
            Some(found) => Some(found),
            None => return Err(missing.with("kernels", module.file)),
        },
    };
    match cached {
        Some(compiled) => Ok((compiled, Origin::Cache)),
        None => Ok((anew(module, context)?, Origin::Compiler)),
    }
}

/// The module's code for a device, compiled now whatever the cache has, and kept there.
#[track_caller]
pub(super) fn anew(module: &Module, context: &Context) -> Result<Compiled> {
    let nvrtc = Nvrtc::find()?;
    let wanted = architecture(context);
    let compiled = compile_with(nvrtc, module, &target(&wanted, &nvrtc.architectures(), nvrtc.version())?)?;
    let key = key(module, &wanted);
    cache::keep(Cache::of_environment().as_ref(), &key, &cache::compiler(nvrtc), &compiled);
    Ok(compiled)
}

/// What is compiled for a device that wants code for `wanted` by an NVRTC that knows some architectures (none: it does
/// not tell, and knows all): the wanted one, else the newest PTX below it, which the device's driver compiles further.
#[track_caller]
fn target(wanted: &str, known: &[u32], version: (u32, u32)) -> Result<String> {
    let number: u32 = wanted.rsplit('_').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    if known.is_empty() || known.contains(&number) {
        return Ok(wanted.to_string());
    }
    match known.iter().filter(|&&other| other < number).max() {
        Some(below) => Ok(format!("compute_{below}")),
        None => Err(Error::new(
            ErrorKind::Device,
            "compile",
            format!(
                "NVRTC {}.{} makes no code for {wanted}: it begins at {}. Install an older one: pip install \
                 nvidia-cuda-nvrtc-cu12, and name its folder: PRETEXT_CUDA_LIB_DIR",
                version.0,
                version.1,
                known.iter().min().copied().unwrap_or_default()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::nvrtc::{Code, testing::nvrtc_for_tests};
    use super::*;

    #[test]
    fn a_device_newer_than_the_compiler_gets_ptx() {
        let known = [50, 80, 86, 90];
        let target = |wanted: &str| target(wanted, &known, (12, 0));
        assert_eq!(target("sm_90").unwrap(), "sm_90");
        assert_eq!(target("compute_80").unwrap(), "compute_80");
        assert_eq!(target("sm_100").unwrap(), "compute_90");
        assert_eq!(target("sm_89").unwrap(), "compute_86");
        let error = target("sm_35").unwrap_err();
        assert!(error.message().contains("pip install") && error.message().contains("12.0"), "{error}");
        assert_eq!(super::target("sm_100", &[], (11, 0)).unwrap(), "sm_100");
    }

    /// What the real compiler tells of itself leads to code, for a device of the far future too.
    #[test]
    fn the_compiler_tells_what_it_knows() {
        let nvrtc = nvrtc_for_tests();
        let known = nvrtc.architectures();
        assert!(known.contains(&80) && known.contains(&90), "{known:?}");
        let arch = target("sm_999", &known, nvrtc.version()).unwrap();
        static MODULE: Module = Module::new("test", "a.cu", "__global__ void k() {}", &[], &[], &[]);
        let Code::Ptx(text) = compile_with(nvrtc, &MODULE, &arch).unwrap().code else { panic!("not PTX") };
        assert!(text.contains(&format!(".target sm_{}", known.iter().max().unwrap())), "{text}");
    }
}
