//! Kernels as statics: a [`Module`] is a `.cu` file with its defines, a [`Kernel`] one entry point of it. Both are
//! loaded at their first launch on a device and found again without a look-up.

use super::compile::Origin;
use super::context::{Context, MAX_DEVICES, context, explain};
use super::nvrtc::{Code, Compiled};
use super::{compile, driver};
use crate::{Error, ErrorKind, Result};
use cudarc::driver::{result, sys};
use std::ffi::CString;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A `.cu` file compiled with some defines.
pub struct Module {
    /// The kernel family: `elementwise`.
    pub family: &'static str,
    /// The file's path from the repository's root, as messages and profilers name it.
    pub file: &'static str,
    /// The file's text.
    pub source: &'static str,
    /// Files that it includes: name and text.
    pub headers: &'static [(&'static str, &'static str)],
    /// Macros that are defined: `NAME` or `NAME=VALUE`.
    pub defines: &'static [&'static str],
    /// Further options of the compiler.
    pub options: &'static [&'static str],
    /// Whether it has instructions of one architecture that later ones lack, as `wgmma`: it is compiled for `sm_90a`, say.
    pub is_specific: bool,
    loaded: [OnceLock<Loaded>; MAX_DEVICES],
}

/// A module of the driver, which is kept for the rest of the process.
struct Loaded(sys::CUmodule);

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

/// Held while a module is compiled and loaded, so that two threads do not do it twice.
static LOADING: Mutex<()> = Mutex::new(());

impl Module {
    /// A module that is not loaded yet.
    pub const fn new(
        family: &'static str,
        file: &'static str,
        source: &'static str,
        headers: &'static [(&'static str, &'static str)],
        defines: &'static [&'static str],
        options: &'static [&'static str],
    ) -> Module {
        let loaded = [const { OnceLock::new() }; MAX_DEVICES];
        Module { family, file, source, headers, defines, options, is_specific: false, loaded }
    }

    /// The same with instructions of one architecture, the least of its kernels ([`Kernel::with_arch_min`]), which run on
    /// no other.
    pub const fn with_specific_instructions(mut self) -> Module {
        self.is_specific = true;
        self
    }

    #[track_caller]
    fn on(&'static self, context: &'static Context) -> Result<sys::CUmodule> {
        let slot = &self.loaded[context.ordinal()];
        if let Some(loaded) = slot.get() {
            return Ok(loaded.0);
        }
        let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = slot.get() {
            return Ok(loaded.0);
        }
        let module = load(self, context)?;
        Ok(slot.get_or_init(|| Loaded(module)).0)
    }
}

/// Compiles a module for a device, or finds it in the cache, and gives it to the driver. What the driver refuses from the
/// cache is compiled anew, once.
#[track_caller]
fn load(module: &Module, context: &Context) -> Result<sys::CUmodule> {
    let (compiled, origin) = compile::for_device(module, context)?;
    let answer = match give(compiled, context)? {
        Err(refused) if origin == Origin::Cache && is_of_the_image(&refused) => {
            give(compile::anew(module, context)?, context)?
        }
        answer => answer,
    };
    answer.map_err(|e| explain(&format!("load kernels of {}", module.file), e))
}

/// Loads code into the driver; gives its answer.
#[track_caller]
fn give(
    compiled: Compiled,
    context: &Context,
) -> Result<std::result::Result<sys::CUmodule, result::DriverError>> {
    let image = match compiled.code {
        Code::Cubin(bytes) => bytes,
        Code::Ptx(text) => {
            let text = CString::new(text).map_err(|_| Error::value("load kernels", "PTX has a zero byte"))?;
            text.into_bytes_with_nul()
        }
    };
    let _bound = context.bind()?;
    // SAFETY: the image is machine code, or PTX with its final zero, and outlives the call.
    Ok(unsafe { result::module::load_data(image.as_ptr().cast()) })
}

/// Whether the driver found fault with the code, not with its own state.
fn is_of_the_image(error: &result::DriverError) -> bool {
    use sys::CUresult::{
        CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_SOURCE,
        CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    };
    matches!(
        error.0,
        CUDA_ERROR_INVALID_IMAGE
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_INVALID_SOURCE
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    )
}

