//! A transformer block: attention, then a feed-forward network, each on normalised tokens and added to them.

use super::weights;
use crate::layers::LayerNorm;
use crate::{FeedForward, Init, Initializer, Linear};
use autograd::module::{Path, Visitor};
use autograd::ops::{HiddenActivation, Onto};
use autograd::param::Role;
use autograd::{Module, Param, Var, no_grad, ops};
use engine::{Device, Result, Tensor};

/// What a block's structure depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockSpec {
    pub width: usize,
    pub heads: usize,
    pub feed_forward: FeedForward,
    pub layer_scale: Option<f32>,
    pub init: Init,
}

/// Multi-head self-attention (Vaswani et al. 2017).
struct Attention {
    heads: usize,
    qkv: Linear,
    proj: Linear,
}

impl Attention {
    fn new(spec: &BlockSpec, init: &Initializer) -> Result<Attention> {
        let width = spec.width;
        let qkv = weights::linear(spec.init, width, 3 * width, 3, &init.child("qkv"))?;
        let proj = weights::linear(spec.init, width, width, 1, &init.child("proj"))?;
        Ok(Attention { heads: spec.heads, qkv, proj })
    }

    /// What `x` becomes, added to `onto`.
    fn forward(&self, x: &Var, onto: Onto<'_>) -> Result<Var> {
        let mixed = ops::attention(&self.qkv.forward(x)?, self.heads, None, ops::SeenKeys::default())?;
        self.proj.forward_onto(&mixed, onto)
    }

    /// The weights [B, heads, T, T] with which tokens take from each other: rows sum to 1.
    fn weights(&self, x: &Var) -> Result<Tensor> {
        let _off = no_grad();
        let [b, t, width] = [0, 1, 2].map(|i| x.shape()[i]);
        let size = width / self.heads;
        let qkv = ops::reshape(&self.qkv.forward(x)?, &[b, t, 3, self.heads, size])?;
        let qkv = ops::permute(&qkv, &[2, 0, 3, 1, 4])?;
        let part = |i: usize| ops::reshape(&ops::narrow(&qkv, 0, i, 1)?, &[b, self.heads, t, size]);
        let scores = ops::matmul(&part(0)?, &part(1)?, false, true)?;
        let scores = ops::scale(&scores, 1.0 / (size as f32).sqrt())?;
        let rows = scores.value().reshape(&[b * self.heads * t, t])?;
        kernels::softmax_xent::softmax(&rows)?.reshape(&[b, self.heads, t, t])
    }
}

/// Two linear layers with GELU, or with a product of halves, between them.
struct Forward {
    kind: FeedForward,
    fc1: Linear,
    fc2: Linear,
}

impl Forward {
    fn new(spec: &BlockSpec, init: &Initializer) -> Result<Forward> {
        let width = spec.width;
        // As many weights in three matrices as an MLP has in two; a multiple of 8, as DINOv2 has it.
        let (inner, outer) = match spec.feed_forward {
            FeedForward::Mlp => (4 * width, 4 * width),
            FeedForward::Swiglu => {
                let hidden = (8 * width / 3).next_multiple_of(8);
                (2 * hidden, hidden)
            }
        };
        let parts = inner / outer;
        let fc1 = weights::linear(spec.init, width, inner, parts, &init.child("fc1"))?;
        let fc2 = weights::linear(spec.init, outer, width, 1, &init.child("fc2"))?;
        Ok(Forward { kind: spec.feed_forward, fc1, fc2 })
    }

    /// What `x` becomes, added to `onto`.
    fn forward(&self, x: &Var, onto: Onto<'_>) -> Result<Var> {
        if let FeedForward::Swiglu = self.kind {
            return self.fc2.forward_onto(&ops::swiglu(&self.fc1.forward(x)?)?, onto);
        }
        let dtype = x.value().dtype();
        match (self.fc1.vars_as(dtype)?, self.fc2.vars_as(dtype)?) {
            ((weight1, Some(bias1)), (weight2, Some(bias2))) => {
                let (first, second) = ([&weight1, &bias1], [&weight2, &bias2]);
                ops::mlp_residual(x, first, second, HiddenActivation::Gelu, onto)
            }
            _ => self.fc2.forward_onto(&ops::gelu(&self.fc1.forward(x)?)?, onto),
        }
    }
}

/// One block, with timm's names.
pub(crate) struct TransformerBlock {
    norm1: LayerNorm,
    attn: Attention,
    gamma1: Option<Param>,
    norm2: LayerNorm,
    mlp: Forward,
    gamma2: Option<Param>,
}

impl TransformerBlock {
    pub fn new(spec: &BlockSpec, init: &Initializer) -> Result<TransformerBlock> {
        let gamma = || -> Result<Option<Param>> {
            let Some(value) = spec.layer_scale else { return Ok(None) };
            Ok(Some(Param::new(Tensor::full(&[spec.width], value, Device::Cpu)?, Role::Norm)))
        };
        Ok(TransformerBlock {
            norm1: LayerNorm::new(spec.width)?,
            attn: Attention::new(spec, &init.child("attn"))?,
            gamma1: gamma()?,
            norm2: LayerNorm::new(spec.width)?,
            mlp: Forward::new(spec, &init.child("mlp"))?,
            gamma2: gamma()?,
        })
    }

    /// Tokens [B, T, D] after the block. `keep` [B] are the factors of each sample's two branches.
    pub fn forward(&self, x: &Var, keep: Option<[&Var; 2]>) -> Result<Var> {
        let gammas = [&self.gamma1, &self.gamma2].map(|gamma| gamma.as_ref().map(Param::var));
        let onto =
            |x, branch: usize| Onto { x, scale: gammas[branch].as_ref(), keep: keep.map(|k| k[branch]) };
        let x = self.attn.forward(&self.norm1.forward(x)?, onto(x, 0))?;
        self.mlp.forward(&self.norm2.forward(&x)?, onto(&x, 1))
    }

    /// The weights [B, heads, T, T] of this block's attention to tokens that come into it.
    pub fn attention_weights(&self, x: &Var) -> Result<Tensor> {
        self.attn.weights(&self.norm1.forward(x)?)
    }
}

impl Module for TransformerBlock {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.norm1.visit(&path.child("norm1"), visitor);
        self.attn.qkv.visit(&path.child("attn").child("qkv"), visitor);
        self.attn.proj.visit(&path.child("attn").child("proj"), visitor);
        if let Some(gamma) = &mut self.gamma1 {
            visitor.param(path.child("ls1").name("gamma"), gamma);
        }
        self.norm2.visit(&path.child("norm2"), visitor);
        self.mlp.fc1.visit(&path.child("mlp").child("fc1"), visitor);
        self.mlp.fc2.visit(&path.child("mlp").child("fc2"), visitor);
        if let Some(gamma) = &mut self.gamma2 {
            visitor.param(path.child("ls2").name("gamma"), gamma);
        }
    }
}
