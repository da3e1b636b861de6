//! Layer normalisation (Ba, Kiros and Hinton 2016) of tokens.

use crate::init::{ones, zeros};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use engine::Result;

/// Added to variances, as in every ViT of timm, DINO and MAE.
const EPS: f32 = 1e-6;

/// Normalises each row of the last dimension, with a scale and a shift.
pub struct LayerNorm {
    weight: Param,
    bias: Param,
}

impl LayerNorm {
    /// Scale 1, shift 0.
    pub fn new(width: usize) -> Result<LayerNorm> {
        let weight = Param::new(ones(width)?, Role::Norm);
        Ok(LayerNorm { weight, bias: Param::new(zeros(width)?, Role::Norm) })
    }

    /// The normalised rows of x [.., width].
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Result<Var> {
        ops::layer_norm(x, Some(&self.weight.var()), Some(&self.bias.var()), EPS)
    }
}

impl Module for LayerNorm {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("weight"), &mut self.weight);
        visitor.param(path.name("bias"), &mut self.bias);
    }
}
