//! Fine-tuning: a pre-trained encoder and a linear classifier are trained together with labels, beside the same
//! architecture from scratch with the same labels for as long.
//!
//! ViTs follow He et al. 2022 (MAE, table 9): averaged patches, AdamW, layer-wise rates, stochastic depth, mixed batches and
//! soft labels. ResNets follow Chen et al. 2020 (SimCLR, appendix B.8.1): SGD with Nesterov's momentum, no decay. What differs
//! from the papers' code stands in the recipes. The last epoch counts: nothing is chosen on test images.

pub mod labels;
pub mod mixing;
pub mod plan;
pub mod supervised;

use crate::evaluate::features::{self, Trained};
use crate::output::{Output, table};
use crate::train::run::RunFolder;
use crate::train::{self, Ended, Machine, Task};
use autograd::module;
use data::Splits;
use engine::{Error, ErrorKind, Result, safetensors};
use objectives::Objective;
use plan::{Plan, Start};
use serde_json::json;
use std::path::Path;
use supervised::Supervised;

/// What runs, settings and results call it.
pub const NAME: &str = "finetune";

/// What is fine-tuned, on what, and where the runs are kept.
pub struct Job<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// The pre-trained encoder. It is not changed.
    pub trained: &'a mut Trained,
    /// Labelled data.
    pub splits: &'a Splits,
    /// The folder of all runs.
    pub folder: &'a Path,
    /// Whether runs that are there already go on.
    pub resume: bool,
}

/// How one kind of start ended: test top-1 in percent of each seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Where encoders started.
    pub start: Start,
    /// One figure a seed.
    pub top1: Vec<f32>,
}

impl Found {
    /// Mean, and the deviation of a sample (n - 1) where there is more than one figure.
    pub fn summary(&self) -> (f64, Option<f64>) {
        let n = self.top1.len() as f64;
        let mean = self.top1.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let squares: f64 = self.top1.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
        (mean, (self.top1.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
    }
}

/// The encoder and classifier that a run with this seed starts with.
pub fn network(
    plan: &Plan,
    trained: &mut Trained,
    splits: &Splits,
    start: Start,
    seed: u64,
) -> Result<Supervised> {
    let mut encoder = models::build(&plan.arch, trained.encoder.image(), seed)?;
    if start == Start::Trained {
        module::copy(trained.encoder.as_mut(), encoder.as_mut()).map_err(|e| {
            let text = format!(
                "arch is not that of the pre-trained encoder, whose weights do not fit: {}",
                e.message()
            );
            Error::new(ErrorKind::Usage, NAME, text)
        })?;
    }
    let classes = labels::require_labelled(splits)?;
    Supervised::new(&plan.settings, &trained.input, splits.train.channels(), classes, encoder, seed)
}

/// Trains encoders from both starts with every seed. Runs lie in `trained-SEED` and `scratch-SEED` of the folder, each with
/// its encoder. An error of kind `Interrupted` if the user stops.
pub fn run(job: &mut Job, machine: Machine, output: &Output) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for start in [Start::Trained, Start::Scratch] {
        let mut top1 = Vec::new();
        for seed in (0..job.plan.seeds).map(|i| job.plan.seed.wrapping_add(i)) {
            output.event(&json!({"event": "run", "features": start.name(), "seed": seed}));
            let found = single(job, start, seed, machine, output)?;
            output.say(&format!("{}, seed {seed}: {found:.2}", start.name()));
            top1.push(found);
            engine::memory::trim();
        }
        all.push(Found { start, top1 });
    }
    Ok(all)
}

/// One run, in `trained-SEED` or `scratch-SEED` of the folder, and its accuracy on the test images.
pub fn single(job: &mut Job, start: Start, seed: u64, machine: Machine, output: &Output) -> Result<f32> {
    let config = job.plan.config(start, seed)?;
    let train = labels::choose(&job.splits.train, job.plan.labels.parse()?, seed)?;
    let mut objective = network(job.plan, job.trained, job.splits, start, seed)?;
    let path = job.folder.join(format!("{}-{seed}", start.name()));
    let there = job.resume && RunFolder::at(&path).config_path().exists();
    let folder = if there { RunFolder::at(&path) } else { RunFolder::create(&path, &config)? };
    let task = Task { config: &config, folder: &folder, train: &train, labelled: true, resume: job.resume };
    if let (Ended::Stopped(step), _) = train::cost::run(&mut objective, &task, machine, output)? {
        let text = format!(
            "stopped after step {step} of {}-{seed}; everything is saved. To go on: pretext finetune {} --data {} \
             --out {} --resume",
            start.name(),
            job.plan.encoder.display(),
            job.plan.data,
            job.folder.display()
        );
        return Err(Error::new(ErrorKind::Interrupted, NAME, text));
    }
    let origin = match start {
        Start::Trained => format!("{}, fine-tuned", job.trained.origin),
        Start::Scratch => "supervised".into(),
    };
    let contents =
        features::contents(objective.encoder(), &job.trained.input, job.trained.lightness, &origin)?;
    safetensors::save(&folder.encoder_path(), &contents)?;
    objective.accuracy(&job.trained.input, &job.splits.test)
}

/// Prints what was found as a table, or as `result` events; `labelled` images were trained on, of `method`'s encoder.
pub fn show(output: &Output, plan: &Plan, method: &str, labelled: usize, tested: usize, found: &[Found]) {
    let mut lines = Vec::new();
    for row in found {
        let (mean, deviation) = row.summary();
        let round = |v: f64| (v * 100.0).round() / 100.0;
        let mut event = json!({"event": "result", "method": method, "features": row.start.name(), "probe": NAME,
            "labels": plan.labels, "images": labelled, "seeds": row.top1.len(), "top1": round(mean)});
        if let Some(deviation) = deviation {
            event["std"] = json!(round(deviation));
        }
        output.event(&event);
        let name = match row.start {
            Start::Trained => format!("fine-tuned from {method}"),
            Start::Scratch => "same encoder from scratch".into(),
        };
        let deviation = deviation.map_or("-".into(), |deviation| format!("{deviation:.2}"));
        lines.push(vec![name, format!("{mean:.2}"), deviation, row.top1.len().to_string()]);
    }
    let text = table(&["encoder", "top-1", "deviation", "seeds"], &lines);
    output.result(&format!(
        "\n{}: test top-1 in percent, labels {} ({labelled} training, {tested} test images)\n\n{text}",
        plan.data, plan.labels
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_samples() {
        let found = |top1: &[f32]| Found { start: Start::Trained, top1: top1.to_vec() }.summary();
        assert_eq!(found(&[80.0]), (80.0, None));
        assert_eq!(found(&[79.0, 81.0, 83.0]), (81.0, Some(2.0)));
    }
}
