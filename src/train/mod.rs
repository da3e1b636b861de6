//! Training: the loop, what it measures on the way, and how it stops and goes on.

pub mod checkpoint;
pub mod cost;
pub mod events;
pub mod history;
pub mod input;
pub mod interrupt;
pub mod monitor;
pub mod pictures;
pub mod run;
pub mod step;

use crate::config::Config;
use crate::evaluate::features::{BATCH, spread};
use crate::output::Output;
use autograd::optim::{Algorithm, Optimizer, Rule};
use autograd::{Module, module};
use checkpoint::Position;
use data::{Dataset, Evaluation};
use engine::{Device, Error, ErrorKind, Result, Tensor};
use input::Input;
use kernels::augment::Recipe;
use kernels::matmul::{Float32Products, set_float32_products};
use kernels::optim::LarsVariant;
use models::ImageShape;
use monitor::Monitor;
use objectives::{
    DataProfile, DecayScope, LarsRule, Objective, Optimiser, Precision, Run, Special, Training,
};
use pictures::Album;
use run::{Metrics, RunFolder};
use std::collections::BTreeMap;
use std::sync::Arc;
use step::Stepper;

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
    let image = ImageShape { channels: method.encoder_channels(profile.channels), ..image(profile) };
    let encoder = models::build(&config.arch, image, config.seed)?;
    (method.build)(&config.settings, profile, encoder, config.seed)
}

/// The size of the images.
fn image(profile: &DataProfile) -> ImageShape {
    ImageShape { height: profile.height, width: profile.width, channels: profile.channels }
}

/// What concerns this call alone and leaves results as they are.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Where networks are trained.
    pub device: Device,
    /// Loader threads; 0 makes batches when they are asked for.
    pub workers: usize,
    /// Whether the step is captured as a CUDA graph.
    pub graph: bool,
    /// Stop and save after this step of the run, as Ctrl-C would.
    pub stop_after: Option<u64>,
}

/// How a call of [`run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Complete,
    /// The user stopped it after this step; the checkpoint is written.
    Stopped(u64),
}

/// What is trained on, and where the run is kept.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Optimiser, schedule, length, seed.
    pub config: &'a Config,
    /// The run's folder.
    pub folder: &'a RunFolder,
    /// The training images.
    pub train: &'a Arc<dyn Dataset>,
    /// Whether the objective gets their labels, i32 [B], in front of its draws.
    pub labelled: bool,
    /// Whether to go on from the checkpoint in the folder, if there is one.
    pub resume: bool,
}

/// Trains `objective`, whose weights are fresh, until the configured number of steps.
pub fn run(objective: &mut dyn Objective, task: &Task, machine: Machine, output: &Output) -> Result<Ended> {
    let Task { config, folder, train, labelled, resume } = *task;
    let training = &config.training;
    let checkpoint_path = folder.checkpoint_path();
    if !(resume && checkpoint_path.exists()) {
        objective.prepare(&mut survey(train, objective.views()))?;
    }
    place(objective.networks(), training.precision, machine)?;
    let mut input = Input::new(config, objective, train, labelled, machine)?;
    let Run { steps, steps_per_epoch: per_epoch, .. } = *input.run();
    objective.begin(input.run())?;
    let mut optimizer = optimizer(training, objective);
    let mut position = Position::default();
    if resume && checkpoint_path.exists() {
        position = checkpoint::load(&checkpoint_path, objective, &mut optimizer)?;
        output.say(&format!("going on from step {} of {steps}", position.step));
    }
    let mut metrics = Metrics::open(&folder.metrics_path(), position.metrics)?;
    let mut monitor = Monitor::new(&config.monitor, train, objective, output, steps)?;
    let album = Album::new(folder, train, objective, input.run())?;
    monitor.start(position.step);
    interrupt::listen();
    let first = position.step;
    let (mut step, mut shown) = (first, first);
    let networks = objective.networks();
    let mut stepper = Stepper::new(networks, optimizer, training, steps, first, machine.graph)?;
    'epochs: while step < steps {
        let epoch = (step / per_epoch) as usize;
        input.begin(epoch, step % per_epoch)?;
        while input.advance()? {
            let embeddings = stepper.step(objective, || input.current())?;
            step += 1;
            let epoch_ended = step % per_epoch == 0;
            let done = step == steps;
            let stop = (interrupt::asked() || machine.stop_after.is_some_and(|s| step >= s)) && !done;
            if step - shown == stepper.rows() || epoch_ended || done || stop {
                let events = stepper.events(shown..step, per_epoch)?;
                for event in &events {
                    event.require_finite(&checkpoint_path)?;
                    metrics.push(&event.json);
                    output.event(&event.json);
                }
                if let Some(event) = events.last() {
                    monitor.steps(step, event, training.batch * events.len());
                }
                shown = step;
            }
            if epoch_ended || done {
                if monitor.is_due(epoch + 1, done) {
                    album.add(objective, step)?;
                }
                monitor.epoch(&mut metrics, objective, &embeddings, step, epoch + 1, done)?;
            }
            let due = epoch_ended && (epoch + 1).is_multiple_of(config.monitor.checkpoint_epochs.max(1));
            if done || stop || due {
                position = Position { step, metrics: metrics.flush()? };
                checkpoint::save(&checkpoint_path, objective, stepper.optimizer(), position)?;
            }
            if done || stop {
                break 'epochs;
            }
        }
    }
    monitor.finish(first, step);
    Ok(if step < steps { Ended::Stopped(step) } else { Ended::Complete })
}

