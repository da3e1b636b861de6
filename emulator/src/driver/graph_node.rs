//! What graph nodes do: kernels, copies, fills, host functions, nothing; asked and changed.

use super::abi::{HostNodeParams, KernelNodeParams, Memcpy3D, MemsetNodeParams};
use super::capture::shown_parameters;
use super::copy::described;
use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, Cuda};
use super::fill::checked;
use super::graph::handles;
use super::launch::Shape;
use super::session::{Session, in_context, put, with_driver};
use super::state::HostCall;
use super::work::{FillTask, Task};
use super::{CUresult, Handle};
use std::sync::Arc;

/// `CUgraphNodeType` of a task.
pub(super) fn kind(task: Option<&Task>) -> u32 {
    match task {
        Some(Task::Launch(_)) => 0,
        Some(Task::Copy(_)) => 1,
        Some(Task::Fill(_)) => 2,
        Some(Task::Host(_)) => 3,
        None => 5,
    }
}

/// The task of a kernel node. Its parameters are read now.
///
/// # Safety
/// As for `cuLaunchKernel`.
pub(super) unsafe fn kernel(session: &Session, parameters: Option<&KernelNodeParams>) -> Cuda<Task> {
    let given = parameters.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if given.function == 0 && given.kernel != 0 {
        return Err(CUDA_ERROR_NOT_SUPPORTED);
    }
    let shape = Shape { grid: given.grid, block: given.block, shared: given.shared, cooperative: false };
    // SAFETY: the caller's contract.
    let launch = unsafe { session.prepare(given.function, shape, given.parameters, given.extra) }?;
    Ok(Task::Launch(Arc::new(launch)))
}

/// The task of a copy node.
pub(super) fn copy(session: &Session, parameters: Option<&Memcpy3D>) -> Cuda<Task> {
    let given = parameters.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if given.width == 0 || given.height == 0 || given.depth == 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    Ok(Task::Copy(Arc::new(described(session, "a copy node", given)?)))
}

/// The task of a fill node.
pub(super) fn fill(session: &Session, parameters: Option<&MemsetNodeParams>) -> Cuda<Task> {
    let given = parameters.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if !matches!(given.element, 1 | 2 | 4) || given.width == 0 || given.height == 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let fill = FillTask {
        name: "a memset node",
        address: given.destination,
        pitch: given.pitch as u64,
        value: given.value,
        element: given.element as usize,
        width: given.width as u64,
        height: given.height as u64,
    };
    Ok(Task::Fill(Arc::new(checked(session, fill)?)))
}

/// The task of a host node.
pub(super) fn host(parameters: Option<&HostNodeParams>) -> Cuda<Task> {
    let given = parameters.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let function = given.function.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    Ok(Task::Host(HostCall { function, data: given.data as usize }))
}

/// Adds a node.
///
/// # Safety
/// `after` is null or has `count` handles.
unsafe fn add(
    session: &mut Session,
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    task: Option<Task>,
) -> Cuda<()> {
    let node = node.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    // SAFETY: the caller's contract.
    let after = session.dependencies(graph, unsafe { handles(after, count) }?)?;
    *node = session.add_node(graph, task, after)?;
    Ok(())
}

/// Adds a kernel. Its parameters are copied now.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddKernelNode_v2(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&KernelNodeParams>,
) -> CUresult {
    in_context(|mut session, _| {
        // SAFETY: the function's contract.
        unsafe {
            let task = kernel(&session, parameters)?;
            add(&mut session, node, graph, after, count, Some(task))
        }
    })
}

/// Adds a copy. Host memory is read and written when the graph runs.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddMemcpyNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&Memcpy3D>,
    _context: Handle,
) -> CUresult {
    in_context(|mut session, _| {
        let task = copy(&session, parameters)?;
        // SAFETY: the function's contract.
        unsafe { add(&mut session, node, graph, after, count, Some(task)) }
    })
}

/// Adds a fill.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddMemsetNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&MemsetNodeParams>,
    _context: Handle,
) -> CUresult {
    in_context(|mut session, _| {
        let task = fill(&session, parameters)?;
        // SAFETY: the function's contract.
        unsafe { add(&mut session, node, graph, after, count, Some(task)) }
    })
}

