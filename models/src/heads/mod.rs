//! What methods put behind an encoder: projectors, predictors, decoders.

mod channelwise;
mod dino;
mod discriminator;
mod mae;
mod mlp;
mod upsampler;

pub use channelwise::ChannelwiseConnection;
pub use dino::{DinoHead, DinoHeadSpec};
pub use discriminator::Discriminator;
pub use mae::{MaeDecoder, MaeDecoderSpec};
pub use mlp::{Mlp, MlpSpec, OutputNorm};
pub use upsampler::{Upsampler, UpsamplerSpec};