/// Images that a method looks at before it is trained.
const SURVEYED: usize = 4096;

/// Batches of training images, evenly spread, whole and at the size of the first view. Made when they are asked for.
fn survey(train: &Arc<dyn Dataset>, views: &[Recipe]) -> impl Iterator<Item = Result<Tensor>> + use<> {
    let recipe = views.first().map(evaluated);
    let batches = recipe.map(|recipe| Evaluation::new(spread(train, SURVEYED)?, recipe, BATCH));
    let (batches, failed) = match batches.transpose() {
        Ok(batches) => (batches, None),
        Err(error) => (None, Some(Err(error))),
    };
    let first = |batch: Result<data::Batch>| {
        batch.and_then(|batch| {
            let view = batch.views.into_iter().next();
            view.ok_or_else(|| Error::value("pretrain", "a batch of images has no view"))
        })
    };
    failed.into_iter().chain(batches.into_iter().flatten().map(first))
}

/// A view of the whole image, without randomness, of the size and normalisation of another.
fn evaluated(view: &Recipe) -> Recipe {
    Recipe { normalize: view.normalize.clone(), ..Recipe::evaluation(view.height, view.width) }
}

/// Moves networks to the device, and prepares them for computing in `precision`.
fn place(networks: &mut dyn Module, precision: Precision, machine: Machine) -> Result<()> {
    let usage = |text: &str| Err(Error::new(ErrorKind::Usage, "training", text));
    if machine.device == Device::Cpu {
        if machine.graph {
            return usage("--graph captures a step on a CUDA device: add --device cuda, or emulated");
        }
        if precision != Precision::F32 {
            return usage("the CPU trains in f32 alone: leave out training.precision, or add --device cuda");
        }
    }
    set_float32_products(match precision {
        Precision::Tf32 => Float32Products::Tf32,
        Precision::F32 | Precision::Bf16 => Float32Products::Exact,
    });
    module::to_device(networks, machine.device)?;
    match precision {
        Precision::F32 | Precision::Tf32 => Ok(()),
        Precision::Bf16 => module::keep_low(networks),
    }
}

/// The optimiser that the settings and the method describe, after `Objective::begin`.
pub fn optimizer(training: &Training, objective: &mut dyn Objective) -> Optimizer {
    let names = module::parts(objective.networks()).params.into_iter().map(|(name, _)| name);
    let names: Vec<String> = names.collect();
    let top = objective.encoder().layers() - 1;
    let mut specials = BTreeMap::new();
    for name in names {
        let mut special = objective.special(&name);
        if let (Some(decay), Some(inner)) = (training.layer_decay, name.strip_prefix("encoder.")) {
            let below = top - objective.encoder().layer_of(inner);
            special.rate_scale *= decay.powi(below as i32);
        }
        specials.insert(name, special);
    }
    let all = training.decay_scope == DecayScope::All;
    Optimizer::new(algorithm(training), training.weight_decay).with_rules(move |name, param| {
        let Special { rate_scale, hold, group, optimiser } = specials.get(name).copied().unwrap_or_default();
        let usual = Rule::of(param);
        let weight_decay = match optimiser {
            Some(_) => 0.0,
            None if all => 1.0,
            None => usual.weight_decay,
        };
        Rule { weight_decay, rate_scale, hold, group, algorithm: optimiser, ..usual }
    })
}

/// The update rule that the settings describe.
fn algorithm(training: &Training) -> Algorithm {
    let momentum = training.momentum;
    match training.optimiser {
        Optimiser::Sgd => Algorithm::Sgd { momentum, nesterov: training.nesterov },
        Optimiser::Lars => {
            let variant = match training.lars {
                None | Some(LarsRule::Simclr) => LarsVariant::Simclr,
                Some(LarsRule::Byol) => LarsVariant::Byol,
                Some(LarsRule::Lightly) => LarsVariant::Lightly,
            };
            Algorithm::Lars { momentum, trust: training.trust, variant }
        }
        Optimiser::AdamW => Algorithm::AdamW { betas: (momentum, training.second_moment), eps: 1e-8 },
    }
}
