//! Settings of the training loop that every method has: optimiser, rates, batch, length.

use crate::CosineSchedule;
use engine::{Error, ErrorKind};
use serde::{Deserialize, Serialize, Serializer};

/// The rule that moves parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimiser {
    /// Gradient descent with momentum.
    Sgd,
    /// Layer-wise adaptive rates (You et al. 2017), for large batches.
    Lars,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW,
}

/// How the learning rate follows the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateScaling {
    /// `learning_rate batch / 256` (Goyal et al. 2017).
    Linear,
    /// `learning_rate sqrt(batch / 256)`: SimCLR's 0.075 sqrt(batch) is a learning rate of 1.2.
    Sqrt,
    /// `learning_rate`.
    None,
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSchedule {
    /// Along half a cosine to `final_rate`.
    #[default]
    Cosine,
    /// To a tenth at each of `milestones`.
    Steps,
}

/// Where LARS puts learning rate and weight decay: the three rules do not share learning rates
/// (`kernels::optim::LarsVariant`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LarsRule {
    /// google-research/simclr.
    Simclr,
    /// deepmind-research/byol, facebookresearch/moco-v3 and mae.
    Byol,
    /// lightly.
    Lightly,
}

/// What decays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayScope {
    /// Matrices, kernels and tokens; not biases and normalisations.
    #[default]
    Weights,
    /// Every parameter: MoCo.
    All,
}

/// What is clipped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipScope {
    /// All gradients.
    #[default]
    Global,
    /// Those of one part of the networks, as the method says: DINOv2.
    Group,
    /// Each parameter's by itself: DINO.
    Parameter,
}

/// The type of activations and of their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    F32,
    /// float32, where matrix products, 1 x 1 convolutions among them, round their operands to tf32's 10 bits of fraction: on CUDA
    /// devices.
    Tf32,
    /// bfloat16, with float32 sums, statistics, losses and weights: on CUDA devices.
    Bf16,
}

/// How a method is trained. Every field can be set in a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The optimiser.
    pub optimiser: Optimiser,
    /// The highest rate for a batch of 256.
    #[serde(serialize_with = "decimal")]
    pub learning_rate: f32,
    /// How it follows the batch.
    pub rate_scaling: RateScaling,
    /// How it falls.
    #[serde(default)]
    pub rate_schedule: RateSchedule,
    /// The rate that the cosine ends at, as a part of the highest.
    #[serde(serialize_with = "decimal")]
    pub final_rate: f32,
    /// Parts of the run, rising, after which the rate is a tenth of what it was (`rate_schedule = "steps"`).
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "decimals")]
    pub milestones: Vec<f32>,
    /// Momentum (SGD, LARS), or the first moment's decay (AdamW).
    #[serde(serialize_with = "decimal")]
    pub momentum: f32,
    /// Decay of the second moment (AdamW).
    #[serde(serialize_with = "decimal")]
    pub second_moment: f32,
    /// Nesterov's momentum (SGD).
    pub nesterov: bool,
    /// Trust coefficient (LARS).
    #[serde(serialize_with = "decimal")]
    pub trust: f32,
    /// Where LARS puts rate and decay. Where it is left out, as SimCLR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lars: Option<LarsRule>,
    /// Decay of weights.
    #[serde(serialize_with = "decimal")]
    pub weight_decay: f32,
    /// What the weight decay rises to along half a cosine: DINO. Where it is left out, it stays.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_decimal")]
    pub final_weight_decay: Option<f32>,
    /// What decays.
    #[serde(default)]
    pub decay_scope: DecayScope,
    /// Each layer of the encoder learns by this factor slower than the layer above it. Where it is left out, all learn alike.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_decimal")]
    pub layer_decay: Option<f32>,
    /// Epochs of linear warm-up, a part of `epochs`. Where it is left out, a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_decimal")]
    pub warmup_epochs: Option<f32>,
    /// Passes over the data.
    pub epochs: usize,
    /// Images a step (not views).
    pub batch: usize,
    /// The type of activations.
    #[serde(default)]
    pub precision: Precision,
    /// Largest norm of the gradients; larger ones are scaled down to it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_decimal")]
    pub clip: Option<f32>,
    /// Whose norm that is.
    #[serde(default)]
    pub clip_scope: ClipScope,
}

