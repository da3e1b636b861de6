//! SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations").
//!
//! Two views of each image go through encoder and projector together, so that batch normalisation sees all
//! 2B. With unit vectors z and temperature t, row i's loss is `-log exp(z_i . z_p / t) / sum_{k != i}
//! exp(z_i . z_k / t)`, where p = (i + B) mod 2B is the other view (eq. 1): one positive and 2B - 2 negatives
//! of both views. The mean over 2B is minimised, and gradients flow into every z.

use crate::settings::{parse, require};
use crate::{DataProfile, Loss, Method, Objective, Optimiser, Precision, Progress, RateScaling, Training};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::{DType, Error, Result, Tensor};
use kernels::augment::{Blur, ColorJitter, CropRule, Recipe};
use kernels::{copy, elementwise, reduce};
use models::{Encoder, Initializer, Mlp, MlpSpec, Mode};
use serde::Deserialize;
use toml::{Table, Value};

/// SimCLR's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "simclr",
    summary: "two views of an image attract each other and repel all other images of the batch",
    reference: "Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual Representations",
    training,
    settings,
    build,
    arch,
};

const NAME: &str = METHOD.name;
/// Images below this side are not blurred: google-research/simclr leaves it out on CIFAR.
const BLUR_SIDE: usize = 96;
/// Smallest norm that a projection is divided by, PyTorch's default.
const NORM_EPS: f32 = 1e-12;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Divides the cosines.
    pub temperature: f32,
    /// Linear layers of the projector: 2 in SimCLR, 3 in SimCLR v2.
    pub projector_layers: usize,
    /// Size of the projector's hidden layers; 0 is the encoder's feature size.
    pub projector_hidden: usize,
    /// Size of the projections that are compared.
    pub projector_dim: usize,
    /// Rows and columns of a view; 0 is the image's own size. Objects look larger in crops than in whole images;
    /// smaller views undo that (Touvron et al. 2019, "Fixing the train-test resolution discrepancy") and cost
    /// less. Evaluation sees whole images.
    pub view_size: usize,
    /// Least part of the image's area that a view shows.
    pub crop_min: f32,
    /// Greatest part of the image's area that a view shows.
    pub crop_max: f32,
    /// How often a view is mirrored.
    pub flip: f32,
    /// Strength s of colour jitter: brightness, contrast, saturation 0.8 s and hue 0.2 s.
    pub jitter: f32,
    /// How often a view is jittered.
    pub jitter_probability: f32,
    /// How often colour is taken away.
    pub grayscale: f32,
    /// How often a view is blurred.
    pub blur: f32,
    /// How often values of at least 0.5 are inverted; not in the paper.
    pub solarize: f32,
}

impl Settings {
    /// The defaults for `profile`, changed by `given`. Errors name the setting and what it must be.
    #[track_caller]
    pub fn new(given: &Table, profile: &DataProfile) -> Result<Settings> {
        let s: Settings = parse(NAME, &settings(profile), given)?;
        let part =
            |name: &str, p: f32| ((0.0..=1.0).contains(&p), format!("{name} must be in 0 ..= 1, not {p}"));
        require(
            NAME,
            &[
                (
                    s.temperature > 0.0 && s.temperature.is_finite(),
                    format!("temperature must be positive, not {}", s.temperature),
                ),
                (s.projector_layers > 0, "projector_layers must be at least 1".into()),
                (s.projector_dim > 0, "projector_dim must be at least 1".into()),
                (
                    s.crop_min > 0.0 && s.crop_min <= s.crop_max && s.crop_max <= 1.0,
                    format!("0 < crop_min <= crop_max <= 1 must hold, not {} and {}", s.crop_min, s.crop_max),
                ),
                // Hue moves by 0.2 s of the circle, at most half of it.
                ((0.0..=2.5).contains(&s.jitter), format!("jitter must be in 0 ..= 2.5, not {}", s.jitter)),
                part("flip", s.flip),
                part("jitter_probability", s.jitter_probability),
                part("grayscale", s.grayscale),
                part("blur", s.blur),
                part("solarize", s.solarize),
            ],
        )?;
        Ok(s)
    }

