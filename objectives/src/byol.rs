//! BYOL (Grill et al. 2020, "Bootstrap your own latent: a new approach to self-supervised learning").
//!
//! The online network predicts, from one view, what a slowly moving target network makes of the other. There are no
//! negatives: what keeps it from the constant solution is the predictor, which the target lacks, and the gradient that does
//! not flow into the target. With unit vectors the loss is `|q(z1) - z2'|^2 + |q(z2) - z1'|^2`, summed over both directions
//! (eq. 2 and its symmetrised form, 0 to 8), each a mean over the batch. Each view has a forward pass of its own, online and
//! target in training mode. The target moves after the optimiser's step, with a momentum that rises to 1 (section 3.3).
//!
//! Left out: the reference code's linear classifier beside the training. The trainer's online kNN stands in its place.

use crate::branch::{Online, Twins, mean_cosine};
use crate::draws::DroppedBranches;
use crate::settings::{at_least_one, not_begun, parse, part, require, require_channels};
use crate::view::{Statistics, View};
use crate::{
    Batch, DataProfile, DeviceSchedule, Draws, Loss, Method, MomentumSchedule, Objective, Run, recipes,
};
use autograd::{Module, Var, ops};
use engine::{Result, Tensor};
use kernels::augment::Recipe;
use models::{Encoder, MlpSpec};
use serde::Deserialize;
use toml::Table;

/// BYOL's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "byol",
    summary: "one view predicts what a slowly moving network makes of the other; no negatives",
    reference: "Grill et al. 2020, Bootstrap Your Own Latent",
    recipes: recipes!("byol"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the target keeps of itself at the first step; it rises to 1.
    pub momentum: f32,
    /// Size of the hidden layer of projector and predictor.
    pub hidden: usize,
    /// Size of the vectors that are compared.
    pub dim: usize,
    /// Whether there is a predictor. Without one the network collapses: for experiments.
    pub predictor: bool,
    /// What views are normalised by.
    pub normalize: Statistics,
    /// The first view.
    pub view1: View,
    /// The second view.
    pub view2: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Byol::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// BYOL at work.
pub struct Byol {
    settings: Settings,
    views: [Recipe; 2],
    dropped: [Option<DroppedBranches>; 2],
    networks: Twins,
    momentum: Option<DeviceSchedule>,
}

impl Byol {
    /// BYOL around `encoder`; projector and predictor are initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Byol> {
        require(
            NAME,
            &[
                part("momentum", settings.momentum),
                at_least_one("hidden", settings.hidden),
                at_least_one("dim", settings.dim),
            ],
        )?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let views = [
            settings.view1.recipe(NAME, "view1", profile, &normalize)?,
            settings.view2.recipe(NAME, "view2", profile, &normalize)?,
        ];
        let dropped = [0, 1].map(|which| DroppedBranches::of(encoder.as_ref(), seed, which));
        let head = |inputs| MlpSpec::byol(inputs, settings.hidden, settings.dim);
        let predictor = settings.predictor.then(|| head(settings.dim));
        let projector = head(encoder.dim());
        let networks = Twins::new(encoder, projector, predictor, seed)?;
        Ok(Byol { settings, views, dropped, networks, momentum: None })
    }
}

/// The mean over rows of `|p - z|^2` for unit vectors p and z [B, D]: 2 - 2 cos, 0 to 4.
#[track_caller]
pub fn regression(p: &Var, z: &Var) -> Result<Var> {
    let two = Var::constant(Tensor::full(&[], 2.0, p.value().device())?);
    ops::sub(&two, &ops::scale(&mean_cosine(p, z)?, 2.0)?)
}

impl Objective for Byol {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        Ok(DroppedBranches::each(&self.dropped, run.batch))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        let schedule =
            MomentumSchedule { start: f64::from(self.settings.momentum), end: 1.0, steps: run.steps };
        self.momentum = Some(DeviceSchedule::new(run.steps, run.device, |step| schedule.at(step))?);
        Ok(())
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let [a, b] = batch.pair(NAME)?;
        let keep = [batch.draws.first(), batch.draws.get(1)];
        let Online { projection: z1, prediction: p1 } = self.networks.online(a, keep[0])?;
        let Online { projection: z2, prediction: p2 } = self.networks.online(b, keep[1])?;
        let (t1, t2) = (self.networks.target(NAME, a)?, self.networks.target(NAME, b)?);
        let value = ops::add(&regression(&p1, &t2)?, &regression(&p2, &t1)?)?;
        let positive = mean_cosine(&z1, &z2)?.into_value();
        let embeddings = ops::cat(&[&z1, &z2], 0)?.into_value();
        Ok(Loss { value, embeddings, signals: vec![("positive_similarity", positive)] })
    }

    fn after_step(&mut self, batch: &Batch) -> Result<()> {
        let schedule = self.momentum.as_ref().ok_or_else(|| not_begun(NAME))?;
        self.networks.follow(&schedule.at(batch.clock)?)
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.online.encoder
    }
}
