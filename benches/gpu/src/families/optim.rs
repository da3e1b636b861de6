//! Optimiser steps over all parameters of a network at once. Values and state are f32; gradients are of the case's type.

use crate::computation::{Computation, Source, Tensors, Work};
use engine::{Error, Result, Tensor};
use kernels::optim::{self, Hold, Slot, Step, StepCount};
use serde::Deserialize;

/// Steps taken before the one that is timed: moments are not at their first step.
const BEFORE: StepCount = StepCount::Value(9);
const RATE: f32 = 1e-3;
const WEIGHT_DECAY: f32 = 0.05;
const AVERAGE_DECAY: f32 = 0.996;
const MOMENTUM: f32 = 0.9;

/// AdamW, with a teacher's moving average in the same pass if `average`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adamw {
    sizes: Vec<usize>,
    #[serde(default)]
    average: bool,
}

/// Stochastic gradient descent with momentum.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sgd {
    sizes: Vec<usize>,
}

fn parameters(source: &mut Source, sizes: &[usize], state: &[&str]) -> Result<Tensors> {
    let mut all = Tensors::new();
    for (i, &n) in sizes.iter().enumerate() {
        all.push((format!("value.{i}"), source.uniform_f32(&[n])?));
        all.push((format!("gradient.{i}"), source.uniform(&[n])?));
        for name in state {
            all.push((format!("{name}.{i}"), source.zeros_f32(&[n])?));
        }
    }
    Ok(all)
}

fn slot<'a>(value: &'a mut Tensor, gradient: &'a Tensor, first: &'a mut Tensor) -> Slot<'a> {
    Slot {
        value,
        gradient,
        first,
        second: None,
        low: None,
        average: None,
        weight_decay: WEIGHT_DECAY,
        rate_scale: 1.0,
        adapt: false,
        hold: Hold::None,
    }
}

/// Slots of parameters with as many tensors of state: momentum or first moment, second moment, average.
fn slots(inputs: &mut Tensors, state: usize) -> Result<Vec<Slot<'_>>> {
    let wrong = || Error::value("optimiser", "a parameter's tensors are not all there");
    let chunks = inputs.chunks_exact_mut(2 + state);
    chunks
        .map(|chunk| match chunk {
            [value, gradient, first] => Ok(slot(&mut value.1, &gradient.1, &mut first.1)),
            [value, gradient, first, second] => {
                Ok(Slot { second: Some(&mut second.1), ..slot(&mut value.1, &gradient.1, &mut first.1) })
            }
            [value, gradient, first, second, average] => Ok(Slot {
                second: Some(&mut second.1),
                average: Some(&mut average.1),
                ..slot(&mut value.1, &gradient.1, &mut first.1)
            }),
            _ => Err(wrong()),
        })
        .collect()
}

/// `tensors` f32 and one gradient of `size` bytes a parameter.
fn work(sizes: &[usize], tensors: usize, size: usize, flops: f64) -> Work {
    let n: usize = sizes.iter().sum();
    Work { bytes: (n * (4 * tensors + size)) as f64, flops: flops * n as f64 }
}

impl Computation for Adamw {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        let state = ["first", "second", "average"];
        parameters(source, &self.sizes, &state[..2 + usize::from(self.average)])
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        let step = Step { average_decay: AVERAGE_DECAY.into(), ..Step::at(RATE) };
        let mut slots = slots(inputs, 2 + usize::from(self.average))?;
        optim::adamw(&mut slots, &step, (0.9, 0.999), 1e-8, BEFORE)?;
        Ok(Tensors::new())
    }

    /// Value and both moments read and written, the average too.
    fn work(&self, size: usize) -> Work {
        work(&self.sizes, 6 + 2 * usize::from(self.average), size, 15.0)
    }

    fn in_place(&self) -> &'static [&'static str] {
        &["value", "first", "second", "average"]
    }
}

impl Computation for Sgd {
    fn inputs(&self, source: &mut Source) -> Result<Tensors> {
        parameters(source, &self.sizes, &["first"])
    }

    fn run(&self, inputs: &mut Tensors) -> Result<Tensors> {
        optim::sgd(&mut slots(inputs, 1)?, &Step::at(RATE), MOMENTUM, false, BEFORE)?;
        Ok(Tensors::new())
    }

    /// Value and momentum read and written.
    fn work(&self, size: usize) -> Work {
        work(&self.sizes, 4, size, 5.0)
    }

    fn in_place(&self) -> &'static [&'static str] {
        &["value", "first"]
    }
}
