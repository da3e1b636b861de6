//! What a differentiable operation says of itself, and the one function that runs it.

use crate::Var;
use crate::graph::{self, Edge, Node};
use engine::{DType, Error, ErrorKind, Result, Tensor};
use std::sync::Arc;

/// Shape and element type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
}

impl Spec {
    /// An f32 value of this shape.
    pub fn f32(shape: &[usize]) -> Spec {
        Spec { shape: shape.to_vec(), dtype: DType::F32 }
    }

    /// A value of another shape and the same type.
    pub fn with_shape(&self, shape: &[usize]) -> Spec {
        Spec { shape: shape.to_vec(), dtype: self.dtype }
    }

    /// The spec of a tensor.
    pub fn of(tensor: &Tensor) -> Spec {
        Spec { shape: tensor.shape().to_vec(), dtype: tensor.dtype() }
    }
}

/// A differentiable operation. One value of the implementing type is one use: its fields are the settings.
pub trait Op: Send + Sync + 'static {
    /// The name in messages, profiles and the registry.
    fn name(&self) -> &'static str;

    /// Names of the inputs, in order. A list shorter than the inputs repeats its last name.
    fn inputs(&self) -> &'static [&'static str];

    /// Shapes and types of the outputs; an error that says what must hold if the inputs do not fit.
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>>;

    /// Computes the outputs, and saves what [`Op::backward`] will read. Inputs may be strided.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>>;

    /// Gradients of the inputs, `None` where [`Backward::needs`] is false.
    ///
    /// At least one output has a gradient. A gradient has its input's shape and may share storage with
    /// another tensor.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>>;

    /// Whether a gradient for this input exists. Recording with a history where it does not is an error.
    fn has_gradient(&self, input: usize) -> bool {
        let _ = input;
        true
    }

    /// Whether gradients flow into this output (not into batch statistics, say).
    fn is_differentiable(&self, output: usize) -> bool {
        let _ = output;
        true
    }
}

/// Collects what a forward pass saves for the backward pass.
#[derive(Default)]
pub struct Saver {
    recording: bool,
    needs: Vec<bool>,
    tensors: Vec<Tensor>,
}

impl Saver {
    /// Keeps a tensor (shared, not copied). Does nothing when no gradient is recorded.
    pub fn save(&mut self, tensor: &Tensor) {
        if self.recording {
            self.tensors.push(tensor.clone());
        }
    }

    /// Whether the gradient of this input will be asked for: what only it needs may stay unsaved.
    pub fn needs(&self, input: usize) -> bool {
        self.recording && self.needs.get(input).copied().unwrap_or(false)
    }
}

/// What [`Op::backward`] sees.
pub struct Backward<'a> {
    /// What the forward pass saved, in its order.
    pub saved: &'a [Tensor],
    /// Shapes and types of the inputs.
    pub inputs: &'a [Spec],
    /// Gradients of the outputs; `None` where nothing downstream used one.
    pub gradients: &'a [Option<Tensor>],
    /// Which inputs need a gradient.
    pub needs: &'a [bool],
}

impl Backward<'_> {
    /// The gradient of the first output.
    pub fn gradient(&self) -> Result<&Tensor> {
        self.gradients.first().and_then(Option::as_ref).ok_or_else(|| {
            Error::new(ErrorKind::Graph, "backward", "the first output has no gradient but is needed")
        })
    }

    /// `f` if the gradient of input `i` is needed.
    pub fn when(&self, i: usize, f: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
        match self.needs.get(i) {
            Some(true) => f().map(Some),
            _ => Ok(None),
        }
    }
}

/// Runs an operation and, unless under `no_grad` or without any history, records it.
#[track_caller]
pub fn apply<O: Op>(op: O, inputs: &[&Var]) -> Result<Vec<Var>> {
    apply_shared(Arc::new(op), inputs)
}

/// As [`apply`], for an operation that has exactly one output.
#[track_caller]
pub fn apply_one<O: Op>(op: O, inputs: &[&Var]) -> Result<Var> {
    let name = op.name();
    let mut outputs = apply(op, inputs)?;
    match (outputs.pop(), outputs.is_empty()) {
        (Some(output), true) => Ok(output),
        _ => Err(Error::new(ErrorKind::Graph, name, "does not have exactly one output")),
    }
}

/// As [`apply`], for an operation behind a pointer.
#[track_caller]
pub fn apply_shared(op: Arc<dyn Op>, inputs: &[&Var]) -> Result<Vec<Var>> {
    let _named = engine::memory::operation(op.name());
    let values: Vec<&Tensor> = inputs.iter().map(|v| v.value()).collect();
    let names: Vec<&str> = (0..inputs.len()).map(|i| input_name(&*op, i)).collect();
    engine::device::common(op.name(), &names, &values)?;
    let specs: Vec<Spec> = values.iter().map(|t| Spec::of(t)).collect();
    let expected = op.infer(&specs)?;
    let needs: Vec<bool> = inputs.iter().map(|v| v.has_history()).collect();
    let recording = graph::is_recording() && needs.contains(&true);
    if recording && let Some(i) = (0..needs.len()).find(|&i| needs[i] && !op.has_gradient(i)) {
        return Err(Error::new(
            ErrorKind::Graph,
            op.name(),
            format!("has no gradient for '{}': detach it, or compute it under no_grad", names[i]),
        )
        .argument(names[i], values[i]));
    }
    let mut saver = Saver { recording, needs: needs.clone(), tensors: Vec::new() };
    let outputs = op.forward(&values, &mut saver)?;
    let actual: Vec<Spec> = outputs.iter().map(Spec::of).collect();
    if actual != expected {
        return Err(Error::shape(op.name(), "the result is not what was inferred")
            .with("inferred", expected)
            .with("result", actual));
    }
    if !recording {
        return Ok(outputs.into_iter().map(Var::constant).collect());
    }
    let edges: Vec<Option<Edge>> = inputs.iter().map(|v| v.edge().cloned()).collect();
    let differentiable: Vec<bool> = (0..outputs.len()).map(|i| op.is_differentiable(i)).collect();
    let node = Node::operation(op, saver.tensors, specs, needs, actual, edges);
    let vars = outputs.into_iter().enumerate().map(|(i, value)| {
        let edge = differentiable[i].then(|| Edge { node: node.clone(), output: i });
        Var::with_edge(value, edge)
    });
    Ok(vars.collect())
}

fn input_name(op: &dyn Op, i: usize) -> &'static str {
    let names = op.inputs();
    names.get(i).or(names.last()).copied().unwrap_or("input")
}
