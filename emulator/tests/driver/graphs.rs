//! Graphs made node by node, updated, copied.

use crate::setup::*;
use emulator::driver::Handle;
use emulator::driver::abi::*;
use emulator::driver::error::*;
use emulator::driver::graph::*;
use emulator::driver::graph_edge::*;
use emulator::driver::graph_exec::*;
use emulator::driver::graph_node::*;
use emulator::driver::module::cuModuleUnload;
use emulator::driver::stream::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

fn graph() -> Handle {
    let mut graph = 0;
    ok(unsafe { cuGraphCreate(Some(&mut graph), 0) });
    graph
}

fn instantiate(graph: Handle) -> Handle {
    let mut executable = 0;
    ok(unsafe { cuGraphInstantiateWithFlags(Some(&mut executable), graph, 0) });
    executable
}

/// Calls the body with the parameters of `add` or `scale` over some numbers.
fn with_kernel<R>(
    function: Handle,
    address: u64,
    count: u32,
    value: u32,
    body: impl FnOnce(&KernelNodeParams) -> R,
) -> R {
    let (mut address, mut count, mut value) = (address, count, value);
    let mut pointers: [*mut c_void; 3] =
        [(&raw mut address).cast(), (&raw mut count).cast(), (&raw mut value).cast()];
    body(&KernelNodeParams {
        function,
        grid: [1, 1, 1],
        block: [64, 1, 1],
        shared: 0,
        parameters: pointers.as_mut_ptr(),
        extra: null_mut(),
        kernel: 0,
        context: 0,
    })
}

fn add_kernel(graph: Handle, after: &[Handle], function: Handle, address: u64, value: u32) -> Handle {
    let mut node = 0;
    with_kernel(function, address, 1, value, |parameters| unsafe {
        ok(cuGraphAddKernelNode_v2(Some(&mut node), graph, after.as_ptr(), after.len(), Some(parameters)));
    });
    node
}

fn run(executable: Handle) {
    ok(unsafe { cuGraphLaunch(executable, 0) });
    synchronize(0);
}

