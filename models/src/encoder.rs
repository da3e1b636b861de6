//! What pre-training keeps: a network from images to features.

use autograd::{Module, Var};
use engine::Result;

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
    /// Features [B, dim] of images [B, H, W, C] in f32.
    fn features(&mut self, images: &Var, mode: Mode) -> Result<Var>;

    /// Size of a feature vector.
    fn dim(&self) -> usize;

    /// Channels of the images: 1 grey, 3 RGB.
    fn channels(&self) -> usize;

    /// What [`crate::build`] takes to make this network again: the architecture's name, followed by `/WIDTH`
    /// where the width is not the architecture's own.
    fn architecture(&self) -> String;
}
