//! DINOv2 (Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision"): DINO's loss over crops, iBOT's
//! loss on masked patches (Zhou et al. 2022), and the KoLeo regulariser (Sablayrolles et al. 2019).
//!
//! `loss = DINO + ibot_weight iBOT + koleo_weight (KoLeo(crop 1) + KoLeo(crop 2))`. DINO is the mean over the 2 (2 + L) - 2
//! pairs of crops, as facebookresearch/dinov2's two parts, each divided by that number. iBOT: half of the large crops hide
//! blocks of patches from the student ([`crate::block_masks`]); at each hidden patch the student predicts the teacher's
//! distribution, which sees the whole crop; a crop's patches are averaged, and the sum is divided by the number of large crops,
//! masked or not. KoLeo spreads the student's normalised class tokens, before the head.
//!
//! The teacher follows after the optimiser's step and runs in evaluation mode. For the first epoch the heads' last layers
//! learn with rate 0. The patch embedding learns slower, and each layer slower than the one above (`training.layer_decay`).

use crate::block_masks::BlockMasks;
use crate::branch::unit;
use crate::distillation::{
    Centering, Distributions, Rows, Targets, Teacher, Temperatures, collapse, cross_entropy,
};
use crate::momentum::{follow, without_history};
use crate::multicrop::{Crops, Pass};
use crate::settings::{at_least_one, not_begun, parse, part, require, require_channels};
use crate::view::{Statistics, View};
use crate::{
    Batch, DataProfile, DeviceSchedule, Draws, Hold, Loss, Method, MomentumSchedule, Objective, Run, Special,
    distillation, recipes,
};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, module, no_grad, ops};
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::augment::Recipe;
use kernels::copy;
use models::{DinoHead, DinoHeadSpec, Encoder, Initializer, Mode, Tokens, VisionTransformer, VitInput};
use serde::Deserialize;
use toml::Table;

