//! A tensor and its place in the graph.

use crate::graph::{self, Edge, Node};
use engine::{Error, ErrorKind, Result, Tensor};

/// A tensor that may have been computed from others by recorded operations.
///
/// The value owns its history: dropping the last `Var` of a computation frees its graph.
#[derive(Clone)]
pub struct Var {
    value: Tensor,
    edge: Option<Edge>,
}

impl Var {
    /// A value without history: no gradient flows to it.
    pub fn constant(value: Tensor) -> Var {
        Var { value, edge: None }
    }

    /// A value whose gradient is collected by [`Var::backward`] and read by [`Var::gradient`].
    pub fn leaf(value: Tensor) -> Var {
        let edge = Edge::to(Node::leaf(&value));
        Var { value, edge: Some(edge) }
    }

    pub(crate) fn with_edge(value: Tensor, edge: Option<Edge>) -> Var {
        Var { value, edge }
    }

    pub(crate) fn edge(&self) -> Option<&Edge> {
        self.edge.as_ref()
    }

    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The tensor, without its history.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// Whether gradients flow to or through this value.
    pub fn has_history(&self) -> bool {
        self.edge.is_some()
    }

    /// The same value cut off from its history.
    pub fn detach(&self) -> Var {
        Var::constant(self.value.clone())
    }

    /// The gradient collected in a leaf so far.
    pub fn gradient(&self) -> Option<Tensor> {
        self.edge.as_ref().and_then(|e| e.node.leaf_gradient())
    }

    /// Adds the gradient of this scalar to every leaf that it was computed from, and consumes what the
    /// operations saved: a graph can be walked once.
    #[track_caller]
    pub fn backward(&self) -> Result<()> {
        if self.value.len() != 1 {
            return Err(Error::shape(
                "backward",
                "starts from a scalar: reduce the value first, or give its gradient to backward_from",
            )
            .argument("loss", &self.value));
        }
        let one = Tensor::full(self.shape(), 1.0, self.value.device())?;
        self.backward_from(kernels::copy::cast(&one, self.value.dtype())?)
    }

    /// As [`Var::backward`], from a given gradient of this value (of its shape).
    #[track_caller]
    pub fn backward_from(&self, gradient: Tensor) -> Result<()> {
        gradient.require_shape("backward", "gradient", self.shape())?;
        match &self.edge {
            Some(edge) => graph::backward(edge, gradient),
            None => Err(Error::new(
                ErrorKind::Graph,
                "backward",
                "this value has no history: it was computed from constants, or under no_grad",
            )
            .argument("loss", &self.value)),
        }
    }
}

impl std::fmt::Debug for Var {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}{}", self.value, if self.has_history() { " with history" } else { "" })
    }
}