impl Training {
    /// The highest learning rate, at the end of the warm-up.
    pub fn peak_rate(&self) -> f32 {
        let ratio = self.batch as f32 / 256.0;
        match self.rate_scaling {
            RateScaling::Linear => self.learning_rate * ratio,
            RateScaling::Sqrt => self.learning_rate * ratio.sqrt(),
            RateScaling::None => self.learning_rate,
        }
    }

    /// Steps of warm-up in a run of `steps`: the same part of it as `warmup_epochs` is of `epochs`.
    pub fn warmup_steps(&self, steps: u64) -> u64 {
        let part = self.warmup_epochs.map_or(0.1, |epochs| f64::from(epochs) / self.epochs.max(1) as f64);
        ((part * steps as f64).round() as u64).min(steps)
    }

    /// What multiplies `weight_decay` at each step of a run of `steps`.
    pub fn decay_scale(&self, steps: u64) -> CosineSchedule {
        let end = self.final_weight_decay.map_or(1.0, |end| f64::from(end) / f64::from(self.weight_decay));
        CosineSchedule { steps, warmup: 0, peak: 1.0, end }
    }

    /// An error that names the first field outside its range.
    #[track_caller]
    pub fn check(&self) -> engine::Result<()> {
        let rules = [
            (self.learning_rate > 0.0 && self.learning_rate.is_finite(), "learning_rate must be positive"),
            ((0.0..=1.0).contains(&self.final_rate), "final_rate is a part of the highest rate, 0 to 1"),
            ((0.0..1.0).contains(&self.momentum), "momentum must be in 0 .. 1"),
            ((0.0..1.0).contains(&self.second_moment), "second_moment must be in 0 .. 1"),
            (!self.nesterov || self.optimiser == Optimiser::Sgd, "nesterov is for sgd alone"),
            (!self.nesterov || self.momentum > 0.0, "nesterov needs a momentum"),
            (self.trust > 0.0 && self.trust.is_finite(), "trust must be positive"),
            (self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "weight_decay must not be negative"),
            (self.epochs > 0, "epochs must be at least 1"),
            (self.batch > 0, "batch must be at least 1"),
            (
                self.warmup_epochs.is_none_or(|w| (0.0..=self.epochs as f32).contains(&w)),
                "warmup_epochs must be between 0 and epochs",
            ),
            (
                self.milestones.is_empty() || self.rate_schedule == RateSchedule::Steps,
                "milestones are for rate_schedule = \"steps\"",
            ),
            (
                self.milestones.iter().all(|m| (0.0..=1.0).contains(m))
                    && self.milestones.is_sorted_by(|a, b| a < b),
                "milestones are rising parts of the run, each 0 to 1",
            ),
            (self.lars.is_none() || self.optimiser == Optimiser::Lars, "lars is for optimiser = \"lars\""),
            (
                self.final_weight_decay.is_none_or(|d| d >= 0.0 && d.is_finite() && self.weight_decay > 0.0),
                "final_weight_decay must not be negative, and needs a weight_decay to start from",
            ),
            (
                self.layer_decay.is_none_or(|d| d > 0.0 && d <= 1.0),
                "layer_decay is a factor above 0, at most 1",
            ),
            (
                self.clip_scope == ClipScope::Global || self.clip.is_some(),
                "clip_scope says whose norm is clipped: set clip too",
            ),
            (self.clip.is_none_or(|c| c > 0.0), "clip must be positive: leave it out to clip nothing"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => {
                Err(Error::new(ErrorKind::Usage, "training settings", *rule).with("given", self))
            }
        }
    }
}

/// Writes the shortest decimal that means this f32, so that files say 0.1 and not 0.10000000149011612.
fn decimal<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    let text = value.to_string();
    serializer.serialize_f64(text.parse().unwrap_or(f64::from(*value)))
}

fn decimals<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|v| v.to_string().parse().unwrap_or(f64::from(*v))))
}

fn optional_decimal<S: Serializer>(value: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => decimal(value, serializer),
        None => serializer.serialize_none(),
    }
}
