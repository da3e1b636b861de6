//! DINO (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers").
//!
//! A student and a teacher, which follows it, give distributions over prototypes. The student sees two large crops and
//! several small ones, the teacher the large ones alone; the student's distribution for each crop is drawn to the teacher's
//! for every other large crop: [`crate::distillation::crops`]. All crops of one size share a forward pass of the backbone, all
//! features one of the head. In the first epoch the head's last layer is left alone (no gradient, so no decay and no
//! momentum either). The teacher moves after the optimiser's step, then the centre.

use crate::distillation::{Centering, Targets, Teacher, Temperatures, collapse, crops};
use crate::draws::encode;
use crate::momentum::{follow, without_history};
use crate::multicrop::Crops;
use crate::settings::{at_least_one, not_begun, parse, part, require, require_channels};
use crate::view::{Statistics, View};
use crate::{
    Batch, DataProfile, DeviceSchedule, Draws, Hold, Loss, Method, MomentumSchedule, Objective, Run, Special,
    recipes,
};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, module, no_grad, ops};
use engine::{DType, Result};
use kernels::augment::Recipe;
use kernels::{copy, elementwise};
use models::{DinoHead, DinoHeadSpec, Encoder, Initializer, Mode};
use serde::Deserialize;
use toml::Table;

/// DINO's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "dino",
    summary: "a student predicts, from any crop, the prototypes that a teacher sees in other large crops",
    reference: "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers",
    recipes: recipes!("dino"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Prototypes.
    pub prototypes: usize,
    /// Size of the head's hidden layers.
    pub head_hidden: usize,
    /// Size of the vectors that are compared with prototypes.
    pub head_bottleneck: usize,
    /// Linear layers of the head before the prototypes.
    pub head_layers: usize,
    /// Whether the head's hidden layers are batch-normalised: for ResNets.
    pub head_norm: bool,
    /// Whether the prototypes' lengths stay 1 (`norm_last_layer`).
    pub fixed_lengths: bool,
    /// Epochs in which the last layer is left alone.
    pub freeze_last_layer_epochs: f32,
    /// What the teacher keeps of itself at the first step; it rises to 1.
    pub momentum: f32,
    /// How the teacher is kept from collapsing.
    pub centering: Centering,
    /// What the centre keeps of itself at a step.
    pub center_momentum: f32,
    /// Small crops an image.
    pub local_crops: usize,
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
    Ok(Box::new(Dino::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// DINO at work.
pub struct Dino {
    settings: Settings,
    crops: Crops,
    networks: Networks,
    schedules: Option<Schedules>,
}

struct Schedules {
    momentum: DeviceSchedule,
    temperature: DeviceSchedule,
    frozen: u32,
}

struct Half {
    encoder: Box<dyn Encoder>,
    head: DinoHead,
}

impl Module for Half {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.head.visit(&path.child("head"), visitor);
    }
}

struct Networks {
    student: Half,
    teacher: Half,
    targets: Teacher,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.student.visit(path, visitor);
        self.teacher.visit(&path.child("teacher"), visitor);
        visitor.buffer(path.name("center"), self.targets.buffer());
    }
}

impl Dino {
    /// DINO around `encoder`; the head is initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Dino> {
        require(
            NAME,
            &[
                at_least_one("prototypes", settings.prototypes),
                at_least_one("head_hidden", settings.head_hidden),
                at_least_one("head_bottleneck", settings.head_bottleneck),
                at_least_one("head_layers", settings.head_layers),
                part("momentum", settings.momentum),
                part("center_momentum", settings.center_momentum),
                (
                    settings.freeze_last_layer_epochs >= 0.0,
                    format!(
                        "freeze_last_layer_epochs must not be negative: {}",
                        settings.freeze_last_layer_epochs
                    ),
                ),
            ],
        )?;
        settings.temperatures.check(NAME)?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let recipe = |view: &View, table: &str| view.recipe(NAME, table, profile, &normalize);
        let global = [recipe(&settings.global1, "global1")?, recipe(&settings.global2, "global2")?];
        let local = recipe(&settings.local, "local")?;
        let crops = Crops::new(NAME, global, local, settings.local_crops, encoder.as_ref(), seed)?;
        let spec = DinoHeadSpec {
            inputs: encoder.dim(),
            hidden: settings.head_hidden,
            bottleneck: settings.head_bottleneck,
            outputs: settings.prototypes,
            layers: settings.head_layers,
            norm: settings.head_norm,
            fixed_lengths: settings.fixed_lengths,
        };
        let init = Initializer::new(seed).child("head");
        let copied = models::duplicate(encoder.as_mut())?;
        let mut student = Half { encoder, head: DinoHead::new(spec, &init)? };
        let mut teacher = Half { encoder: copied, head: DinoHead::new(spec, &init)? };
        module::copy(&mut student, &mut teacher)?;
        module::set_trainable(&mut teacher, false);
        let targets = Teacher::new(settings.centering, settings.center_momentum, settings.prototypes)?;
        let networks = Networks { student, teacher, targets };
        Ok(Dino { settings, crops, networks, schedules: None })
    }
}