/// An entry point of a module.
pub struct Kernel {
    /// The file that it is in, with its defines.
    pub module: &'static Module,
    /// Its name: `elementwise_add_f32`.
    pub entry: &'static str,
    /// The least architecture that it runs on: 80 for compute capability 8.0.
    pub arch_min: u32,
    /// The most dynamic shared memory that a launch asks for, in bytes.
    pub dynamic_shared: usize,
    loaded: [OnceLock<Function>; MAX_DEVICES],
}

/// A kernel on a device.
pub(super) struct Function {
    pub(super) handle: sys::CUfunction,
    /// Size of each parameter in bytes; none where the driver is too old to say.
    pub(super) parameters: Option<Vec<usize>>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Kernel {
    /// A kernel that is not loaded yet and runs on every device that the project supports (sm_80 and up), without
    /// dynamic shared memory.
    pub const fn new(module: &'static Module, entry: &'static str) -> Kernel {
        let loaded = [const { OnceLock::new() }; MAX_DEVICES];
        Kernel { module, entry, arch_min: 80, dynamic_shared: 0, loaded }
    }

    /// The same with up to `bytes` of dynamic shared memory.
    pub const fn with_dynamic_shared(mut self, bytes: usize) -> Kernel {
        self.dynamic_shared = bytes;
        self
    }

    /// The same for devices from `arch` on: 90 for compute capability 9.0.
    pub const fn with_arch_min(mut self, arch: u32) -> Kernel {
        self.arch_min = arch;
        self
    }

    /// The kernel on a device, loaded if it was not.
    #[track_caller]
    pub(super) fn on(&'static self, ordinal: usize) -> Result<(&'static Function, &'static Context)> {
        let context = context(ordinal)?;
        let slot = &self.loaded[ordinal];
        if let Some(function) = slot.get() {
            return Ok((function, context));
        }
        if !self.runs_on(context) {
            let text = format!(
                "{} needs compute capability {}.{}{}; this is {}",
                self.entry,
                self.arch_min / 10,
                self.arch_min % 10,
                if self.module.is_specific { " and no other" } else { " or more" },
                context.info()
            );
            return Err(Error::new(ErrorKind::Device, self.entry, text));
        }
        let module = self.module.on(context)?;
        let function = self.find(module, context)?;
        Ok((slot.get_or_init(|| function), context))
    }

    /// Whether a device has the architecture that the kernel needs.
    fn runs_on(&self, context: &Context) -> bool {
        match self.module.is_specific {
            true => context.architecture() == self.arch_min,
            false => context.architecture() >= self.arch_min,
        }
    }

    #[track_caller]
    fn find(&self, module: sys::CUmodule, context: &Context) -> Result<Function> {
        use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
        /// What a kernel has without asking.
        const WITHOUT_OPTING_IN: usize = 48 << 10;
        let _bound = context.bind()?;
        let fail = |e| explain(self.entry, e);
        let name =
            CString::new(self.entry).map_err(|_| Error::value(self.entry, "the name has a zero byte"))?;
        // SAFETY: the module is loaded and never unloaded.
        let handle = unsafe { result::module::get_function(module, name) }.map_err(fail)?;
        if self.dynamic_shared > WITHOUT_OPTING_IN {
            // Launches that stay below may run on a device that has less than the most.
            let bytes = self.dynamic_shared.min(context.limits().shared_per_block);
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            // SAFETY: the function is the module's.
            unsafe { result::function::set_function_attribute(handle, SHARED, bytes) }.map_err(fail)?;
        }
        Ok(Function { handle, parameters: parameters(handle) })
    }
}

/// Size of each parameter of a function, from drivers that tell (12.4 and newer).
fn parameters(function: sys::CUfunction) -> Option<Vec<usize>> {
    if !driver::has(b"cuFuncGetParamInfo\0") {
        return None;
    }
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is valid; both numbers are size_t.
        match unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) }.result() {
            Ok(()) => sizes.push(size),
            Err(_) => return Some(sizes),
        }
    }
}