/// DINOv2's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "dinov2",
    summary: "DINO, and the teacher's prototypes predicted at masked patches, and features spread apart",
    reference: "Oquab et al. 2023, DINOv2: Learning Robust Visual Features without Supervision",
    recipes: recipes!("dinov2"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;

/// Added to distances and inside their logarithm.
const KOLEO_EPS: f32 = 1e-8;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Prototypes of each head.
    pub prototypes: usize,
    /// Size of the heads' hidden layers.
    pub head_hidden: usize,
    /// Size of the vectors that are compared with prototypes.
    pub head_bottleneck: usize,
    /// Linear layers of a head before the prototypes.
    pub head_layers: usize,
    /// Whether patches have a head of their own.
    pub separate_heads: bool,
    /// Epochs in which the last layers learn with rate 0.
    pub freeze_last_layer_epochs: f32,
    /// Multiplies the patch embedding's learning rate.
    pub patch_embedding_rate: f32,
    /// What the teacher keeps of itself at the first step; it rises to 1.
    pub momentum: f32,
    /// How the teacher is kept from collapsing.
    pub centering: Centering,
    /// What centres keep of themselves at a step.
    pub center_momentum: f32,
    /// Small crops an image.
    pub local_crops: usize,
    /// Multiplies iBOT's loss.
    pub ibot_weight: f32,
    /// Multiplies the KoLeo regulariser.
    pub koleo_weight: f32,
    /// Part of the large crops that hide patches.
    pub masked_crops: f32,
    /// Least and greatest part of their patches that they hide.
    pub mask_ratio: [f32; 2],
    /// Temperatures.
    pub temperatures: Temperatures,
    /// What views are normalised by.
    pub normalize: Statistics,
    /// The first large crop.
    pub global1: View,
    /// The second large crop.
    pub global2: View,
    /// The small crops.
    pub local: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(DinoV2::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// DINOv2 at work.
pub struct DinoV2 {
    settings: Settings,
    crops: Crops,
    masks: BlockMasks,
    networks: Networks,
    schedules: Option<Schedules>,
}

struct Schedules {
    momentum: DeviceSchedule,
    temperature: DeviceSchedule,
    still: u32,
}

/// A backbone with its heads.
struct Half {
    encoder: Box<dyn Encoder>,
    head: DinoHead,
    /// The patches' head, unless they share the other.
    patch_head: Option<DinoHead>,
}

impl Module for Half {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.head.visit(&path.child("head"), visitor);
        if let Some(head) = &mut self.patch_head {
            head.visit(&path.child("patch_head"), visitor);
        }
    }
}

impl Half {
    fn vit(&mut self) -> Result<&mut VisionTransformer> {
        self.encoder.vit().ok_or_else(|| Error::value(NAME, "the encoder is no ViT"))
    }

    /// Logits [N, K] of patch tokens [N, D].
    fn patch_logits(&mut self, tokens: &Var) -> Result<Var> {
        self.patch_head.as_mut().unwrap_or(&mut self.head).forward(tokens, Mode::Train)
    }
}

struct Networks {
    student: Half,
    teacher: Half,
    class_targets: Teacher,
    patch_targets: Teacher,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.student.visit(path, visitor);
        self.teacher.visit(&path.child("teacher"), visitor);
        visitor.buffer(path.name("center"), self.class_targets.buffer());
        visitor.buffer(path.name("patch_center"), self.patch_targets.buffer());
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let not_negative = |name: &str, value: f32| {
            (value >= 0.0 && value.is_finite(), format!("{name} must not be negative, but is {value}"))
        };
        let [low, high] = self.mask_ratio;
        require(
            NAME,
            &[
                at_least_one("prototypes", self.prototypes),
                at_least_one("head_hidden", self.head_hidden),
                at_least_one("head_bottleneck", self.head_bottleneck),
                at_least_one("head_layers", self.head_layers),
                part("momentum", self.momentum),
                part("center_momentum", self.center_momentum),
                part("masked_crops", self.masked_crops),
                part("patch_embedding_rate", self.patch_embedding_rate),
                not_negative("freeze_last_layer_epochs", self.freeze_last_layer_epochs),
                not_negative("ibot_weight", self.ibot_weight),
                not_negative("koleo_weight", self.koleo_weight),
                (
                    0.0 <= low && low <= high && high <= 1.0,
                    format!("mask_ratio must be [least, greatest] within 0 to 1, not {:?}", self.mask_ratio),
                ),
            ],
        )?;
        self.temperatures.check(NAME)
    }
}

impl DinoV2 {
    /// DINOv2 around `encoder`, which must be a ViT; the heads are initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<DinoV2> {
        settings.check()?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let recipe = |view: &View, table: &str| view.recipe(NAME, table, profile, &normalize);
        let global = [recipe(&settings.global1, "global1")?, recipe(&settings.global2, "global2")?];
        let local = recipe(&settings.local, "local")?;
        let [height, width] = [global[0].height, global[0].width];
        let crops = Crops::new(NAME, global, local, settings.local_crops, encoder.as_ref(), seed)?;
        let name = encoder.arch().name.clone();
        let Some(vit) = encoder.vit() else {
            let text = format!("{name} has no patches that could be masked: take a ViT (--arch vit-micro)");
            return Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
        };
        let patch = vit.spec().patch;
        let masks = BlockMasks {
            grid: [height / patch, width / patch],
            crops: settings.masked_crops,
            ratio: settings.mask_ratio,
            seed,
        };
        let spec = DinoHeadSpec {
            inputs: encoder.dim(),
            hidden: settings.head_hidden,
            bottleneck: settings.head_bottleneck,
            outputs: settings.prototypes,
            layers: settings.head_layers,
            norm: false,
            fixed_lengths: false,
        };
        let head = |name: &str| DinoHead::new(spec, &Initializer::new(seed).child(name));
        let half = |encoder: Box<dyn Encoder>| -> Result<Half> {
            let patch_head = settings.separate_heads.then(|| head("patch_head")).transpose()?;
            Ok(Half { encoder, head: head("head")?, patch_head })
        };
        // The teacher sees every patch: the student alone has a mask token.
        let mut teacher = half(models::duplicate(encoder.as_mut())?)?;
        let mut student = half(encoder)?;
        student.vit()?.add_mask_token()?;
        module::set_trainable(&mut teacher, false);
        let targets = || Teacher::new(settings.centering, settings.center_momentum, settings.prototypes);
        let networks = Networks { student, teacher, class_targets: targets()?, patch_targets: targets()? };
        Ok(DinoV2 { settings, crops, masks, networks, schedules: None })
    }
}

