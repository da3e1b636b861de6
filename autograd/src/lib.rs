//! Reverse-mode differentiation: the graph and its backward pass, one file a differentiable operation,
//! parameters and their visitor, optimisers.
//!
//! Start with [`op::Op`], what an operation must say of itself; then [`graph`], how gradients flow; then any
//! file of [`ops`].

pub mod case;
pub mod dual;
pub mod graph;
pub mod module;
pub mod op;
pub mod ops;
pub mod optim;
pub mod param;
mod var;

pub use graph::{is_recording, no_grad};
pub use module::Module;
pub use op::{Op, Spec, apply};
pub use param::{Buffer, Param};
pub use var::Var;
