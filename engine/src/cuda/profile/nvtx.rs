//! NVTX: ranges with names that Nsight Systems and Nsight Compute show. The library (`libnvToolsExt.so.1` of CUDA 12
//! and older, `libnvtx3interop.so.1` of newer ones and of the wheels) is looked for once; without it nothing happens.

use super::super::nvrtc;
use libloading::Library;
use std::ffi::{c_char, c_int};
use std::path::PathBuf;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libnvToolsExt.so.1", "libnvtx3interop.so.1"];

/// `nvtxRangePushA` and `nvtxRangePop`.
struct Functions {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
}

fn functions() -> Option<&'static Functions> {
    static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let named = NAMES.map(PathBuf::from).into_iter();
            let in_folders = nvrtc::library_folders().into_iter();
            let paths = in_folders.flat_map(|folder| NAMES.map(|name| folder.join(name)));
            named.chain(paths.filter(|path| path.exists())).find_map(|path| load(&path))
        })
        .as_ref()
}

fn load(path: &std::path::Path) -> Option<Functions> {
    // SAFETY: NVTX's initialisers set up its own state.
    let library = unsafe { Library::new(path) }.ok()?;
    // SAFETY: the types are those of nvToolsExt.h.
    let found = unsafe {
        Functions {
            push: *library.get(b"nvtxRangePushA\0").ok()?,
            pop: *library.get(b"nvtxRangePop\0").ok()?,
        }
    };
    // The functions are called for the rest of the process.
    std::mem::forget(library);
    Some(found)
}

/// Whether the library is on this machine.
pub(super) fn is_here() -> bool {
    functions().is_some()
}

/// Begins a range of the calling thread inside the one that is open. Long names are cut.
pub(super) fn push(name: &str) {
    /// Bytes of a name with its final zero.
    const LENGTH: usize = 128;
    if let Some(functions) = functions() {
        let mut text = [0u8; LENGTH];
        let length = name.len().min(LENGTH - 1);
        text[..length].copy_from_slice(&name.as_bytes()[..length]);
        // SAFETY: the text ends with a zero; NVTX copies it.
        unsafe { (functions.push)(text.as_ptr().cast()) };
    }
}

/// Ends the range that began last.
pub(super) fn pop() {
    if let Some(functions) = functions() {
        // SAFETY: it has no arguments; a pop without a push is an error code.
        unsafe { (functions.pop)() };
    }
}
