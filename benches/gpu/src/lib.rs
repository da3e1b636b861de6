//! The launchers of `kernels` behind a C ABI of two functions, so that `bench.py` can time them beside PyTorch in one
//! process, on one stream and over the same memory. See README.md.
//!
//! A request and its answer are JSON. Nothing is timed here: the caller records events on the stream that
//! [`session`]'s `open` gives, around what it asks to be launched.

mod check;
mod computation;
mod families;
mod session;

use std::ffi::{CStr, CString, c_char};
use std::panic::catch_unwind;

/// Answers a request, a C string of JSON: an object whose `do` names one of [`session`]'s requests. The answer is what
/// that gives, or `{"error": "..."}`; [`gpu_bench_free`] frees it.
///
/// # Safety
///
/// `request` is null or points to a C string that nobody changes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_bench_call(request: *const c_char) -> *mut c_char {
    let answer = catch_unwind(|| {
        if request.is_null() {
            return Err("the request is a null pointer".to_string());
        }
        // SAFETY: it is a C string, says the caller.
        let text = unsafe { CStr::from_ptr(request) };
        let text = text.to_str().map_err(|e| format!("the request is not UTF-8: {e}"))?;
        session::answer(text)
    });
    let answer = answer.unwrap_or_else(|panic| {
        let said =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", said.unwrap_or("without a message")))
    });
    let text = match answer {
        Ok(value) => value,
        Err(text) => serde_json::json!({"error": text}),
    };
    // JSON writes a zero byte as an escape.
    CString::new(text.to_string()).unwrap_or_default().into_raw()
}

/// Frees an answer.
///
/// # Safety
///
/// `answer` is null or what [`gpu_bench_call`] gave, and was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_bench_free(answer: *mut c_char) {
    if !answer.is_null() {
        // SAFETY: it came from `CString::into_raw` and is freed once, says the caller.
        drop(unsafe { CString::from_raw(answer) });
    }
}
