//! Executable graphs: made from graphs, launched on streams, updated in place.

use super::abi::{
    HostNodeParams, InstantiateParams, KernelNodeParams, Memcpy3D, MemsetNodeParams, UpdateResult,
};
use super::error::{
    CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS, Cuda,
};
use super::graph_node::{copy, fill, host, kernel, kind};
use super::session::{Session, in_context, put, with_driver};
use super::state::{Executable, State, Step, Work};
use super::work::Task;
use super::{CUresult, Handle};
use std::collections::BTreeMap;

/// Free memory before a launch, upload, launch from the device, node priorities.
const FLAGS: (u64, u64, u64, u64) = (1, 2, 4, 8);

/// `CUgraphExecUpdateResult`.
const UPDATED: u32 = 0;
const TOPOLOGY_CHANGED: u32 = 2;
const NODE_TYPE_CHANGED: u32 = 3;

/// `CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE`.
const INVALID_STRUCTURE: u32 = 2;

impl State {
    /// A graph's nodes as steps, in the order of their making.
    fn steps(&self, graph: Handle) -> Cuda<Vec<Step>> {
        let nodes = &self.graphs.get(graph)?.nodes;
        let index: BTreeMap<Handle, usize> = nodes.iter().enumerate().map(|(i, &node)| (node, i)).collect();
        let step = |&handle: &Handle| {
            let node = self.nodes.get(handle)?;
            let mut after: Vec<usize> =
                node.after.iter().filter_map(|node| index.get(node).copied()).collect();
            after.sort_unstable();
            Ok(Step { node: handle, task: node.task.clone(), after, enabled: true })
        };
        nodes.iter().map(step).collect()
    }
}

/// The steps in an order that respects their dependencies, those made first first. None where they form a ring.
fn sort(steps: &[Step]) -> Option<Vec<usize>> {
    let mut missing: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
    let mut followers = vec![Vec::new(); steps.len()];
    for (i, step) in steps.iter().enumerate() {
        for &before in &step.after {
            followers[before].push(i);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..steps.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = Vec::with_capacity(steps.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for &follower in &followers[next] {
            missing[follower] -= 1;
            if missing[follower] == 0 {
                ready.insert(follower);
            }
        }
    }
    (order.len() == steps.len()).then_some(order)
}

/// Why a graph cannot be made executable: the code, and the `CUgraphInstantiateResult`.
fn instantiate(session: &mut Session, graph: Handle, flags: u64) -> Result<Handle, (CUresult, u32)> {
    let wrong = |code| (code, 1);
    let known = FLAGS.0 | FLAGS.1 | FLAGS.2 | FLAGS.3;
    if flags & !known != 0 || (flags & FLAGS.2 != 0 && flags & FLAGS.0 != 0) {
        return Err(wrong(CUDA_ERROR_INVALID_VALUE));
    }
    if flags & FLAGS.2 != 0 {
        return Err(wrong(CUDA_ERROR_NOT_SUPPORTED));
    }
    if session.captures.iter().any(|(_, capture)| capture.graph == graph) {
        return Err(wrong(CUDA_ERROR_INVALID_VALUE));
    }
    let steps = session.steps(graph).map_err(wrong)?;
    let order = sort(&steps).ok_or((CUDA_ERROR_INVALID_VALUE, INVALID_STRUCTURE))?;
    Ok(session.executables.add(Executable { flags, steps, order, last: None }))
}

/// Makes a graph executable.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: Option<&mut Handle>,
    graph: Handle,
    flags: u64,
) -> CUresult {
    in_context(|mut session, _| {
        put(executable, instantiate(&mut session, graph, flags).map_err(|error| error.0)?)
    })
}

/// Makes a graph executable, and says why where it cannot.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphInstantiateWithParams(
    executable: Option<&mut Handle>,
    graph: Handle,
    parameters: Option<&mut InstantiateParams>,
) -> CUresult {
    in_context(|mut session, _| {
        let parameters = parameters.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        parameters.node = 0;
        match instantiate(&mut session, graph, parameters.flags) {
            Ok(made) => {
                parameters.result = 0;
                put(executable, made)
            }
            Err((code, result)) => {
                parameters.result = result;
                Err(code)
            }
        }
    })
}

/// Destroys an executable graph. Launches that are queued still run.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecDestroy(executable: Handle) -> CUresult {
    with_driver(|mut session| session.executables.remove(executable).map(|_| ()))
}

/// The flags that an executable graph was made with.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecGetFlags(executable: Handle, flags: Option<&mut u64>) -> CUresult {
    with_driver(|session| put(flags, session.executables.get(executable)?.flags))
}

