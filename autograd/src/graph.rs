//! The graph of recorded operations, and the walk that turns it into gradients.
//!
//! Nodes are owned by the values that they computed; there is no registry. Each has a sequence number
//! larger than those of its inputs, so that taking the largest first visits every node after all its users:
//! no recursion, however deep the graph. The walk, not the operation, adds up gradients.

use crate::op::{Backward, Op, Spec};
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::elementwise;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations of this thread are recorded now.
pub fn is_recording() -> bool {
    RECORDING.get()
}

/// Stops recording on this thread until the returned value is dropped: for evaluation, teachers and momentum
/// encoders.
pub fn no_grad() -> NoGrad {
    NoGrad { before: RECORDING.replace(false) }
}

/// See [`no_grad`].
#[must_use = "recording stops only until this is dropped"]
pub struct NoGrad {
    before: bool,
}

impl Drop for NoGrad {
    fn drop(&mut self) {
        RECORDING.set(self.before);
    }
}

/// One output of a node.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) node: Arc<Node>,
    pub(crate) output: usize,
}

impl Edge {
    pub(crate) fn to(node: Arc<Node>) -> Edge {
        Edge { node, output: 0 }
    }
}

/// A recorded operation, or a leaf that collects its gradient.
pub(crate) struct Node {
    sequence: u64,
    outputs: Vec<Spec>,
    kind: Kind,
    edges: Vec<Option<Edge>>,
}

enum Kind {
    Leaf { gradient: Mutex<Option<Tensor>> },
    Operation { op: Arc<dyn Op>, saved: Mutex<Option<Vec<Tensor>>>, inputs: Vec<Spec>, needs: Vec<bool> },
}

impl Node {
    fn new(outputs: Vec<Spec>, kind: Kind, edges: Vec<Option<Edge>>) -> Arc<Node> {
        Arc::new(Node { sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed), outputs, kind, edges })
    }

    pub(crate) fn leaf(value: &Tensor) -> Arc<Node> {
        Node::new(vec![Spec::of(value)], Kind::Leaf { gradient: Mutex::new(None) }, Vec::new())
    }

    pub(crate) fn operation(
        op: Arc<dyn Op>,
        saved: Vec<Tensor>,
        inputs: Vec<Spec>,
        needs: Vec<bool>,
        outputs: Vec<Spec>,
        edges: Vec<Option<Edge>>,
    ) -> Arc<Node> {
        Node::new(outputs, Kind::Operation { op, saved: Mutex::new(Some(saved)), inputs, needs }, edges)
    }

    pub(crate) fn leaf_gradient(&self) -> Option<Tensor> {
        match &self.kind {
            Kind::Leaf { gradient } => lock(gradient).clone(),
            Kind::Operation { .. } => None,
        }
    }

    pub(crate) fn clear_leaf_gradient(&self) {
        if let Kind::Leaf { gradient } = &self.kind {
            *lock(gradient) = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Node {
    /// Frees a chain of any length without recursion.
    fn drop(&mut self) {
        let mut waiting: Vec<Edge> = std::mem::take(&mut self.edges).into_iter().flatten().collect();
        while let Some(edge) = waiting.pop() {
            if let Some(mut node) = Arc::into_inner(edge.node) {
                waiting.extend(std::mem::take(&mut node.edges).into_iter().flatten());
            }
        }
    }
}

/// Moves the first gradient into `slot`; adds later ones in place.
fn accumulate(slot: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    match slot {
        None => *slot = Some(gradient),
        Some(sum) => {
            if !sum.is_contiguous() {
                *sum = kernels::copy::contiguous(sum)?;
            }
            elementwise::add_assign(sum, &kernels::copy::contiguous(&gradient)?)?;
        }
    }
    Ok(())
}

/// A node on its way to be visited, with the gradients of its outputs so far.
struct Pending {
    node: Arc<Node>,
    gradients: Vec<Option<Tensor>>,
}

fn send(waiting: &mut BTreeMap<u64, Pending>, edge: &Edge, gradient: Tensor) -> Result<()> {
    let pending = waiting.entry(edge.node.sequence).or_insert_with(|| Pending {
        node: edge.node.clone(),
        gradients: vec![None; edge.node.outputs.len()],
    });
    accumulate(&mut pending.gradients[edge.output], gradient)
}

/// Walks the graph from `root`, whose gradient is given, down to the leaves.
pub(crate) fn backward(root: &Edge, gradient: Tensor) -> Result<()> {
    let _off = no_grad();
    let mut waiting = BTreeMap::new();
    send(&mut waiting, root, gradient)?;
    while let Some((_, Pending { node, gradients })) = waiting.pop_last() {
        match &node.kind {
            Kind::Leaf { gradient } => {
                // Contiguous, as optimisers need it: the first may be a view, of an expanded scalar, say.
                for g in gradients.into_iter().flatten() {
                    accumulate(&mut lock(gradient), kernels::copy::contiguous(&g)?)?;
                }
            }
            Kind::Operation { op, saved, inputs, needs } => {
                let saved = lock(saved).take().ok_or_else(|| {
                    let text = "this part of the graph was already walked: run the forward pass again";
                    Error::new(ErrorKind::Graph, op.name(), text)
                })?;
                if let Some(stale) = saved.iter().find(|t| t.is_stale()) {
                    let text = "a value saved for backward was written in place since: finish backward before \
                                the optimiser or EMA changes parameters";
                    return Err(Error::new(ErrorKind::Graph, op.name(), text).argument("saved", stale));
                }
                let _named = engine::memory::operation(op.name());
                let at = Backward { saved: &saved, inputs, gradients: &gradients, needs };
                let results = op.backward(&at)?;
                drop((saved, gradients));
                if results.len() != inputs.len() {
                    let text = format!("backward gave {} of {} gradients", results.len(), inputs.len());
                    return Err(Error::new(ErrorKind::Graph, op.name(), text));
                }
                for (i, result) in results.into_iter().enumerate() {
                    let Some(edge) = node.edges[i].as_ref().filter(|_| needs[i]) else { continue };
                    let Some(g) = result else {
                        let text = format!("backward gave no gradient for input {i}, which needs one");
                        return Err(Error::new(ErrorKind::Graph, op.name(), text));
                    };
                    g.require_shape(op.name(), "gradient", &inputs[i].shape)?;
                    g.require_dtype(op.name(), "gradient", inputs[i].dtype)?;
                    send(&mut waiting, edge, g)?;
                }
            }
        }
    }
    Ok(())
}
