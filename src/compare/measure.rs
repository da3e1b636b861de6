//! What an encoder's features are worth in a comparison: with all labels, with few, and by neighbours.

use crate::evaluate::features;
use crate::evaluate::inputs::{Input, Source};
use crate::evaluate::probe::{self, Settings};
use crate::evaluate::{Labelled, knn};
use crate::finetune::labels::{self, Labels};
use data::{Dataset, Splits};
use engine::Result;
use kernels::augment::Recipe;
use models::Encoder;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Accuracies in percent. What is held out is of the training images, and is what choices are made by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Linear probe, test images.
    pub linear: f64,
    /// The same on the held-out tenth of the training images.
    pub linear_held_out: f64,
    /// 20 nearest neighbours, test images.
    pub knn: f64,
    /// Linear probe with few labels, test images: the mean over [`SEEDS`] choices of labelled images.
    pub few: f64,
    /// Deviation over these choices.
    pub few_deviation: f64,
    /// The same probes on training images whose labels they did not have.
    pub few_held_out: f64,
}

/// Choices of few labelled images.
pub const SEEDS: u64 = 3;
/// A rate and a length with which a probe on standardised features of some hundred images converges. Nothing is chosen by so few.
const FEW: (f32, usize) = (0.1, 100);
/// Training images, at most, that a probe with few labels is tried on.
const TRIED: usize = 5000;

/// Measures features of both splits; `chosen` are the labelled images of each choice.
pub fn scores(train: &Labelled, test: &Labelled, chosen: &[Vec<usize>], seed: u64) -> Result<Scores> {
    let whole = [Input { name: String::new(), columns: vec![0..train.dim] }];
    let linear = probe::linear(train, test, &whole, &Settings { seed, ..Settings::default() })?;
    let settings = Settings { rates: Some(vec![FEW.0]), epochs: Some(FEW.1), seed, ..Settings::default() };
    let (mut reached, mut held_out) = (Vec::new(), Vec::new());
    for few in chosen {
        let head = probe::fit(&train.select(few), &whole, &settings)?;
        reached.push(percent(head.accuracy(test)?));
        let others: Vec<usize> = (0..train.len()).filter(|i| few.binary_search(i).is_err()).collect();
        // Evenly spread: images may lie in the order of their classes.
        let others: Vec<usize> =
            others.iter().step_by(others.len().div_ceil(TRIED).max(1)).copied().collect();
        held_out.push(percent(head.accuracy(&train.select(&others))?));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let few = mean(&reached);
    let squares: f64 = reached.iter().map(|v| (v - few).powi(2)).sum();
    Ok(Scores {
        linear: percent(linear.top1),
        linear_held_out: percent(linear.choice.held_out.unwrap_or(linear.top1)),
        knn: percent(knn::accuracy(train, test, knn::Settings::default())?),
        few,
        few_deviation: (squares / (reached.len().max(2) - 1) as f64).sqrt(),
        few_held_out: mean(&held_out),
    })
}

/// Four decimals: what a test set of any size can tell.
pub(super) fn percent(top1: f32) -> f64 {
    (f64::from(top1) * 1e4).round() / 1e4
}

/// The labelled images of every choice, in rising order.
pub fn choices(splits: &Splits, few: Labels, seed: u64) -> Result<Vec<Vec<usize>>> {
    (0..SEEDS).map(|i| labels::indices(splits.train.as_ref(), few, seed.wrapping_add(i))).collect()
}

/// Scores of an encoder on training and test images as it sees them.
pub fn encoder(
    encoder: &mut dyn Encoder,
    input: &Recipe,
    [train, test]: [&Arc<dyn Dataset>; 2],
    chosen: &[Vec<usize>],
    seed: u64,
) -> Result<Scores> {
    let (train, _) = features::labelled(encoder, Source::Own, input, train)?;
    let (test, _) = features::labelled(encoder, Source::Own, input, test)?;
    scores(&train, &test, chosen, seed)
}
