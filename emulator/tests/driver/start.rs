//! Start-up, the device and contexts.

use crate::setup::*;
use emulator::driver::CUresult;
use emulator::driver::context::*;
use emulator::driver::device::*;
use emulator::driver::error::*;
use emulator::driver::memory::{cuMemAlloc_v2, cuMemFree_v2, cuMemGetInfo_v2};
use emulator::driver::primary::*;
use emulator::driver::stream::cuStreamSynchronize;
use std::ffi::{CStr, c_char};

/// Set where this program was started by one of its tests.
const FRESH: &str = "EMULATED_DRIVER_FRESH_PROCESS";

/// What a process of its own does for the tests below (there is nothing to do elsewhere): before `cuInit`, and `cuInit`
/// under the environment that the process was given.
#[test]
fn fresh_process() {
    if std::env::var_os(FRESH).is_none() {
        return;
    }
    let (mut count, mut version, mut context, mut address) = (0, 0, 0, 0);
    unsafe {
        ok(cuDriverGetVersion(Some(&mut version)));
        assert_eq!(version, 12080);
        assert_eq!(cuDeviceGetCount(Some(&mut count)), CUDA_ERROR_NOT_INITIALIZED);
        assert_eq!(cuMemAlloc_v2(Some(&mut address), 4), CUDA_ERROR_NOT_INITIALIZED);
        assert_eq!(cuStreamSynchronize(0), CUDA_ERROR_NOT_INITIALIZED);
        assert_eq!(cuInit(1), CUDA_ERROR_INVALID_VALUE);
        let code = cuInit(0);
        println!("cuInit: {}", name(code));
        if code == CUDA_SUCCESS {
            ok(cuCtxCreate_v2(Some(&mut context), 0, 0));
            let (mut free, mut total, mut major) = (0, 0, 0);
            ok(cuMemGetInfo_v2(Some(&mut free), Some(&mut total)));
            ok(cuDeviceGetAttribute(Some(&mut major), 75, 0));
            println!("memory: {} of {} MiB, sm_{major}x", free >> 20, total >> 20);
            assert_eq!(set_option("MEMORY", "1"), CUDA_ERROR_NOT_PERMITTED);
            let (add, stream, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[1]));
            ok(launch(add, stream, numbers, 1, 1));
            println!("after a launch: {:?}", peek(numbers, 1));
        }
    }
}

/// What the fresh process prints.
fn fresh(environment: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["start::fresh_process", "--exact", "--nocapture"]).env(FRESH, "1");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_environment_sets_the_device_up() {
    let printed = fresh(&[
        ("PRETEXT_EMULATED_MEMORY", "64"),
        ("PRETEXT_EMULATED_ARCH", "80"),
        ("PRETEXT_EMULATED_STREAMS", "eager"),
    ]);
    assert!(printed.contains("cuInit: CUDA_SUCCESS"), "{printed}");
    assert!(printed.contains("memory: 64 of 64 MiB, sm_8x"), "{printed}");
    assert!(printed.contains("after a launch: [2]"), "{printed}");
    let printed = fresh(&[]);
    assert!(printed.contains("sm_9x") && printed.contains("after a launch: [1]"), "{printed}");
}

#[test]
fn a_bad_environment_is_refused_with_a_sentence() {
    let printed = fresh(&[("PRETEXT_EMULATED_COPIES", "sometimes")]);
    assert!(printed.contains("cuInit: CUDA_ERROR_INVALID_VALUE"), "{printed}");
    let sentence = "PRETEXT_EMULATED_COPIES is 'sometimes', but must be 'late' or 'early'";
    assert!(printed.contains(sentence), "{printed}");
}

