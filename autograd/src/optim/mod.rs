//! Optimisers: which parameters decay and adapt, the state kept for each, and its place in a checkpoint.
//!
//! The arithmetic is in `kernels::optim`, one pass over all parameters.

use crate::module::{self, Module};
use crate::param::Role;
use engine::safetensors::Contents;
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::optim::{self as kernel, LarsVariant, Slot};
use std::collections::BTreeMap;

/// The update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Algorithm {
    /// Stochastic gradient descent with momentum (PyTorch's conventions).
    Sgd {
        /// Share of the old direction that is kept.
        momentum: f32,
        /// Whether to look ahead by one step.
        nesterov: bool,
    },
    /// Layer-wise adaptive rate scaling (You et al. 2017).
    Lars {
        /// Share of the old direction that is kept.
        momentum: f32,
        /// Trust coefficient, usually 0.001.
        trust: f32,
        /// Where learning rate and weight decay enter.
        variant: LarsVariant,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the first and second moment.
        betas: (f32, f32),
        /// Added to the root of the second moment.
        eps: f32,
    },
}

/// Moments of one parameter.
struct State {
    first: Tensor,
    second: Option<Tensor>,
}

/// An optimiser over all trainable parameters of a module.
///
/// Weight decay and LARS' trust ratio apply to weights only: biases and normalisation parameters are left
/// out, as all methods here ask for.
pub struct Optimizer {
    algorithm: Algorithm,
    weight_decay: f32,
    steps: u64,
    state: BTreeMap<String, State>,
}

impl Optimizer {
    /// An optimiser that has taken no step.
    pub fn new(algorithm: Algorithm, weight_decay: f32) -> Optimizer {
        Optimizer { algorithm, weight_decay, steps: 0, state: BTreeMap::new() }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at this learning rate, using up the gradients. Gives the global norm of the gradients before
    /// clipping; with `clip` they are scaled down to that norm.
    ///
    /// Errors, naming them, if parameters have no gradient: freeze those that are not meant to be trained.
    #[track_caller]
    pub fn step<M: Module + ?Sized>(&mut self, network: &mut M, rate: f32, clip: Option<f32>) -> Result<f32> {
        let _named = engine::memory::operation("optimiser");
        let parts = module::parts(network);
        let mut trained: Vec<_> = parts.params.into_iter().filter(|(_, p)| p.is_trainable()).collect();
        let missing: Vec<&str> =
            trained.iter().filter(|(_, p)| p.gradient().is_none()).map(|(n, _)| n.as_str()).collect();
        if !missing.is_empty() {
            return Err(Error::new(
                ErrorKind::Graph,
                "optimiser",
                format!(
                    "no gradient reached {}: use them in the loss or freeze them (set_trainable(false))",
                    missing.join(", ")
                ),
            ));
        }
        let gradients = trained
            .iter()
            .filter_map(|(_, p)| p.take_gradient())
            .map(|g| kernels::copy::contiguous(&g))
            .collect::<Result<Vec<Tensor>>>()?;
        let norm = kernel::global_norm(&gradients.iter().collect::<Vec<_>>())?;
        let scale = clip.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let first_step = self.steps == 0;
        let two_moments = matches!(self.algorithm, Algorithm::AdamW { .. });
        for (name, param) in &trained {
            if !self.state.contains_key(name) {
                let (shape, device) = (param.value().shape(), param.value().device());
                let zeros = || Tensor::zeros(shape, DType::F32, device);
                let state =
                    State { first: zeros()?, second: if two_moments { Some(zeros()?) } else { None } };
                self.state.insert(name.clone(), state);
            }
        }
        let mut states: BTreeMap<&str, &mut State> =
            self.state.iter_mut().map(|(name, state)| (name.as_str(), state)).collect();
        let mut slots = Vec::with_capacity(trained.len());
        for ((name, param), gradient) in trained.iter_mut().zip(&gradients) {
            let is_weight = param.role() == Role::Weight;
            let Some(state) = states.remove(name.as_str()) else {
                return Err(Error::value("optimiser", format!("two parameters are called {name}")));
            };
            slots.push(Slot {
                value: param.value_mut(),
                gradient,
                first: &mut state.first,
                second: state.second.as_mut(),
                weight_decay: if is_weight { self.weight_decay } else { 0.0 },
                rate_scale: 1.0,
                adapt: is_weight,
            });
        }
        self.steps += 1;
        match self.algorithm {
            Algorithm::Sgd { momentum, nesterov } => {
                kernel::sgd(&mut slots, rate, momentum, nesterov, first_step, scale)?
            }
            Algorithm::Lars { momentum, trust, variant } => {
                kernel::lars(&mut slots, rate, momentum, trust, variant, scale)?
            }
            Algorithm::AdamW { betas, eps } => {
                kernel::adamw(&mut slots, rate, betas, eps, self.steps, scale)?
            }
        }
        Ok(norm)
    }

    /// Adds the state to `contents`, names prefixed by `prefix`. The number of steps is the caller's to keep.
    pub fn save(&self, prefix: &str, contents: &mut Contents) -> Result<()> {
        for (name, state) in &self.state {
            contents.insert(format!("{prefix}{name}.first"), &state.first)?;
            if let Some(second) = &state.second {
                contents.insert(format!("{prefix}{name}.second"), second)?;
            }
        }
        Ok(())
    }

    /// Takes the state that [`Optimizer::save`] left, after `steps` steps over `network`.
    ///
    /// Errors if a trained parameter's state is missing or of another shape.
    pub fn load<M: Module + ?Sized>(
        &mut self,
        network: &mut M,
        prefix: &str,
        contents: &Contents,
        steps: u64,
    ) -> Result<()> {
        let mut all = BTreeMap::new();
        if steps > 0 {
            for (name, param) in module::parts(network).params.iter().filter(|(_, p)| p.is_trainable()) {
                let get = |which: &str| -> Result<Tensor> {
                    let tensor = contents.get(&format!("{prefix}{name}.{which}"))?;
                    tensor.require_shape("load optimiser", name, param.value().shape())?;
                    Ok(tensor.clone())
                };
                let second = match self.algorithm {
                    Algorithm::AdamW { .. } => Some(get("second")?),
                    Algorithm::Sgd { .. } | Algorithm::Lars { .. } => None,
                };
                all.insert(name.clone(), State { first: get("first")?, second });
            }
        }
        self.state = all;
        self.steps = steps;
        Ok(())
    }
}
