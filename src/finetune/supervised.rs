//! The objective of fine-tuning: an encoder with a linear classifier behind it, and cross-entropy with labels.

use super::NAME;
use super::mixing::{self, Mixing};
use crate::evaluate::features::{BATCH, unlabelled};
use crate::evaluate::probe::percent_equal;
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, no_grad, ops};
use data::{Dataset, Evaluation};
use engine::{DType, Device, Error, Result, Tensor};
use kernels::augment::Recipe;
use kernels::reduce;
use models::{Encoder, Initializer, LayerNorm, Linear, Mode};
use objectives::draws::{DroppedBranches, encode};
use objectives::settings::{parse, part, require, require_channels};
use objectives::view::View;
use objectives::{Batch, DataProfile, Draws, Loss, Objective, Run, settings};
use serde::Deserialize;
use std::sync::Arc;
use toml::Table;

/// What can be set beside architecture and training.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether a new layer norm stands between the features and the classifier (MAE's `fc_norm`).
    pub head_norm: bool,
    /// Deviation of the classifier's initial weights, which are normal.
    pub head_std: f32,
    /// How much of each label is spread evenly over all classes.
    pub smoothing: f32,
    /// See [`Mixing::mixup`].
    pub mixup: f32,
    /// See [`Mixing::cutmix`].
    pub cutmix: f32,
    /// See [`Mixing::probability`].
    pub mix_probability: f32,
    /// See [`Mixing::erase`].
    pub erase: f32,
    /// The view that is trained on; a size of 0 is the encoder's own.
    pub view: View,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    norm: Option<LayerNorm>,
    head: Linear,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        if let Some(norm) = &mut self.norm {
            norm.visit(&path.child("norm"), visitor);
        }
        self.head.visit(&path.child("head"), visitor);
    }
}

/// An encoder that learns to classify.
///
/// Its draws are, behind the labels: [`mixing::Mix::packed`] if batches are mixed, [`Mixing::erasures`] if there are any, the
/// branches to keep if any are dropped.
pub struct Supervised {
    seed: u64,
    classes: usize,
    smoothing: f32,
    mixing: Mixing,
    views: [Recipe; 1],
    dropped: Option<DroppedBranches>,
    networks: Networks,
    /// The batch in reverse order, i32 [B], and the classes as unit vectors, [V, V]: made by `begin`.
    fixed: Option<[Tensor; 2]>,
}

