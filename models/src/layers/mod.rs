//! Layers with parameters: convolution, batch normalisation, linear.

mod batch_norm;
mod conv2d;
mod linear;

pub use batch_norm::{Activation, BatchNorm};
pub use conv2d::Conv2d;
pub use linear::Linear;
