//! What MoCo v1 and v2 share: a query encoder, a key encoder that follows it, and a queue of keys.
//!
//! One view of each image is the query, the other the key. With unit vectors, `loss = -log exp(q . k / t) / (exp(q . k / t) +
//! sum over the queue of exp(q . k' / t))` (He et al. 2020, eq. 1). The order of a step is that of facebookresearch/moco:
//! the key encoder moves (with the queries' weights of the step before), keys are computed without a gradient, the logits
//! are computed, the optimiser steps, and only then do the keys enter the queue.
//!
//! Batch normalisation leaks: within a batch that is normalised together, statistics say which key belongs to which query.
//! So keys are computed in a random order (Shuffling BN, section 3.3) by encoders whose normalisation sees parts of the batch
//! (`arch.norm_splits`): a query's part is not its key's part. A shuffled batch that is normalised as a whole would change
//! nothing.

use crate::branch::{Branch, mean_cosine, unit};
use crate::draws::{self, DroppedBranches};
use crate::momentum::{follow, without_history};
use crate::queue::KeyQueue;
use crate::settings::{at_least_one, not_begun, part, positive, require, require_channels};
use crate::view::{Statistics, View};
use crate::{Batch, DataProfile, DeviceSchedule, Draws, Loss, Objective, Run};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, no_grad, ops};
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::augment::Recipe;
use kernels::copy;
use models::{Encoder, MlpSpec};
use serde::Deserialize;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Divides the cosines.
    pub temperature: f32,
    /// What the key encoder keeps of itself at a step.
    pub momentum: f32,
    /// Keys in the queue, a multiple of the batch.
    pub queue: usize,
    /// Size of the vectors that are compared.
    pub dim: usize,
    /// What views are normalised by.
    pub normalize: Statistics,
    /// Both views.
    pub view: View,
}

/// MoCo v1 or v2 at work: they differ in the projector.
pub struct Moco {
    name: &'static str,
    settings: Settings,
    seed: u64,
    images: usize,
    splits: usize,
    normalises: bool,
    views: [Recipe; 2],
    dropped: Option<DroppedBranches>,
    networks: Networks,
    schedules: Option<Schedules>,
    /// The keys of a step, until they enter the queue.
    fresh: Option<Tensor>,
    /// Whether the queue is as long as the data.
    stale: bool,
}

struct Schedules {
    momentum: DeviceSchedule,
    age: DeviceSchedule,
}

struct Networks {
    query: Branch,
    key: Branch,
    queue: KeyQueue,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.query.visit(path, visitor);
        self.key.visit(&path.child("key"), visitor);
        visitor.buffer(path.name("queue"), self.queue.buffer());
    }
}

