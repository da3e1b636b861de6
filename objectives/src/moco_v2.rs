//! MoCo v2 (Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning"): [`crate::moco`] with SimCLR's
//! views and a projector of two linear layers, no normalisation in it.

use crate::moco::{Moco, Settings};
use crate::settings::parse;
use crate::{DataProfile, Method, Objective, recipes};
use engine::Result;
use models::{Encoder, MlpSpec};
use toml::Table;

/// MoCo v2's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "moco-v2",
    summary: "MoCo with a deeper projector and stronger augmentation",
    reference: "Chen et al. 2020, Improved Baselines with Momentum Contrastive Learning",
    recipes: recipes!("moco-v2"),
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
    let projector = move |inputs| MlpSpec::moco_v2(inputs, dim);
    Ok(Box::new(Moco::new(METHOD.name, settings, profile, encoder, projector, seed)?))
}
