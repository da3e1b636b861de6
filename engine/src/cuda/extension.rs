//! What the emulated driver offers beyond CUDA: names of memory, marks, counters, options, reports. On hardware each
//! function does nothing and gives nothing.

use super::driver::library;
use std::ffi::{CString, c_char, c_int};

/// A function of the emulated driver, if that is the driver in use.
fn symbol<F: Copy>(name: &[u8]) -> Option<F> {
    let library = library()?;
    // SAFETY: every caller here names a function of the emulated driver with its C type.
    unsafe { library.get::<F>(name) }.ok().map(|symbol| *symbol)
}

/// Text that `get` writes into a buffer, of which it gives the size with the final zero.
fn text(get: unsafe extern "C" fn(*mut c_char, usize) -> usize) -> String {
    let mut buffer: Vec<u8> = vec![0; 1 << 12];
    loop {
        // SAFETY: the buffer has the length that is said.
        let needed = unsafe { get(buffer.as_mut_ptr().cast(), buffer.len()) };
        if needed <= buffer.len() {
            buffer.truncate(needed.saturating_sub(1));
            return String::from_utf8_lossy(&buffer).into_owned();
        }
        buffer = vec![0; needed];
    }
}

/// The last report of a fault in a kernel; empty where there is none.
pub fn last_report() -> String {
    symbol(b"pretextEmulatedLastReport\0").map(text).unwrap_or_default()
}

/// A line of JSON for each launch since the last call: kernel, grid, block and what it cost.
pub fn counters() -> String {
    symbol(b"pretextEmulatedCounters\0").map(text).unwrap_or_default()
}

/// Names the memory that starts at `address`, for reports.
pub(super) fn set_tag(address: u64, tag: &str) {
    let function: Option<unsafe extern "C" fn(u64, *const c_char) -> c_int> =
        symbol(b"pretextEmulatedSetTag\0");
    if let (Some(function), Ok(tag)) = (function, CString::new(tag)) {
        // SAFETY: the tag is a C string that outlives the call; a wrong address is an error code.
        unsafe { function(address, tag.as_ptr()) };
    }
}

/// Marks memory as never written, at once and not in stream order: reading it before writing is then reported.
pub(super) fn mark_uninitialised(address: u64, bytes: usize) {
    let function: Option<unsafe extern "C" fn(u64, u64) -> c_int> =
        symbol(b"pretextEmulatedMarkUninitialised\0");
    if let Some(function) = function {
        // SAFETY: a wrong address is an error code.
        unsafe { function(address, bytes as u64) };
    }
}

/// Sets an option of the emulated device by the name of its environment variable, `PRETEXT_EMULATED_SEED` say, with or
/// without the prefix. Whether the device is emulated and took it.
pub fn set_option(name: &str, value: &str) -> bool {
    let function: Option<unsafe extern "C" fn(*const c_char, *const c_char) -> c_int> =
        symbol(b"pretextEmulatedSetOption\0");
    let (Some(function), Ok(name), Ok(value)) = (function, CString::new(name), CString::new(value)) else {
        return false;
    };
    // SAFETY: both are C strings that outlive the call.
    unsafe { function(name.as_ptr(), value.as_ptr()) == 0 }
}

/// Whether the driver in use is the emulated one.
pub fn is_emulated() -> bool {
    library().is_some()
}