#[test]
fn the_device_says_what_it_is() {
    let _device = device();
    let mut text = [1 as c_char; 64];
    unsafe {
        ok(cuDeviceGetName(text.as_mut_ptr(), 64, 0));
        assert_eq!(CStr::from_ptr(text.as_ptr()).to_str().unwrap(), "pretext emulated sm_90 (no hardware)");
        ok(cuDeviceGetName(text.as_mut_ptr(), 8, 0));
        assert_eq!(CStr::from_ptr(text.as_ptr()).to_str().unwrap(), "pretext");
        let mut value = 0;
        for (attribute, expected) in [
            (1, 1024),
            (8, 49152),
            (10, 32),
            (16, 132),
            (39, 2048),
            (41, 1),
            (75, 9),
            (76, 0),
            (81, 233_472),
            (82, 65536),
            (83, 0),
            (95, 1),
            (97, 232_448),
            (106, 32),
            (115, 1),
        ] {
            ok(cuDeviceGetAttribute(Some(&mut value), attribute, 0));
            assert_eq!(value, expected, "attribute {attribute}");
        }
        for attribute in 1..=143 {
            ok(cuDeviceGetAttribute(Some(&mut value), attribute, 0));
        }
        for attribute in [0, 144, u32::MAX] {
            assert_eq!(cuDeviceGetAttribute(Some(&mut value), attribute, 0), CUDA_ERROR_INVALID_VALUE);
        }
        assert_eq!(cuDeviceGetAttribute(Some(&mut value), 1, 1), CUDA_ERROR_INVALID_DEVICE);
        assert_eq!(cuDeviceGetAttribute(None, 1, 0), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuDeviceGet(Some(&mut value), 1), CUDA_ERROR_INVALID_DEVICE);
        assert_eq!(cuDeviceGet(Some(&mut value), -1), CUDA_ERROR_INVALID_DEVICE);
        ok(set_option("ARCH", "80"));
        ok(cuDeviceGetAttribute(Some(&mut value), 97, 0));
        assert_eq!(value, 166_912);
    }
}

#[test]
fn errors_have_names_and_meanings() {
    let text = |get: unsafe extern "C" fn(CUresult, Option<&mut *const c_char>) -> CUresult, code| unsafe {
        let mut text = std::ptr::null();
        let result = get(code, Some(&mut text));
        (result, (!text.is_null()).then(|| CStr::from_ptr(text).to_str().unwrap()))
    };
    assert_eq!(text(cuGetErrorName, 0), (0, Some("CUDA_SUCCESS")));
    assert_eq!(text(cuGetErrorString, 0), (0, Some("no error")));
    assert_eq!(text(cuGetErrorName, 700), (0, Some("CUDA_ERROR_ILLEGAL_ADDRESS")));
    assert_eq!(text(cuGetErrorString, 700), (0, Some("an illegal memory access was encountered")));
    assert_eq!(text(cuGetErrorName, 12345), (CUDA_ERROR_INVALID_VALUE, None));
    assert_eq!(unsafe { cuGetErrorName(0, None) }, CUDA_ERROR_INVALID_VALUE);
    // cudarc's bindings have the numbers from the header.
    use cudarc::driver::sys::CUresult as Sys;
    for (sys, own) in [
        (Sys::CUDA_ERROR_NOT_READY, CUDA_ERROR_NOT_READY),
        (Sys::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE),
        (Sys::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD),
        (Sys::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE),
        (Sys::CUDA_ERROR_UNSUPPORTED_LIMIT, CUDA_ERROR_UNSUPPORTED_LIMIT),
        (Sys::CUDA_ERROR_MISALIGNED_ADDRESS, CUDA_ERROR_MISALIGNED_ADDRESS),
    ] {
        assert_eq!((sys as u32, format!("{sys:?}").as_str()), (own, name(own)));
    }
}

#[test]
fn a_call_without_a_context_is_refused() {
    let device = device();
    let mut address = 0;
    unsafe {
        let mut popped = 0;
        ok(cuCtxPopCurrent_v2(Some(&mut popped)));
        assert_eq!(popped, device.context);
        assert_eq!(cuMemAlloc_v2(Some(&mut address), 4), CUDA_ERROR_INVALID_CONTEXT);
        assert_eq!(cuCtxPopCurrent_v2(None), CUDA_ERROR_INVALID_CONTEXT);
        let mut current = 1;
        ok(cuCtxGetCurrent(Some(&mut current)));
        assert_eq!(current, 0);
        assert_eq!(cuCtxSetCurrent(12345), CUDA_ERROR_INVALID_CONTEXT);
        ok(cuCtxSetCurrent(device.context));
        ok(cuMemAlloc_v2(Some(&mut address), 4));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(cuMemFree_v2(address), CUDA_ERROR_INVALID_CONTEXT, "each thread has its own")
            });
        });
    }
}

