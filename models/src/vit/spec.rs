//! What a ViT's structure depends on, what it is given and what it gives.

use super::block::BlockSpec;
use crate::{FeedForward, ImageShape, Init, Pool, Position};
use autograd::{Var, ops};
use engine::{Error, Result, Tensor};

/// Everything that a ViT's structure and initial weights depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct VitSpec {
    /// Images whose patches have a position of their own; others are resized positions.
    pub image: ImageShape,
    /// Side of a patch, pixels.
    pub patch: usize,
    /// Size of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads, a divisor of the width.
    pub heads: usize,
    /// Register tokens (Darcet et al. 2024) behind the class token. With any of them neither they nor the class token have
    /// a position (timm's `no_embed_class`).
    pub registers: usize,
    /// Initial factor of every residual branch, a channel each (LayerScale; Touvron et al. 2021).
    pub layer_scale: Option<f32>,
    /// Probability of dropping a residual branch in training.
    pub drop_path: f32,
    /// Whether it is that of all branches, or grows linearly from 0 at the first block.
    pub drop_path_uniform: bool,
    /// Where positions come from.
    pub position: Position,
    /// What follows attention.
    pub feed_forward: FeedForward,
    /// What features are.
    pub pool: Pool,
    /// Distribution of the initial weights.
    pub init: Init,
    /// Outputs of the last linear layer `head`; `None` leaves it out.
    pub classes: Option<usize>,
}

impl VitSpec {
    /// Rows and columns of patches of its images.
    pub fn grid(&self) -> [usize; 2] {
        [self.image.height / self.patch.max(1), self.image.width / self.patch.max(1)]
    }

    /// An error unless the sizes fit each other.
    #[track_caller]
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |rule: &str| Err(Error::value("vit", rule).with("spec", self));
        let ImageShape { height, width, channels } = self.image;
        let sizes = [height, width, channels, self.patch, self.width, self.depth, self.heads];
        if sizes.contains(&0) || self.classes == Some(0) {
            return refuse("sizes of images and patches, width, depth, heads and classes must be at least 1");
        }
        if !height.is_multiple_of(self.patch) || !width.is_multiple_of(self.patch) {
            return refuse("images must be a whole number of patches high and wide: choose another patch");
        }
        if !self.width.is_multiple_of(self.heads) {
            return refuse("the width must be a multiple of the number of heads");
        }
        if !(0.0..1.0).contains(&self.drop_path) || self.layer_scale.is_some_and(|s| !s.is_finite()) {
            return refuse("drop_path must be at least 0 and below 1, and layer_scale finite");
        }
        Ok(())
    }

    /// Its blocks.
    pub(super) fn block(&self) -> BlockSpec {
        BlockSpec {
            width: self.width,
            heads: self.heads,
            feed_forward: self.feed_forward,
            layer_scale: self.layer_scale,
            init: self.init,
        }
    }

    /// The probability of dropping each branch, two a block; empty where none is dropped.
    pub fn drop_rates(&self) -> Vec<f32> {
        if self.drop_path == 0.0 {
            return Vec::new();
        }
        let last = (self.depth - 1).max(1) as f32;
        let rate = |i: usize| if self.drop_path_uniform { 1.0 } else { i as f32 / last } * self.drop_path;
        (0..self.depth).flat_map(|i| [rate(i); 2]).collect()
    }
}

/// What a ViT is given: images, and which of their patches it sees.
#[derive(Debug, Clone, Copy)]
pub struct VitInput<'a> {
    /// [B, H, W, C], f32 or bf16, H and W multiples of the patch: L patches an image.
    pub images: &'a Var,
    /// i32 [B L]: which row each patch token takes from the embeddings of all patches [B L, D] and, as row B L, the mask
    /// token. Before positions are added.
    pub rows: Option<&'a Tensor>,
    /// i32 [B K]: the rows of [B L] that the blocks see, those of an image one after another, K the same for all images.
    /// After positions are added.
    pub kept: Option<&'a Tensor>,
    /// f32 [2 depth, B]: factors of residual branches (stochastic depth), as [`crate::Encoder::dropped_features`] has them.
    pub keep: Option<&'a Tensor>,
}

impl<'a> VitInput<'a> {
    /// Whole images, all branches.
    pub fn whole(images: &'a Var) -> VitInput<'a> {
        VitInput { images, rows: None, kept: None, keep: None }
    }
}

/// What a ViT gives: a vector a token, normalised.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// [B, T, D]: the class token, the registers, the patches.
    pub x: Var,
    /// Number of class and register tokens.
    pub prefix: usize,
}

impl Tokens {
    /// The class token [B, D].
    #[track_caller]
    pub fn class(&self) -> Result<Var> {
        let [b, d] = [self.x.shape()[0], self.x.shape()[2]];
        ops::reshape(&ops::narrow(&self.x, 1, 0, 1)?, &[b, d])
    }

    /// The patches' tokens [B, L, D], or [B, K, D] where some were kept.
    #[track_caller]
    pub fn patches(&self) -> Result<Var> {
        ops::narrow(&self.x, 1, self.prefix, self.x.shape()[1] - self.prefix)
    }
}
