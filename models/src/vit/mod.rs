//! Vision Transformers (Dosovitskiy et al. 2021) with timm's names and layouts, in the forms that MoCo v3, MAE, DINO and DINOv2
//! train.

pub(crate) mod block;
mod embed;
pub(crate) mod positions;
mod spec;
pub(crate) mod weights;

pub use embed::PatchEmbed;
pub use spec::{Tokens, VitInput, VitSpec};

use crate::encoder::require_block;
use crate::init::zeros;
use crate::layers::LayerNorm;
use crate::{Initializer, Linear, Pool};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use block::TransformerBlock;
use engine::{Error, Result, Tensor};
use positions::Positions;

/// A Vision Transformer.
///
/// Tokens and positions count as weights for the optimiser: the methods' own code decays them.
pub struct VisionTransformer {
    spec: VitSpec,
    cls_token: Param,
    reg_token: Option<Param>,
    mask_token: Option<Param>,
    positions: Positions,
    patch_embed: PatchEmbed,
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    head: Option<Linear>,
}

impl VisionTransformer {
    /// A network with initial weights. Errors if sizes in `spec` do not fit each other.
    #[track_caller]
    pub fn new(spec: VitSpec, init: &Initializer) -> Result<VisionTransformer> {
        spec.check()?;
        let width = spec.width;
        let token = |name: &str, count: usize| -> Result<Param> {
            Ok(Param::new(weights::token(spec.init, name, &[1, count, width], init)?, Role::Token))
        };
        let block = spec.block();
        let positions =
            Positions::new(spec.position, spec.grid(), spec.registers == 0, width, "pos_embed", init)?;
        let blocks = (0..spec.depth).map(|i| TransformerBlock::new(&block, &init.child("blocks").child(i)));
        let head = match spec.classes {
            Some(classes) => Some(weights::linear(spec.init, width, classes, 1, &init.child("head"))?),
            None => None,
        };
        Ok(VisionTransformer {
            cls_token: token("cls_token", 1)?,
            reg_token: if spec.registers > 0 { Some(token("reg_token", spec.registers)?) } else { None },
            mask_token: None,
            positions,
            patch_embed: PatchEmbed::new(&spec, &init.child("patch_embed"))?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: LayerNorm::new(width)?,
            head,
            spec,
        })
    }

    /// What it was made from.
    pub fn spec(&self) -> &VitSpec {
        &self.spec
    }

    /// The patch embedding, which MoCo v3 freezes.
    pub fn patch_embed(&mut self) -> &mut PatchEmbed {
        &mut self.patch_embed
    }

    /// Adds the token `mask_token` [1, D], zero at first (DINOv2), for [`VitInput::rows`]. Does nothing where there is one.
    pub fn add_mask_token(&mut self) -> Result<()> {
        if self.mask_token.is_none() {
            let value = zeros(self.spec.width)?.reshape(&[1, self.spec.width])?;
            let value = value.to_device(self.cls_token.value().device())?;
            self.mask_token = Some(Param::new(value, Role::Token));
        }
        Ok(())
    }

    /// Whether there is a mask token.
    pub fn has_mask_token(&self) -> bool {
        self.mask_token.is_some()
    }