impl Objective for Dino {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        self.crops.views()
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (crops, batch) = (self.crops.clone(), run.batch);
        Ok(crops.drops().then(|| -> Draws { Box::new(move |step| crops.draw(step, batch)) }))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        let momentum =
            MomentumSchedule { start: f64::from(self.settings.momentum), end: 1.0, steps: run.steps };
        self.schedules = Some(Schedules {
            momentum: DeviceSchedule::new(run.steps, run.device, |step| momentum.at(step))?,
            temperature: self.settings.temperatures.schedule(run)?,
            frozen: run.steps_of(self.settings.freeze_last_layer_epochs) as u32,
        });
        Ok(())
    }

    fn special(&self, name: &str) -> Special {
        let frozen = self.schedules.as_ref().map_or(0, |s| s.frozen);
        let hold = match name.starts_with("head.last_layer.") && frozen > 0 {
            true => Hold::Untouched(frozen),
            false => Hold::None,
        };
        Special { hold, ..Special::default() }
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let temperature =
            self.schedules.as_ref().ok_or_else(|| not_begun(NAME))?.temperature.at(batch.clock)?;
        let Networks { student, teacher, targets } = &mut self.networks;
        let passes = self.crops.passes(NAME, batch.views, batch.draws)?;
        let logits = {
            let _off = no_grad();
            let large = self.crops.large(batch.views)?;
            let features = teacher.encoder.features(&Var::constant(large), Mode::Train)?;
            without_history(NAME, teacher.head.forward(&features, Mode::Train)?)?.into_value()
        };
        let Targets { distributions, entropy, concentration } =
            targets.targets(&logits, &temperature, None)?;
        let features = passes
            .iter()
            .map(|pass| encode(student.encoder.as_mut(), &Var::constant(pass.images.clone()), pass.keep))
            .collect::<Result<Vec<Var>>>()?;
        let features = ops::cat(&features.iter().collect::<Vec<_>>(), 0)?;
        let out = student.head.forward(&features, Mode::Train)?;
        let value = crops(&out, &distributions, self.settings.temperatures.student)?;
        let divergence = elementwise::sub(value.value(), &entropy)?;
        let embeddings = features.detach().value().narrow(0, 0, logits.shape()[0])?;
        let signals = vec![
            ("teacher_entropy", entropy),
            ("divergence", divergence),
            ("teacher_concentration", concentration),
            ("center_norm", targets.center_norm()?),
        ];
        Ok(Loss { value, embeddings: copy::cast(&embeddings, DType::F32)?, signals })
    }

    fn after_step(&mut self, batch: &Batch) -> Result<()> {
        let momentum = self.schedules.as_ref().ok_or_else(|| not_begun(NAME))?.momentum.at(batch.clock)?;
        let Networks { student, teacher, targets } = &mut self.networks;
        follow(teacher, student, &momentum)?;
        targets.after_step()
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
