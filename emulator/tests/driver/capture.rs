//! Capture: what becomes of calls on capturing streams, and of calls beside them.

use crate::setup::*;
use emulator::driver::context::cuCtxSynchronize;
use emulator::driver::copy::*;
use emulator::driver::error::*;
use emulator::driver::event::*;
use emulator::driver::fill::cuMemsetD32Async;
use emulator::driver::graph::*;
use emulator::driver::graph_edge::*;
use emulator::driver::graph_exec::*;
use emulator::driver::graph_node::cuGraphNodeGetType;
use emulator::driver::launch::*;
use emulator::driver::memory::*;
use emulator::driver::pool::*;
use emulator::driver::stream::*;
use emulator::driver::{CUresult, Handle};
use std::ffi::c_void;

const GLOBAL: u32 = 0;
const THREAD: u32 = 1;
const RELAXED: u32 = 2;

fn begin(stream: Handle, mode: u32) {
    ok(unsafe { cuStreamBeginCapture_v2(stream, mode) });
}

fn end(stream: Handle) -> (CUresult, Handle) {
    let mut graph = 1;
    let code = unsafe { cuStreamEndCapture(stream, Some(&mut graph)) };
    (code, graph)
}

fn instantiate(graph: Handle) -> Handle {
    let mut executable = 0;
    ok(unsafe { cuGraphInstantiateWithFlags(Some(&mut executable), graph, 0) });
    executable
}

fn nodes(graph: Handle) -> Vec<Handle> {
    let mut count = 0;
    unsafe {
        ok(cuGraphGetNodes(graph, std::ptr::null_mut(), Some(&mut count)));
        let mut nodes = vec![0; count];
        ok(cuGraphGetNodes(graph, nodes.as_mut_ptr(), Some(&mut count)));
        nodes
    }
}

fn status(stream: Handle) -> u32 {
    let mut status = 9;
    ok(unsafe { cuStreamIsCapturing(stream, Some(&mut status)) });
    status
}

