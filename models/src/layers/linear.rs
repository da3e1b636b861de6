//! A linear layer.

use crate::Initializer;
use autograd::module::{Path, Visitor};
use autograd::ops::Onto;
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use engine::{DType, Result, Tensor};

/// `x W^T + b`, [.., in] to [.., out].
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
}

impl Linear {
    /// PyTorch's initial values: weight [out, in] and bias uniform within 1 / sqrt(in).
    pub fn new(inputs: usize, outputs: usize, bias: bool, init: &Initializer) -> Result<Linear> {
        let weight = init.uniform_fan_in("weight", &[outputs, inputs], inputs)?;
        let bias = match bias {
            true => Some(Param::new(init.uniform_fan_in("bias", &[outputs], inputs)?, Role::Bias)),
            false => None,
        };
        Ok(Linear { weight: Param::new(weight, Role::Weight), bias })
    }

    /// Given initial values: weight [out, in], bias [out].
    pub fn with(weight: Tensor, bias: Option<Tensor>) -> Linear {
        let bias = bias.map(|bias| Param::new(bias, Role::Bias));
        Linear { weight: Param::new(weight, Role::Weight), bias }
    }

    /// The layer's output for `x`.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Result<Var> {
        let (weight, bias) = self.vars_as(x.value().dtype())?;
        ops::linear(x, &weight, bias.as_ref())
    }

    /// The layer's output for `x`, added to `onto`.
    #[track_caller]
    pub(crate) fn forward_onto(&self, x: &Var, onto: Onto<'_>) -> Result<Var> {
        match self.vars_as(x.value().dtype())? {
            (weight, Some(bias)) => ops::linear_residual(x, &weight, &bias, onto),
            (weight, None) => {
                ops::residual_scale(onto.x, &ops::linear(x, &weight, None)?, onto.scale, onto.keep)
            }
        }
    }

    /// The weight and the bias in an element type.
    #[track_caller]
    pub(crate) fn vars_as(&self, dtype: DType) -> Result<(Var, Option<Var>)> {
        let bias = self.bias.as_ref().map(|bias| bias.var_as(dtype)).transpose()?;
        Ok((self.weight.var_as(dtype)?, bias))
    }
}

impl Module for Linear {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("weight"), &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visitor.param(path.name("bias"), bias);
        }
    }
}
