//! Edges of graphs: asked, added, removed.

use super::abi::EdgeData;
use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, Cuda};
use super::graph::{handles, list};
use super::session::{Session, with_driver};
use super::{CUresult, Handle};

/// A graph's edges.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphGetEdges(
    graph: Handle,
    from: *mut Handle,
    to: *mut Handle,
    count: Option<&mut usize>,
) -> CUresult {
    with_driver(|session| {
        let count = count.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if from.is_null() != to.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let (starts, ends): (Vec<Handle>, Vec<Handle>) = session.edges(graph)?.into_iter().unzip();
        let mut places = *count;
        // SAFETY: the function's contract.
        unsafe {
            list(&starts, from, Some(&mut places))?;
            list(&ends, to, Some(count))
        }
    })
}

/// A graph's edges with their data, all zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphGetEdges_v2(
    graph: Handle,
    from: *mut Handle,
    to: *mut Handle,
    data: *mut EdgeData,
    count: Option<&mut usize>,
) -> CUresult {
    // SAFETY: the same contract; `data` has as many places as `count` says.
    unsafe {
        clear(data, count.as_deref());
        cuGraphGetEdges(graph, from, to, count)
    }
}

/// # Safety
/// `data` is null or has as many places as `count` says.
unsafe fn clear(data: *mut EdgeData, count: Option<&usize>) {
    if let (Some(&count), false) = (count, data.is_null()) {
        for i in 0..count {
            // SAFETY: the caller's contract.
            unsafe { data.add(i).write(EdgeData::default()) };
        }
    }
}

/// The nodes that a node depends on.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeGetDependencies(
    node: Handle,
    nodes: *mut Handle,
    count: Option<&mut usize>,
) -> CUresult {
    // SAFETY: the function's contract.
    with_driver(|session| unsafe { list(&session.nodes.get(node)?.after, nodes, count) })
}

/// The nodes that a node depends on, with the edges' data, all zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeGetDependencies_v2(
    node: Handle,
    nodes: *mut Handle,
    data: *mut EdgeData,
    count: Option<&mut usize>,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe {
        clear(data, count.as_deref());
        cuGraphNodeGetDependencies(node, nodes, count)
    }
}

/// The nodes that depend on a node.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeGetDependentNodes(
    node: Handle,
    nodes: *mut Handle,
    count: Option<&mut usize>,
) -> CUresult {
    with_driver(|session| {
        let edges = session.edges(session.nodes.get(node)?.graph)?;
        let found: Vec<Handle> = edges.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to).collect();
        // SAFETY: the function's contract.
        unsafe { list(&found, nodes, count) }
    })
}

/// The nodes that depend on a node, with the edges' data, all zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeGetDependentNodes_v2(
    node: Handle,
    nodes: *mut Handle,
    data: *mut EdgeData,
    count: Option<&mut usize>,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe {
        clear(data, count.as_deref());
        cuGraphNodeGetDependentNodes(node, nodes, count)
    }
}

/// Edges of the caller's, checked to lie in the graph.
///
/// # Safety
/// Both are null or have `count` handles.
unsafe fn pairs(
    session: &Session,
    graph: Handle,
    from: *const Handle,
    to: *const Handle,
    count: usize,
) -> Cuda<Vec<(Handle, Handle)>> {
    session.graphs.get(graph)?;
    // SAFETY: the caller's contract.
    let (from, to) = unsafe { (handles(from, count)?, handles(to, count)?) };
    let inside = |&node: &Handle| session.nodes.get(node).is_ok_and(|node| node.graph == graph);
    if !from.iter().chain(&to).all(inside) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    Ok(from.into_iter().zip(to).collect())
}

/// Adds edges; an edge that is there already, or from a node to itself, is refused.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddDependencies(
    graph: Handle,
    from: *const Handle,
    to: *const Handle,
    count: usize,
) -> CUresult {
    with_driver(|mut session| {
        // SAFETY: the function's contract.
        let pairs = unsafe { pairs(&session, graph, from, to, count) }?;
        for (i, pair) in pairs.iter().enumerate() {
            let there = session.nodes.get(pair.1)?.after.contains(&pair.0) || pairs[..i].contains(pair);
            if there || pair.0 == pair.1 {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
        }
        for (from, to) in pairs {
            session.nodes.get_mut(to)?.after.push(from);
        }
        Ok(())
    })
}

/// Adds edges whose data is null or zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphAddDependencies_v2(
    graph: Handle,
    from: *const Handle,
    to: *const Handle,
    data: *const EdgeData,
    count: usize,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe {
        if !plain(data, count) {
            return CUDA_ERROR_NOT_SUPPORTED;
        }
        cuGraphAddDependencies(graph, from, to, count)
    }
}

/// Whether edges carry no data.
///
/// # Safety
/// `data` is null or has `count` entries.
unsafe fn plain(data: *const EdgeData, count: usize) -> bool {
    // SAFETY: the caller's contract.
    data.is_null() || (0..count).all(|i| unsafe { data.add(i).read() } == EdgeData::default())
}

/// Removes edges; one that is not there is refused.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphRemoveDependencies(
    graph: Handle,
    from: *const Handle,
    to: *const Handle,
    count: usize,
) -> CUresult {
    with_driver(|mut session| {
        // SAFETY: the function's contract.
        let pairs = unsafe { pairs(&session, graph, from, to, count) }?;
        for (from, to) in &pairs {
            if !session.nodes.get(*to)?.after.contains(from) {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
        }
        for (from, to) in pairs {
            session.nodes.get_mut(to)?.after.retain(|node| *node != from);
        }
        Ok(())
    })
}

/// Removes edges whose data is null or zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphRemoveDependencies_v2(
    graph: Handle,
    from: *const Handle,
    to: *const Handle,
    data: *const EdgeData,
    count: usize,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe {
        if !plain(data, count) {
            return CUDA_ERROR_NOT_SUPPORTED;
        }
        cuGraphRemoveDependencies(graph, from, to, count)
    }
}