#[test]
fn what_is_captured_runs_when_the_graph_does() {
    let _device = device();
    let module = load(PTX);
    let (add, scale) = (function(module, "add"), function(module, "scale"));
    let (stream, numbers, pinned) = (stream(NON_BLOCKING), upload(&[9]), pinned(2));
    unsafe extern "C" fn note(data: *mut c_void) {
        let numbers = data.cast::<u32>();
        unsafe { numbers.add(1).write(numbers.read() + 1000) };
    }
    begin(stream, GLOBAL);
    assert_eq!(status(stream), 1);
    unsafe {
        ok(cuMemsetD32Async(numbers, 2, 1, stream));
        ok(launch(add, stream, numbers, 1, 3));
        ok(launch(scale, stream, numbers, 1, 10));
        ok(cuMemcpyDtoHAsync_v2(pinned.cast(), numbers, 4, stream));
        ok(cuLaunchHostFunc(stream, Some(note), pinned.cast()));
    }
    let (code, graph) = end(stream);
    ok(code);
    assert_eq!(status(stream), 0);
    assert_eq!(peek(numbers, 1), [9], "nothing has run");
    let kinds: Vec<u32> = nodes(graph)
        .iter()
        .map(|&node| {
            let mut kind = 9;
            ok(unsafe { cuGraphNodeGetType(node, Some(&mut kind)) });
            kind
        })
        .collect();
    assert_eq!(kinds, [2, 0, 0, 1, 3]);
    let executable = instantiate(graph);
    unsafe {
        ok(cuGraphDestroy(graph));
        ok(cuGraphUpload(executable, stream));
        for _ in 0..2 {
            ok(cuGraphLaunch(executable, stream));
            synchronize(stream);
            assert_eq!((pinned.read(), pinned.add(1).read()), (50, 1050));
        }
        ok(cuGraphLaunch(executable, stream));
        ok(cuGraphExecDestroy(executable));
        synchronize(stream);
        assert_eq!(cuGraphLaunch(executable, stream), CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn a_captured_copy_reads_pageable_memory_when_the_graph_runs() {
    let _device = device();
    let (stream, numbers, mut host) = (stream(0), upload(&[0]), [1u32]);
    begin(stream, THREAD);
    ok(unsafe { cuMemcpyHtoDAsync_v2(numbers, host.as_ptr().cast(), 4, stream) });
    let executable = instantiate(end(stream).1);
    for value in [5, 6] {
        host[0] = value;
        ok(unsafe { cuGraphLaunch(executable, stream) });
        synchronize(stream);
        assert_eq!(peek(numbers, 1), host);
    }
}

#[test]
fn events_bring_other_streams_in_and_have_to_bring_them_back() {
    let _device = device();
    let module = load(PTX);
    let (add, scale) = (function(module, "add"), function(module, "scale"));
    let (origin, side, numbers) = (stream(NON_BLOCKING), stream(NON_BLOCKING), upload(&[1, 1]));
    let capture = |joined: bool| {
        begin(origin, GLOBAL);
        ok(launch(add, origin, numbers, 2, 1));
        let fork = mark(origin);
        unsafe {
            ok(cuStreamWaitEvent(side, fork, 0));
            assert_eq!(status(side), 1);
            ok(launch(scale, side, numbers, 1, 10));
            ok(launch(scale, origin, numbers + 4, 1, 100));
            if joined {
                ok(cuStreamWaitEvent(origin, mark(side), 0));
                ok(launch(add, origin, numbers, 2, 7));
            }
            assert_eq!(cuEventQuery(fork), CUDA_ERROR_CAPTURED_EVENT);
            assert_eq!(cuEventSynchronize(fork), CUDA_ERROR_CAPTURED_EVENT);
        }
        let result = end(origin);
        assert_eq!((status(side), status(origin)), (0, 0));
        assert_eq!(
            unsafe { cuStreamWaitEvent(side, fork, 0) },
            CUDA_ERROR_CAPTURED_EVENT,
            "of a past capture"
        );
        result
    };
    assert_eq!(capture(false), (CUDA_ERROR_STREAM_CAPTURE_UNJOINED, 0));
    let (code, graph) = capture(true);
    ok(code);
    let (mut from, mut to, mut count) = ([0; 8], [0; 8], 8);
    ok(unsafe { cuGraphGetEdges(graph, from.as_mut_ptr(), to.as_mut_ptr(), Some(&mut count)) });
    let node = nodes(graph);
    let mut edges: Vec<(Handle, Handle)> = from.into_iter().zip(to).take(count).collect();
    edges.sort_unstable();
    let mut expected = vec![(node[0], node[1]), (node[0], node[2]), (node[1], node[3]), (node[2], node[3])];
    expected.sort_unstable();
    assert_eq!(edges, expected);
    ok(unsafe { cuGraphLaunch(instantiate(graph), side) });
    synchronize(side);
    assert_eq!(peek(numbers, 2), [27, 207]);
}

/// Captures on a blocking stream, makes a call, and returns its code and that of the end.
fn during(mode: u32, call: impl FnOnce(Handle) -> CUresult) -> (CUresult, CUresult) {
    let stream = stream(0);
    begin(stream, mode);
    let code = call(stream);
    (code, end(stream).0)
}

#[test]
fn calls_that_cannot_be_captured_spoil_the_capture() {
    let _device = device();
    let spoilt = |code| (code, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    let fine = (CUDA_SUCCESS, CUDA_SUCCESS);
    let (unsupported, implicit) = (CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    let (add, numbers, before) = (kernel("add"), upload(&[1]), mark(0));
    let host = [0u32];
    synchronize(0);
    let allocate = |_: Handle| {
        let mut address = 0;
        unsafe { cuMemAlloc_v2(Some(&mut address), 4) }
    };
    unsafe extern "C" fn callback(_: Handle, _: u32, _: *mut c_void) {}
    let call_back = |stream| unsafe { cuStreamAddCallback(stream, Some(callback), std::ptr::null_mut(), 0) };
    let allocate_async = |stream| {
        let mut address = 0;
        unsafe { cuMemAllocAsync(Some(&mut address), 4, stream) }
    };
    unsafe {
        assert_eq!(during(GLOBAL, |stream| cuStreamSynchronize(stream)), spoilt(unsupported));
        assert_eq!(during(GLOBAL, |stream| cuStreamQuery(stream)), spoilt(unsupported));
        assert_eq!(during(GLOBAL, |_| cuCtxSynchronize()), spoilt(unsupported));
        assert_eq!(during(GLOBAL, |_| cuStreamSynchronize(0)), spoilt(implicit));
        assert_eq!(during(GLOBAL, |_| launch(add, 0, numbers, 1, 1)), spoilt(implicit));
        assert_eq!(during(RELAXED, |_| launch(add, 0, numbers, 1, 1)), spoilt(implicit));
        assert_eq!(during(RELAXED, |_| cuEventRecord(before, 0)), spoilt(implicit));
        assert_eq!(during(RELAXED, |_| cuMemcpyHtoD_v2(numbers, host.as_ptr().cast(), 4)), spoilt(implicit));
        assert_eq!(
            during(GLOBAL, |stream| cuStreamWaitEvent(stream, before, 0)),
            spoilt(CUDA_ERROR_STREAM_CAPTURE_ISOLATION)
        );
        assert_eq!(during(GLOBAL, allocate), spoilt(unsupported));
        assert_eq!(during(THREAD, allocate), spoilt(unsupported));
        assert_eq!(during(RELAXED, allocate), fine);
        assert_eq!(during(GLOBAL, |_| cuEventQuery(before)), spoilt(unsupported));
        assert_eq!(during(RELAXED, |_| cuEventQuery(before)), fine);
        assert_eq!(during(RELAXED, call_back), spoilt(unsupported));
        assert_eq!(during(RELAXED, allocate_async), spoilt(CUDA_ERROR_NOT_SUPPORTED));
        let began_twice = |stream| cuStreamBeginCapture_v2(stream, GLOBAL);
        assert_eq!(during(GLOBAL, began_twice), (CUDA_ERROR_ILLEGAL_STATE, CUDA_SUCCESS));
    }
    let after = stream(0);
    begin(after, GLOBAL);
    ok(launch(add, after, numbers, 1, 1));
    assert_eq!(unsafe { cuStreamSynchronize(after) }, unsupported);
    assert_eq!(launch(add, after, numbers, 1, 1), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_eq!(status(after), 2);
    assert_eq!(end(after), (CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 0));
    assert_eq!(end(after).0, CUDA_ERROR_ILLEGAL_STATE);
    assert_eq!(unsafe { cuStreamBeginCapture_v2(0, GLOBAL) }, unsupported);
}

#[test]
fn a_capture_on_a_non_blocking_stream_does_not_mind_the_legacy_stream() {
    let _device = device();
    let (add, numbers, stream) = (kernel("add"), upload(&[1]), stream(NON_BLOCKING));
    begin(stream, THREAD);
    ok(launch(add, 0, numbers, 1, 1));
    ok(end(stream).0);
}

#[test]
fn captures_do_not_merge_and_end_where_they_began() {
    let _device = device();
    let (first, second) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    begin(first, RELAXED);
    begin(second, RELAXED);
    let event = mark(first);
    assert_eq!(unsafe { cuStreamWaitEvent(second, event, 0) }, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    assert_eq!(end(first).0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_eq!(end(second).0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin(first, RELAXED);
    ok(unsafe { cuStreamWaitEvent(second, mark(first), 0) });
    assert_eq!(end(second).0, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    assert_eq!(end(first).0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

#[test]
fn threads_keep_out_of_each_others_captures() {
    let device = device();
    let (stream, context) = (stream(NON_BLOCKING), device.context);
    let elsewhere = |body: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ok(unsafe { emulator::driver::context::cuCtxSetCurrent(context) });
                body();
            });
        });
    };
    let allocate = || {
        let mut address = 0;
        unsafe { cuMemAlloc_v2(Some(&mut address), 4) }
    };
    begin(stream, THREAD);
    elsewhere(&|| {
        ok(allocate());
        assert_eq!(end(stream).0, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    });
    ok(end(stream).0);
    begin(stream, GLOBAL);
    elsewhere(&|| {
        let mut mode = THREAD;
        ok(unsafe { cuThreadExchangeStreamCaptureMode(Some(&mut mode)) });
        assert_eq!(mode, GLOBAL);
        ok(allocate());
        ok(unsafe { cuThreadExchangeStreamCaptureMode(Some(&mut mode)) });
        assert_eq!(mode, THREAD);
        assert_eq!(allocate(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    });
    assert_eq!(end(stream).0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin(stream, RELAXED);
    elsewhere(&|| ok(end(stream).0));
}

#[test]
fn a_capture_tells_what_it_holds() {
    let _device = device();
    let (add, numbers, stream) = (kernel("add"), upload(&[1]), stream(NON_BLOCKING));
    let (mut state, mut id, mut graph, mut list, mut count) = (9, 0, 0, std::ptr::null(), 9);
    let (id, graph, list) = (&mut id, &mut graph, &mut list);
    unsafe {
        ok(cuStreamGetCaptureInfo_v2(stream, Some(&mut state), None, None, None, None));
        assert_eq!(state, 0);
        begin(stream, THREAD);
        ok(launch(add, stream, numbers, 1, 1));
        ok(cuStreamGetCaptureInfo_v3(
            stream,
            Some(&mut state),
            Some(id),
            Some(graph),
            Some(list),
            None,
            Some(&mut count),
        ));
        assert_eq!((state, count), (1, 1));
        assert_ne!(*id, 0);
        assert_eq!(nodes(*graph), [(*list).read()]);
        let mut executable = 0;
        let early = cuGraphInstantiateWithFlags(Some(&mut executable), *graph, 0);
        assert_eq!(early, CUDA_ERROR_INVALID_VALUE, "still captured into");
        ok(cuStreamUpdateCaptureDependencies(stream, std::ptr::null(), 0, 1));
        ok(launch(add, stream, numbers, 1, 1));
    }
    let (code, captured) = end(stream);
    ok(code);
    assert_eq!(captured, *graph);
    let mut roots = 0;
    ok(unsafe { cuGraphGetRootNodes(captured, std::ptr::null_mut(), Some(&mut roots)) });
    assert_eq!(roots, 2, "the second node was cut off from the first");
}
