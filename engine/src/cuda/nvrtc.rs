//! NVRTC, the compiler of kernels: found at run time, called through the few functions that are needed.
//!
//! It is not called through cudarc: that one panics where the library is missing, does not look where wheels and
//! toolkits install it, and gives neither machine code nor the log of a compilation that succeeded.
//! No header comes with NVRTC alone, so the kernels include none of the toolkit's.

mod search;
pub mod testing;

use crate::{Error, ErrorKind, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

/// `nvrtcResult`, 0 for success.
type Status = c_int;
/// `nvrtcProgram`.
type Program = *mut c_void;
/// `nvrtcGet...Size`.
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> Status;
/// `nvrtcGet...`, into a buffer of that size.
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// NVRTC, loaded for the rest of the process. It may be used from several threads at once.
#[derive(Debug)]
pub struct Nvrtc {
    path: PathBuf,
    version: (u32, u32),
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    ptx: (GetSize, GetBytes),
    cubin: (GetSize, GetBytes),
    log: (GetSize, GetBytes),
    /// How many architectures it knows, and which: in NVRTC 11.2 and newer.
    architectures:
        Option<(unsafe extern "C" fn(*mut c_int) -> Status, unsafe extern "C" fn(*mut c_int) -> Status)>,
}

/// What a compilation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The code to load into a device.
    pub code: Code,
    /// What the compiler said, although it succeeded: warnings, and the resources of each kernel where an option asks
    /// for them.
    pub log: String,
}

/// Code for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// For a virtual architecture such as `compute_90`: text that a driver compiles further.
    Ptx(String),
    /// For a real architecture such as `sm_90a`: machine code.
    Cubin(Vec<u8>),
}

/// Where CUDA's libraries may lie beside where the loader looks: `$PRETEXT_CUDA_LIB_DIR`, toolkits, wheels.
pub fn library_folders() -> Vec<PathBuf> {
    search::folders()
}

static FOUND: OnceLock<Nvrtc> = OnceLock::new();

