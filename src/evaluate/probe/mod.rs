//! Linear probes: one linear layer on frozen features, trained by one of the [`PROTOCOLS`].
//!
//! Where there is something to choose (a learning rate, a penalty, which features), it is chosen on a tenth of the
//! training set that is held out for it; then the layer is trained again on all of it, and the last epoch counts.
//! [`fit`] is not given test samples at all.

mod heads;
pub mod logreg;
mod protocol;
mod scale;

pub use protocol::{PROTOCOLS, Protocol};
pub use scale::Affine;

use super::inputs::Input;
use super::{Labelled, lbfgs};
use engine::random::Purpose;
use engine::{Error, Philox, Result, Tensor};
use kernels::{matmul, reduce};
use protocol::Recipe;
use std::fmt;

/// The probe's protocol and what is changed of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How the layer is trained.
    pub protocol: Protocol,
    /// Learning rates to choose from, for a batch of 256 (`sgd`: for its batch); the protocol's if there are none.
    pub rates: Option<Vec<f32>>,
    /// Passes over the training samples; the protocol's if there are none.
    pub epochs: Option<usize>,
    /// Order of samples, initial weights and choice of the held-out part.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { protocol: Protocol::default(), rates: None, epochs: None, seed: 1 }
    }
}

/// What a protocol chooses among.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strength {
    /// The learning rate.
    Rate(f32),
    /// Inverse of the penalty's weight.
    C(f64),
}

/// What was chosen on the held-out tenth.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The features, where there were several: see [`Protocol::inputs`].
    pub input: String,
    /// Learning rate or penalty.
    pub strength: Strength,
    /// Accuracy on the held-out tenth, in percent; none if there was nothing to choose.
    pub held_out: Option<f32>,
    /// Whether the strength is the first or the last of those that were tried: better ones may lie beyond.
    pub at_edge: bool,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strength {
            Strength::Rate(rate) => write!(f, "rate {rate}")?,
            Strength::C(c) => write!(f, "C {c:.3e}")?,
        }
        match self.input.is_empty() {
            true => Ok(()),
            false => write!(f, ", {}", self.input),
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Share of right answers on the test samples, in percent.
    pub top1: f32,
    /// What was chosen before test samples were looked at.
    pub choice: Choice,
}

/// A linear layer.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are as many as rates")]
pub enum Linear {
    /// [V, D] and [V], f32.
    Single {
        /// Rows of weights.
        weight: Tensor,
        /// One a class.
        bias: Tensor,
    },
    /// The same in float64, row-major.
    Double {
        /// V rows of D weights.
        weight: Vec<f64>,
        /// One a class.
        bias: Vec<f64>,
    },
}

/// A trained probe.
#[derive(Debug, Clone)]
pub struct Head {
    /// What was chosen.
    pub choice: Choice,
    input: Input,
    affine: Option<Affine>,
    linear: Linear,
}

impl Head {
    /// The class of every sample.
    pub fn predict(&self, samples: &Labelled) -> Result<Vec<i32>> {
        let rows = samples.columns(&self.input.columns)?;
        match &self.linear {
            Linear::Single { weight, bias } => {
                let x = match &self.affine {
                    Some(affine) => affine.apply(&rows.features)?,
                    None => Tensor::from_slice(&rows.features, &[rows.len(), rows.dim])?,
                };
                reduce::argmax_last(&matmul::linear(&x, weight, Some(bias))?)?.to_vec::<i32>()
            }
            Linear::Double { weight, bias } => {
                let score = |row: &[f32], v: usize| -> f64 {
                    let weight = &weight[v * rows.dim..(v + 1) * rows.dim];
                    bias[v] + row.iter().zip(weight).map(|(x, w)| f64::from(*x) * w).sum::<f64>()
                };
                let class = |i: usize| {
                    let scores: Vec<f64> = (0..bias.len()).map(|v| score(rows.row(i), v)).collect();
                    let best = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                    best.unwrap_or(0) as i32
                };
                Ok((0..rows.len()).map(class).collect())
            }
        }
    }

    /// Share of samples whose class is predicted rightly, in percent.
    pub fn accuracy(&self, samples: &Labelled) -> Result<f32> {
        Ok(percent_equal(&self.predict(samples)?, &samples.labels))
    }
}

/// Percentage of equal elements.
pub fn percent_equal(a: &[i32], b: &[i32]) -> f32 {
    let equal = a.iter().zip(b).filter(|(x, y)| x == y).count();
    100.0 * equal as f32 / b.len().max(1) as f32
}

/// Nine tenths of the samples and the held-out rest, drawn by `seed`.
pub fn split(train: &Labelled, seed: u64) -> (Labelled, Labelled) {
    let (fit, held_out) = split_indices(train.len(), seed);
    (train.select(&fit), train.select(&held_out))
}

/// Which of `n` samples are trained on while something is chosen, and which are held out for that.
pub fn split_indices(n: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order = Philox::new(seed, Purpose::Probe, u64::MAX).permutation(n);
    let held_out = order.split_off(n - n / 10);
    (order, held_out)
}

/// Fewest samples of which a tenth is held out.
const FEWEST: usize = 10;

/// Trains a probe on `train`, whose rows may hold several `inputs` to choose from.
///
/// Errors: no sample, a label below 0, settings that a protocol does not have.
pub fn fit(train: &Labelled, inputs: &[Input], settings: &Settings) -> Result<Head> {
    let candidates = Candidates::new(train, inputs, settings)?;
    let choice = match candidates.count() > 1 && train.len() >= FEWEST {
        true => candidates.best(train, settings.seed)?,
        false => candidates.first()?,
    };
    candidates.fit(train, choice, settings.seed)
}

