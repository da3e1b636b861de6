//! Order: what has run when, on which stream.

use crate::setup::*;
use emulator::driver::copy::*;
use emulator::driver::error::*;
use emulator::driver::event::*;
use emulator::driver::fill::*;
use emulator::driver::launch::*;
use emulator::driver::memory::cuMemAlloc_v2;
use emulator::driver::stream::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn nothing_runs_before_something_waits() {
    let _device = device();
    let (add, stream, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[1; 100]));
    ok(launch(add, stream, numbers, 100, 5));
    assert_eq!(peek(numbers, 100), [1; 100], "a read on another stream, without waiting, sees the old data");
    assert_eq!(unsafe { cuStreamQuery(stream) }, CUDA_ERROR_NOT_READY);
    synchronize(stream);
    assert_eq!(peek(numbers, 100), [6; 100]);
    assert_eq!(unsafe { cuStreamQuery(stream) }, CUDA_SUCCESS);
}

#[test]
fn eager_streams_run_at_once() {
    let _device = device();
    ok(set_option("PRETEXT_EMULATED_STREAMS", "eager"));
    let (add, stream, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[1; 3]));
    ok(launch(add, stream, numbers, 3, 5));
    assert_eq!(peek(numbers, 3), [6; 3]);
}

#[test]
fn a_stream_keeps_order_and_polling_ends() {
    let _device = device();
    let module = load(PTX);
    let (add, scale) = (function(module, "add"), function(module, "scale"));
    let (stream, numbers) = (stream(0), upload(&[1]));
    ok(launch(add, stream, numbers, 1, 2));
    ok(launch(scale, stream, numbers, 1, 10));
    ok(launch(add, stream, numbers, 1, 4));
    let mut polls = 0;
    while unsafe { cuStreamQuery(stream) } == CUDA_ERROR_NOT_READY {
        polls += 1;
        assert!(polls < 10);
    }
    assert!(polls >= 3, "each poll does one piece");
    assert_eq!(peek(numbers, 1), [34]);
}

#[test]
fn the_legacy_stream_waits_for_blocking_streams_and_they_for_it() {
    let _device = device();
    let module = load(PTX);
    let (add, scale) = (function(module, "add"), function(module, "scale"));
    let (blocking, numbers) = (stream(0), upload(&[1]));
    for legacy in [0, 1] {
        ok(launch(add, blocking, numbers, 1, 1));
        ok(launch(scale, legacy, numbers, 1, 10));
        ok(launch(add, blocking, numbers, 1, 3));
    }
    synchronize(blocking);
    assert_eq!(peek(numbers, 1), [((1 + 1) * 10 + 3 + 1) * 10 + 3]);
    ok(launch(add, blocking, numbers, 1, 1));
    synchronize(0);
    assert_eq!(peek(numbers, 1), [244], "waiting for the legacy stream waits for the blocking ones");
}

#[test]
fn the_legacy_stream_leaves_non_blocking_streams_alone() {
    let _device = device();
    let (add, free, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[1]));
    ok(launch(add, free, numbers, 1, 1));
    ok(launch(add, 0, numbers, 1, 10));
    synchronize(0);
    assert_eq!(peek(numbers, 1), [11]);
    synchronize(free);
    assert_eq!(peek(numbers, 1), [12]);
}

#[test]
fn each_thread_has_its_own_default_stream() {
    let device = device();
    let (add, numbers) = (kernel("add"), upload(&[1]));
    ok(launch(add, 2, numbers, 1, 1));
    let context = device.context;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            ok(unsafe { emulator::driver::context::cuCtxSetCurrent(context) });
            assert_eq!(unsafe { cuStreamQuery(2) }, CUDA_SUCCESS, "another thread's stream is empty");
            ok(launch(add, 2, numbers, 1, 10));
            synchronize(2);
            assert_eq!(peek(numbers, 1), [11]);
        });
    });
    synchronize(2);
    assert_eq!(peek(numbers, 1), [12]);
}