#[test]
fn nodes_of_all_kinds_run_in_the_order_of_their_edges() {
    let _device = device();
    let module = load(PTX);
    let (add, scale) = (function(module, "add"), function(module, "scale"));
    let (graph, numbers, out, pinned) = (graph(), upload(&[0, 0]), upload(&[0]), pinned(1));
    let (mut fill, mut copy, mut host, mut empty) = (0, 0, 0, 0);
    unsafe extern "C" fn note(data: *mut c_void) {
        unsafe { data.cast::<u32>().write(77) };
    }
    unsafe {
        // Made against the order in which they have to run: the copy, the kernels, the fill.
        let none = |kind, address| Side3D {
            x: 0,
            y: 0,
            z: 0,
            level: 0,
            kind,
            host: null_mut(),
            device: address,
            array: 0,
            reserved: 0,
            pitch: 0,
            height: 0,
        };
        let bytes =
            Memcpy3D { source: none(2, numbers), destination: none(2, out), width: 4, height: 1, depth: 1 };
        ok(cuGraphAddMemcpyNode(Some(&mut copy), graph, null(), 0, Some(&bytes), 0));
        let second = add_kernel(graph, &[], scale, numbers, 10);
        let first = add_kernel(graph, &[], add, numbers, 3);
        let value =
            MemsetNodeParams { destination: numbers, pitch: 0, value: 2, element: 4, width: 2, height: 1 };
        ok(cuGraphAddMemsetNode(Some(&mut fill), graph, null(), 0, Some(&value), 0));
        ok(cuGraphAddEmptyNode(Some(&mut empty), graph, [second].as_ptr(), 1));
        let call = HostNodeParams { function: Some(note), data: pinned.cast() };
        ok(cuGraphAddHostNode(Some(&mut host), graph, [empty].as_ptr(), 1, Some(&call)));
        let (from, to) = ([fill, first, empty], [first, second, copy]);
        ok(cuGraphAddDependencies(graph, from.as_ptr(), to.as_ptr(), 3));
        assert_eq!(
            cuGraphAddDependencies(graph, from.as_ptr(), to.as_ptr(), 1),
            CUDA_ERROR_INVALID_VALUE,
            "there already"
        );
        let kinds = [copy, second, first, fill, empty, host].map(|node| {
            let mut kind = 9;
            ok(cuGraphNodeGetType(node, Some(&mut kind)));
            kind
        });
        assert_eq!(kinds, [1, 0, 0, 2, 5, 3]);
        let executable = instantiate(graph);
        run(executable);
        assert_eq!((peek(numbers, 2), peek(out, 1), pinned.read()), (vec![50, 2], vec![50], 77));
        let (mut found, mut count) = ([9; 4], 4);
        ok(cuGraphNodeGetDependencies(copy, found.as_mut_ptr(), Some(&mut count)));
        assert_eq!((found, count), ([empty, 0, 0, 0], 1));
        count = 4;
        ok(cuGraphNodeGetDependentNodes(empty, found.as_mut_ptr(), Some(&mut count)));
        assert_eq!((&found[..2], count), (&[copy, host][..], 2));
        // A node that is switched off does nothing, one that is taken out leaves the others.
        ok(cuGraphNodeSetEnabled(executable, second, 0));
        run(executable);
        assert_eq!(peek(numbers, 1), [5]);
        ok(cuGraphDestroyNode(second));
        assert_eq!(cuGraphDestroyNode(second), CUDA_ERROR_INVALID_HANDLE);
        run(instantiate(graph));
        ok(cuGraphRemoveDependencies(graph, [fill].as_ptr(), [first].as_ptr(), 1));
        let gone = cuGraphRemoveDependencies(graph, [fill].as_ptr(), [first].as_ptr(), 1);
        assert_eq!(gone, CUDA_ERROR_INVALID_VALUE);
        let path = std::env::temp_dir().join(format!("driver-test-{}.dot", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        ok(cuGraphDebugDotPrint(graph, name.as_ptr(), 0));
        let dot = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(dot.contains(&format!("n{empty} -> n{copy};")) && dot.contains("add"), "{dot}");
    }
}

#[test]
fn a_ring_cannot_be_made_executable() {
    let _device = device();
    let (graph, add, numbers, mut executable) = (graph(), kernel("add"), upload(&[0]), 0);
    let first = add_kernel(graph, &[], add, numbers, 1);
    let second = add_kernel(graph, &[first], add, numbers, 1);
    unsafe {
        let itself = cuGraphAddDependencies(graph, [first].as_ptr(), [first].as_ptr(), 1);
        assert_eq!(itself, CUDA_ERROR_INVALID_VALUE);
        ok(cuGraphAddDependencies(graph, [second].as_ptr(), [first].as_ptr(), 1));
        let mut parameters = InstantiateParams { flags: 0, stream: 0, node: 1, result: 0 };
        let code = cuGraphInstantiateWithParams(Some(&mut executable), graph, Some(&mut parameters));
        assert_eq!((code, parameters.result), (CUDA_ERROR_INVALID_VALUE, 2));
        ok(cuGraphRemoveDependencies(graph, [second].as_ptr(), [first].as_ptr(), 1));
        ok(cuGraphInstantiateWithParams(Some(&mut executable), graph, Some(&mut parameters)));
        assert_eq!(parameters.result, 0);
        for (flags, code) in
            [(1, 0), (2 | 8, 0), (4, CUDA_ERROR_NOT_SUPPORTED), (5, CUDA_ERROR_INVALID_VALUE)]
        {
            assert_eq!(cuGraphInstantiateWithFlags(Some(&mut executable), graph, flags), code, "{flags}");
        }
    }
}

#[test]
fn kernel_nodes_keep_their_parameters() {
    let _device = device();
    let (graph, add, numbers) = (graph(), kernel("add"), upload(&[0]));
    let node = add_kernel(graph, &[], add, numbers, 5);
    let mut found = with_kernel(0, 0, 0, 0, |parameters| *parameters);
    unsafe {
        ok(cuGraphKernelNodeGetParams_v2(node, Some(&mut found)));
        assert_eq!((found.function, found.grid, found.block), (add, [1, 1, 1], [64, 1, 1]));
        assert_eq!(found.parameters.add(2).read().cast::<u32>().read(), 5);
        assert_eq!(found.parameters.read().cast::<u64>().read(), numbers);
        let executable = instantiate(graph);
        with_kernel(add, numbers, 1, 100, |parameters| {
            ok(cuGraphKernelNodeSetParams_v2(node, Some(parameters)))
        });
        run(executable);
        assert_eq!(peek(numbers, 1), [5], "made executable before the change");
        ok(cuGraphLaunch(executable, 0));
        with_kernel(add, numbers, 1, 1000, |parameters| {
            ok(cuGraphExecKernelNodeSetParams_v2(executable, node, Some(parameters)));
        });
        run(executable);
        assert_eq!(peek(numbers, 1), [1010], "the launch that was queued kept its own");
        run(instantiate(graph));
        assert_eq!(peek(numbers, 1), [1110]);
        let wrong = with_kernel(add, numbers, 1, 1, |parameters| {
            let bad = KernelNodeParams { block: [2000, 1, 1], ..*parameters };
            cuGraphExecKernelNodeSetParams_v2(executable, node, Some(&bad))
        });
        assert_eq!(wrong, CUDA_ERROR_INVALID_VALUE);
        let strange = with_kernel(add, numbers, 1, 1, |parameters| {
            cuGraphExecKernelNodeSetParams_v2(executable, 7, Some(parameters))
        });
        assert_eq!(strange, CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn an_executable_graph_takes_over_a_graph_of_the_same_shape() {
    let _device = device();
    let module = load(PTX);
    let (add, scale, numbers) = (function(module, "add"), function(module, "scale"), upload(&[1]));
    let chain = |value: u32, second: Handle, linked: bool| {
        let graph = graph();
        let first = add_kernel(graph, &[], add, numbers, value);
        let after: &[Handle] = if linked { &[first] } else { &[] };
        add_kernel(graph, after, second, numbers, 2);
        graph
    };
    let executable = instantiate(chain(1, add, true));
    let update = |graph| {
        let mut info = UpdateResult { result: 9, node: 9, from: 9 };
        (unsafe { cuGraphExecUpdate_v2(executable, graph, Some(&mut info)) }, info.result)
    };
    run(executable);
    assert_eq!(peek(numbers, 1), [4]);
    assert_eq!(update(chain(6, scale, true)), (0, 0), "another function is the same kind of node");
    run(executable);
    assert_eq!(peek(numbers, 1), [20]);
    let failed = CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    assert_eq!(update(chain(6, scale, false)), (failed, 2));
    let longer = chain(6, scale, true);
    add_kernel(longer, &[], add, numbers, 1);
    assert_eq!(update(longer), (failed, 2));
    let other = graph();
    let mut node = 0;
    ok(unsafe { cuGraphAddEmptyNode(Some(&mut node), other, null(), 0) });
    add_kernel(other, &[node], add, numbers, 1);
    assert_eq!(update(other), (failed, 3));
    assert_eq!(update(99).0, CUDA_ERROR_INVALID_HANDLE);
    run(executable);
    assert_eq!(peek(numbers, 1), [52], "as before the updates that failed");
}

#[test]
fn a_copy_of_a_graph_is_a_graph_of_its_own() {
    let _device = device();
    let (original, add, numbers) = (graph(), kernel("add"), upload(&[0]));
    let first = add_kernel(original, &[], add, numbers, 1);
    let second = add_kernel(original, &[first], add, numbers, 10);
    let (mut clone, mut twin, mut count, mut found) = (0, 0, 2, [0; 2]);
    unsafe {
        ok(cuGraphClone(Some(&mut clone), original));
        ok(cuGraphNodeFindInClone(Some(&mut twin), second, clone));
        ok(cuGraphNodeGetDependencies(twin, found.as_mut_ptr(), Some(&mut count)));
        assert_eq!(count, 1);
        assert_ne!(found[0], first);
        ok(cuGraphDestroy(original));
        run(instantiate(clone));
        assert_eq!(peek(numbers, 1), [11]);
        assert_eq!(cuGraphDestroy(original), CUDA_ERROR_INVALID_HANDLE);
        let strange = add_kernel(clone, &[], add, numbers, 1);
        let other = graph();
        let mut node = 0;
        let foreign = cuGraphAddEmptyNode(Some(&mut node), other, [strange].as_ptr(), 1);
        assert_eq!(foreign, CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn launches_of_one_executable_graph_follow_one_another() {
    let _device = device();
    let module = load(PTX);
    let (graph, add, scale, numbers) =
        (graph(), function(module, "add"), function(module, "scale"), upload(&[1]));
    add_kernel(graph, &[], add, numbers, 1);
    let executable = instantiate(graph);
    let (first, second) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    ok(launch(scale, first, numbers, 1, 10));
    unsafe {
        ok(cuGraphLaunch(executable, first));
        ok(cuGraphLaunch(executable, second));
    }
    synchronize(second);
    assert_eq!(peek(numbers, 1), [12]);
    unsafe {
        ok(cuModuleUnload(module));
        assert_eq!(cuGraphLaunch(executable, first), CUDA_ERROR_INVALID_HANDLE, "its kernel is gone");
        assert_eq!(cuStreamQuery(first), CUDA_SUCCESS);
    }
}