    /// How a view is made. On grey images jitter changes brightness and contrast alone.
    fn recipe(&self, profile: &DataProfile) -> Result<Recipe> {
        let (height, width) = match self.view_size {
            0 => (profile.height, profile.width),
            size => (size, size),
        };
        let strength = 0.8 * self.jitter;
        let (saturation, hue) =
            if profile.channels == 1 { (0.0, 0.0) } else { (strength, 0.2 * self.jitter) };
        let recipe = Recipe {
            crop: CropRule::Random { area: [self.crop_min, self.crop_max], aspect: [3.0 / 4.0, 4.0 / 3.0] },
            flip: self.flip,
            jitter: (self.jitter > 0.0 && self.jitter_probability > 0.0).then_some(ColorJitter {
                probability: self.jitter_probability,
                brightness: strength,
                contrast: strength,
                saturation,
                hue,
            }),
            grayscale: if profile.channels == 1 { 0.0 } else { self.grayscale },
            blur: (self.blur > 0.0).then(|| Blur::with_probability(self.blur)),
            solarize: self.solarize,
            ..Recipe::simclr(height, width, self.jitter)
        };
        recipe.check(profile.channels)?;
        Ok(recipe)
    }
}

/// What a method's defaults are chosen for.
enum Kind {
    /// Small grey images, on a CPU: minutes. Found by the experiments in `docs/results.md`.
    SmallGrey,
    /// Small colour images: CIFAR.
    SmallColour,
    /// Large images: ImageNet.
    Large,
}

fn kind(profile: &DataProfile) -> Kind {
    match (profile.side(), profile.channels) {
        (BLUR_SIDE.., _) => Kind::Large,
        (_, 1) => Kind::SmallGrey,
        _ => Kind::SmallColour,
    }
}

/// Small images: SGD, as lightly trains ResNet-18 on CIFAR-10 (0.06 a batch of 128, decay 5e-4), faster on
/// grey ones. Large ones: the paper's LARS with its rate for batches below 4096 (appendix B.1).
fn training(profile: &DataProfile) -> Training {
    let small = Training {
        optimiser: Optimiser::Sgd,
        learning_rate: 0.12,
        rate_scaling: RateScaling::Linear,
        final_rate: 0.0,
        momentum: 0.9,
        second_moment: 0.999,
        nesterov: false,
        trust: 1e-3,
        weight_decay: 5e-4,
        warmup_epochs: None,
        epochs: 100,
        batch: 256,
        precision: Precision::F32,
        clip: None,
    };
    match kind(profile) {
        Kind::SmallGrey => Training { learning_rate: 0.6, epochs: 14, batch: 128, ..small },
        Kind::SmallColour => small,
        Kind::Large => Training {
            optimiser: Optimiser::Lars,
            learning_rate: 1.2,
            rate_scaling: RateScaling::Sqrt,
            weight_decay: 1e-6,
            ..small
        },
    }
}

/// The paper's values: appendix A for large images, B.9 (CIFAR-10) for small ones in colour.
fn settings(profile: &DataProfile) -> Table {
    let pick = |grey: f64, colour: f64, large: f64| {
        Value::Float(match kind(profile) {
            Kind::SmallGrey => grey,
            Kind::SmallColour => colour,
            Kind::Large => large,
        })
    };
    let view_size = match kind(profile) {
        Kind::SmallGrey => (profile.side() * 5 / 7).max(8) as i64,
        Kind::SmallColour | Kind::Large => 0,
    };
    Table::from_iter([
        ("temperature".to_string(), pick(0.1, 0.5, 0.1)),
        ("projector_layers".into(), Value::Integer(2)),
        ("projector_hidden".into(), Value::Integer(0)),
        ("projector_dim".into(), Value::Integer(128)),
        ("view_size".into(), Value::Integer(view_size)),
        ("crop_min".into(), pick(0.2, 0.08, 0.08)),
        ("crop_max".into(), Value::Float(1.0)),
        ("flip".into(), Value::Float(0.5)),
        ("jitter".into(), pick(0.5, 0.5, 1.0)),
        ("jitter_probability".into(), Value::Float(0.8)),
        ("grayscale".into(), Value::Float(0.2)),
        ("blur".into(), pick(0.0, 0.0, 0.5)),
        ("solarize".into(), Value::Float(0.0)),
    ])
}

