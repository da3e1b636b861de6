//! Modules from PTX, their kernels and variables.

use super::error::{
    CUDA_ERROR_FILE_NOT_FOUND, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_NOT_FOUND, Cuda,
};
use super::session::{Session, in_context, put, with_driver};
use super::state::{Function, Module};
use super::{CUresult, Handle, device};
use crate::exec::Image;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;

/// `CU_JIT_INFO_LOG_BUFFER` and its size.
const INFO_LOG: (u32, u32) = (3, 4);
/// `CU_JIT_ERROR_LOG_BUFFER` and its size.
const ERROR_LOG: (u32, u32) = (5, 6);

/// What images that are not PTX begin with: ELF, a fat binary, the wrapper that compilers put around one.
const BINARIES: [[u8; 4]; 3] = [*b"\x7fELF", [0x50, 0xed, 0x55, 0xba], [0xb1, 0x43, 0x62, 0x46]];

/// A module that could not be made: the code, and the log in words.
type Refusal = (CUresult, String);

/// Whether an image begins like a binary. Reads no further than the first byte that differs, since a text may be short.
///
/// # Safety
/// The image is a binary, or ends in NUL.
unsafe fn is_binary(image: *const u8) -> bool {
    // SAFETY: each byte is read only if those before agree with the binary's, none of which is NUL.
    BINARIES.iter().any(|magic| (0..4).all(|i| unsafe { image.add(i).read() } == magic[i]))
}

/// The text of a PTX image.
///
/// # Safety
/// The image is null, a binary, or ends in NUL.
unsafe fn ptx_text(image: *const c_void) -> Result<String, Refusal> {
    if image.is_null() {
        return Err((CUDA_ERROR_INVALID_VALUE, "the image is null".to_owned()));
    }
    // SAFETY: the caller's contract.
    if unsafe { is_binary(image.cast()) } {
        let log = "the emulated device takes PTX, and this image is a binary (cubin or fatbin): compile to PTX instead";
        return Err((CUDA_ERROR_NO_BINARY_FOR_GPU, log.to_owned()));
    }
    // SAFETY: the caller's contract.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    Ok(text.to_string_lossy().into_owned())
}

impl Session {
    fn load(&mut self, context: Handle, text: &str) -> Result<Handle, Refusal> {
        self.refuse_unsafe().map_err(|code| (code, "a stream is capturing".to_owned()))?;
        let memory = self.device().map_err(|code| (code, String::new()))?;
        let image = Image::load(text, &memory).map_err(|error| {
            (
                CUDA_ERROR_INVALID_PTX,
                format!("ptx application ptx input, line {}; error: {}", error.line, error.detail),
            )
        })?;
        let arch = self.settings.arch;
        if let Some(kernel) = image.kernels().find(|kernel| kernel.target() > arch) {
            let log = format!("{} is for sm_{}, and the device is sm_{arch}", kernel.name(), kernel.target());
            return Err((CUDA_ERROR_NO_BINARY_FOR_GPU, log));
        }
        Ok(self.modules.add(Module { context, image: Arc::new(image), functions: BTreeMap::new() }))
    }

    fn function(&mut self, module: Handle, name: &str) -> Cuda<Handle> {
        let found = self.modules.get(module)?;
        if let Some(&function) = found.functions.get(name) {
            return Ok(function);
        }
        let kernel = found.image.kernel(name).cloned().ok_or(CUDA_ERROR_NOT_FOUND)?;
        let function = Function {
            module,
            context: found.context,
            image: found.image.clone(),
            name: CString::new(name).map_err(|_| CUDA_ERROR_INVALID_VALUE)?,
            max_dynamic_shared: device::SHARED_DEFAULT.saturating_sub(kernel.static_shared_bytes()),
            kernel,
            carveout: -1,
            non_portable_cluster: 0,
            scheduling: 0,
        };
        let function = self.functions.add(function);
        self.modules.get_mut(module)?.functions.insert(name.to_owned(), function);
        Ok(function)
    }
}

/// Text of the caller's; None where it is null or not UTF-8.
///
/// # Safety
/// Null, or NUL-terminated and alive while the result is used.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: the caller's contract.
    if text.is_null() { None } else { unsafe { CStr::from_ptr(text) }.to_str().ok() }
}

/// Loads a module from a PTX file.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleLoad(module: Option<&mut Handle>, path: *const c_char) -> CUresult {
    in_context(|mut session, context| {
        // SAFETY: the function's contract.
        let path = unsafe { text(path) }.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let bytes = std::fs::read(path).map_err(|_| CUDA_ERROR_FILE_NOT_FOUND)?;
        let image = CString::new(bytes.split(|byte| *byte == 0).next().unwrap_or(&[])).unwrap_or_default();
        // SAFETY: NUL-terminated.
        let loaded = unsafe { ptx_text(image.as_ptr().cast()) }.and_then(|text| session.load(context, &text));
        put(module, loaded.map_err(refused)?)
    })
}

