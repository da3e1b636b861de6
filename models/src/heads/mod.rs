//! What methods put behind an encoder: projectors, predictors, decoders.

mod dino;
mod mae;
mod mlp;

pub use dino::{DinoHead, DinoHeadSpec};
pub use mae::{MaeDecoder, MaeDecoderSpec};
pub use mlp::{Mlp, MlpSpec, OutputNorm};
