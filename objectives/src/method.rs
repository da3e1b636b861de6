//! An entry of the list of methods, and the recipes that say how it is trained unless told otherwise.
//!
//! Recipes are TOML files in `recipes/METHOD/`, one for each size of images, with the source of their values. They hold
//! what a run's `config.toml` holds in its sections `arch`, `training` and `settings`.

use crate::{DataProfile, Objective, Training};
use engine::{Error, ErrorKind, Result};
use models::{Arch, Encoder};
use serde::Deserialize;
use toml::Table;

/// The sizes of images that recipes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Grey images below 64 pixels, in minutes on a CPU.
    SmallGrey,
    /// Colour images below 64 pixels: CIFAR.
    Small,
    /// Below 160 pixels: STL-10, Imagenette.
    Medium,
    /// ImageNet.
    Large,
}

impl Scale {
    /// All, from small to large.
    pub const ALL: [Scale; 4] = [Scale::SmallGrey, Scale::Small, Scale::Medium, Scale::Large];

    /// The scale of these images.
    pub fn of(profile: &DataProfile) -> Scale {
        match (profile.side(), profile.channels) {
            (160.., _) => Scale::Large,
            (64.., _) => Scale::Medium,
            (_, 1) => Scale::SmallGrey,
            _ => Scale::Small,
        }
    }
}

/// The texts of a method's recipes.
#[derive(Debug, Clone, Copy)]
pub struct Recipes {
    /// `28-grey.toml`
    pub small_grey: &'static str,
    /// `32.toml`
    pub small: &'static str,
    /// `96.toml`
    pub medium: &'static str,
    /// `224.toml`
    pub large: &'static str,
}

/// The recipes of the method whose folder is named.
#[macro_export]
macro_rules! recipes {
    ($folder:literal) => {
        $crate::method::Recipes {
            small_grey: include_str!(concat!("../recipes/", $folder, "/28-grey.toml")),
            small: include_str!(concat!("../recipes/", $folder, "/32.toml")),
            medium: include_str!(concat!("../recipes/", $folder, "/96.toml")),
            large: include_str!(concat!("../recipes/", $folder, "/224.toml")),
        }
    };
}

/// What a recipe says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The encoder.
    pub arch: Arch,
    /// Optimiser, schedule and batch.
    pub training: Training,
    /// The method's own settings: all that there are.
    pub settings: Table,
}

/// Makes an objective from its own settings (all of them), the data's profile, the encoder to train and the seed of what
/// else it has.
pub type Build = fn(&Table, &DataProfile, Box<dyn Encoder>, u64) -> Result<Box<dyn Objective>>;

/// An entry of the list of methods.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// What the command line calls it.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// The paper.
    pub reference: &'static str,
    /// How it is trained unless told otherwise.
    pub recipes: Recipes,
    /// Whether the encoder sees lightness alone: one channel, (L - 50) / 100 in Lab, of images in colour.
    pub lightness: bool,
    /// Makes it.
    pub build: Build,
}

impl Method {
    /// Channels that the encoder takes where images have `channels`.
    pub fn encoder_channels(&self, channels: usize) -> usize {
        if self.lightness { 1 } else { channels }
    }

    /// The text of the recipe for a scale.
    pub fn recipe(&self, scale: Scale) -> &'static str {
        match scale {
            Scale::SmallGrey => self.recipes.small_grey,
            Scale::Small => self.recipes.small,
            Scale::Medium => self.recipes.medium,
            Scale::Large => self.recipes.large,
        }
    }

    /// The defaults for this data.
    pub fn defaults(&self, profile: &DataProfile) -> Result<Defaults> {
        let scale = Scale::of(profile);
        toml::from_str(self.recipe(scale)).map_err(|e| {
            let text = format!("the recipe of {} for {scale:?} images is wrong: {e}", self.name);
            Error::new(ErrorKind::Format, "recipe", text)
        })
    }
}