    /// Tokens after all blocks and the last normalisation.
    ///
    /// Errors: images of another shape than [`VitInput`] says, indices or factors that do not fit them, `rows` without a
    /// mask token.
    #[track_caller]
    pub fn forward(&mut self, input: &VitInput<'_>) -> Result<Tokens> {
        let mut x = self.embed(input)?;
        let keep = self.branches(input)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let keep = if keep.is_empty() { None } else { Some([&keep[2 * i], &keep[2 * i + 1]]) };
            x = block.forward(&x, keep)?;
        }
        self.normalised(&x)
    }

    /// Features [B, D] of images: the class token or the average of the patches, as the spec says.
    #[track_caller]
    pub fn features(&mut self, input: &VitInput<'_>) -> Result<Var> {
        let tokens = self.forward(input)?;
        match self.spec.pool {
            Pool::Token => tokens.class(),
            Pool::Average => ops::mean(&tokens.patches()?, &[1]),
        }
    }

    /// Class scores [B, classes] of images [B, H, W, C]; features where there is no `head`.
    #[track_caller]
    pub fn classify(&mut self, images: &Var) -> Result<Var> {
        let features = self.features(&VitInput::whole(images))?;
        match &self.head {
            Some(head) => head.forward(&features),
            None => Ok(features),
        }
    }

    /// Tokens after each of the last `n` blocks, through the last normalisation, in the blocks' order (DINO's and DINOv2's
    /// `get_intermediate_layers`). Errors unless `n` is between 1 and the depth.
    #[track_caller]
    pub fn last_blocks(&mut self, images: &Var, n: usize) -> Result<Vec<Tokens>> {
        if n == 0 || n > self.spec.depth {
            let text = format!("there are {} blocks: ask for at least 1 and at most these", self.spec.depth);
            return Err(Error::value("vit", text).with("n", n));
        }
        let mut x = self.embed(&VitInput::whole(images))?;
        let mut last = Vec::with_capacity(n);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, None)?;
            if i + n >= self.spec.depth {
                last.push(self.normalised(&x)?);
            }
        }
        Ok(last)
    }

    /// Tokens after block `block`, counted from 1, through the last normalisation; later blocks are not computed. An error for a
    /// block that is not there.
    #[track_caller]
    pub fn block_tokens(&mut self, images: &Var, block: usize) -> Result<Tokens> {
        require_block(block, self.spec.depth)?;
        let mut x = self.embed(&VitInput::whole(images))?;
        for block in &self.blocks[..block] {
            x = block.forward(&x, None)?;
        }
        self.normalised(&x)
    }

    /// The weights [B, heads, T, T] of the last block's attention, without history: row t says from which tokens token t
    /// takes.
    #[track_caller]
    pub fn attention_maps(&mut self, images: &Var) -> Result<Tensor> {
        let _off = autograd::no_grad();
        let mut x = self.embed(&VitInput::whole(images))?;
        let last = self.blocks.len() - 1;
        for block in &self.blocks[..last] {
            x = block.forward(&x, None)?;
        }
        self.blocks[last].attention_weights(&x)
    }

    fn normalised(&self, x: &Var) -> Result<Tokens> {
        Ok(Tokens { x: self.norm.forward(x)?, prefix: 1 + self.spec.registers })
    }

    /// The factors [B] of each branch; empty without any.
    #[track_caller]
    fn branches(&self, input: &VitInput<'_>) -> Result<Vec<Var>> {
        let Some(keep) = input.keep else { return Ok(Vec::new()) };
        let [count, batch] = [2 * self.spec.depth, input.images.shape()[0]];
        keep.require_shape("vit", "keep", &[count, batch])?;
        (0..count).map(|i| Ok(Var::constant(keep.narrow(0, i, 1)?.reshape(&[batch])?))).collect()
    }

    /// Tokens [B, T, D] in front of the first block.
    #[track_caller]
    fn embed(&mut self, input: &VitInput<'_>) -> Result<Var> {
        let (dtype, batch, width) =
            (input.images.value().dtype(), input.images.shape().first().copied(), self.spec.width);
        let grid = self.patch_embed.grid(input.images)?;
        let (batch, len) = (batch.unwrap_or(0), grid[0] * grid[1]);
        let mut x = self.patch_embed.forward(input.images)?;
        if let Some(rows) = input.rows {
            rows.require_shape("vit", "rows", &[batch * len])?;
            let Some(mask) = &self.mask_token else {
                return Err(Error::value("vit", "rows need a mask token: call add_mask_token first"));
            };
            let table = ops::cat(&[&x, &mask.var_as(dtype)?], 0)?;
            x = ops::gather_rows(&table, &Var::constant(rows.clone()))?;
        }
        let added = self.positions.forward(grid, dtype)?;
        x = ops::add_bias(&ops::reshape(&x, &[batch, len * width])?, &added.patches)?;
        if let Some(kept) = input.kept {
            if kept.rank() != 1 || kept.is_empty() || !kept.len().is_multiple_of(batch.max(1)) {
                let rule = "kept must be [B K] with the same K of at least 1 for all images";
                return Err(Error::shape("vit", rule).argument("kept", kept).with("B", batch));
            }
            let all = ops::reshape(&x, &[batch * len, width])?;
            x = ops::gather_rows(&all, &Var::constant(kept.clone()))?;
        }
        let seen = input.kept.map_or(len, |kept| kept.len() / batch.max(1));
        let patches = ops::reshape(&x, &[batch, seen, width])?;
        let mut class = self.cls_token.var_as(dtype)?;
        if let Some(position) = &added.class {
            class = ops::add(&class, position)?;
        }
        let class = ops::expand(&class, &[batch, 1, width])?;
        match &self.reg_token {
            None => ops::cat(&[&class, &patches], 1),
            Some(registers) => {
                let shape = [batch, self.spec.registers, width];
                let registers = ops::expand(&registers.var_as(dtype)?, &shape)?;
                ops::cat(&[&class, &registers, &patches], 1)
            }
        }
    }

    /// Layers for layer-wise decay of the learning rate: the embedding, each block, and what follows them.
    pub fn layers(&self) -> usize {
        self.spec.depth + 2
    }

    /// The layer of the parameter with this name: 0 for what makes tokens, i + 1 for block i, the last for the last
    /// normalisation and the head (BEiT, MAE).
    pub fn layer_of(&self, parameter: &str) -> usize {
        let block = parameter.strip_prefix("blocks.").and_then(|rest| rest.split('.').next());
        match block.and_then(|number| number.parse::<usize>().ok()) {
            Some(block) => block + 1,
            None if parameter.starts_with("norm.") || parameter.starts_with("head.") => self.spec.depth + 1,
            None => 0,
        }
    }
}

impl Module for VisionTransformer {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("cls_token"), &mut self.cls_token);
        for (name, token) in [("reg_token", &mut self.reg_token), ("mask_token", &mut self.mask_token)] {
            if let Some(token) = token {
                visitor.param(path.name(name), token);
            }
        }
        self.positions.visit(path, visitor);
        self.patch_embed.visit(&path.child("patch_embed"), visitor);
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.visit(&path.child("blocks").child(i), visitor);
        }
        self.norm.visit(&path.child("norm"), visitor);
        if let Some(head) = &mut self.head {
            head.visit(&path.child("head"), visitor);
        }
    }
}