/// Queues a graph: after the stream's work, and after the graph's last launch.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        let found = session.executables.get(executable)?;
        let mut work = Vec::new();
        for &i in &found.order {
            let step = &found.steps[i];
            if let (true, Some(task)) = (step.enabled, &step.task) {
                if let Task::Launch(launch) = task
                    && !session.functions.contains(launch.function)
                {
                    return Err(CUDA_ERROR_INVALID_HANDLE);
                }
                work.push(Work::Task(task.clone()));
            }
        }
        let after: Vec<(Handle, u64)> = found.last.into_iter().collect();
        if session.capturing(stream)? {
            session.invalidate(stream);
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        session.refuse_implicit(stream)?;
        let (mut session, number) = session.enqueue(stream, work, after)?;
        session.executables.get_mut(executable)?.last = Some((stream, number));
        Ok(())
    })
}

/// Uploads a graph: there is nothing to upload.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphUpload(executable: Handle, stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        if session.capturing(stream)? {
            session.invalidate(stream);
            return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        session.executables.get(executable).map(|_| ())
    })
}

/// Changes the step that a node became to a task of the same kind. Launches that are queued keep the old one.
fn change(session: &mut Session, executable: Handle, node: Handle, task: Task) -> Cuda<()> {
    let found = session.executables.get_mut(executable)?;
    let step = found.steps.iter_mut().find(|step| step.node == node).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if kind(step.task.as_ref()) != kind(Some(&task)) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    step.task = Some(task);
    Ok(())
}

/// Changes a kernel of an executable graph; the node is the original graph's.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecKernelNodeSetParams_v2(
    executable: Handle,
    node: Handle,
    parameters: Option<&KernelNodeParams>,
) -> CUresult {
    in_context(|mut session, _| {
        // SAFETY: the function's contract.
        let task = unsafe { kernel(&session, parameters) }?;
        change(&mut session, executable, node, task)
    })
}

/// Changes a copy of an executable graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecMemcpyNodeSetParams(
    executable: Handle,
    node: Handle,
    parameters: Option<&Memcpy3D>,
    _context: Handle,
) -> CUresult {
    in_context(|mut session, _| {
        let task = copy(&session, parameters)?;
        change(&mut session, executable, node, task)
    })
}

/// Changes a fill of an executable graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecMemsetNodeSetParams(
    executable: Handle,
    node: Handle,
    parameters: Option<&MemsetNodeParams>,
    _context: Handle,
) -> CUresult {
    in_context(|mut session, _| {
        let task = fill(&session, parameters)?;
        change(&mut session, executable, node, task)
    })
}

/// Changes a host function of an executable graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecHostNodeSetParams(
    executable: Handle,
    node: Handle,
    parameters: Option<&HostNodeParams>,
) -> CUresult {
    in_context(|mut session, _| {
        let task = host(parameters)?;
        change(&mut session, executable, node, task)
    })
}

/// The step that a node became, if it can be switched off: kernels, copies and fills can.
fn switch(session: &mut Session, executable: Handle, node: Handle) -> Cuda<&mut bool> {
    let found = session.executables.get_mut(executable)?;
    let step = found.steps.iter_mut().find(|step| step.node == node).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if kind(step.task.as_ref()) > 2 { Err(CUDA_ERROR_INVALID_VALUE) } else { Ok(&mut step.enabled) }
}

/// Switches a node of an executable graph on or off.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeSetEnabled(executable: Handle, node: Handle, enabled: u32) -> CUresult {
    with_driver(|mut session| {
        *switch(&mut session, executable, node)? = enabled != 0;
        Ok(())
    })
}

/// Whether a node of an executable graph is on.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeGetEnabled(
    executable: Handle,
    node: Handle,
    enabled: Option<&mut u32>,
) -> CUresult {
    with_driver(|mut session| put(enabled, u32::from(*switch(&mut session, executable, node)?)))
}

/// What differs between an executable graph and a graph that it is to do the work of: the result and the node at fault.
fn compare(old: &[Step], new: &[Step]) -> (u32, Handle) {
    if old.len() != new.len() {
        return (TOPOLOGY_CHANGED, 0);
    }
    for (old, new) in old.iter().zip(new) {
        if kind(old.task.as_ref()) != kind(new.task.as_ref()) {
            return (NODE_TYPE_CHANGED, new.node);
        }
        if old.after != new.after {
            return (TOPOLOGY_CHANGED, new.node);
        }
    }
    (UPDATED, 0)
}

/// Takes over the parameters of a graph of the same topology: the same nodes, made in the same order, with the same
/// edges. Nodes of the original graph go on naming the steps.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphExecUpdate_v2(
    executable: Handle,
    graph: Handle,
    result: Option<&mut UpdateResult>,
) -> CUresult {
    let mut outcome = UpdateResult { result: 1, node: 0, from: 0 };
    let code = in_context(|mut session, _| {
        let steps = session.steps(graph)?;
        let found = session.executables.get_mut(executable)?;
        (outcome.result, outcome.node) = compare(&found.steps, &steps);
        if outcome.result != UPDATED {
            return Err(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
        }
        for (old, new) in found.steps.iter_mut().zip(steps) {
            old.task = new.task;
        }
        Ok(())
    });
    match result {
        Some(result) => *result = outcome,
        None if code == CUDA_SUCCESS => return CUDA_ERROR_INVALID_VALUE,
        None => {}
    }
    code
}
