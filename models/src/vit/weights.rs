//! Initial weights of transformers.

use crate::init::zeros;
use crate::{Init, Initializer, Linear};
use engine::{Result, Tensor};

/// Deviation of weights and tokens in [`Init::Normal`]. (Their cut at two in the reference code is a hundred deviations
/// away.)
pub(crate) const STD: f32 = 0.02;

/// A linear layer with a bias of zero. `parts` says of how many matrices, one above the other, its weight consists: three
/// for queries, keys and values.
pub(crate) fn linear(
    kind: Init,
    inputs: usize,
    outputs: usize,
    parts: usize,
    init: &Initializer,
) -> Result<Linear> {
    let weight = match kind {
        Init::Normal => init.normal("weight", &[outputs, inputs], STD)?,
        Init::Xavier => init.xavier_uniform("weight", &[outputs, inputs], inputs, outputs)?,
        Init::XavierSplit => init.xavier_uniform("weight", &[outputs, inputs], inputs, outputs / parts)?,
    };
    Ok(Linear::with(weight, Some(zeros(outputs)?)))
}

/// A class token, register token or mask token of `shape`.
pub(crate) fn token(kind: Init, name: &str, shape: &[usize], init: &Initializer) -> Result<Tensor> {
    let std = if kind == Init::XavierSplit { 1e-6 } else { STD };
    init.normal(name, shape, std)
}
