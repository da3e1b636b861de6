//! What methods put behind an encoder: projectors, predictors, decoders.

mod mlp;

pub use mlp::{Mlp, MlpSpec, OutputNorm};
