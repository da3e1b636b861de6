//! Pre-training methods: one file each, and what they share.
//!
//! A method is an [`Objective`] (its networks, its views, its loss) and a [`Method`] entry with its recipes. To add one,
//! write its file, its folder of recipes, and one line in [`METHODS`]: `docs/methods.md` shows how.

pub mod ab_bins;
pub mod block_masks;
pub mod branch;
pub mod byol;
pub mod classify;
pub mod colorization;
pub mod dino;
pub mod dinov2;
pub mod distillation;
pub mod draws;
pub mod holes;
pub mod inpainting;
pub mod jigsaw;
pub mod mae;
pub mod method;
pub mod moco;
pub mod moco_v1;
pub mod moco_v2;
pub mod moco_v3;
pub mod momentum;
pub mod multicrop;
pub mod objective;
pub mod permutations;
pub mod queue;
pub mod relative_position;
pub mod rotation;
pub mod schedule;
pub mod settings;
pub mod simclr;
pub mod tiles;
pub mod training;
pub mod view;

pub use method::{Defaults, Method, Recipes, Scale};
pub use objective::{Batch, DataProfile, Draws, Hold, Loss, Objective, Pictures, Run, Special};
pub use schedule::{CosineSchedule, DeviceSchedule, LearningRate, LinearWarmup, MomentumSchedule};
pub use training::{
    ClipScope, DecayScope, LarsRule, Optimiser, Precision, RateScaling, RateSchedule, Training,
};

use engine::{Error, ErrorKind, Result};

/// Every method.
pub const METHODS: &[Method] = &[
    relative_position::METHOD,
    rotation::METHOD,
    jigsaw::METHOD,
    colorization::METHOD,
    inpainting::METHOD,
    simclr::METHOD,
    moco_v1::METHOD,
    moco_v2::METHOD,
    moco_v3::METHOD,
    byol::METHOD,
    mae::METHOD,
    dino::METHOD,
    dinov2::METHOD,
];

/// The method called `name`; an error that lists all.
#[track_caller]
pub fn find(name: &str) -> Result<&'static Method> {
    METHODS.iter().find(|m| m.name == name).ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
        let text = format!("no method is called '{name}'; there are: {}", names.join(", "));
        Error::new(ErrorKind::Usage, "method", text)
    })
}
