//! What pre-training keeps: a network from images to features.

use crate::{Arch, ImageShape, VisionTransformer};
use autograd::{Module, Var};
use engine::{Error, ErrorKind, Result, Tensor};

/// Which statistics normalisation layers use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The batch's; the running statistics move towards them.
    Train,
    /// The running ones, which stay as they are.
    Evaluate,
}

/// A network from images to feature vectors.
pub trait Encoder: Module + Send {
    /// Features [B, dim] of images [B, H, W, C] in f32 or bf16. No residual branch is dropped.
    fn features(&mut self, images: &Var, mode: Mode) -> Result<Var>;

    /// Number of blocks whose features [`Encoder::block_features`] gives: stages of a ResNet, blocks of a ViT.
    fn blocks(&self) -> usize;

    /// Features [B, D] behind block `block`, 1 to [`Encoder::blocks`], in evaluation mode: the average over all places of a
    /// ResNet's map or of a ViT's patch tokens, these normalised as the last ones are. The last block of a ResNet gives
    /// [`Encoder::features`]. An error for a block that is not there.
    fn block_features(&mut self, images: &Var, block: usize) -> Result<Var>;

    /// A usage error, which says what there is, unless block `block` is there.
    #[track_caller]
    fn require_block(&self, block: usize) -> Result<()> {
        require_block(block, self.blocks())
    }

    /// The features of places, [B, rows, columns, channels], before they become one vector: a ResNet's last map, a ViT's
    /// patch tokens. No residual branch is dropped.
    fn map(&mut self, images: &Var, mode: Mode) -> Result<Var>;

    /// Size of a feature vector.
    fn dim(&self) -> usize;

    /// What [`crate::build`] takes to make this network again.
    fn arch(&self) -> &Arch;

    /// The images that it was built for.
    fn image(&self) -> ImageShape;

    /// Channels of the images: 1 grey, 3 RGB.
    fn channels(&self) -> usize {
        self.image().channels
    }

    /// The network, where it is a Vision Transformer: its tokens are not just features.
    fn vit(&mut self) -> Option<&mut VisionTransformer> {
        None
    }

    /// Stochastic depth (Huang et al. 2016): the probability of dropping each residual branch in training, in their order;
    /// empty where none is dropped.
    fn drop_rates(&self) -> Vec<f32> {
        Vec::new()
    }

    /// Features in training with residual branches dropped: `keep`, f32 [branches, B] in the order of
    /// [`Encoder::drop_rates`], holds 0 where a sample's branch is dropped and 1 / (1 - rate) where it is not.
    fn dropped_features(&mut self, images: &Var, keep: &Tensor) -> Result<Var> {
        let _ = keep;
        self.features(images, Mode::Train)
    }

    /// Number of layers for layer-wise decay of the learning rate (Bao et al. 2022), 0 nearest to the images.
    fn layers(&self) -> usize;

    /// The layer, below [`Encoder::layers`], of the parameter with this name.
    fn layer_of(&self, parameter: &str) -> usize;
}

/// An error unless `block` is one of `blocks`, counted from 1.
#[track_caller]
pub(crate) fn require_block(block: usize, blocks: usize) -> Result<()> {
    match (1..=blocks).contains(&block) {
        true => Ok(()),
        false => {
            let text = format!("there is no layer {block}: this encoder has 1 to {blocks}");
            Err(Error::new(ErrorKind::Usage, "features of a layer", text))
        }
    }
}
