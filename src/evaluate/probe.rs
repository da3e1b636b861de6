//! The linear probe: one linear layer trained on frozen features.
//!
//! Protocol `sgd`: features standardised by the training set's mean and deviation; softmax regression from
//! zero weights; SGD, momentum 0.9, no weight decay, batch 256, cosine schedule without warm-up. The learning
//! rate is chosen on a tenth of the training set held out for it, then the layer is trained again on all of it;
//! the last epoch counts. Test samples are never looked at before that.

use super::Labelled;
use engine::random::Purpose;
use engine::{DType, Device, Error, Philox, Result, Tensor};
use kernels::optim::{self, Hold, Slot, Step, StepCount};
use kernels::{matmul, reduce, softmax_xent};

/// The probe's constants.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Learning rates to choose from.
    pub rates: Vec<f32>,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples a step.
    pub batch: usize,
    /// Order of samples and choice of the held-out part.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { rates: vec![0.003, 0.01, 0.03, 0.1, 0.3], epochs: 30, batch: 256, seed: 1 }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Share of right answers on the test samples, in percent.
    pub top1: f32,
    /// The learning rate that was chosen.
    pub rate: f32,
}

/// Percentage of equal elements.
pub fn percent_equal(a: &[i32], b: &[i32]) -> f32 {
    let equal = a.iter().zip(b).filter(|(x, y)| x == y).count();
    100.0 * equal as f32 / b.len().max(1) as f32
}

/// The accuracy, in percent, of a linear layer trained on all of `train` but the tenth that is held out, on that tenth, at the
/// best of the learning rates; and that rate.
pub fn held_out(train: &Labelled, settings: &Settings) -> Result<Outcome> {
    let (fit, validate) = split(train, settings.seed);
    fit.require_match(&validate, "linear probe")?;
    settings.check()?;
    let classes = train.classes();
    let mut best = Outcome { top1: f32::NEG_INFINITY, rate: settings.rates[0] };
    for &rate in &settings.rates {
        let top1 = fit_and_score(&fit, &validate, classes, rate, settings)?;
        if top1 > best.top1 {
            best = Outcome { top1, rate };
        }
    }
    Ok(best)
}

/// Nine tenths of the samples and the held-out rest, drawn by `seed`.
pub(super) fn split(train: &Labelled, seed: u64) -> (Labelled, Labelled) {
    let mut order = Philox::new(seed, Purpose::Probe, u64::MAX).permutation(train.len());
    let held_out = order.split_off(train.len() - train.len() / 10);
    (train.select(&order), train.select(&held_out))
}

impl Settings {
    #[track_caller]
    fn check(&self) -> Result<()> {
        match self.epochs == 0 || self.batch == 0 || self.rates.is_empty() {
            false => Ok(()),
            true => Err(Error::value("linear probe", "epochs, batch and rates must not be empty")),
        }
    }
}

/// Trains a linear layer on `train`'s features and gives its accuracy on `test`.
pub fn linear(train: &Labelled, test: &Labelled, settings: &Settings) -> Result<Outcome> {
    train.require_match(test, "linear probe")?;
    settings.check()?;
    let rate = match settings.rates.len() > 1 && train.len() >= 10 {
        true => held_out(train, settings)?.rate,
        false => settings.rates[0],
    };
    Ok(Outcome { top1: fit_and_score(train, test, train.classes(), rate, settings)?, rate })
}

/// Subtracts the mean and divides by the deviation of `train`, per column, from both.
fn standardise(train: &Labelled, test: &Labelled) -> Result<(Tensor, Tensor)> {
    let (n, dim) = (train.len(), train.dim);
    let mut mean = vec![0f64; dim];
    let mut squares = vec![0f64; dim];
    for i in 0..n {
        for (m, &v) in mean.iter_mut().zip(train.row(i)) {
            *m += f64::from(v) / n as f64;
        }
    }
    for i in 0..n {
        for ((s, m), &v) in squares.iter_mut().zip(&mean).zip(train.row(i)) {
            *s += (f64::from(v) - m).powi(2) / n as f64;
        }
    }
    let scale: Vec<f64> = squares.iter().map(|s| 1.0 / (s.sqrt() + 1e-5)).collect();
    let apply = |set: &Labelled| -> Result<Tensor> {
        let values: Vec<f32> = set
            .features
            .chunks_exact(dim.max(1))
            .flat_map(|row| {
                row.iter().zip(&mean).zip(&scale).map(|((&v, m), s)| ((f64::from(v) - m) * s) as f32)
            })
            .collect();
        Tensor::from_slice(&values, &[set.len(), dim])
    };
    Ok((apply(train)?, apply(test)?))
}

