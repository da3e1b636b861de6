//! Functions that no real driver has, for programs that know they run on the emulator: names for memory, marks, reports,
//! counters, options. They may be called from anywhere, host functions included.

use super::CUresult;
use super::error::{
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_NOT_PERMITTED, CUDA_SUCCESS,
};
use super::memory::code;
use super::module::text;
use super::options::PREFIX;
use super::session::Session;
use super::work::KernelLaunch;
use crate::counters::Counters;
use crate::memory::MemoryError;
use std::ffi::c_char;
use std::fmt::Write;

/// The extension's version.
pub const VERSION: u32 = 1;

/// One line of JSON: a launch and what it cost.
pub(super) fn counters_line(launch: &KernelLaunch, counters: &Counters) -> String {
    let [gx, gy, gz] = launch.grid;
    let [bx, by, bz] = launch.block;
    let mut line = format!(
        "{{\"kernel\":\"{}\",\"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}],\"dynamic_shared\":{}",
        launch.kernel.name(),
        launch.shared
    );
    let classes = &counters.instructions;
    for (name, value) in [
        ("integer", classes.integer),
        ("float", classes.float),
        ("half", classes.half),
        ("special", classes.special),
        ("tensor", classes.tensor),
        ("global", classes.global),
        ("shared", classes.shared),
        ("local", classes.local),
        ("constant", classes.constant),
        ("warp", classes.warp),
        ("barrier", classes.barrier),
        ("control", classes.control),
        ("thread_instructions", counters.thread_instructions),
        ("warp_instructions", counters.warp_instructions),
        ("global_load_requests", counters.global_load_requests),
        ("global_load_sectors", counters.global_load_sectors),
        ("global_load_half_lines", counters.global_load_half_lines),
        ("global_load_bytes", counters.global_load_bytes),
        ("global_store_requests", counters.global_store_requests),
        ("global_store_sectors", counters.global_store_sectors),
        ("global_store_half_lines", counters.global_store_half_lines),
        ("global_store_bytes", counters.global_store_bytes),
        ("global_wide_bytes", counters.global_wide_bytes),
        ("unique_bytes_read", counters.unique_bytes_read),
        ("unique_bytes_written", counters.unique_bytes_written),
        ("unique_half_lines_read", counters.unique_half_lines_read),
        ("unique_half_lines_written", counters.unique_half_lines_written),
        ("shared_requests", counters.shared_requests),
        ("shared_waves", counters.shared_waves),
        ("shared_waves_minimum", counters.shared_waves_minimum),
        ("divergent_branches", counters.divergent_branches),
        ("barriers", counters.barriers),
    ] {
        let _ = write!(line, ",\"{name}\":{value}");
    }
    line.push_str("}\n");
    line
}

/// The extension's version: a library that has this function is the emulator.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub extern "C" fn pretextEmulatedVersion() -> u32 {
    VERSION
}

fn done(result: Result<(), MemoryError>) -> CUresult {
    match result {
        Ok(()) => CUDA_SUCCESS,
        Err(error) => code(&error),
    }
}

/// Names the allocation that starts at an address, for reports.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn pretextEmulatedSetTag(address: u64, tag: *const c_char) -> CUresult {
    let Some(memory) = Session::open().memory.clone() else { return CUDA_ERROR_NOT_INITIALIZED };
    // SAFETY: the function's contract.
    let Some(tag) = (unsafe { text(tag) }) else { return CUDA_ERROR_INVALID_VALUE };
    done(memory.set_tag(address, tag))
}

/// Marks memory as never written: reading it before writing is a fault. For engines that hand the same memory out again.
/// It takes effect when it is called, not in stream order.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn pretextEmulatedMarkUninitialised(address: u64, bytes: u64) -> CUresult {
    let Some(memory) = Session::open().memory.clone() else { return CUDA_ERROR_NOT_INITIALIZED };
    done(memory.mark_uninitialised(address, bytes))
}

/// Copies text with its NUL, if the buffer has room for all of it; returns the bytes that all of it needs.
fn hand_out(text: &str, buffer: *mut c_char, length: usize) -> usize {
    if length > text.len() {
        // A null buffer is refused there, and the caller learns the length.
        let _ = super::device::put_text(text, buffer, length);
    }
    text.len() + 1
}

/// The text of the last report, empty where there was none. Returns the bytes that it takes with its NUL; nothing is
/// written where the buffer has fewer.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn pretextEmulatedLastReport(buffer: *mut c_char, length: usize) -> usize {
    hand_out(&Session::open().last_report, buffer, length)
}

/// A line of JSON for each launch that ran since the last call: kernel, grid, block, counters. Returns the bytes that the
/// lines take with their NUL; where the buffer has fewer nothing is written and the lines are kept.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn pretextEmulatedCounters(buffer: *mut c_char, length: usize) -> usize {
    let mut session = Session::open();
    let text: String = session.counters.iter().map(String::as_str).collect();
    let needed = hand_out(&text, buffer, length);
    if length >= needed && !buffer.is_null() {
        session.counters.clear();
    }
    needed
}

/// Sets an option by the name of its environment variable, with or without the prefix. Work that is queued already runs
/// under the new options; memory cannot be changed after `cuInit`.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn pretextEmulatedSetOption(name: *const c_char, value: *const c_char) -> CUresult {
    // SAFETY: the function's contract.
    let (Some(name), Some(value)) = (unsafe { (text(name), text(value)) }) else {
        return CUDA_ERROR_INVALID_VALUE;
    };
    let mut session = Session::open();
    if session.memory.is_some() && name.strip_prefix(PREFIX).unwrap_or(name) == "MEMORY" {
        return CUDA_ERROR_NOT_PERMITTED;
    }
    match session.settings.set(name, value) {
        Ok(()) => CUDA_SUCCESS,
        Err(error) => {
            eprintln!("pretext emulated device: {error}");
            CUDA_ERROR_INVALID_VALUE
        }
    }
}
