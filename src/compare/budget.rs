//! How many steps fit into a time. They are counted before training, so that schedules end when the time does, and kept in the
//! run's `config.toml`, so that a run that goes on is the same run.

use super::Budget;
use crate::config::{Config, Monitor};
use crate::output::Output;
use crate::train::run::RunFolder;
use crate::train::{self, Ended, Machine, Task};
use data::Dataset;
use engine::{Error, ErrorKind, Result};
use objectives::Objective;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Steps of the first, short run, and least and most of the others.
const FIRST: u64 = 2;
const OTHERS: [f64; 2] = [3.0, 40.0];
/// The part of the time that measuring may take.
const MEASURED: f64 = 0.05;
/// The part of the time that is filled: steps differ, and a machine is not always equally fast.
const FILLED: f64 = 0.95;

/// Steps of a run of `config` in the budget. With a number of minutes, it is trained for a few steps in the folder `scratch`,
/// which is removed.
pub fn steps(
    budget: Budget,
    config: &Config,
    train: &Arc<dyn Dataset>,
    labelled: bool,
    machine: Machine,
    scratch: &Path,
    mut objective: impl FnMut() -> Result<Box<dyn Objective>>,
) -> Result<u64> {
    let minutes = match budget {
        Budget::Steps(steps) => return Ok(steps),
        Budget::Minutes(minutes) => minutes,
    };
    let quiet = Output { json: false };
    let mut seconds = |steps: u64| -> Result<f64> {
        if scratch.exists() {
            std::fs::remove_dir_all(scratch).map_err(|e| Error::io("measure a step", scratch, e))?;
        }
        let monitor = Monitor { every_epochs: 0, knn_samples: 0, checkpoint_epochs: usize::MAX };
        let config = Config { steps: Some(steps), monitor, ..config.clone() };
        let folder = RunFolder::create(scratch, &config)?;
        let task = Task { config: &config, folder: &folder, train, labelled, resume: false };
        let mut objective = objective()?;
        let begun = Instant::now();
        let ended = train::run(objective.as_mut(), &task, machine, &quiet);
        let seconds = begun.elapsed().as_secs_f64();
        std::fs::remove_dir_all(scratch).map_err(|e| Error::io("measure a step", scratch, e))?;
        match ended? {
            Ended::Complete => Ok(seconds),
            Ended::Stopped(_) => {
                Err(Error::new(ErrorKind::Interrupted, "compare", "stopped while it measured a step"))
            }
        }
    };
    let total = 60.0 * minutes;
    let short = seconds(FIRST)?;
    let more = (MEASURED * total / (short / FIRST as f64)).clamp(OTHERS[0], OTHERS[1]) as u64;
    let long = seconds(FIRST + more)?;
    Ok(fitting(total, FIRST, short, FIRST + more, long))
}

/// Steps that take `total` seconds, where `a` of them took `short` seconds and `b`, which are more, took `long`: what both have in
/// common is not of steps. At least one.
fn fitting(total: f64, a: u64, short: f64, b: u64, long: f64) -> u64 {
    let each = ((long - short) / (b - a) as f64).max(0.1 * long / b as f64);
    let before = (short - each * a as f64).max(0.0);
    (((FILLED * total - before) / each) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_and_what_comes_before_it_fill_the_time() {
        // 3 seconds before the first step, 0.5 seconds a step.
        assert_eq!(fitting(100.0, 2, 4.0, 12, 9.0), 184);
        // A noisy clock may show more steps in less time; too little time is for one step.
        assert!(fitting(100.0, 2, 4.0, 12, 3.0) < 100 * 12 * 10);
        assert_eq!(fitting(1.0, 2, 4.0, 12, 9.0), 1);
    }
}