fn fit_and_score(
    train: &Labelled,
    test: &Labelled,
    classes: usize,
    rate: f32,
    settings: &Settings,
) -> Result<f32> {
    let (x, x_test) = standardise(train, test)?;
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu);
    let (mut weight, mut bias) = (zeros(&[classes, train.dim])?, zeros(&[classes])?);
    let (mut weight_momentum, mut bias_momentum) = (zeros(weight.shape())?, zeros(bias.shape())?);
    let steps_per_epoch = train.len().div_ceil(settings.batch);
    let total = (steps_per_epoch * settings.epochs) as f64;
    let mut order = Vec::new();
    for step in 0..steps_per_epoch * settings.epochs {
        let (epoch, k) = (step / steps_per_epoch, step % steps_per_epoch);
        if k == 0 {
            order = Philox::new(settings.seed, Purpose::Probe, epoch as u64).permutation(train.len());
        }
        let rows = &order[k * settings.batch..((k + 1) * settings.batch).min(train.len())];
        let index: Vec<i32> = rows.iter().map(|&i| i as i32).collect();
        let labels: Vec<i32> = rows.iter().map(|&i| train.labels[i]).collect();
        let xb = kernels::copy::gather_rows(&x, &Tensor::from_slice(&index, &[index.len()])?)?;
        let target = Tensor::from_slice(&labels, &[labels.len()])?;
        let logits = matmul::linear(&xb, &weight, Some(&bias))?;
        let (_, lse) = softmax_xent::forward(&logits, softmax_xent::Target::Labels(&target), 0.0)?;
        let upstream = Tensor::full(&[rows.len()], 1.0 / rows.len() as f32, Device::Cpu)?;
        let target = softmax_xent::Target::Labels(&target);
        let dlogits = softmax_xent::backward(&upstream, &logits, target, 0.0, &lse)?;
        let (dw, db) = (matmul::matmul(&dlogits, &xb, true, false)?, reduce::sum_rows(&dlogits)?);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total).cos());
        let slot = |value, gradient, first| Slot {
            value,
            gradient,
            first,
            second: None,
            low: None,
            average: None,
            weight_decay: 0.0,
            rate_scale: 1.0,
            adapt: false,
            hold: Hold::None,
        };
        let mut slots =
            [slot(&mut weight, &dw, &mut weight_momentum), slot(&mut bias, &db, &mut bias_momentum)];
        let before = StepCount::Value(step as u64);
        optim::sgd(&mut slots, &Step::at(rate * cosine as f32), 0.9, false, before)?;
    }
    let scores = matmul::linear(&x_test, &weight, Some(&bias))?;
    Ok(percent_equal(reduce::argmax_last(&scores)?.as_slice::<i32>()?, &test.labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes on both sides of a line, in features of very different scales.
    fn separable(n: usize, seed: u64) -> Labelled {
        let mut g = Philox::new(seed, Purpose::Test, 0);
        let mut set = Labelled { features: Vec::new(), dim: 3, labels: Vec::new() };
        for i in 0..n {
            let class = (i % 2) as i32;
            let offset = if class == 0 { -1.0 } else { 1.0 };
            set.features.extend([1e3 * (offset + 0.2 * g.normal()), 1e-3 * g.normal(), 5.0]);
            set.labels.push(class);
        }
        set
    }

    #[test]
    fn separable_classes_are_separated_whatever_the_scale() {
        let found = linear(&separable(400, 1), &separable(200, 2), &Settings::default()).unwrap();
        assert!(found.top1 > 99.0, "{found:?}");
        assert!(Settings::default().rates.contains(&found.rate));
    }

    #[test]
    fn shuffled_labels_stay_at_chance() {
        let (mut train, mut test) = (separable(400, 1), separable(1000, 2));
        let mut g = Philox::new(9, Purpose::Test, 0);
        train.labels.iter_mut().chain(&mut test.labels).for_each(|l| *l = g.below(2) as i32);
        let found = linear(&train, &test, &Settings::default()).unwrap();
        // Five standard errors of 1000 coin flips.
        assert!((found.top1 - 50.0).abs() < 100.0 * 5.0 * (0.25f32 / 1000.0).sqrt(), "{found:?}");
    }

    /// Selection must not see the test samples: other test samples leave the chosen rate as it is.
    #[test]
    fn the_rate_does_not_depend_on_the_test_set() {
        let overlapping = |n, seed| {
            let mut set = separable(n, seed);
            let mut g = Philox::new(seed, Purpose::Test, 7);
            set.features.chunks_exact_mut(3).for_each(|f| f[0] += 1500.0 * g.normal());
            set
        };
        let train = overlapping(60, 1);
        let mut wrong = overlapping(500, 2);
        wrong.labels.iter_mut().for_each(|l| *l = 1 - *l);
        let a = linear(&train, &overlapping(500, 2), &Settings::default()).unwrap();
        let b = linear(&train, &wrong, &Settings::default()).unwrap();
        assert_eq!(a.rate, b.rate);
        assert!((a.top1 + b.top1 - 100.0).abs() < 1e-3);
    }
}
