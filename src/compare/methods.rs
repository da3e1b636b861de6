//! One method's turn: trained for its budget, evaluated, its result written down.

use super::measure::{self, Scores};
use super::{Budget, Plan, budget, once, read_json, write_json};
use crate::commands::pretrain;
use crate::config::{self, Config, Monitor, Overrides};
use crate::evaluate::features::{self, Trained};
use crate::evaluate::floors;
use crate::output::Output;
use crate::train::run::RunFolder;
use crate::train::{self, Ended, Machine, Task, cost::Cost};
use autograd::module;
use data::Splits;
use engine::{Error, ErrorKind, Result, safetensors};
use objectives::Method;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Images, and what is the same for all methods.
pub struct Setting<'a> {
    /// What the comparison is.
    pub plan: &'a Plan,
    /// Its folder.
    pub folder: &'a Path,
    /// The images, all of them labelled.
    pub splits: &'a Splits,
    /// The labelled images of each choice of few.
    pub chosen: Vec<Vec<usize>>,
    /// Where to compute.
    pub machine: Machine,
}

/// What came of a method: `result.json` in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The method.
    pub method: String,
    /// Its encoder's architecture, by name.
    pub arch: String,
    /// Encoders with the same key are built, fed and probed alike: they share their floors.
    pub key: String,
    /// What its training cost.
    pub cost: Cost,
    /// What its features are worth.
    pub scores: Scores,
}

/// What becomes of a method in a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was trained and evaluated.
    Found(Found),
    /// It cannot be trained on this data, or failed: why.
    Failed {
        /// The method.
        method: String,
        /// The error.
        reason: String,
    },
}

/// Accuracies without learnt features, for one kind of encoder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// Pixels as the encoder sees them.
    pub pixels: Scores,
    /// The same encoder at random, with batch-norm statistics of the training images.
    pub random: Scores,
    /// The same with batch norm unset, where there is any: brightness passes through, which can be worth more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unset: Option<Scores>,
}

impl Floors {
    /// What an encoder at random is worth at most, by a score.
    pub fn random_by(&self, score: impl Fn(&Scores) -> f64) -> f64 {
        self.unset.iter().map(&score).fold(score(&self.random), f64::max)
    }
}

/// Pre-trains a method where it was not yet, and evaluates it. What the user must know goes to `output`.
///
/// Errors that concern the method alone are its outcome; a user who stops, and a disk that fails, are errors.
pub fn run(setting: &Setting, method: &Method, output: &Output) -> Result<Outcome> {
    let folder = setting.folder.join(method.name);
    let path = folder.join("result.json");
    if let Some(found) = read_json(&path)? {
        return Ok(found);
    }
    let outcome = match pretrain(setting, method, &folder, output) {
        Ok(found) => Outcome::Found(found),
        Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Io | ErrorKind::Format) => {
            return Err(error);
        }
        Err(error) => {
            let reason = error.message().to_string();
            output.say(&format!("{}: {reason}", method.name));
            Outcome::Failed { method: method.name.into(), reason }
        }
    };
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("make the folder", &folder, e))?;
    write_json(&path, &outcome)?;
    Ok(outcome)
}

