//! What a fine-tuning does: the recipe for the kind of encoder and the size of images, and what the user changes of it.
//!
//! Recipes are TOML files in `recipes/vit` and `recipes/resnet`, with the source of their values. Sections `arch`, `training`
//! and `settings` are those of a run's `config.toml`; `scratch` holds what differs in `training` for the encoder that
//! starts at random weights; `few` holds, under the same names, what differs where not all labels are used.

use super::NAME;
use super::labels::Labels;
use crate::config::{self, Config, Monitor};
use crate::evaluate::features::{self, Trained};
use engine::{Error, ErrorKind, Result};
use models::Arch;
use objectives::{DataProfile, Scale, Training};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Everything that determines the results: `config.toml` in the folder of all runs of a fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The run or the file of the encoder.
    pub encoder: PathBuf,
    /// A fingerprint of its weights (64-bit FNV-1a, hexadecimal).
    pub weights: String,
    /// The data, as `pretext datasets` explains.
    pub data: String,
    /// Where the data lies, if not where its source expects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Which training labels are used: see [`Labels`].
    pub labels: String,
    /// The first seed. It chooses the labelled images and everything random in training.
    pub seed: u64,
    /// Runs of each encoder, with consecutive seeds.
    pub seeds: u64,
    /// Epochs between checkpoints.
    pub checkpoint_epochs: usize,
    /// Steps to take instead of `training.epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The encoder. What has no weights may differ from the one that is loaded: `drop_path`, `pool`, `norm_splits`.
    pub arch: Arch,
    /// Optimiser, schedule and batch.
    pub training: Training,
    /// What differs from `training` for the encoder from scratch. Not its length: both have the same budget.
    pub scratch: Table,
    /// [`super::supervised::Settings`].
    pub settings: Table,
}

/// Where an encoder starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With pre-trained weights.
    Trained,
    /// With random ones.
    Scratch,
}

impl Start {
    /// What results and folders call it.
    pub fn name(self) -> &'static str {
        match self {
            Start::Trained => "trained",
            Start::Scratch => "scratch",
        }
    }
}

/// The text of the recipe for a kind of encoder and a size of images.
pub fn recipe(vit: bool, scale: Scale) -> &'static str {
    match (vit, scale) {
        (true, Scale::SmallGrey) => include_str!("recipes/vit/28-grey.toml"),
        (true, Scale::Small) => include_str!("recipes/vit/32.toml"),
        (true, Scale::Medium) => include_str!("recipes/vit/96.toml"),
        (true, Scale::Large) => include_str!("recipes/vit/224.toml"),
        (false, Scale::SmallGrey) => include_str!("recipes/resnet/28-grey.toml"),
        (false, Scale::Small) => include_str!("recipes/resnet/32.toml"),
        (false, Scale::Medium) => include_str!("recipes/resnet/96.toml"),
        (false, Scale::Large) => include_str!("recipes/resnet/224.toml"),
    }
}

/// The recipe for `labels`, its section `few` put where it belongs.
pub fn sections(vit: bool, scale: Scale, labels: Labels) -> Result<Table> {
    let wrong = |e: toml::de::Error| {
        let text = format!("the recipe for {scale:?} images is wrong: {e}");
        Error::new(ErrorKind::Format, "recipe", text)
    };
    let mut table: Table = recipe(vit, scale).parse().map_err(wrong)?;
    if let (Some(Value::Table(few)), true) = (table.remove("few"), labels != Labels::All) {
        config::merge(&mut table, few);
    }
    Ok(table)
}

impl Plan {
    /// The plan for an encoder, from `path`, on training images of `profile`, `labelled` of which are used.
    pub fn new(
        trained: &mut Trained,
        path: &Path,
        data: &str,
        profile: &DataProfile,
        labels: Labels,
        labelled: usize,
    ) -> Result<Plan> {
        let encoder = trained.encoder.as_mut();
        let weights = format!("{:016x}", features::checksum(encoder)?);
        let vit = encoder.vit().is_some();
        let mut sections = sections(vit, Scale::of(profile), labels)?;
        let mut take = |name: &str| match sections.remove(name) {
            Some(Value::Table(table)) => table,
            _ => Table::new(),
        };
        // Parts of a batch that are normalised apart are for contrasting images, not for classifying them.
        let mut arch = config::table(&Arch { norm_splits: None, ..encoder.arch().clone() })?;
        config::merge(&mut arch, take("arch"));
        let training: Training = config::from_table(take("training"))?;
        Ok(Plan {
            encoder: path.into(),
            weights,
            data: data.into(),
            data_dir: None,
            labels: labels.to_string(),
            seed: 1,
            seeds: if labels == Labels::All { 1 } else { 3 },
            checkpoint_epochs: (training.epochs / 20).max(1),
            steps: None,
            arch: config::from_table(arch)?,
            training: Training { batch: training.batch.min(labelled), ..training },
            scratch: take("scratch"),
            settings: take("settings"),
        })
    }

    /// Optimiser, schedule and batch of an encoder that starts so. Errors: a value out of its range, another budget.
    pub fn training(&self, start: Start) -> Result<Training> {
        let mut table = config::table(&self.training)?;
        if start == Start::Scratch {
            if let Some(key) = ["epochs", "batch"].into_iter().find(|key| self.scratch.contains_key(*key)) {
                let text = format!(
                    "scratch.{key} would give the encoder from scratch another budget: set training.{key}"
                );
                return Err(Error::new(ErrorKind::Usage, NAME, text));
            }
            config::merge(&mut table, self.scratch.clone());
        }
        let training: Training = config::from_table(table)?;
        training.check()?;
        Ok(training)
    }

    /// The configuration of one run.
    pub fn config(&self, start: Start, seed: u64) -> Result<Config> {
        Ok(Config {
            method: NAME.into(),
            data: self.data.clone(),
            data_dir: self.data_dir.clone(),
            seed,
            arch: self.arch.clone(),
            training: self.training(start)?,
            steps: self.steps,
            monitor: Monitor { every_epochs: 0, knn_samples: 0, checkpoint_epochs: self.checkpoint_epochs },
            settings: self.settings.clone(),
        })
    }
}