#[test]
fn contexts_are_a_stack_and_take_their_things_with_them() {
    let device = device();
    let (mut inner, mut current, mut before, mut after, mut total) = (0, 0, 0, 0, 0);
    unsafe {
        ok(cuMemGetInfo_v2(Some(&mut before), Some(&mut total)));
        ok(cuCtxCreate_v2(Some(&mut inner), 0, 0));
        let (stream, _) = (stream(0), upload(&[0; 4096]));
        ok(cuCtxPushCurrent_v2(device.context));
        assert_eq!(cuStreamSynchronize(stream), CUDA_ERROR_INVALID_HANDLE, "another context's stream");
        ok(cuCtxPopCurrent_v2(None));
        ok(cuCtxGetCurrent(Some(&mut current)));
        assert_eq!(current, inner);
        let other = inner;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                ok(cuCtxSetCurrent(other));
                ok(cuCtxSynchronize());
                ok(cuCtxDestroy_v2(other));
            });
        });
        assert_eq!(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        ok(cuCtxSetCurrent(0));
        ok(cuCtxGetCurrent(Some(&mut current)));
        assert_eq!(current, device.context, "the one below");
        ok(cuMemGetInfo_v2(Some(&mut after), Some(&mut total)));
        assert_eq!(after, before);
        assert_eq!(cuCtxDestroy_v2(inner), CUDA_ERROR_INVALID_CONTEXT);
    }
}

#[test]
fn the_primary_context_counts_its_users() {
    let device = device();
    let (mut first, mut second, mut flags, mut active) = (0, 0, 9, 9);
    unsafe {
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT);
        ok(cuDevicePrimaryCtxSetFlags_v2(0, 4));
        ok(cuDevicePrimaryCtxRetain(Some(&mut first), 0));
        ok(cuDevicePrimaryCtxRetain(Some(&mut second), 0));
        assert_eq!(first, second);
        ok(cuDevicePrimaryCtxGetState(0, Some(&mut flags), Some(&mut active)));
        assert_eq!((flags, active), (4, 1));
        assert_eq!(cuDevicePrimaryCtxSetFlags_v2(0, 1), CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE);
        assert_eq!(cuCtxDestroy_v2(first), CUDA_ERROR_INVALID_CONTEXT);
        ok(cuCtxSetCurrent(first));
        let numbers = upload(&[1]);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        assert_eq!(peek(numbers, 1), [1], "one user is left");
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuDevicePrimaryCtxGetState(0, Some(&mut flags), Some(&mut active)));
        assert_eq!(active, 0);
        assert_eq!(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        ok(cuDevicePrimaryCtxRetain(Some(&mut second), 0));
        assert_eq!(first, second, "the handle is the same again");
        ok(cuCtxSynchronize());
        assert_eq!(cuMemFree_v2(numbers), CUDA_ERROR_INVALID_VALUE, "the memory went with the last user");
        ok(cuDevicePrimaryCtxReset_v2(0));
        ok(cuCtxSynchronize());
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuDevicePrimaryCtxSetFlags_v2(0, 0));
        ok(cuCtxSetCurrent(device.context));
    }
}

#[test]
fn limits_are_remembered() {
    let _device = device();
    let mut value = 0;
    unsafe {
        ok(cuCtxGetLimit(Some(&mut value), 2));
        assert_eq!(value, 8 << 20);
        ok(cuCtxSetLimit(0, 4096));
        ok(cuCtxGetLimit(Some(&mut value), 0));
        assert_eq!(value, 4096);
        assert_eq!(cuCtxGetLimit(Some(&mut value), 7), CUDA_ERROR_UNSUPPORTED_LIMIT);
        let (mut least, mut greatest) = (1, 1);
        ok(cuCtxGetStreamPriorityRange(Some(&mut least), Some(&mut greatest)));
        assert_eq!((least, greatest), (0, -5));
        ok(cuCtxGetStreamPriorityRange(None, None));
    }
}
