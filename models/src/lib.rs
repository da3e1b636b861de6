//! Networks: layers, ResNets and Vision Transformers, projection heads, and the list of architectures by name.
//!
//! Names in state dicts are torchvision's and timm's, so that weights go both ways. A network is a plain struct whose
//! `forward` takes images or features and a [`Mode`]; [`encoder::Encoder`] is what pre-training keeps.

pub mod arch;
pub mod encoder;
mod encoders;
pub mod heads;
pub mod init;
pub mod layers;
pub mod named;
pub mod resnet;
pub mod state;
pub mod vit;

pub use arch::{Arch, FeedForward, ImageShape, Init, Pool, Position};
pub use encoder::{Encoder, Mode};
pub use heads::{
    ChannelwiseConnection, DinoHead, DinoHeadSpec, Discriminator, MaeDecoder, MaeDecoderSpec, Mlp, MlpSpec,
    OutputNorm, Upsampler, UpsamplerSpec,
};
pub use init::Initializer;
pub use layers::{Activation, BatchNorm, Conv2d, ConvTranspose2d, LayerNorm, Linear, conv_norms};
pub use named::{ARCHS, Named, build, duplicate};
pub use resnet::{Block, ResNet, ResNetSpec, Stem};
pub use state::load_state;
pub use vit::{Tokens, VisionTransformer, VitInput, VitSpec};