#[test]
fn events_order_streams_and_waiting_for_one_runs_what_is_before_it_only() {
    let _device = device();
    let module = load(PTX);
    let (add, scale) = (function(module, "add"), function(module, "scale"));
    let (first, second, numbers) = (stream(NON_BLOCKING), stream(NON_BLOCKING), upload(&[1]));
    ok(launch(add, first, numbers, 1, 1));
    let between = mark(first);
    ok(launch(add, first, numbers, 1, 100));
    ok(unsafe { cuStreamWaitEvent(second, between, 0) });
    ok(launch(scale, second, numbers, 1, 10));
    assert_eq!(unsafe { cuEventQuery(between) }, CUDA_ERROR_NOT_READY);
    synchronize(second);
    assert_eq!(peek(numbers, 1), [20]);
    assert_eq!(unsafe { cuEventQuery(between) }, CUDA_SUCCESS);
    // The wait is for the place, not for the event.
    let late = mark(first);
    ok(unsafe { cuStreamWaitEvent(second, late, 0) });
    ok(unsafe { cuEventDestroy_v2(late) });
    ok(launch(scale, second, numbers, 1, 2));
    synchronize(second);
    assert_eq!(peek(numbers, 1), [240]);
}

#[test]
fn an_event_that_was_never_recorded_is_reached() {
    let _device = device();
    let event = event(0);
    unsafe {
        ok(cuEventQuery(event));
        ok(cuEventSynchronize(event));
        ok(cuStreamWaitEvent(0, event, 0));
        let mut time = 0.0;
        assert_eq!(cuEventElapsedTime(Some(&mut time), event, event), CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn times_are_taken_when_events_are_reached() {
    let _device = device();
    let stream = stream(0);
    unsafe extern "C" fn sleep(_: *mut c_void) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (start, end, untimed) = (event(0), event(0), event(2));
    let mut time = 0.0;
    unsafe {
        ok(cuEventRecord(start, stream));
        ok(cuLaunchHostFunc(stream, Some(sleep), std::ptr::null_mut()));
        ok(cuEventRecord(end, stream));
        ok(cuEventRecord(untimed, stream));
        assert_eq!(cuEventElapsedTime(Some(&mut time), start, end), CUDA_ERROR_NOT_READY);
        ok(cuEventSynchronize(end));
        ok(cuEventElapsedTime_v2(Some(&mut time), start, end));
        assert!(time >= 19.0, "{time}");
        let forward = time;
        ok(cuEventElapsedTime(Some(&mut time), end, start));
        assert_eq!(time, -forward);
        synchronize(stream);
        assert_eq!(cuEventElapsedTime(Some(&mut time), start, untimed), CUDA_ERROR_INVALID_HANDLE);
        ok(cuEventRecord(end, stream));
        assert_eq!(cuEventElapsedTime(Some(&mut time), start, end), CUDA_ERROR_NOT_READY, "recorded anew");
    }
}

#[test]
fn pageable_memory_is_read_at_the_call_and_pinned_memory_when_the_stream_gets_there() {
    let _device = device();
    let (stream, numbers) = (stream(NON_BLOCKING), upload(&[0, 0]));
    let mut pageable = [1u32];
    let pinned = pinned(1);
    unsafe {
        pinned.write(1);
        ok(cuMemcpyHtoDAsync_v2(numbers, pageable.as_ptr().cast(), 4, stream));
        ok(cuMemcpyHtoDAsync_v2(numbers + 4, pinned.cast(), 4, stream));
        pageable[0] = 2;
        pinned.write(2);
        assert_eq!(peek(numbers, 2), [0, 0], "queued");
        synchronize(stream);
    }
    assert_eq!((peek(numbers, 2), pageable), (vec![1, 2], [2]));
}

#[test]
fn a_copy_to_pageable_memory_has_happened_when_the_call_returns_and_one_to_pinned_memory_has_not() {
    let _device = device();
    let (add, stream, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[1]));
    let (mut pageable, pinned) = ([0u32], pinned(1));
    unsafe {
        ok(launch(add, stream, numbers, 1, 1));
        ok(cuMemcpyDtoHAsync_v2(pageable.as_mut_ptr().cast(), numbers, 4, stream));
        assert_eq!(pageable, [2]);
        ok(cuMemcpyDtoHAsync_v2(pinned.cast(), numbers, 4, stream));
        assert_eq!(pinned.read(), 0);
        synchronize(stream);
        assert_eq!(pinned.read(), 2);
    }
}

#[test]
fn copies_within_the_device_and_fills_do_not_wait() {
    let _device = device();
    let (from, to) = (upload(&[5]), upload(&[0]));
    unsafe {
        ok(cuMemcpyDtoD_v2(to, from, 4));
        ok(cuMemsetD32_v2(from, 9, 1));
        assert_eq!((peek(to, 1), peek(from, 1)), (vec![0], vec![5]));
        synchronize(0);
        assert_eq!((peek(to, 1), peek(from, 1)), (vec![5], vec![9]));
    }
}

#[test]
fn a_full_queue_makes_the_caller_wait() {
    let _device = device();
    let (add, stream, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[0]));
    for _ in 0..1030 {
        ok(launch(add, stream, numbers, 1, 1));
    }
    assert_eq!(peek(numbers, 1), [6]);
    synchronize(stream);
    assert_eq!(peek(numbers, 1), [1030]);
}

static FROM_CALLBACK: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn allocate(_: *mut c_void) {
    let mut address = 0;
    let code = unsafe { cuMemAlloc_v2(Some(&mut address), 4) };
    FROM_CALLBACK.store(code, Ordering::SeqCst);
}

#[test]
fn host_functions_run_in_order_and_may_not_call_the_driver() {
    let _device = device();
    let stream = stream(0);
    let (add, pinned) = (kernel("add"), pinned(2));
    unsafe extern "C" fn note(data: *mut c_void) {
        let numbers = data.cast::<u32>();
        unsafe { numbers.add(1).write(numbers.read()) };
    }
    unsafe {
        ok(launch(add, stream, pinned as u64, 1, 3));
        ok(cuLaunchHostFunc(stream, Some(note), pinned.cast()));
        ok(launch(add, stream, pinned as u64, 1, 3));
        ok(cuLaunchHostFunc(stream, Some(allocate), std::ptr::null_mut()));
        synchronize(stream);
        assert_eq!((pinned.read(), pinned.add(1).read()), (6, 3));
        assert_eq!(FROM_CALLBACK.load(Ordering::SeqCst), CUDA_ERROR_NOT_PERMITTED);
        assert_eq!(cuLaunchHostFunc(stream, None, std::ptr::null_mut()), CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn another_thread_queues_while_a_host_function_runs() {
    let device = device();
    let stream = stream(0);
    static STATE: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn wait(_: *mut c_void) {
        STATE.store(1, Ordering::SeqCst);
        while STATE.load(Ordering::SeqCst) != 2 {
            std::thread::yield_now();
        }
    }
    ok(unsafe { cuLaunchHostFunc(stream, Some(wait), std::ptr::null_mut()) });
    let context = device.context;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            ok(unsafe { emulator::driver::context::cuCtxSetCurrent(context) });
            while STATE.load(Ordering::SeqCst) != 1 {
                std::thread::yield_now();
            }
            assert_eq!(unsafe { cuStreamQuery(stream) }, CUDA_ERROR_NOT_READY);
            ok(unsafe { cuLaunchHostFunc(stream, Some(allocate), std::ptr::null_mut()) });
            STATE.store(2, Ordering::SeqCst);
            synchronize(stream);
        });
        synchronize(stream);
    });
    assert_eq!(unsafe { cuStreamQuery(stream) }, CUDA_SUCCESS);
}

