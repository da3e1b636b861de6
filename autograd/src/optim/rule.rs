//! What holds for one parameter.

use super::{Algorithm, Hold};
use crate::Param;
use crate::param::Role;

/// How an optimiser treats one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Multiplies the optimiser's weight decay: 0 for parameters that do not decay.
    pub weight_decay: f32,
    /// Multiplies the learning rate, for layer-wise rates.
    pub rate_scale: f32,
    /// Whether LARS' trust ratio applies.
    pub adapt: bool,
    /// Whether training of it starts later.
    pub hold: Hold,
    /// The parameters whose gradients are clipped together under [`super::Scope::Group`].
    pub group: u32,
    /// Another update rule than the optimiser's: an adversary is trained by its own.
    pub algorithm: Option<Algorithm>,
}

impl Rule {
    /// What all methods have in common: weights and tokens decay and adapt, biases and normalisations do not.
    pub fn of(param: &Param) -> Rule {
        let is_weight = match param.role() {
            Role::Weight | Role::Token => true,
            Role::Bias | Role::Norm => false,
        };
        Rule {
            weight_decay: if is_weight { 1.0 } else { 0.0 },
            rate_scale: 1.0,
            adapt: is_weight,
            hold: Hold::None,
            group: 0,
            algorithm: None,
        }
    }
}
