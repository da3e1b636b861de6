//! Layers with parameters: convolution, normalisation, linear.

mod batch_norm;
mod conv2d;
mod conv_transpose2d;
mod layer_norm;
mod linear;

pub use batch_norm::{Activation, BatchNorm, conv_norms};
pub use conv_transpose2d::ConvTranspose2d;
pub use conv2d::Conv2d;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