/// What is best on the held-out tenth of `train`, and how good it is there.
pub fn choose(train: &Labelled, inputs: &[Input], settings: &Settings) -> Result<Choice> {
    Ok(Candidates::new(train, inputs, settings)?.best(train, settings.seed)?.1)
}

/// Trains a probe on `train` and gives its accuracy on `test`.
pub fn linear(train: &Labelled, test: &Labelled, inputs: &[Input], settings: &Settings) -> Result<Outcome> {
    train.require_match(test, "linear probe")?;
    let head = fit(train, inputs, settings)?;
    Ok(Outcome { top1: head.accuracy(test)?, choice: head.choice })
}

/// What there is to choose from.
struct Candidates<'a> {
    inputs: &'a [Input],
    classes: usize,
    /// None for logistic regression.
    recipe: Option<Recipe>,
}

/// DINOv2's values of C: 10^-6 to 10^5.
fn penalties() -> Vec<f64> {
    (0..45).map(|i| 10f64.powf(-6.0 + 11.0 * f64::from(i) / 44.0)).collect()
}

impl<'a> Candidates<'a> {
    fn new(train: &Labelled, inputs: &'a [Input], settings: &Settings) -> Result<Candidates<'a>> {
        train.require_match(train, "linear probe")?;
        if let Some(label) = train.labels.iter().find(|label| **label < 0) {
            return Err(Error::value("linear probe", format!("{label} is no label: they count from 0")));
        }
        let recipe = settings.protocol.recipe(settings, train.len())?;
        Ok(Candidates { inputs, classes: train.classes(), recipe })
    }

    fn strengths(&self) -> Vec<Strength> {
        match &self.recipe {
            Some(recipe) => recipe.rates.iter().map(|rate| Strength::Rate(*rate)).collect(),
            None => penalties().into_iter().map(Strength::C).collect(),
        }
    }

    fn count(&self) -> usize {
        self.inputs.len() * self.strengths().len()
    }

    fn first(&self) -> Result<(usize, Choice)> {
        let strength = self.strengths().into_iter().next();
        let (Some(strength), Some(input)) = (strength, self.inputs.first()) else {
            return Err(Error::value("linear probe", "there must be features and something to choose from"));
        };
        Ok((0, Choice { input: input.name.clone(), strength, held_out: None, at_edge: false }))
    }

    /// Every candidate is trained on nine tenths; the best on the rest, and the first of equals, is chosen.
    fn best(&self, train: &Labelled, seed: u64) -> Result<(usize, Choice)> {
        let (fit, rest) = split(train, seed);
        fit.require_match(&rest, "linear probe")?;
        let strengths = self.strengths();
        let mut best = self.first()?;
        let mut reached = f32::NEG_INFINITY;
        for (i, heads) in self.train(&fit, &strengths, seed)?.into_iter().enumerate() {
            for (k, head) in heads.into_iter().enumerate() {
                let top1 = head.accuracy(&rest)?;
                if top1 > reached {
                    reached = top1;
                    let at_edge = strengths.len() > 1 && (k == 0 || k + 1 == strengths.len());
                    best = (i, Choice { held_out: Some(top1), at_edge, ..head.choice });
                }
            }
        }
        Ok(best)
    }

    /// Trains what was chosen on all of `train`.
    fn fit(&self, train: &Labelled, (input, choice): (usize, Choice), seed: u64) -> Result<Head> {
        let only = Candidates {
            inputs: &self.inputs[input..=input],
            classes: self.classes,
            recipe: self.recipe.clone(),
        };
        let trained = only.train(train, &[choice.strength], seed)?;
        let head = trained.into_iter().flatten().next();
        let missing = || Error::value("linear probe", "there must be features and something to choose from");
        head.map(|head| Head { choice, ..head }).ok_or_else(missing)
    }

    /// A head for every input and strength.
    fn train(&self, train: &Labelled, strengths: &[Strength], seed: u64) -> Result<Vec<Vec<Head>>> {
        let sets =
            self.inputs.iter().map(|input| train.columns(&input.columns)).collect::<Result<Vec<_>>>()?;
        let head = |input: &Input, strength, affine, linear| {
            let choice = Choice { input: input.name.clone(), strength, held_out: None, at_edge: false };
            Head { choice, input: input.clone(), affine, linear }
        };
        let Some(recipe) = &self.recipe else {
            let options = lbfgs::Options::default();
            let each = self.inputs.iter().zip(&sets).map(|(input, set)| {
                let problem = logreg::Problem::new(set, self.classes);
                // From the strongest penalty on, each solution is the next one's start.
                let mut weights = problem.start();
                let fitted = strengths.iter().map(|&strength| {
                    if let Strength::C(c) = strength {
                        problem.fit(&mut weights, c, &options);
                    }
                    head(input, strength, None, problem.linear(&weights))
                });
                fitted.collect()
            });
            return Ok(each.collect());
        };
        let rate = |strength: &Strength| match strength {
            Strength::Rate(rate) => Some(*rate),
            Strength::C(_) => None,
        };
        let rates: Vec<f32> = strengths.iter().filter_map(rate).collect();
        let trained = heads::train(&sets, self.classes, &rates, recipe, seed)?;
        let each = self.inputs.iter().zip(trained).map(|(input, layers)| {
            let layers = layers.into_iter().zip(strengths);
            layers.map(|(layer, &strength)| head(input, strength, layer.affine, layer.linear)).collect()
        });
        Ok(each.collect())
    }
}

#[cfg(test)]
mod tests;