impl Moco {
    /// MoCo around `encoder`. `projector` describes the projector for features of a size.
    #[track_caller]
    pub fn new(
        name: &'static str,
        settings: Settings,
        profile: &DataProfile,
        encoder: Box<dyn Encoder>,
        projector: impl FnOnce(usize) -> MlpSpec,
        seed: u64,
    ) -> Result<Moco> {
        require(
            name,
            &[
                positive("temperature", settings.temperature),
                part("momentum", settings.momentum),
                at_least_one("queue", settings.queue),
                at_least_one("dim", settings.dim),
            ],
        )?;
        require_channels(name, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let view = settings.view.recipe(name, "view", profile, &normalize)?;
        let dropped = DroppedBranches::of(encoder.as_ref(), seed, 0);
        let splits = encoder.arch().norm_splits.unwrap_or(1);
        let projector = projector(encoder.dim());
        let mut query = Branch::new(encoder, projector, seed)?;
        let key = query.follower(projector)?;
        let normalises = query.encoder.vit().is_none();
        let queue = KeyQueue::new(settings.queue, settings.dim, seed)?;
        let networks = Networks { query, key, queue };
        let views = [view.clone(), view];
        Ok(Moco {
            name,
            settings,
            seed,
            images: profile.len,
            splits,
            normalises,
            views,
            dropped,
            networks,
            schedules: None,
            fresh: None,
            stale: false,
        })
    }

    /// The keys [B, D] of images that come in the order `order`; `back` is its inverse.
    fn keys(&mut self, images: &Tensor, order: &Tensor, back: &Tensor) -> Result<Var> {
        let _off = no_grad();
        let [batch, height, width, channels] = *images.shape() else {
            return Err(Error::shape(self.name, "views are [B, H, W, C]").argument("view", images));
        };
        let rows = images.reshape(&[batch, height * width * channels])?;
        let shuffled = copy::gather_rows(&rows, order)?.reshape(images.shape())?;
        let k = unit(&self.networks.key.project(&shuffled, None)?)?;
        without_history(self.name, ops::gather_rows(&k, &Var::constant(back.clone()))?)
    }
}

/// The mean InfoNCE of unit vectors q [B, D] with keys k [B, D] and a queue [K, D] of negatives.
#[track_caller]
pub fn info_nce(q: &Var, k: &Var, queue: &Tensor, temperature: f32) -> Result<Var> {
    let queue = Var::constant(queue.clone());
    let rows = ops::ntxent(q, &queue, ops::Positive::Vector(k), temperature, None)?;
    ops::mean(&rows, &[0])
}

impl Objective for Moco {
    fn name(&self) -> &'static str {
        self.name
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (seed, batch, len, dropped) = (self.seed, run.batch, self.settings.queue, self.dropped.clone());
        Ok(Some(Box::new(move |step| {
            let [order, back] = draws::order(seed, step, batch)?;
            let mut drawn = vec![order, back, KeyQueue::rows(len, step, batch)?];
            if let Some(dropped) = &dropped {
                drawn.push(dropped.draw(step, batch)?);
            }
            Ok(drawn)
        })))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        let (len, batch) = (self.settings.queue, run.batch);
        let wrong = |text: String| Err(Error::new(ErrorKind::Usage, format!("{} settings", self.name), text));
        if !len.is_multiple_of(batch) {
            return wrong(format!("queue must be a multiple of training.batch: {len} is none of {batch}"));
        }
        if self.normalises && !batch.is_multiple_of(self.splits) {
            return wrong(format!(
                "training.batch must be a multiple of arch.norm_splits: {batch} is none of {}",
                self.splits
            ));
        }
        let momentum = f64::from(self.settings.momentum);
        let full = (len / batch) as u64;
        self.stale = len >= self.images;
        self.schedules = Some(Schedules {
            momentum: DeviceSchedule::new(1, run.device, |_| momentum)?,
            age: DeviceSchedule::new(full + 1, run.device, |step| step as f64)?,
        });
        Ok(())
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let name = self.name;
        let [query, key] = batch.pair(name)?;
        let schedules = self.schedules.as_ref().ok_or_else(|| not_begun(name))?;
        let age = schedules.age.at(batch.clock)?;
        let momentum = schedules.momentum.at(batch.clock)?;
        follow(&mut self.networks.key, &mut self.networks.query, &momentum)?;
        let k = self.keys(key, batch.draw(name, 0)?, batch.draw(name, 1)?)?;
        let keep = self.dropped.as_ref().map(|_| batch.draw(name, 3)).transpose()?;
        let q = unit(&self.networks.query.project(query, keep)?)?;
        let value = info_nce(&q, &k, self.networks.queue.keys(), self.settings.temperature)?;
        let positive = mean_cosine(&q.detach(), &k)?.into_value();
        self.fresh = Some(k.into_value());
        Ok(Loss {
            value,
            embeddings: q.into_value(),
            signals: vec![("positive_similarity", positive), ("queue_age", age)],
        })
    }

    fn after_step(&mut self, batch: &Batch) -> Result<()> {
        match self.fresh.take() {
            Some(keys) => self.networks.queue.put(batch.draw(self.name, 2)?, &keys),
            None => Err(Error::value(self.name, "there are no keys: a step is loss, optimiser, after_step")),
        }
    }

    fn warning(&self, _figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        if self.stale {
            return Some(format!(
                "the queue of {} keys is as long as the {} images: its oldest keys are an epoch old, and a key of the \
                 same image is among the negatives; use a shorter settings.queue",
                self.settings.queue, self.images
            ));
        }
        (self.normalises && self.splits == 1).then(|| {
            "batch norm sees the whole batch, so shuffling protects from nothing: statistics can betray which key \
             belongs to a query; set arch.norm_splits=8"
                .into()
        })
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.query.encoder
    }
}
