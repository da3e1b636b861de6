//! Parameters and buffers: the state of a network.

use crate::graph::{Edge, Node};
use crate::{Var, ops};
use engine::{DType, Error, Result, Tensor};
use std::sync::Arc;

/// What a parameter is, which decides about weight decay and layer-wise adaptation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A matrix or convolution kernel.
    Weight,
    /// An additive vector.
    Bias,
    /// Scale or shift of a normalisation.
    Norm,
    /// What stands for a token or is added to tokens: class, mask, register and position embeddings.
    Token,
}

/// How a parameter's memory relates to what a state dict holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The same.
    AsIs,
    /// A convolution kernel: [out, kh, kw, in] in memory (channels last), [out, in, kh, kw] in files.
    ChannelsLast,
}

impl Stored {
    /// The tensor as a state dict holds it.
    pub fn outside(self, value: &Tensor) -> Result<Tensor> {
        match self {
            Stored::AsIs => Ok(value.clone()),
            Stored::ChannelsLast => kernels::copy::contiguous(&value.permute(&[0, 3, 1, 2])?),
        }
    }

    /// The tensor as memory holds it.
    pub fn inside(self, value: &Tensor) -> Result<Tensor> {
        match self {
            Stored::AsIs => kernels::copy::contiguous(value),
            Stored::ChannelsLast => kernels::copy::contiguous(&value.permute(&[0, 2, 3, 1])?),
        }
    }
}

/// A trained tensor: f32, and where computations are in bf16 a copy in that type beside it.
pub struct Param {
    value: Tensor,
    /// The value in bf16. Whoever writes the value writes this too, or drops it.
    low: Option<Tensor>,
    leaf: Arc<Node>,
    role: Role,
    stored: Stored,
    trainable: bool,
}

impl Param {
    /// A trainable parameter.
    pub fn new(value: Tensor, role: Role) -> Param {
        let leaf = Node::leaf(&value);
        Param { value, low: None, leaf, role, stored: Stored::AsIs, trainable: true }
    }

    /// A convolution kernel [out, kh, kw, in].
    pub fn kernel(value: Tensor) -> Param {
        Param { stored: Stored::ChannelsLast, ..Param::new(value, Role::Weight) }
    }

    /// The parameter as an operation's input. Its gradient arrives in [`Param::gradient`].
    pub fn var(&self) -> Var {
        let edge = self.trainable.then(|| Edge::to(self.leaf.clone()));
        Var::with_edge(self.value.clone(), edge)
    }

    /// The parameter in an element type, f32 or bf16, as an operation's input. In bf16 it is the copy of
    /// [`Param::keep_low`], whose gradient arrives in bf16, or without one the value cast at this use.
    #[track_caller]
    pub fn var_as(&self, dtype: DType) -> Result<Var> {
        match &self.low {
            Some(low) if dtype == low.dtype() => {
                let edge = self.trainable.then(|| Edge::to(self.leaf.clone()));
                Ok(Var::with_edge(low.clone(), edge))
            }
            _ => ops::cast(&self.var(), dtype),
        }
    }

    /// Keeps a copy in bf16 beside the value from now on, for computations in that type. The optimiser writes both.
    pub fn keep_low(&mut self) -> Result<()> {
        self.low = Some(kernels::copy::cast(&self.value, DType::BF16)?);
        Ok(())
    }

    /// Whether there is a copy of [`Param::keep_low`].
    pub fn is_low_kept(&self) -> bool {
        self.low.is_some()
    }

    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value, for writing in place. A copy in bf16 would be old then and is dropped; see [`Param::parts_mut`].
    pub fn value_mut(&mut self) -> &mut Tensor {
        self.low = None;
        &mut self.value
    }

    /// The value and the copy in bf16 if there is one, for writing both in place.
    pub fn parts_mut(&mut self) -> (&mut Tensor, Option<&mut Tensor>) {
        (&mut self.value, self.low.as_mut())
    }

    /// Replaces the value by one of the same shape, and the copy in bf16 if there is one.
    pub fn set(&mut self, value: Tensor) -> Result<()> {
        value.require_shape("parameter", "value", self.value.shape())?;
        value.require_dtype("parameter", "value", self.value.dtype())?;
        self.value = value;
        match self.low {
            Some(_) => self.keep_low(),
            None => Ok(()),
        }
    }

    /// The gradient collected since it was last cleared.
    pub fn gradient(&self) -> Option<Tensor> {
        self.leaf.leaf_gradient()
    }

    /// The gradient, which is forgotten here.
    pub fn take_gradient(&self) -> Option<Tensor> {
        let gradient = self.leaf.leaf_gradient();
        self.leaf.clear_leaf_gradient();
        gradient
    }

    /// Forgets the gradient.
    pub fn clear_gradient(&self) {
        self.leaf.clear_leaf_gradient();
    }

    /// What the parameter is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How files hold it.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// Whether it is trained. A frozen parameter has no gradient and is not seen by optimisers.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// Freezes or frees the parameter.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
        if !trainable {
            self.clear_gradient();
        }
    }
}

/// State that is not trained, such as running statistics.
pub struct Buffer {
    value: Tensor,
}

impl Buffer {
    /// A buffer.
    pub fn new(value: Tensor) -> Buffer {
        Buffer { value }
    }

    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value, for writing in place.
    pub fn value_mut(&mut self) -> &mut Tensor {
        &mut self.value
    }

    /// Replaces the value by one of the same shape and type.
    #[track_caller]
    pub fn set(&mut self, value: Tensor) -> Result<()> {
        if value.shape() != self.value.shape() || value.dtype() != self.value.dtype() {
            return Err(Error::shape("buffer", "shape and type are fixed")
                .argument("old", &self.value)
                .argument("new", &value));
        }
        self.value = value;
        Ok(())
    }
}