/// iBOT's loss: `sum_i weight_i CE_i / crops` over rows of student logits [M, K] and the teacher's M distributions.
///
/// `weight` (f32 [M]) is 1 / (masked patches of the row's crop), 0 for padding.
#[track_caller]
pub fn masked_patches(
    student: &Var,
    teacher: &Distributions,
    weight: &Tensor,
    crops: usize,
    temperature: f32,
) -> Result<Var> {
    let losses = cross_entropy(student, teacher, temperature)?;
    let weighted = ops::mul(&losses, &Var::constant(weight.clone()))?;
    ops::scale(&ops::sum(&weighted, &[0])?, 1.0 / crops.max(1) as f32)
}

/// The KoLeo regulariser of features [B, D]: the mean of `-log` of each unit vector's distance to its nearest neighbour.
#[track_caller]
pub fn koleo(features: &Var) -> Result<Var> {
    ops::mean(&ops::koleo(&unit(features)?, KOLEO_EPS)?, &[0])
}

/// Rows of tokens [N, L, D] by index into [N L].
#[track_caller]
fn patch_rows(tokens: &Tokens, index: &Tensor) -> Result<Var> {
    let patches = tokens.patches()?;
    let [n, l, d] = *patches.shape() else {
        return Err(Error::shape(NAME, "patch tokens are [N, L, D]").argument("patches", patches.value()));
    };
    ops::gather_rows(&ops::reshape(&patches, &[n * l, d])?, &Var::constant(index.clone()))
}

/// The draws of a step, in their order.
const ROWS: usize = 0;
const MASKED: usize = 1;
const WEIGHT: usize = 2;
const SHARE: usize = 3;
const COUNT: usize = 4;
const DROPPED: usize = 5;

