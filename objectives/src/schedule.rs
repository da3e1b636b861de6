//! Rates that change over training, a value for every step.

use crate::Training;
use crate::training::RateSchedule;
use engine::{Device, Result, Tensor};
use kernels::optim;
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

/// The learning rate of every step of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningRate {
    cosine: CosineSchedule,
    /// Steps from which the rate is a tenth of what it was, if it falls so.
    falls: Option<Vec<u64>>,
}

impl LearningRate {
    /// What `training` says for a run of `steps`.
    pub fn new(training: &Training, steps: u64) -> LearningRate {
        let falls = match training.rate_schedule {
            RateSchedule::Cosine => None,
            RateSchedule::Steps => {
                let at = |part: &f32| (f64::from(*part) * steps as f64).round() as u64;
                Some(training.milestones.iter().map(at).collect())
            }
        };
        LearningRate { cosine: CosineSchedule::learning_rate(training, steps), falls }
    }

    /// The value at `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        match &self.falls {
            Some(falls) if step >= self.cosine.warmup => {
                let fallen = falls.iter().filter(|fall| step >= **fall).count();
                self.cosine.peak * 0.1f64.powi(fallen as i32)
            }
            _ => self.cosine.at(step),
        }
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

/// A value that moves linearly from `start` to `end` over the first `warmup` steps and stays there: a teacher's temperature
/// (Caron et al. 2021, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearWarmup {
    /// The value at step 0.
    pub start: f64,
    /// The value from step `warmup` on.
    pub end: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
}

impl LinearWarmup {
    /// The value at `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        match step < self.warmup {
            true => self.start + (self.end - self.start) * step as f64 / self.warmup as f64,
            false => self.end,
        }
    }
}

/// A value for every step of a run, in device memory, from where a step (captured or not) looks its own up.
pub struct DeviceSchedule {
    values: Tensor,
}

impl DeviceSchedule {
    /// `at(step)` for each of `steps` steps; later ones have the last value.
    pub fn new(steps: u64, device: Device, at: impl Fn(u64) -> f64) -> Result<DeviceSchedule> {
        let values: Vec<f32> = (0..steps.max(1)).map(|step| at(step) as f32).collect();
        Ok(DeviceSchedule { values: Tensor::from_slice(&values, &[values.len()])?.to_device(device)? })
    }

    /// The value of the step that `clock` (i32 \[1\], steps taken before) counts: f32 \[1\].
    #[track_caller]
    pub fn at(&self, clock: &Tensor) -> Result<Tensor> {
        optim::schedule(&self.values, clock)
    }
}