fn arch(profile: &DataProfile) -> (&'static str, Option<usize>) {
    match kind(profile) {
        Kind::SmallGrey => ("resnet10-cifar", Some(12)),
        Kind::SmallColour => ("resnet18-cifar", None),
        Kind::Large => ("resnet18", None),
    }
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Simclr::new(Settings::new(given, profile)?, profile, encoder, seed)?))
}

/// SimCLR at work.
pub struct Simclr {
    temperature: f32,
    views: [Recipe; 2],
    networks: Networks,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    projector: Mlp,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.projector.visit(&path.child("projector"), visitor);
    }
}

impl Simclr {
    /// SimCLR around `encoder`; the projector's initial weights come from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Simclr> {
        if encoder.channels() != profile.channels {
            let text = "the encoder and the data have different numbers of channels";
            return Err(Error::value(NAME, text)
                .with("encoder", encoder.channels())
                .with("data", profile.channels));
        }
        let view = settings.recipe(profile)?;
        let dim = encoder.dim();
        let hidden = if settings.projector_hidden == 0 { dim } else { settings.projector_hidden };
        let projector = MlpSpec::simclr(dim, hidden, settings.projector_dim, settings.projector_layers);
        let projector = Mlp::new(projector, &Initializer::new(seed).child("projector"))?;
        Ok(Simclr {
            temperature: settings.temperature,
            views: [view.clone(), view],
            networks: Networks { encoder, projector },
        })
    }
}

/// The mean NT-Xent of unit vectors z [2B, D]; rows i and i + B show the same image.
#[track_caller]
pub fn nt_xent(z: &Var, temperature: f32) -> Result<Var> {
    let rows = match *z.shape() {
        [rows, _] if rows >= 4 && rows % 2 == 0 => rows,
        _ => {
            let text = "needs two views of at least 2 images: [2B, D], B >= 2 (use a larger batch)";
            return Err(Error::shape(NAME, text).argument("z", z.value()));
        }
    };
    let positive: Vec<i32> = (0..rows).map(|i| ((i + rows / 2) % rows) as i32).collect();
    let positive = Var::constant(Tensor::constant(&positive, &[rows], z.value().device())?);
    let loss = ops::ntxent(z, z, ops::Positive::Column(&positive), temperature, Some(0))?;
    ops::mean(&loss, &[0])
}

impl Objective for Simclr {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn loss(&mut self, views: &[Tensor], _at: &Progress) -> Result<Loss> {
        let [a, b] = views else {
            return Err(Error::value(NAME, format!("compares two views, got {}", views.len())));
        };
        b.require_shape(NAME, "second view", a.shape())?;
        b.require_dtype(NAME, "second view", a.dtype())?;
        let images = Var::constant(copy::cat(&[a, b], 0)?);
        let features = self.networks.encoder.features(&images, Mode::Train)?;
        let z = self.networks.projector.forward(&features, Mode::Train)?;
        let z = ops::l2_normalize(&z, NORM_EPS)?;
        let value = nt_xent(&z, self.temperature)?;
        let embeddings = copy::cast(&z.into_value(), DType::F32)?;
        let count = embeddings.shape()[0] / 2;
        let products =
            elementwise::mul(&embeddings.narrow(0, 0, count)?, &embeddings.narrow(0, count, count)?)?;
        let positive = elementwise::scale(&reduce::sum(&products, &[0, 1])?, 1.0 / count as f32)?;
        let negatives = Tensor::full(&[], (2 * count - 2) as f32, embeddings.device())?;
        let signals = vec![("positive_similarity", positive), ("negatives", negatives)];
        Ok(Loss { value, embeddings, signals })
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