impl Nvrtc {
    /// The NVRTC of this machine, looked for once: in `$PRETEXT_CUDA_LIB_DIR`, by name where the loader looks, in the
    /// toolkit's usual folders, and among the wheels of Python environments.
    ///
    /// # Errors
    ///
    /// There is none: the message says where it was looked for and how to get it.
    pub fn find() -> Result<&'static Nvrtc> {
        Nvrtc::find_also(&[])
    }

    /// As [`Nvrtc::find`], which gives the same from then on; folders in `more` are looked through last.
    fn find_also(more: &[PathBuf]) -> Result<&'static Nvrtc> {
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        let found = search::find(more)?;
        Ok(FOUND.get_or_init(|| found))
    }

    /// The library at `path`: a file's path, or a name that the loader looks up.
    ///
    /// # Errors
    ///
    /// It cannot be loaded, or it is not NVRTC.
    pub fn load(path: &Path) -> Result<Nvrtc> {
        let fail = |e: libloading::Error| {
            let message = format!("{}: {}", path.display(), super::explain(&e));
            Error::new(ErrorKind::Device, "load NVRTC", message)
        };
        search::load_builtins(path);
        // SAFETY: NVRTC's initialisers only set up its own state.
        let library = unsafe { Library::new(path) }.map_err(fail)?;
        let nvrtc = Nvrtc::from_library(&library, path).map_err(fail)?;
        // The function pointers stay valid for the rest of the process.
        std::mem::forget(library);
        Ok(nvrtc)
    }

    fn from_library(library: &Library, path: &Path) -> std::result::Result<Nvrtc, libloading::Error> {
        /// The function `name`, copied out of the library.
        ///
        /// # Safety
        ///
        /// `F` must be its C type.
        unsafe fn function<F: Copy>(
            library: &Library,
            name: &CStr,
        ) -> std::result::Result<F, libloading::Error> {
            // SAFETY: the caller's promise.
            unsafe { library.get::<F>(name.to_bytes_with_nul()) }.map(|symbol| *symbol)
        }
        // SAFETY: the types are those of nvrtc.h, which are the same in NVRTC 11.2 to 13.
        unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status =
                function(library, c"nvrtcVersion")?;
            let (mut major, mut minor) = (0, 0);
            version(&mut major, &mut minor);
            Ok(Nvrtc {
                path: search::loaded_path(path),
                version: (major.unsigned_abs(), minor.unsigned_abs()),
                error_string: function(library, c"nvrtcGetErrorString")?,
                create: function(library, c"nvrtcCreateProgram")?,
                compile: function(library, c"nvrtcCompileProgram")?,
                destroy: function(library, c"nvrtcDestroyProgram")?,
                ptx: (function(library, c"nvrtcGetPTXSize")?, function(library, c"nvrtcGetPTX")?),
                cubin: (function(library, c"nvrtcGetCUBINSize")?, function(library, c"nvrtcGetCUBIN")?),
                log: (
                    function(library, c"nvrtcGetProgramLogSize")?,
                    function(library, c"nvrtcGetProgramLog")?,
                ),
                architectures: function(library, c"nvrtcGetNumSupportedArchs")
                    .and_then(|count| Ok((count, function(library, c"nvrtcGetSupportedArchs")?)))
                    .ok(),
            })
        }
    }

    /// Major and minor version: (12, 9).
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The release to the patch: `12.9.86`. It is what NVRTC writes at the head of PTX.
    ///
    /// # Errors
    ///
    /// NVRTC does not work, or writes none.
    pub fn release(&self) -> Result<String> {
        let compiled = self.compile("", "empty.cu", "compute_80", &[])?;
        let Code::Ptx(text) = &compiled.code else {
            return Err(Error::value("NVRTC's release", "PTX was asked for and did not come"));
        };
        let release = text.lines().find_map(|line| line.strip_prefix("//")?.rsplit_once(", V"));
        release
            .map(|(_, number)| number.trim().to_string())
            .ok_or_else(|| Error::value("NVRTC's release", "the head of its PTX does not say it"))
    }

    /// The architectures that it makes code for, as numbers: 90 for `sm_90`. Empty where it does not tell.
    pub fn architectures(&self) -> Vec<u32> {
        let Some((count, get)) = self.architectures else { return Vec::new() };
        let mut length = 0;
        // SAFETY: it writes one int.
        if unsafe { count(&mut length) } != 0 {
            return Vec::new();
        }
        let mut all: Vec<c_int> = vec![0; usize::try_from(length).unwrap_or(0)];
        // SAFETY: it writes as many ints as it has just said.
        match unsafe { get(all.as_mut_ptr()) } {
            0 => all.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect(),
            _ => Vec::new(),
        }
    }

    /// The library's file; its name alone where the loader found it and does not say where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiles CUDA C++ for `arch`: `compute_90` gives PTX, `sm_90a` machine code.
    ///
    /// `name` is what messages and line information call the source: the `.cu` file's path. `options` are NVRTC's.
    ///
    /// # Errors
    ///
    /// The source does not compile (the message is the compiler's log, with file and line), or `arch` or an option
    /// is none of this NVRTC's.
    pub fn compile(&self, source: &str, name: &str, arch: &str, options: &[String]) -> Result<Compiled> {
        self.compile_with(source, name, &[], arch, options)
    }

    /// As [`Nvrtc::compile`], with the files that the source includes: name and text.
    pub fn compile_with(
        &self,
        source: &str,
        name: &str,
        headers: &[(&str, &str)],
        arch: &str,
        options: &[String],
    ) -> Result<Compiled> {
        let (product, is_ptx) = match arch {
            _ if arch.starts_with("compute_") => (self.ptx, true),
            _ if arch.starts_with("sm_") => (self.cubin, false),
            _ => {
                let message = "an architecture is compute_NN for PTX, or sm_NN for machine code";
                return Err(Error::value("compile", message).with("arch", arch));
            }
        };
        let mut texts = vec![c_string("option", &format!("--gpu-architecture={arch}"))?];
        for option in options {
            texts.push(c_string("option", option)?);
        }
        let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let count =
            c_int::try_from(pointers.len()).map_err(|_| Error::value("compile", "too many options"))?;

        let program = self.program(&c_string("source", source)?, &c_string("name", name)?, headers)?;
        // SAFETY: the program is live; `pointers` holds `count` C strings, which outlive the call.
        let status = unsafe { (self.compile)(program.handle, count, pointers.as_ptr()) };
        let log = String::from_utf8_lossy(&program.bytes(self.log)?).into_owned();
        if status != 0 {
            let said = if log.is_empty() { self.describe(status) } else { format!("\n{log}") };
            let message = format!("{name} does not compile for {arch}: {said}");
            return Err(Error::new(ErrorKind::Value, "compile", message));
        }
        let bytes = program.bytes(product)?;
        let code = if is_ptx {
            Code::Ptx(
                String::from_utf8(bytes)
                    .map_err(|e| Error::value("compile", format!("PTX of {name}: {e}")))?,
            )
        } else {
            Code::Cubin(bytes)
        };
        Ok(Compiled { code, log })
    }

    fn program(&self, source: &CStr, name: &CStr, headers: &[(&str, &str)]) -> Result<LiveProgram<'_>> {
        let texts = |which: fn(&(&str, &str)) -> String| -> Result<Vec<CString>> {
            headers.iter().map(|header| c_string("header", &which(header))).collect()
        };
        let (names, contents) = (texts(|h| h.0.to_string())?, texts(|h| h.1.to_string())?);
        let pointers = |all: &[CString]| all.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (name_pointers, content_pointers) = (pointers(&names), pointers(&contents));
        let count =
            c_int::try_from(headers.len()).map_err(|_| Error::value("compile", "too many headers"))?;
        let mut handle = ptr::null_mut();
        // SAFETY: all strings outlive the call, which copies them; both lists have `count` of them.
        let status = unsafe {
            (self.create)(
                &mut handle,
                source.as_ptr(),
                name.as_ptr(),
                count,
                content_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        self.check(status)?;
        Ok(LiveProgram { nvrtc: self, handle })
    }

    fn check(&self, status: Status) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Device, "compile", format!("NVRTC failed: {}", self.describe(status))))
    }

    fn describe(&self, status: Status) -> String {
        // SAFETY: the function gives a static string for every number.
        let text = unsafe { (self.error_string)(status) };
        if text.is_null() {
            return format!("error {status}");
        }
        // SAFETY: not null, and a C string that is never freed.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// A program that NVRTC holds until this is dropped.
struct LiveProgram<'a> {
    nvrtc: &'a Nvrtc,
    handle: Program,
}

impl LiveProgram<'_> {
    /// One of the program's products or its log. Texts come without the zero that ends them.
    fn bytes(&self, (size, get): (GetSize, GetBytes)) -> Result<Vec<u8>> {
        let mut length = 0;
        // SAFETY: the program is live, `length` is a size_t.
        self.nvrtc.check(unsafe { size(self.handle, &mut length) })?;
        let mut bytes = vec![0u8; length];
        // SAFETY: the program is live, and the buffer has the length that NVRTC has just asked for.
        self.nvrtc.check(unsafe { get(self.handle, bytes.as_mut_ptr().cast()) })?;
        let is_machine_code = bytes.starts_with(b"\x7fELF");
        if !is_machine_code && bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }
}

impl Drop for LiveProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is live and not used again.
        unsafe { (self.nvrtc.destroy)(&mut self.handle) };
    }
}

fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::value("compile", format!("the {what} has a zero byte in it")))
}

#[cfg(test)]
mod tests;
