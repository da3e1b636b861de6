//! Faults stick to their context, are told once, and go with it.

use crate::setup::*;
use emulator::driver::Handle;
use emulator::driver::context::*;
use emulator::driver::copy::cuMemcpyHtoDAsync_v2;
use emulator::driver::error::*;
use emulator::driver::event::*;
use emulator::driver::extension::*;
use emulator::driver::launch::*;
use emulator::driver::memory::*;
use emulator::driver::pool::*;
use emulator::driver::primary::*;
use emulator::driver::stream::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

fn report() -> String {
    let needed = unsafe { pretextEmulatedLastReport(null_mut(), 0) };
    let mut buffer = vec![0 as c_char; needed];
    unsafe {
        assert_eq!(pretextEmulatedLastReport(buffer.as_mut_ptr(), needed), needed);
        CStr::from_ptr(buffer.as_ptr()).to_str().unwrap().to_owned()
    }
}

static STATUS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn note_status(_: Handle, status: u32, _: *mut c_void) {
    STATUS.store(status, Ordering::SeqCst);
}

#[test]
fn an_illegal_address_sticks_to_its_context() {
    let device = device();
    let (add, stream, numbers) = (kernel("add"), stream(0), upload(&[1; 4]));
    let mut other = 0;
    ok(launch(add, stream, numbers, 5, 1));
    ok(launch(add, stream, numbers, 1, 100));
    unsafe {
        ok(cuStreamAddCallback(stream, Some(note_status), null_mut(), 0));
        assert_eq!(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(STATUS.load(Ordering::SeqCst), CUDA_ERROR_ILLEGAL_ADDRESS, "callbacks are told");
        let said = report();
        assert!(said.contains("out of bounds in add"), "{said}");
        let mut address = 0;
        assert_eq!(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(cuMemAlloc_v2(Some(&mut address), 4), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(launch(add, stream, numbers, 1, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        ok(cuCtxGetCurrent(Some(&mut other)));
        assert_eq!(other, device.context);
        ok(cuCtxCreate_v2(Some(&mut other), 0, 0));
        ok(cuMemAlloc_v2(Some(&mut address), 4));
        ok(cuCtxDestroy_v2(other));
        ok(cuCtxDestroy_v2(device.context));
    }
}

#[test]
fn resetting_the_primary_context_heals_it() {
    let device = device();
    let mut primary = 0;
    unsafe {
        ok(cuDevicePrimaryCtxRetain(Some(&mut primary), 0));
        ok(cuCtxSetCurrent(primary));
        let (add, numbers) = (kernel("add"), upload(&[1]));
        ok(launch(add, 0, numbers, 2, 1));
        assert_eq!(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        ok(cuDevicePrimaryCtxReset_v2(0));
        ok(cuCtxSynchronize());
        assert_eq!(cuMemFree_v2(numbers), CUDA_ERROR_INVALID_VALUE);
        let (add, numbers) = (kernel("add"), upload(&[1]));
        ok(launch(add, 0, numbers, 1, 1));
        synchronize(0);
        assert_eq!(peek(numbers, 1), [2]);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuCtxSetCurrent(device.context));
    }
}

#[test]
fn each_fault_has_its_code() {
    for (name, code) in [("misaligned", CUDA_ERROR_MISALIGNED_ADDRESS), ("trap", CUDA_ERROR_LAUNCH_FAILED)] {
        let _device = device();
        let (function, numbers) = (kernel(name), upload(&[0; 4]));
        let mut address = numbers;
        let mut parameters: [*mut c_void; 1] = [(&raw mut address).cast()];
        let list = parameters.as_mut_ptr();
        unsafe {
            ok(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, list, null_mut()));
            assert_eq!(cuStreamSynchronize(0), code, "{name}");
        }
        assert!(report().contains(&format!("in {name}")), "{}", report());
    }
}

#[test]
fn memory_that_the_stream_freed_is_not_touched_again() {
    let _device = device();
    let (stream, mut address) = (stream(NON_BLOCKING), 0);
    unsafe {
        ok(cuMemAllocAsync(Some(&mut address), 16, stream));
        ok(cuMemFreeAsync(address, stream));
        ok(cuMemcpyHtoDAsync_v2(address, [1u32].as_ptr().cast(), 4, stream));
        assert_eq!(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
    }
    assert!(report().contains("illegal address in cuMemcpyHtoDAsync"), "{}", report());
}

#[test]
fn a_fault_is_seen_by_event_and_query() {
    let _device = device();
    let (add, stream, numbers) = (kernel("add"), stream(0), upload(&[1]));
    ok(launch(add, stream, numbers, 2, 1));
    let after = mark(stream);
    unsafe {
        assert_eq!(cuEventQuery(after), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(cuEventSynchronize(after), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(cuStreamQuery(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
    }
}

#[test]
fn counters_are_handed_out_once() {
    let _device = device();
    let counters = || {
        let needed = unsafe { pretextEmulatedCounters(null_mut(), 0) };
        let mut buffer = vec![0 as c_char; needed];
        unsafe {
            assert_eq!(pretextEmulatedCounters(buffer.as_mut_ptr(), needed - 1), needed, "too short: kept");
            assert_eq!(pretextEmulatedCounters(buffer.as_mut_ptr(), needed), needed);
            CStr::from_ptr(buffer.as_ptr()).to_str().unwrap().to_owned()
        }
    };
    counters();
    let (add, numbers) = (kernel("add"), upload(&[1; 100]));
    ok(launch(add, 0, numbers, 100, 1));
    ok(launch(add, 0, numbers, 10, 1));
    synchronize(0);
    let lines = counters();
    assert_eq!(lines.lines().count(), 2);
    assert!(
        lines.starts_with("{\"kernel\":\"add\",\"grid\":[2,1,1],\"block\":[64,1,1],\"dynamic_shared\":0,")
    );
    let parsed: serde_like::Line = serde_like::parse(lines.lines().next().unwrap());
    assert!(parsed.number("warp_instructions") > 0);
    assert_eq!(counters(), "", "drained");
    ok(set_option("COUNTERS", "off"));
    ok(launch(add, 0, numbers, 10, 1));
    synchronize(0);
    assert_eq!(counters(), "");
    assert_eq!(set_option("COUNTERS", "perhaps"), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(set_option("COUNTER", "on"), CUDA_ERROR_INVALID_VALUE);
}

/// Just enough JSON for a flat line of numbers.
mod serde_like {
    pub struct Line<'a>(&'a str);

    pub fn parse(line: &str) -> Line<'_> {
        assert!(line.starts_with('{') && line.ends_with('}'));
        Line(line)
    }

    impl Line<'_> {
        pub fn number(&self, key: &str) -> u64 {
            let (_, rest) = self.0.split_once(&format!("\"{key}\":")).expect(key);
            rest.split([',', '}']).next().unwrap().parse().unwrap()
        }
    }
}