/// Adds a host function.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddHostNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&HostNodeParams>,
) -> CUresult {
    with_driver(|mut session| {
        let task = host(parameters)?;
        // SAFETY: the function's contract.
        unsafe { add(&mut session, node, graph, after, count, Some(task)) }
    })
}

/// Adds a node that does nothing.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddEmptyNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
) -> CUresult {
    // SAFETY: the function's contract.
    with_driver(|mut session| unsafe { add(&mut session, node, graph, after, count, None) })
}

/// A node's kind.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeGetType(node: Handle, which: Option<&mut u32>) -> CUresult {
    with_driver(|session| put(which, kind(session.nodes.get(node)?.task.as_ref())))
}

/// A kernel node's parameters. The arrays belong to the node and last until it is changed or destroyed.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphKernelNodeGetParams_v2(
    node: Handle,
    parameters: Option<&mut KernelNodeParams>,
) -> CUresult {
    with_driver(|session| {
        let found = session.nodes.get(node)?;
        let Some(Task::Launch(launch)) = &found.task else { return Err(CUDA_ERROR_INVALID_VALUE) };
        let context = session.functions.get(launch.function).map_or(0, |function| function.context);
        let shown = if found.shown.is_empty() { std::ptr::null() } else { found.shown.as_ptr() };
        let values = KernelNodeParams {
            function: launch.function,
            grid: launch.grid,
            block: launch.block,
            shared: launch.shared,
            parameters: shown.cast_mut().cast(),
            extra: std::ptr::null_mut(),
            kernel: 0,
            context,
        };
        put(parameters, values)
    })
}

/// Changes a node to a task of the same kind.
fn change(session: &mut Session, node: Handle, task: Task) -> Cuda<()> {
    let shown = shown_parameters(Some(&task));
    let found = session.nodes.get_mut(node)?;
    if kind(found.task.as_ref()) != kind(Some(&task)) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    (found.task, found.shown) = (Some(task), Arc::new(shown));
    Ok(())
}

/// Changes a kernel node.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphKernelNodeSetParams_v2(
    node: Handle,
    parameters: Option<&KernelNodeParams>,
) -> CUresult {
    in_context(|mut session, _| {
        // SAFETY: the function's contract.
        let task = unsafe { kernel(&session, parameters) }?;
        change(&mut session, node, task)
    })
}

/// Changes a copy node.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphMemcpyNodeSetParams(node: Handle, parameters: Option<&Memcpy3D>) -> CUresult {
    in_context(|mut session, _| {
        let task = copy(&session, parameters)?;
        change(&mut session, node, task)
    })
}

/// Changes a fill node.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphMemsetNodeSetParams(
    node: Handle,
    parameters: Option<&MemsetNodeParams>,
) -> CUresult {
    in_context(|mut session, _| {
        let task = fill(&session, parameters)?;
        change(&mut session, node, task)
    })
}

/// A fill node's parameters.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphMemsetNodeGetParams(
    node: Handle,
    parameters: Option<&mut MemsetNodeParams>,
) -> CUresult {
    with_driver(|session| {
        let Some(Task::Fill(fill)) = &session.nodes.get(node)?.task else {
            return Err(CUDA_ERROR_INVALID_VALUE);
        };
        let values = MemsetNodeParams {
            destination: fill.address,
            pitch: fill.pitch as usize,
            value: fill.value,
            element: fill.element as u32,
            width: fill.width as usize,
            height: fill.height as usize,
        };
        put(parameters, values)
    })
}

/// A host node's parameters.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphHostNodeGetParams(
    node: Handle,
    parameters: Option<&mut HostNodeParams>,
) -> CUresult {
    with_driver(|session| {
        let Some(Task::Host(host)) = &session.nodes.get(node)?.task else {
            return Err(CUDA_ERROR_INVALID_VALUE);
        };
        put(parameters, HostNodeParams { function: Some(host.function), data: host.data as *mut _ })
    })
}

/// Changes a host node.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphHostNodeSetParams(
    node: Handle,
    parameters: Option<&HostNodeParams>,
) -> CUresult {
    with_driver(|mut session| {
        let task = host(parameters)?;
        change(&mut session, node, task)
    })
}
