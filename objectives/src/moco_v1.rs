//! MoCo (He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning"): [`crate::moco`] with one
//! linear layer as projector, no normalisation in it.

use crate::moco::{Moco, Settings};
use crate::settings::parse;
use crate::{DataProfile, Method, Objective, recipes};
use engine::Result;
use models::{Encoder, MlpSpec};
use toml::Table;

/// MoCo's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "moco-v1",
    summary: "a view is recognised among a queue of keys, which a slowly moving copy of the encoder makes",
    reference: "He et al. 2020, Momentum Contrast for Unsupervised Visual Representation Learning",
    recipes: recipes!("moco-v1"),
    lightness: false,
    build,
};

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    let settings: Settings = parse(METHOD.name, given)?;
    let dim = settings.dim;
    let projector = move |inputs| MlpSpec::moco_v1(inputs, dim);
    Ok(Box::new(Moco::new(METHOD.name, settings, profile, encoder, projector, seed)?))
}
