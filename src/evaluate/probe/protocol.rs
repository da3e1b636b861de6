//! The protocols of linear probes by name, and what each does on few images: `docs/evaluation.md`.

use super::Settings;
use crate::evaluate::inputs::{Input, Part, Source, Token};
use engine::{Error, ErrorKind, Result};
use models::Encoder;
use std::fmt;
use std::str::FromStr;

/// How a linear layer on frozen features is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Standardised features, SGD, cosine: this program's own, quick and insensitive to the features' scale.
    #[default]
    Sgd,
    /// MoCo (He et al. 2020): SGD at a high rate, which falls twice.
    Moco,
    /// MAE (He et al. 2022): batch norm without parameters, LARS.
    Mae,
    /// DINO (Caron et al. 2021): class tokens of the last four blocks, SGD at a low rate.
    Dino,
    /// DINOv2 (Oquab et al. 2024): layers on several features at many rates, trained together.
    Dinov2Sweep,
    /// Logistic regression by L-BFGS in float64, its penalty chosen (DINOv2's second protocol).
    Logreg,
}

/// All of them with the names that the command line knows.
pub const PROTOCOLS: [(&str, Protocol); 6] = [
    ("sgd", Protocol::Sgd),
    ("moco", Protocol::Moco),
    ("mae", Protocol::Mae),
    ("dino", Protocol::Dino),
    ("dinov2-sweep", Protocol::Dinov2Sweep),
    ("logreg", Protocol::Logreg),
];

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Protocol, String> {
        let known = || PROTOCOLS.map(|(name, _)| name).join(", ");
        let found = PROTOCOLS.iter().find(|(name, _)| *name == text);
        found.map(|(_, protocol)| *protocol).ok_or_else(|| format!("there are: {}", known()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = PROTOCOLS.iter().find(|(_, protocol)| protocol == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

/// What happens to features before the linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    /// Nothing.
    Raw,
    /// The training set's mean and deviation are taken out.
    Standardised,
    /// Batch norm without parameters: the batch's statistics in training, running ones afterwards.
    BatchNorm,
}

/// How the rate changes over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Schedule {
    /// Up in this part of the run, then along half a cosine to zero.
    Cosine { warmup: f64 },
    /// A tenth after each of these parts of the run.
    Steps([f64; 2]),
}

impl Schedule {
    /// What multiplies the rate at `step` of `total`.
    pub fn factor(self, step: usize, total: usize) -> f64 {
        let part = step as f64 / total as f64;
        match self {
            Schedule::Cosine { warmup } if part < warmup => part / warmup,
            Schedule::Cosine { warmup } => {
                0.5 * (1.0 + (std::f64::consts::PI * (part - warmup) / (1.0 - warmup)).cos())
            }
            Schedule::Steps(places) => 0.1f64.powi(places.iter().filter(|p| part >= **p).count() as i32),
        }
    }
}

/// How layers are trained by SGD or LARS.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe {
    pub epochs: usize,
    pub batch: usize,
    /// Rates to choose from, for this batch.
    pub rates: Vec<f32>,
    /// LARS instead of SGD; both with momentum 0.9 and no decay.
    pub lars: bool,
    pub schedule: Schedule,
    pub scaling: Scaling,
    /// Deviation of the initial weights; 0 for zeros.
    pub initial: f32,
}

/// Least steps of an epoch: the papers' batches are for a million images.
const STEPS: usize = 32;
/// Smallest batch that [`STEPS`] lead to.
const SMALLEST: usize = 8;
/// Steps of DINOv2's layers: 10 epochs of 1250.
const SWEEP_STEPS: usize = 12_500;
/// Passes over the images that these are, at most.
const SWEEP_EPOCHS: usize = 30;

impl Protocol {
    /// How it trains on `samples` images, with what the user chose instead. None for [`Protocol::Logreg`].
    pub(super) fn recipe(self, settings: &Settings, samples: usize) -> Result<Option<Recipe>> {
        let cosine = Schedule::Cosine { warmup: 0.0 };
        // Epochs, the paper's batch, rates for a batch of 256.
        let (epochs, batch, rates): (usize, usize, &[f32]) = match self {
            Protocol::Sgd => (30, 256, &[0.003, 0.01, 0.03, 0.1, 0.3]),
            Protocol::Moco => (100, 256, &[0.3, 1.0, 3.0, 10.0, 30.0]),
            Protocol::Mae => (90, 16_384, &[0.1, 0.3, 1.0, 3.0, 10.0]),
            Protocol::Dino => (100, 1024, &[0.001, 0.01, 0.1, 1.0]),
            Protocol::Dinov2Sweep => (
                SWEEP_EPOCHS,
                128,
                &[1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1],
            ),
            Protocol::Logreg if settings.rates.is_some() || settings.epochs.is_some() => {
                let text = "logreg has neither learning rates nor epochs: leave out --rates and --epochs";
                return Err(Error::new(ErrorKind::Usage, "linear probe", text));
            }
            Protocol::Logreg => return Ok(None),
        };
        let largest = 1 << (samples / STEPS).max(SMALLEST).ilog2();
        let batch = if self == Protocol::Sgd { batch } else { batch.min(largest) };
        let epochs = match (settings.epochs, self) {
            (Some(epochs), _) => epochs,
            (None, Protocol::Dinov2Sweep) => (SWEEP_STEPS * batch / samples.max(1)).clamp(1, epochs),
            (None, _) => epochs,
        };
        let rates = settings.rates.as_deref().unwrap_or(rates);
        if epochs == 0 || rates.is_empty() || rates.iter().any(|r| !(*r > 0.0 && r.is_finite())) {
            let text = "epochs must be at least 1, and there must be positive learning rates";
            return Err(Error::new(ErrorKind::Usage, "linear probe", text).with("rates", rates));
        }
        let scale = if self == Protocol::Sgd { 1.0 } else { batch as f32 / 256.0 };
        Ok(Some(Recipe {
            epochs,
            batch,
            rates: rates.iter().map(|rate| rate * scale).collect(),
            lars: self == Protocol::Mae,
            schedule: match self {
                Protocol::Moco => Schedule::Steps([0.6, 0.8]),
                Protocol::Mae => Schedule::Cosine { warmup: 10.0 / 90.0 },
                _ => cosine,
            },
            scaling: match self {
                Protocol::Sgd => Scaling::Standardised,
                Protocol::Mae => Scaling::BatchNorm,
                _ => Scaling::Raw,
            },
            initial: if self == Protocol::Sgd { 0.0 } else { 0.01 },
        }))
    }

    /// The features that it looks at; `block` is the user's choice of a layer. A usage error where both contradict.
    pub fn source(self, encoder: &mut dyn Encoder, block: Option<usize>) -> Result<Source> {
        let many = matches!(self, Protocol::Dino | Protocol::Dinov2Sweep);
        match (block, many) {
            (Some(_), true) => {
                let text = format!("{self} takes the layers that its paper takes: leave out --layer");
                Err(Error::new(ErrorKind::Usage, "linear probe", text))
            }
            (Some(block), false) => Ok(Source::Block(block)),
            (None, false) => Ok(Source::Own),
            // DINO's ResNets are probed on their features alone.
            (None, true) if self == Protocol::Dino && encoder.vit().is_none() => Ok(Source::Own),
            (None, true) => Ok(Source::LastBlocks(encoder.blocks().min(4))),
        }
    }

    /// Whether it looks at the blocks' features that consist of `parts`, and not at the encoder's own.
    pub fn takes_blocks(self, parts: &[Part]) -> bool {
        match self {
            Protocol::Dino => parts.iter().any(|part| part.token == Token::Class),
            Protocol::Dinov2Sweep => !parts.is_empty(),
            _ => false,
        }
    }

    /// What layers are trained on, of features that consist of `parts`; all together are `dim` values.
    pub fn inputs(self, parts: &[Part], dim: usize) -> Vec<Input> {
        let whole = vec![Input { name: String::new(), columns: vec![0..dim] }];
        let last = parts.iter().map(|part| part.block).max().unwrap_or(0);
        let select = |name: &str, keep: &dyn Fn(&Part) -> bool| Input {
            name: name.into(),
            columns: parts.iter().filter(|part| keep(part)).map(|part| part.columns.clone()).collect(),
        };
        let has_class = parts.iter().any(|part| part.token == Token::Class);
        let class = |part: &Part| part.token == Token::Class;
        let ends = |part: &Part| part.block == last;
        let blocks = parts.iter().filter(|part| part.token == Token::Average).count();
        let named = |what: &str| format!("{what} of the last {blocks} blocks");
        match self {
            _ if parts.is_empty() => whole,
            Protocol::Dino if has_class => {
                let wide = parts.iter().any(|part| class(part) && part.columns.len() >= 768);
                match wide {
                    true => vec![select("class token and average of patches", &ends)],
                    false => vec![select(&named("class tokens"), &class)],
                }
            }
            Protocol::Dinov2Sweep if has_class => vec![
                select("class token of the last block", &|p| class(p) && ends(p)),
                select("class token of the last block, average of patches", &ends),
                select(&named("class tokens"), &class),
                select(&(named("class tokens") + ", average of patches"), &|p| class(p) || ends(p)),
            ],
            Protocol::Dinov2Sweep => {
                vec![select("last stage", &ends), select(&format!("last {blocks} stages"), &|_| true)]
            }
            _ => whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(protocol: Protocol, samples: usize) -> Recipe {
        protocol.recipe(&Settings::default(), samples).unwrap().unwrap()
    }

    #[test]
    fn batches_follow_the_number_of_images_up_to_the_papers() {
        for (protocol, small, large) in
            [(Protocol::Moco, 256, 256), (Protocol::Mae, 256, 16_384), (Protocol::Dino, 256, 1024)]
        {
            assert_eq!((recipe(protocol, 10_000).batch, recipe(protocol, 1_281_167).batch), (small, large));
            assert_eq!(recipe(protocol, 20).batch, SMALLEST);
        }
        // MAE's rate at its batch, 0.1 16384 / 256, is the paper's.
        assert_eq!(recipe(Protocol::Mae, 1_281_167).rates[0], 6.4);
        // 12,500 steps of 128 are 1.2 passes over ImageNet, and 30 passes at most.
        assert_eq!(recipe(Protocol::Dinov2Sweep, 1_281_167).epochs, 1);
        assert_eq!(recipe(Protocol::Dinov2Sweep, 10_000).epochs, SWEEP_EPOCHS);
        assert_eq!((recipe(Protocol::Sgd, 96).batch, recipe(Protocol::Sgd, 96).rates[0]), (256, 0.003));
    }

    #[test]
    fn schedules() {
        let mae = recipe(Protocol::Mae, 100).schedule;
        assert_eq!(mae.factor(0, 90), 0.0);
        assert!((mae.factor(5, 90) - 0.5).abs() < 1e-12 && (mae.factor(10, 90) - 1.0).abs() < 1e-12);
        assert!((mae.factor(50, 90) - 0.5).abs() < 1e-12);
        let moco = recipe(Protocol::Moco, 100).schedule;
        for (step, factor) in [(0, 1.0), (59, 1.0), (60, 0.1), (79, 0.1), (80, 0.01), (99, 0.01)] {
            assert!((moco.factor(step, 100) - factor).abs() < 1e-12, "{step}");
        }
    }

    #[test]
    fn inputs_of_a_vit_and_of_a_resnet() {
        let part = |block, token, from| Part { block, token, columns: from..from + 2 };
        let vit: Vec<Part> = (0..4)
            .flat_map(|b| [part(b + 9, Token::Class, 4 * b), part(b + 9, Token::Average, 4 * b + 2)])
            .collect();
        let columns = |inputs: &[Input]| -> Vec<usize> { inputs.iter().map(Input::dim).collect() };
        assert_eq!(columns(&Protocol::Dinov2Sweep.inputs(&vit, 16)), [2, 4, 8, 10]);
        let dino = Protocol::Dino.inputs(&vit, 16);
        assert_eq!(dino[0].columns, [0..2, 4..6, 8..10, 12..14]);
        let both = Protocol::Dinov2Sweep.inputs(&vit, 16);
        assert_eq!(both[3].columns, [0..2, 4..6, 8..10, 12..14, 14..16], "the last block's average alone");
        let resnet: Vec<Part> = (0..4).map(|b| part(b + 1, Token::Average, 2 * b)).collect();
        assert_eq!(columns(&Protocol::Dinov2Sweep.inputs(&resnet, 8)), [2, 8]);
        assert_eq!(columns(&Protocol::Moco.inputs(&[], 8)), [8]);
    }

    #[test]
    fn names() {
        for (name, protocol) in PROTOCOLS {
            assert_eq!((name.parse(), protocol.to_string()), (Ok(protocol), name.to_string()));
        }
        assert!("linear".parse::<Protocol>().unwrap_err().contains("dinov2-sweep"));
    }
}