fn pretrain(setting: &Setting, method: &Method, path: &Path, output: &Output) -> Result<Found> {
    let Setting { plan, splits, machine, .. } = setting;
    let profile = train::profile(splits.train.as_ref())?;
    let there = RunFolder::at(path);
    let (config, folder) = match there.config_path().exists() {
        true => (config::read::<Config>(&there.config_path())?, there),
        false => {
            let mut base = config::defaults(method, &plan.data, &profile)?;
            base.data_dir = plan.data_dir.clone();
            base.seed = plan.seed;
            let overrides = Overrides { set: plan.set.clone(), ..Overrides::default() };
            let mut config = config::apply(&base, &overrides)?;
            train::build(&config, &profile)?;
            config.training.check()?;
            let short = setting.folder.join(format!("{}-steps", method.name));
            let steps = budget::steps(plan.budget, &config, &splits.train, false, *machine, &short, || {
                train::build(&config, &profile)
            })?;
            config.steps = Some(steps);
            config.monitor = Monitor { every_epochs: 0, knn_samples: 0, checkpoint_epochs: 1 };
            let folder = RunFolder::create(path, &config)?;
            (config, folder)
        }
    };
    output.say(&format!("{}: {} steps of {}", method.name, config.steps.unwrap_or(0), config.training.batch));
    let mut objective = train::build(&config, &profile)?;
    let task = Task { config: &config, folder: &folder, train: &splits.train, labelled: false, resume: true };
    let (ended, cost) = train::cost::run(objective.as_mut(), &task, *machine, output)?;
    if let Ended::Stopped(step) = ended {
        let text = format!(
            "stopped after step {step} of {}; everything is saved: the same command goes on",
            method.name
        );
        return Err(Error::new(ErrorKind::Interrupted, "compare", text));
    }
    safetensors::save(&folder.encoder_path(), &pretrain::encoder(&config, &profile, objective.as_mut())?)?;
    drop(objective);
    engine::memory::trim();
    let mut trained = features::load(&folder.encoder_path())?;
    module::to_device(trained.encoder.as_mut(), machine.device)?;
    let (train, test) = (trained.sees(&splits.train)?, trained.sees(&splits.test)?);
    let (encoder, chosen) = (trained.encoder.as_mut(), &setting.chosen);
    let scores = measure::encoder(encoder, &trained.input, [&train, &test], chosen, plan.seed)?;
    let arch = trained.encoder.arch().name.clone();
    Ok(Found { method: method.name.into(), arch, key: key(&trained)?, cost, scores })
}

/// What encoders share that are built, fed and probed alike: 64-bit FNV-1a, hexadecimal.
fn key(trained: &Trained) -> Result<String> {
    let arch = serde_json::to_string(trained.encoder.arch())
        .map_err(|e| Error::value("compare", format!("an architecture cannot be written as JSON: {e}")))?;
    let text = format!("{arch} {:?} {:?} {}", trained.encoder.image(), trained.input, trained.lightness);
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    Ok(format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, hash)))
}

/// The floors of a method's kind of encoder.
pub fn floors(setting: &Setting, found: &Found) -> Result<Floors> {
    once(&setting.folder.join(format!("floors-{}.json", found.key)), || {
        let Setting { splits, chosen, plan, machine, .. } = setting;
        let trained = encoder(setting, found)?;
        let mut random = models::build(trained.encoder.arch(), trained.encoder.image(), plan.seed)?;
        module::to_device(random.as_mut(), machine.device)?;
        let (train, test) = (trained.sees(&splits.train)?, trained.sees(&splits.test)?);
        let mut unset = None;
        if floors::has_statistics(random.as_mut()) {
            unset =
                Some(measure::encoder(random.as_mut(), &trained.input, [&train, &test], chosen, plan.seed)?);
            features::calibrate(random.as_mut(), &trained.input, &train, plan.seed)?;
        }
        let random = measure::encoder(random.as_mut(), &trained.input, [&train, &test], chosen, plan.seed)?;
        let (train, test) =
            (features::pixels(&trained.input, &train)?, features::pixels(&trained.input, &test)?);
        Ok(Floors { random, unset, pixels: measure::scores(&train, &test, chosen, plan.seed)? })
    })
}

/// The encoder that a method left.
pub fn encoder(setting: &Setting, found: &Found) -> Result<Trained> {
    features::load(&RunFolder::at(&setting.folder.join(&found.method)).encoder_path())
}

impl Budget {
    /// In words.
    pub fn describe(self) -> String {
        match self {
            Budget::Minutes(1.0) => "1 minute".into(),
            Budget::Minutes(minutes) => format!("{minutes} minutes"),
            Budget::Steps(steps) => format!("{steps} steps"),
        }
    }
}