#[test]
fn streams_know_what_they_are() {
    let device = device();
    let mut stream = 0;
    unsafe {
        ok(cuStreamCreateWithPriority(Some(&mut stream), NON_BLOCKING, -99));
        let (mut flags, mut priority, mut context, mut id, mut other) = (0, 0, 0, 0, 0);
        ok(cuStreamGetFlags(stream, Some(&mut flags)));
        ok(cuStreamGetPriority(stream, Some(&mut priority)));
        ok(cuStreamGetCtx(stream, Some(&mut context)));
        ok(cuStreamGetId(stream, Some(&mut id)));
        ok(cuStreamGetId(0, Some(&mut other)));
        assert_eq!((flags, priority, context), (NON_BLOCKING, -5, device.context));
        assert_ne!(id, other);
        assert_eq!(cuStreamCreate(Some(&mut stream), 2), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuStreamCreate(None, 0), CUDA_ERROR_INVALID_VALUE);
        ok(cuStreamDestroy_v2(stream));
        for bad in [stream, 7, usize::MAX, device.context] {
            assert_eq!(cuStreamSynchronize(bad), CUDA_ERROR_INVALID_HANDLE);
            assert_eq!(cuStreamDestroy_v2(bad), CUDA_ERROR_INVALID_HANDLE);
            assert_eq!(cuEventQuery(bad), CUDA_ERROR_INVALID_HANDLE);
        }
        assert_eq!(cuStreamDestroy_v2(0), CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn destroying_a_stream_finishes_its_work() {
    let _device = device();
    let (add, stream, numbers) = (kernel("add"), stream(NON_BLOCKING), upload(&[1]));
    ok(launch(add, stream, numbers, 1, 1));
    ok(unsafe { cuStreamDestroy_v2(stream) });
    assert_eq!(peek(numbers, 1), [2]);
}
