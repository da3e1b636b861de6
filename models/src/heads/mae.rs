//! The decoder of masked autoencoders (He et al. 2022): from tokens of visible patches to the pixels of all.

use crate::layers::LayerNorm;
use crate::vit::block::{BlockSpec, TransformerBlock};
use crate::vit::positions::Positions;
use crate::vit::weights;
use crate::{FeedForward, Init, Initializer, Linear, Position, Tokens};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use engine::{Error, Result, Tensor};

/// Sizes of a decoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaeDecoderSpec {
    /// Size of the encoder's tokens.
    pub inputs: usize,
    /// Size of its own tokens, a multiple of 4 and of the heads.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Rows and columns of patches of an image.
    pub grid: [usize; 2],
    /// Values that are predicted for a patch: its pixels times channels.
    pub outputs: usize,
}

/// A light transformer on all patches: the visible ones' tokens at their places, a learned mask token at all others, fixed
/// positions added to both. Names are those of facebookresearch/mae.
pub struct MaeDecoder {
    spec: MaeDecoderSpec,
    embed: Linear,
    mask_token: Param,
    positions: Positions,
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    pred: Linear,
}

impl MaeDecoder {
    /// A decoder with initial weights: Xavier's, biases 0, the mask token normal with deviation 0.02. Errors if a size is
    /// zero or the width does not fit.
    #[track_caller]
    pub fn new(spec: &MaeDecoderSpec, init: &Initializer) -> Result<MaeDecoder> {
        let spec = *spec;
        let [rows, columns] = spec.grid;
        let sizes = [spec.inputs, spec.width, spec.depth, spec.heads, rows, columns, spec.outputs];
        if sizes.contains(&0) || !spec.width.is_multiple_of(spec.heads) {
            let text = "every size must be at least 1, and the width a multiple of the number of heads";
            return Err(Error::value("mae_decoder", text).with("spec", spec));
        }
        let kind = Init::Xavier;
        let block = BlockSpec {
            width: spec.width,
            heads: spec.heads,
            feed_forward: FeedForward::Mlp,
            layer_scale: None,
            init: kind,
        };
        let name = "decoder_pos_embed";
        let positions = Positions::new(Position::Sincos, spec.grid, true, spec.width, name, init)?;
        let token = weights::token(kind, "mask_token", &[1, 1, spec.width], init)?;
        let blocks = init.child("decoder_blocks");
        let blocks = (0..spec.depth).map(|i| TransformerBlock::new(&block, &blocks.child(i)));
        Ok(MaeDecoder {
            embed: weights::linear(kind, spec.inputs, spec.width, 1, &init.child("decoder_embed"))?,
            mask_token: Param::new(token, Role::Token),
            positions,
            blocks: blocks.collect::<Result<_>>()?,
            norm: LayerNorm::new(spec.width)?,
            pred: weights::linear(kind, spec.width, spec.outputs, 1, &init.child("decoder_pred"))?,
            spec,
        })
    }

    /// Predictions [B, L, outputs] for all L patches from the encoder's tokens of K visible ones.
    ///
    /// `restore`, i32 [B L], says for each patch which row of the visible patches' tokens [B K] is its own, or B K where it
    /// is masked. The class token takes part and is dropped at the end; registers do not.
    #[track_caller]
    pub fn forward(&mut self, tokens: &Tokens, restore: &Tensor) -> Result<Var> {
        let MaeDecoderSpec { width, grid, .. } = self.spec;
        let [batch, len] = [tokens.x.shape()[0], grid[0] * grid[1]];
        restore.require_shape("mae_decoder", "restore", &[batch * len])?;
        let dtype = tokens.x.value().dtype();
        let x = self.embed.forward(&tokens.x)?;
        let visible = x.shape()[1] - tokens.prefix;
        let class = ops::narrow(&x, 1, 0, 1)?;
        let patches = ops::reshape(&ops::narrow(&x, 1, tokens.prefix, visible)?, &[batch * visible, width])?;
        let mask = ops::reshape(&self.mask_token.var_as(dtype)?, &[1, width])?;
        let all = ops::gather_rows(&ops::cat(&[&patches, &mask], 0)?, &Var::constant(restore.clone()))?;
        // The class token's own position is zero.
        let added = self.positions.forward(grid, dtype)?.patches;
        let patches = ops::add_bias(&ops::reshape(&all, &[batch, len * width])?, &added)?;
        let mut x = ops::cat(&[&class, &ops::reshape(&patches, &[batch, len, width])?], 1)?;
        for block in &self.blocks {
            x = block.forward(&x, None)?;
        }
        let x = self.norm.forward(&ops::narrow(&x, 1, 1, len)?)?;
        self.pred.forward(&x)
    }
}

impl Module for MaeDecoder {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("mask_token"), &mut self.mask_token);
        self.positions.visit(path, visitor);
        self.embed.visit(&path.child("decoder_embed"), visitor);
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.visit(&path.child("decoder_blocks").child(i), visitor);
        }
        self.norm.visit(&path.child("decoder_norm"), visitor);
        self.pred.visit(&path.child("decoder_pred"), visitor);
    }
}
