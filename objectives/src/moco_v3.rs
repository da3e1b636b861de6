//! MoCo v3 (Chen et al. 2021, "An Empirical Study of Training Self-Supervised Vision Transformers").
//!
//! No queue: each view's prediction is compared with the momentum encoder's keys of the other view, of the whole batch:
//! one positive and B - 1 negatives, none of the view's own. `ctr(q, k) = 2 t CE(q . k' / t, diagonal)` (algorithm 1 and the
//! reference code's factor), and the loss is `ctr(q1, k2) + ctr(q2, k1)`. The momentum encoder moves before the keys are
//! computed, with a momentum that rises to 1. With a ViT the patch embedding can stay as it was drawn (section 4.2), which
//! keeps training stable.

use crate::branch::{Online, Twins, mean_cosine};
use crate::draws::DroppedBranches;
use crate::settings::{at_least_one, not_begun, parse, part, positive, require, require_channels};
use crate::view::{Statistics, View};
use crate::{
    Batch, DataProfile, DeviceSchedule, Draws, Loss, Method, MomentumSchedule, Objective, Run, recipes,
};
use autograd::{Module, Var, module, ops};
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::augment::Recipe;
use models::{Encoder, MlpSpec};
use serde::Deserialize;
use toml::Table;

/// MoCo v3's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "moco-v3",
    summary: "predictions of a view are recognised among the momentum encoder's keys of the batch",
    reference: "Chen et al. 2021, An Empirical Study of Training Self-Supervised Vision Transformers",
    recipes: recipes!("moco-v3"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Divides the cosines: 1 for ResNets, 0.2 for ViTs.
    pub temperature: f32,
    /// What the momentum encoder keeps of itself at the first step; it rises to 1.
    pub momentum: f32,
    /// Size of the hidden layers of projector and predictor.
    pub hidden: usize,
    /// Size of the vectors that are compared.
    pub dim: usize,
    /// Linear layers of the projector: 2 for ResNets, 3 for ViTs.
    pub projector_layers: usize,
    /// Whether the predictor ends in a normalisation (without scale and shift): for ViTs.
    pub predictor_norm: bool,
    /// Whether a ViT's patch embedding stays as it was drawn.
    pub freeze_patch_embedding: bool,
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
    Ok(Box::new(MocoV3::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// MoCo v3 at work.
pub struct MocoV3 {
    settings: Settings,
    views: [Recipe; 2],
    dropped: [Option<DroppedBranches>; 2],
    networks: Twins,
    momentum: Option<DeviceSchedule>,
}

impl MocoV3 {
    /// MoCo v3 around `encoder`; projector and predictor are initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<MocoV3> {
        require(
            NAME,
            &[
                positive("temperature", settings.temperature),
                part("momentum", settings.momentum),
                at_least_one("hidden", settings.hidden),
                at_least_one("dim", settings.dim),
                at_least_one("projector_layers", settings.projector_layers),
            ],
        )?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let views = [
            settings.view1.recipe(NAME, "view1", profile, &normalize)?,
            settings.view2.recipe(NAME, "view2", profile, &normalize)?,
        ];
        if settings.freeze_patch_embedding {
            let name = encoder.arch().name.clone();
            match encoder.vit() {
                Some(vit) => module::set_trainable(vit.patch_embed(), false),
                None => {
                    let text = format!("freeze_patch_embedding is for ViTs: {name} has none");
                    return Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
                }
            }
        }
        let dropped = [0, 1].map(|which| DroppedBranches::of(encoder.as_ref(), seed, which));
        let Settings { hidden, dim, projector_layers, predictor_norm, .. } = settings;
        let projector = MlpSpec::moco_v3(encoder.dim(), hidden, dim, projector_layers, true);
        let predictor = MlpSpec::moco_v3(dim, hidden, dim, 2, predictor_norm);
        let networks = Twins::new(encoder, projector, Some(predictor), seed)?;
        Ok(MocoV3 { settings, views, dropped, networks, momentum: None })
    }
}

/// `2 t` times the mean cross-entropy of q . k' / t with the diagonal as the right answer; q, k [B, D] unit vectors.
#[track_caller]
pub fn contrast(q: &Var, k: &Var, temperature: f32) -> Result<Var> {
    let rows = q.shape().first().copied().unwrap_or(0);
    let diagonal: Vec<i32> = (0..rows as i32).collect();
    let diagonal = Var::constant(Tensor::constant(&diagonal, &[rows], q.value().device())?);
    let losses = ops::ntxent(q, k, ops::Positive::Column(&diagonal), temperature, None)?;
    ops::scale(&ops::mean(&losses, &[0])?, 2.0 * temperature)
}

impl Objective for MocoV3 {
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
        let momentum = self.momentum.as_ref().ok_or_else(|| not_begun(NAME))?.at(batch.clock)?;
        let keep = [batch.draws.first(), batch.draws.get(1)];
        let Online { projection: z1, prediction: q1 } = self.networks.online(a, keep[0])?;
        let Online { projection: z2, prediction: q2 } = self.networks.online(b, keep[1])?;
        self.networks.follow(&momentum)?;
        let (k1, k2) = (self.networks.target(NAME, a)?, self.networks.target(NAME, b)?);
        let temperature = self.settings.temperature;
        let value = ops::add(&contrast(&q1, &k2, temperature)?, &contrast(&q2, &k1, temperature)?)?;
        let positive = mean_cosine(&q1.detach(), &k2)?.into_value();
        let embeddings = ops::cat(&[&z1, &z2], 0)?.into_value();
        Ok(Loss { value, embeddings, signals: vec![("positive_similarity", positive)] })
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.online.encoder
    }
}