/// Tells the person at the terminal why a module was refused, where the program did not ask for a log.
fn refused((code, log): Refusal) -> CUresult {
    eprintln!("pretext emulated device: module refused: {log}");
    code
}

/// Loads a module from PTX text.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleLoadData(module: Option<&mut Handle>, image: *const c_void) -> CUresult {
    in_context(|mut session, context| {
        // SAFETY: the function's contract.
        let loaded = unsafe { ptx_text(image) }.and_then(|text| session.load(context, &text));
        put(module, loaded.map_err(refused)?)
    })
}

/// Loads a module from PTX text, with options: those for log buffers are heeded, the others concern code generation,
/// of which there is none.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: Option<&mut Handle>,
    image: *const c_void,
    count: u32,
    options: *const u32,
    values: *mut *mut c_void,
) -> CUresult {
    in_context(|mut session, context| {
        if count > 0 && (options.is_null() || values.is_null()) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: the function's contract.
        let loaded = unsafe { ptx_text(image) }.and_then(|text| session.load(context, &text));
        let log = loaded.as_ref().err().map_or("", |(_, log)| log);
        // SAFETY: the function's contract: `count` options and values.
        let logged = unsafe {
            fill_log(count, options, values, INFO_LOG, "");
            fill_log(count, options, values, ERROR_LOG, log)
        };
        put(module, loaded.map_err(|refusal| if logged { refusal.0 } else { refused(refusal) })?)
    })
}

/// Writes a log into the buffer that the options name, and its length over the buffer's size. Returns whether there is
/// such a buffer.
///
/// # Safety
/// `options` and `values` have `count` entries, and the buffer the size that its option says.
unsafe fn fill_log(
    count: u32,
    options: *const u32,
    values: *mut *mut c_void,
    (buffer, size): (u32, u32),
    log: &str,
) -> bool {
    // SAFETY: the caller's contract.
    let find = |option: u32| (0..count as usize).find(|&i| unsafe { options.add(i).read() } == option);
    let (Some(buffer), Some(size)) = (find(buffer), find(size)) else { return false };
    // SAFETY: the caller's contract; both indices are below `count`.
    unsafe {
        let length = values.add(size).read() as usize;
        if device::put_text(log, values.add(buffer).read().cast(), length).is_err() {
            return false;
        }
        values.add(size).write(log.len().min(length - 1) as *mut c_void);
    }
    true
}

/// Loads a fat binary: refused, since it holds machine code.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleLoadFatBinary(
    _module: Option<&mut Handle>,
    _image: *const c_void,
) -> CUresult {
    in_context(|_, _| {
        Err(refused((
            CUDA_ERROR_NO_BINARY_FOR_GPU,
            "the emulated device takes PTX, not fat binaries".to_owned(),
        )))
    })
}

/// Finishes the context's work and unloads a module.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleUnload(module: Handle) -> CUresult {
    in_context(|mut session, context| {
        session.modules.get(module)?;
        session.refuse_unsafe()?;
        let mut session = session.run_context(context);
        session.modules.remove(module)?;
        session.functions.retain(|function| function.module != module);
        session.healthy(context)
    })
}

/// A kernel of a module.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: Option<&mut Handle>,
    module: Handle,
    name: *const c_char,
) -> CUresult {
    in_context(|mut session, _| {
        // SAFETY: the function's contract.
        let name = unsafe { text(name) }.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        put(function, session.function(module, name)?)
    })
}

/// How many kernels a module has.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleGetFunctionCount(count: Option<&mut u32>, module: Handle) -> CUresult {
    in_context(|session, _| put(count, session.modules.get(module)?.image.kernels().count() as u32))
}

/// A module's kernels, at most `count`.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleEnumerateFunctions(
    functions: *mut Handle,
    count: u32,
    module: Handle,
) -> CUresult {
    in_context(|mut session, _| {
        if functions.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let kernels = session.modules.get(module)?.image.kernels().take(count as usize);
        let names: Vec<String> = kernels.map(|kernel| kernel.name().to_owned()).collect();
        for (i, name) in names.iter().enumerate() {
            let function = session.function(module, name)?;
            // SAFETY: the function's contract: `count` places, of which this is one.
            unsafe { functions.add(i).write(function) };
        }
        Ok(())
    })
}

/// Address and size of a module's variable.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: Option<&mut u64>,
    bytes: Option<&mut usize>,
    module: Handle,
    name: *const c_char,
) -> CUresult {
    in_context(|session, _| {
        // SAFETY: the function's contract.
        let name = unsafe { text(name) }.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let global = session.modules.get(module)?.image.global(name).ok_or(CUDA_ERROR_NOT_FOUND)?;
        if let Some(address) = address {
            *address = global.0;
        }
        if let Some(bytes) = bytes {
            *bytes = global.1 as usize;
        }
        Ok(())
    })
}

/// How modules are loaded: at once (`CU_MODULE_EAGER_LOADING`).
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuModuleGetLoadingMode(mode: Option<&mut u32>) -> CUresult {
    with_driver(|_| put(mode, 1))
}
