//! Rates that change over training, a value for every step.

use crate::Training;
use std::f64::consts::PI;

/// A linear warm-up and then half a cosine (Loshchilov and Hutter 2017, without restarts).
///
/// Step `i` of the warm-up has `peak (i + 1) / warmup`; the cosine starts at the peak and reaches `end` at the
/// last step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineSchedule {
    /// Steps of the run.
    pub steps: u64,
    /// Steps of the warm-up among them.
    pub warmup: u64,
    /// The highest value.
    pub peak: f64,
    /// The last value.
    pub end: f64,
}

impl CosineSchedule {
    /// The learning rate of a run of `steps`.
    pub fn learning_rate(training: &Training, steps: u64) -> CosineSchedule {
        let peak = f64::from(training.peak_rate());
        let end = peak * f64::from(training.final_rate);
        CosineSchedule { steps, warmup: training.warmup_steps(steps), peak, end }
    }

    /// The value at `step`, from 0; after the last step, the last value.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let last = self.steps.saturating_sub(self.warmup + 1);
        let part = match last {
            0 => 0.0,
            _ => ((step - self.warmup) as f64 / last as f64).min(1.0),
        };
        self.end + (self.peak - self.end) * (1.0 + (PI * part).cos()) / 2.0
    }
}

/// The momentum of a moving average, which rises to `end` along half a cosine: Grill et al. 2020 (BYOL),
/// `1 - (1 - start) (cos(pi k / K) + 1) / 2` for an `end` of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MomentumSchedule {
    /// The value at step 0.
    pub start: f64,
    /// The value at step `steps`.
    pub end: f64,
    /// Steps of the run.
    pub steps: u64,
}

impl MomentumSchedule {
    /// The value at `step`, from 0; `end` from step `steps` on.
    pub fn at(&self, step: u64) -> f64 {
        let part = match self.steps {
            0 => 1.0,
            _ => (step as f64 / self.steps as f64).min(1.0),
        };
        self.end - (self.end - self.start) * ((PI * part).cos() + 1.0) / 2.0
    }
}