impl Objective for DinoV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        self.crops.views()
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (crops, masks, batch) = (self.crops.clone(), self.masks.clone(), run.batch);
        Ok(Some(Box::new(move |step| {
            let drawn = masks.draw(step, 2 * batch)?;
            let mut all = vec![drawn.rows, drawn.masked, drawn.weight, drawn.share, drawn.count];
            all.extend(crops.draw(step, batch)?);
            Ok(all)
        })))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        if run.batch < 2 && self.settings.koleo_weight > 0.0 {
            let text = "KoLeo needs neighbours: training.batch must be at least 2, or koleo_weight 0";
            return Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
        }
        let momentum =
            MomentumSchedule { start: f64::from(self.settings.momentum), end: 1.0, steps: run.steps };
        self.schedules = Some(Schedules {
            momentum: DeviceSchedule::new(run.steps, run.device, |step| momentum.at(step))?,
            temperature: self.settings.temperatures.schedule(run)?,
            still: run.steps_of(self.settings.freeze_last_layer_epochs) as u32,
        });
        Ok(())
    }

    /// Gradients of backbone, head and patch head are clipped apart, as in the reference code.
    fn special(&self, name: &str) -> Special {
        let still = self.schedules.as_ref().map_or(0, |s| s.still);
        let last = name.starts_with("head.last_layer.") || name.starts_with("patch_head.last_layer.");
        let hold = if last && still > 0 { Hold::Still(still) } else { Hold::None };
        let patch = name.starts_with("encoder.patch_embed.");
        let rate_scale = if patch { self.settings.patch_embedding_rate } else { 1.0 };
        let group = match name.split('.').next() {
            Some("head") => 1,
            Some("patch_head") => 2,
            _ => 0,
        };
        Special { rate_scale, hold, group, ..Special::default() }
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let temperature =
            self.schedules.as_ref().ok_or_else(|| not_begun(NAME))?.temperature.at(batch.clock)?;
        let images = batch.views.first().and_then(|v| v.shape().first()).copied().unwrap_or(0);
        let masked = batch.draw(NAME, MASKED)?;
        let counted =
            Rows { count: batch.draw(NAME, COUNT)?.clone(), share: batch.draw(NAME, SHARE)?.clone() };
        let Networks { student, teacher, class_targets, patch_targets } = &mut self.networks;

        let (class_logits, patch_logits) = {
            let _off = no_grad();
            let large = Var::constant(self.crops.large(batch.views)?);
            let tokens =
                teacher.vit()?.forward(&VitInput { images: &large, rows: None, kept: None, keep: None })?;
            let classes = teacher.head.forward(&tokens.class()?, Mode::Evaluate)?;
            let patches = teacher.patch_logits(&patch_rows(&tokens, masked)?)?;
            (without_history(NAME, classes)?.into_value(), without_history(NAME, patches)?.into_value())
        };
        let Targets { distributions, entropy, concentration } =
            class_targets.targets(&class_logits, &temperature, None)?;
        let patch_targets = patch_targets.targets(&patch_logits, &temperature, Some(&counted))?;

        let passes = self.crops.passes(NAME, batch.views, batch.draws.get(DROPPED..).unwrap_or_default())?;
        let mut classes = Vec::new();
        let mut patches = None;
        for (i, Pass { images: crops, keep }) in passes.iter().enumerate() {
            let crops = Var::constant(crops.clone());
            // The first pass has the large crops.
            let rows = (i == 0).then(|| batch.draw(NAME, ROWS)).transpose()?;
            let tokens =
                student.vit()?.forward(&VitInput { images: &crops, rows, kept: None, keep: *keep })?;
            if i == 0 {
                patches = Some(patch_rows(&tokens, masked)?);
            }
            classes.push(tokens.class()?);
        }
        let classes = ops::cat(&classes.iter().collect::<Vec<_>>(), 0)?;
        let settings = &self.settings;
        let tau = settings.temperatures.student;
        let dino = distillation::crops(&student.head.forward(&classes, Mode::Train)?, &distributions, tau)?;
        let mut value = dino.clone();
        let mut signals = vec![("dino", dino.detach().into_value())];
        if let Some(patches) = patches {
            let weight = batch.draw(NAME, WEIGHT)?;
            let logits = student.patch_logits(&patches)?;
            let ibot = masked_patches(&logits, &patch_targets.distributions, weight, 2 * images, tau)?;
            signals.push(("ibot", ibot.detach().into_value()));
            value = ops::add(&value, &ops::scale(&ibot, settings.ibot_weight)?)?;
        }
        if settings.koleo_weight > 0.0 {
            let crop = |i: usize| koleo(&ops::narrow(&classes, 0, i * images, images)?);
            let spread = ops::add(&crop(0)?, &crop(1)?)?;
            signals.push(("koleo", spread.detach().into_value()));
            value = ops::add(&value, &ops::scale(&spread, settings.koleo_weight)?)?;
        }
        signals.extend([
            ("teacher_entropy", entropy),
            ("teacher_concentration", concentration),
            ("patch_entropy", patch_targets.entropy),
            ("center_norm", class_targets.center_norm()?),
        ]);
        let embeddings = classes.detach().value().narrow(0, 0, 2 * images)?;
        Ok(Loss { value, embeddings: copy::cast(&embeddings, engine::DType::F32)?, signals })
    }

    fn after_step(&mut self, batch: &Batch) -> Result<()> {
        let momentum = self.schedules.as_ref().ok_or_else(|| not_begun(NAME))?.momentum.at(batch.clock)?;
        let Networks { student, teacher, class_targets, patch_targets } = &mut self.networks;
        follow(teacher, student, &momentum)?;
        class_targets.after_step()?;
        patch_targets.after_step()
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        collapse(self.settings.prototypes, figures("teacher_entropy")?, figures("teacher_concentration")?)
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    /// The teacher's, as the authors keep it. In runs of a few hundred steps it lags behind the student.
    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.teacher.encoder
    }
}
