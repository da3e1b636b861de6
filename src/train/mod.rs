//! Pre-training: the loop, what it measures on the way, and how it stops and goes on.

pub mod checkpoint;
pub mod interrupt;
pub mod monitor;
pub mod run;

use crate::config::Config;
use crate::output::Output;
use autograd::optim::{Algorithm, Optimizer};
use checkpoint::Position;
use data::{Dataset, Loader, LoaderOptions, Splits};
use engine::{Error, ErrorKind, Result};
use kernels::optim::LarsVariant;
use monitor::Monitor;
use objectives::{CosineSchedule, DataProfile, Objective, Optimiser, Progress, Training};
use run::{Metrics, RunFolder};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// What the data looks like to methods. An error if images differ in size.
pub fn profile(dataset: &dyn Dataset) -> Result<DataProfile> {
    let [height, width] = dataset
        .size()
        .ok_or_else(|| Error::value("data", format!("{}: images must have one size", dataset.name())))?;
    Ok(DataProfile { height, width, channels: dataset.channels(), len: dataset.len() })
}

/// Builds the method that a configuration describes, with fresh weights.
pub fn build(config: &Config, profile: &DataProfile) -> Result<Box<dyn Objective>> {
    let method = objectives::find(&config.method)?;
    let encoder = models::build(&config.arch.name, profile.channels, config.arch.width, config.seed)?;
    (method.build)(&config.settings, profile, encoder, config.seed)
}

/// What concerns this call alone and leaves results as they are.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Loader threads; 0 makes batches when they are asked for.
    pub workers: usize,
    /// Stop and save after this step of the run, as Ctrl-C would.
    pub stop_after: Option<u64>,
}

/// How a call of [`pretrain`] ended.
pub enum Ended {
    /// All steps are done.
    Complete(Box<dyn Objective>),
    /// The user stopped it; the checkpoint is written.
    Stopped(u64),
}

/// Trains until the configured number of steps, from the checkpoint in `folder` if `resume` is set.
pub fn pretrain(
    config: &Config,
    folder: &RunFolder,
    splits: &Splits,
    resume: bool,
    machine: Machine,
    output: &Output,
) -> Result<Ended> {
    let profile = profile(splits.train.as_ref())?;
    let mut objective = build(config, &profile)?;
    let training = &config.training;
    let mut optimizer = Optimizer::new(algorithm(training), training.weight_decay);
    let loader = loader(config, objective.as_ref(), &splits.train, machine)?;
    let per_epoch = loader.steps_per_epoch() as u64;
    let steps = config.steps.unwrap_or(per_epoch * training.epochs as u64);
    let mut position = Position::default();
    let checkpoint_path = folder.checkpoint_path();
    if resume && checkpoint_path.exists() {
        position = checkpoint::load(&checkpoint_path, objective.as_mut(), &mut optimizer)?;
        output.say(&format!("going on from step {} of {steps}", position.step));
    }
    let mut metrics = Metrics::open(&folder.metrics_path(), position.metrics)?;
    let schedule = CosineSchedule::learning_rate(training, steps);
    let mut monitor = Monitor::new(&config.monitor, &splits.train, objective.as_ref(), output, steps)?;
    monitor.start(position.step);
    interrupt::listen();
    let first = position.step;
    let mut step = position.step;
    'epochs: while step < steps {
        let epoch = (step / per_epoch) as usize;
        for batch in loader.epoch(epoch, (step % per_epoch) as usize)? {
            let batch = batch?;
            let progress = Progress { step, steps, epoch };
            let loss = objective.loss(&batch.views, &progress)?;
            let value = loss.value.value().item()?;
            if !value.is_finite() {
                return Err(not_finite("loss", value, step, &checkpoint_path));
            }
            loss.value.backward()?;
            let rate = schedule.at(step) as f32;
            let norm = optimizer.step(objective.networks(), rate, training.clip)?;
            if !norm.is_finite() {
                return Err(not_finite("norm of the gradients", norm, step, &checkpoint_path));
            }
            objective.after_step(&progress)?;
            step += 1;
            let mut event = json!({"event": "step", "step": step, "epoch": epoch, "loss": value, "rate": rate,
                "gradient_norm": norm});
            for (name, signal) in &loss.signals {
                event[*name] = json!(signal.item()?);
            }
            metrics.push(&event);
            output.event(&event);
            let epoch_ended = step % per_epoch == 0;
            monitor.step(step, value, training.batch);
            let done = step == steps;
            if epoch_ended || done {
                monitor.epoch(&mut metrics, objective.as_mut(), &loss.embeddings, step, epoch + 1, done)?;
            }
            let stop = (interrupt::asked() || machine.stop_after.is_some_and(|s| step >= s)) && !done;
            let due = epoch_ended && (epoch + 1).is_multiple_of(config.monitor.checkpoint_epochs.max(1));
            if done || stop || due {
                position = Position { step, metrics: metrics.flush()? };
                checkpoint::save(&checkpoint_path, objective.as_mut(), &optimizer, position)?;
            }
            if stop {
                monitor.finish(first, step);
                return Ok(Ended::Stopped(step));
            }
            if done {
                break 'epochs;
            }
        }
    }
    monitor.finish(first, step);
    Ok(Ended::Complete(objective))
}

/// The update rule that the settings describe.
fn algorithm(training: &Training) -> Algorithm {
    let momentum = training.momentum;
    match training.optimiser {
        Optimiser::Sgd => Algorithm::Sgd { momentum, nesterov: training.nesterov },
        Optimiser::Lars => Algorithm::Lars { momentum, trust: training.trust, variant: LarsVariant::Simclr },
        Optimiser::AdamW => Algorithm::AdamW { betas: (momentum, training.second_moment), eps: 1e-8 },
    }
}

fn loader(
    config: &Config,
    objective: &dyn Objective,
    train: &Arc<dyn Dataset>,
    machine: Machine,
) -> Result<Loader> {
    let options = LoaderOptions {
        batch: config.training.batch,
        seed: config.seed,
        workers: machine.workers,
        drop_last: true,
        prefetch: machine.workers.max(1) + 1,
    };
    Loader::new(train.clone(), objective.views().to_vec(), options)
}

fn not_finite(what: &str, value: f32, step: u64, checkpoint: &Path) -> Error {
    let kept = match checkpoint.exists() {
        true => format!("The last good checkpoint, {}, is kept", checkpoint.display()),
        false => "No checkpoint was written yet".into(),
    };
    Error::new(
        ErrorKind::Value,
        "pretrain",
        format!(
            "the {what} is {value} at step {}. {kept}. A lower training.learning_rate, a longer \
             training.warmup_epochs or training.clip=1 usually cures this",
            step + 1
        ),
    )
}