impl Supervised {
    /// A new classifier of `classes` on `encoder`, initialised from `seed`, for images that the encoder sees as `input` says.
    ///
    /// Errors: settings that are missing, unknown or out of range; `input` that is not for the encoder's channels.
    pub fn new(
        given: &Table,
        input: &Recipe,
        channels: usize,
        classes: usize,
        encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Supervised> {
        let settings: Settings = parse(NAME, given)?;
        let Settings { smoothing, mixup, cutmix, mix_probability: probability, erase, .. } = settings;
        let not_negative = |name: &str, v: f32| {
            (v >= 0.0 && v.is_finite(), format!("{name} must be 0 or positive, not {v}"))
        };
        require(
            NAME,
            &[
                settings::positive("head_std", settings.head_std),
                part("smoothing", smoothing),
                not_negative("mixup", mixup),
                not_negative("cutmix", cutmix),
                part("mix_probability", probability),
                part("erase", erase),
            ],
        )?;
        require_channels(NAME, encoder.channels(), channels)?;
        let profile = DataProfile { height: input.height, width: input.width, channels, len: 0 };
        let view = settings.view.recipe(NAME, "view", &profile, &input.normalize)?;
        let dim = encoder.dim();
        let init = Initializer::new(seed).child("head");
        let weight = init.normal("weight", &[classes, dim], settings.head_std)?;
        let bias = Tensor::zeros(&[classes], DType::F32, Device::Cpu)?;
        Ok(Supervised {
            seed,
            classes,
            smoothing,
            mixing: Mixing { mixup, cutmix, probability, erase },
            views: [view],
            dropped: DroppedBranches::of(encoder.as_ref(), seed, 0),
            networks: Networks {
                encoder,
                norm: if settings.head_norm { Some(LayerNorm::new(dim)?) } else { None },
                head: Linear::with(weight, Some(bias)),
            },
            fixed: None,
        })
    }

    /// Class scores [B, V], f32, of features [B, D].
    fn scores(&mut self, features: &Var) -> Result<Var> {
        let normalised = self.networks.norm.as_ref().map(|norm| norm.forward(features)).transpose()?;
        ops::cast(&self.networks.head.forward(normalised.as_ref().unwrap_or(features))?, DType::F32)
    }

    /// Share of the images of `test` that are classified rightly, in percent; `input` says how the encoder wants them.
    ///
    /// Nothing is trained: running statistics, no dropped branch, no gradient.
    pub fn accuracy(&mut self, input: &Recipe, test: &Arc<dyn Dataset>) -> Result<f32> {
        let device = autograd::module::device(&mut self.networks);
        let (mut given, mut right) = (Vec::new(), Vec::new());
        let _off = no_grad();
        for batch in Evaluation::new(test.clone(), input.clone(), BATCH)? {
            let batch = batch?;
            let images = Var::constant(batch.views[0].to_device(device)?);
            let features = self.networks.encoder.features(&images, Mode::Evaluate)?;
            let scores = self.scores(&features)?.into_value();
            given.extend(reduce::argmax_last(&scores)?.to_vec::<i32>()?);
            right.extend(batch.labels.ok_or_else(|| unlabelled(test.as_ref()))?);
        }
        Ok(percent_equal(&given, &right))
    }
}

impl Objective for Supervised {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (seed, mixing, batch, dropped) = (self.seed, self.mixing, run.batch, self.dropped.clone());
        let size @ [height, width] = [self.views[0].height, self.views[0].width];
        Ok(Some(Box::new(move |step| {
            let mut drawn = Vec::new();
            if mixing.mixes() {
                drawn.push(mixing.mix(seed, step, size).packed()?);
            }
            if mixing.erase > 0.0 {
                let boxes = mixing.erasures(seed, step, batch, size);
                drawn.push(Tensor::from_slice(&boxes, &[batch, height + width])?);
            }
            if let Some(dropped) = &dropped {
                drawn.push(dropped.draw(step, batch)?);
            }
            Ok(drawn)
        })))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        let v = self.classes;
        let identity: Vec<f32> = (0..v * v).map(|i| f32::from(u8::from(i / v == i % v))).collect();
        let identity = Tensor::from_slice(&identity, &[v, v])?.to_device(run.device)?;
        self.fixed = Some([mixing::reversed(run.batch, run.device)?, identity]);
        Ok(())
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let [view] = batch.views else {
            return Err(Error::value(NAME, format!("takes one view, got {}", batch.views.len())));
        };
        let Some([reversed, identity]) = &self.fixed else { return Err(settings::not_begun(NAME)) };
        let (mixes, erases) = (self.mixing.mixes(), self.mixing.erase > 0.0);
        let labels = batch.draw(NAME, 0)?;
        let (mut images, mut target, mut next) = (view.clone(), labels.clone(), 1);
        let mut drawn = |is_drawn: bool| {
            let at = next;
            next += usize::from(is_drawn);
            is_drawn.then(|| batch.draw(NAME, at)).transpose()
        };
        let (mix, boxes, keep) = (drawn(mixes)?, drawn(erases)?, drawn(self.dropped.is_some())?);
        if let Some(boxes) = boxes {
            images = mixing::erased(&images, boxes)?;
        }
        if let Some(mix) = mix {
            images = mixing::mixed(&images, reversed, mix)?;
            target = mixing::soft(labels, reversed, mix, identity)?;
        }
        let features = encode(self.networks.encoder.as_mut(), &Var::constant(images), keep)?;
        let scores = self.scores(&features)?;
        let losses = ops::softmax_xent(&scores, &Var::constant(target), self.smoothing)?;
        let embeddings = ops::cast(&features.detach(), DType::F32)?.into_value();
        Ok(Loss { value: ops::mean(&losses, &[0])?, embeddings, signals: Vec::new() })
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
