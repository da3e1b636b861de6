//! Graphs: making, copying, printing. Edges are in `graph_edge`, what nodes do in `graph_node`, running in `graph_exec`.

use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OPERATING_SYSTEM, Cuda};
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
pub(super) unsafe fn list(found: &[Handle], to: *mut Handle, count: Option<&mut usize>) -> Cuda<()> {
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
    pub(super) fn edges(&self, graph: Handle) -> Cuda<Vec<(Handle, Handle)>> {
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
