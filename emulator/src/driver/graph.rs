//! Graphs: making, nodes and edges, copying, printing. What is in a node is `graph_node`'s, running `graph_exec`'s.

use super::abi::EdgeData;
use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OPERATING_SYSTEM, Cuda};
use super::module::text;
use super::session::{Session, put, with_driver};
use super::state::{Graph, Node};
use super::work::Task;
use super::{CUresult, Handle};
use std::collections::BTreeMap;
use std::ffi::c_char;
use std::fmt::Write;

/// An array of handles of the caller's.
///
/// # Safety
/// Null, or `count` handles.
pub(super) unsafe fn handles(from: *const Handle, count: usize) -> Cuda<Vec<Handle>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if from.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, so `count` handles by the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(from, count) }.to_vec())
}

/// Hands out a list the way the graph API does: with no array, only the length; with one, up to its length, the rest
/// null, and the number of entries that there are.
///
/// # Safety
/// `to` is null or has as many places as `count` says.
unsafe fn list(found: &[Handle], to: *mut Handle, count: Option<&mut usize>) -> Cuda<()> {
    let count = count.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if to.is_null() {
        *count = found.len();
        return Ok(());
    }
    for i in 0..*count {
        // SAFETY: the caller's contract.
        unsafe { to.add(i).write(found.get(i).copied().unwrap_or(0)) };
    }
    *count = (*count).min(found.len());
    Ok(())
}

impl Session {
    /// The nodes that a new node is to follow: all of one graph.
    pub(super) fn dependencies(&self, graph: Handle, nodes: Vec<Handle>) -> Cuda<Vec<Handle>> {
        self.graphs.get(graph)?;
        for (i, node) in nodes.iter().enumerate() {
            let foreign = !self.nodes.get(*node).is_ok_and(|node| node.graph == graph);
            if foreign || nodes[..i].contains(node) {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
        }
        Ok(nodes)
    }

    /// All edges of a graph, (from, to).
    fn edges(&self, graph: Handle) -> Cuda<Vec<(Handle, Handle)>> {
        let mut edges = Vec::new();
        for &node in &self.graphs.get(graph)?.nodes {
            edges.extend(self.nodes.get(node)?.after.iter().map(|&from| (from, node)));
        }
        Ok(edges)
    }
}

/// Makes an empty graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphCreate(graph: Option<&mut Handle>, flags: u32) -> CUresult {
    with_driver(|mut session| {
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        put(graph, session.graphs.add(Graph::default()))
    })
}

/// Destroys a graph and its nodes.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphDestroy(graph: Handle) -> CUresult {
    with_driver(|mut session| {
        if session.captures.iter().any(|(_, capture)| capture.graph == graph) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        session.destroy_graph(graph)
    })
}

/// Copies a graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphClone(clone: Option<&mut Handle>, graph: Handle) -> CUresult {
    with_driver(|mut session| {
        let clone = clone.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let nodes = session.graphs.get(graph)?.nodes.clone();
        let copy = session.graphs.add(Graph::default());
        let mut origin = BTreeMap::new();
        for &node in &nodes {
            let Node { task, shown, .. } = session.nodes.get(node)?.clone();
            let made = session.nodes.add(Node { graph: copy, task, after: Vec::new(), shown });
            origin.insert(node, made);
        }
        for &node in &nodes {
            let after =
                session.nodes.get(node)?.after.iter().filter_map(|node| origin.get(node).copied()).collect();
            session.nodes.get_mut(origin[&node])?.after = after;
        }
        let found = session.graphs.get_mut(copy)?;
        found.nodes = nodes.iter().map(|node| origin[node]).collect();
        found.origin = origin;
        *clone = copy;
        Ok(())
    })
}

/// The copy of a node in a copy of its graph.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphNodeFindInClone(
    node: Option<&mut Handle>,
    original: Handle,
    clone: Handle,
) -> CUresult {
    with_driver(|session| {
        let found = session.graphs.get(clone)?.origin.get(&original).copied();
        put(node, found.filter(|node| session.nodes.contains(*node)).ok_or(CUDA_ERROR_INVALID_VALUE)?)
    })
}

/// A graph's nodes.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphGetNodes(
    graph: Handle,
    nodes: *mut Handle,
    count: Option<&mut usize>,
) -> CUresult {
    // SAFETY: the function's contract.
    with_driver(|session| unsafe { list(&session.graphs.get(graph)?.nodes, nodes, count) })
}

/// A graph's nodes that depend on none.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphGetRootNodes(
    graph: Handle,
    nodes: *mut Handle,
    count: Option<&mut usize>,
) -> CUresult {
    with_driver(|session| {
        let roots = session.graphs.get(graph)?.nodes.iter().copied();
        let roots: Vec<Handle> =
            roots.filter(|&node| session.nodes.get(node).is_ok_and(|node| node.after.is_empty())).collect();
        // SAFETY: the function's contract.
        unsafe { list(&roots, nodes, count) }
    })
}

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

/// Removes a node and its edges.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphDestroyNode(node: Handle) -> CUresult {
    with_driver(|mut session| {
        let graph = session.nodes.remove(node)?.graph;
        let found = session.graphs.get_mut(graph)?;
        found.nodes.retain(|other| *other != node);
        for other in found.nodes.clone() {
            session.nodes.get_mut(other)?.after.retain(|other| *other != node);
        }
        Ok(())
    })
}

/// Writes a graph in Graphviz' language.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGraphDebugDotPrint(graph: Handle, path: *const c_char, _flags: u32) -> CUresult {
    with_driver(|session| {
        // SAFETY: the function's contract.
        let path = unsafe { text(path) }.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let mut dot = "digraph {\n".to_owned();
        for &node in &session.graphs.get(graph)?.nodes {
            let label = match &session.nodes.get(node)?.task {
                None => "empty".to_owned(),
                Some(Task::Launch(launch)) => {
                    format!("{}\\n{:?} x {:?}", launch.kernel.name(), launch.grid, launch.block)
                }
                Some(Task::Copy(copy)) => format!("copy {} x {} x {}", copy.width, copy.height, copy.depth),
                Some(Task::Fill(fill)) => format!("fill {} x {}", fill.width, fill.height),
                Some(Task::Host(_)) => "host function".to_owned(),
            };
            let _ = writeln!(dot, "  n{node} [label=\"{label}\"];");
        }
        for (from, to) in session.edges(graph)? {
            let _ = writeln!(dot, "  n{from} -> n{to};");
        }
        dot.push_str("}\n");
        std::fs::write(path, dot).map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)
    })
}
