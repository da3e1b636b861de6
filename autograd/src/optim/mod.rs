//! Optimisers: which parameters decay and adapt, the state kept for each, and its place in a checkpoint.
//!
//! The arithmetic is in `kernels::optim`, one pass over all parameters.

use crate::module::{self, Module};
use crate::param::Role;
use engine::cuda::graph;
use engine::safetensors::Contents;
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::optim::{self as kernel, LarsVariant, Scalar, Slot, Step, StepCount};
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

    /// Steps taken. Replays of a captured step are not seen here: see [`Optimizer::set_steps`].
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Says how many steps were taken, after replays of a captured step.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// One step at this learning rate, using up the gradients. Gives the global norm of the gradients before
    /// clipping, f32 [1] on their device; with `clip` they are scaled down to that norm.
    ///
    /// Errors, naming them, if parameters have no gradient: freeze those that are not meant to be trained.
    #[track_caller]
    pub fn step<M: Module + ?Sized>(
        &mut self,
        network: &mut M,
        rate: Scalar,
        clip: Option<f32>,
    ) -> Result<Tensor> {
        let before = StepCount::Value(self.steps);
        self.step_after(network, rate, clip, before)
    }

    /// [`Optimizer::step`] with the number of steps before it from elsewhere: from device memory, for a step that is
    /// captured in a CUDA graph.
    ///
    /// A graph must find the state where it is: take one step, or call [`Optimizer::prepare`], before the capture.
    #[track_caller]
    pub fn step_after<M: Module + ?Sized>(
        &mut self,
        network: &mut M,
        rate: Scalar,
        clip: Option<f32>,
        before: StepCount,
    ) -> Result<Tensor> {
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
        let scale = clip.map(|limit| kernel::clip_scale(&norm, limit)).transpose()?;
        let gradient_scale = scale.as_ref().map_or(Scalar::Value(1.0), Scalar::Tensor);
        let step = Step { rate, gradient_scale, average_decay: Scalar::Value(1.0) };
        for (name, param) in &trained {
            self.state_of(name, param.value())?;
        }
        let mut states: BTreeMap<&str, &mut State> =
            self.state.iter_mut().map(|(name, state)| (name.as_str(), state)).collect();
        let mut slots = Vec::with_capacity(trained.len());
        for ((name, param), gradient) in trained.iter_mut().zip(&gradients) {
            let is_weight = param.role() == Role::Weight;
            let Some(state) = states.remove(name.as_str()) else {
                return Err(Error::value("optimiser", format!("two parameters are called {name}")));
            };
            let (value, low) = param.parts_mut();
            slots.push(Slot {
                value,
                gradient,
                first: &mut state.first,
                second: state.second.as_mut(),
                low,
                average: None,
                weight_decay: if is_weight { self.weight_decay } else { 0.0 },
                rate_scale: 1.0,
                adapt: is_weight,
            });
        }
        self.steps += 1;
        match self.algorithm {
            // A momentum that is zero gives what the first step is: a captured step can be any.
            Algorithm::Sgd { momentum, nesterov } => {
                kernel::sgd(&mut slots, &step, momentum, nesterov, false)?
            }
            Algorithm::Lars { momentum, trust, variant } => {
                kernel::lars(&mut slots, &step, momentum, trust, variant)?
            }
            Algorithm::AdamW { betas, eps } => kernel::adamw(&mut slots, &step, betas, eps, before)?,
        }
        Ok(norm)
    }

    /// Makes the state of all trained parameters that have none, which the first step does otherwise.
    #[track_caller]
    pub fn prepare<M: Module + ?Sized>(&mut self, network: &mut M) -> Result<()> {
        let _named = engine::memory::operation("optimiser");
        for (name, param) in module::parts(network).params.iter().filter(|(_, p)| p.is_trainable()) {
            self.state_of(name, param.value())?;
        }
        Ok(())
    }

    /// Zeros as the state of a parameter that has none.
    #[track_caller]
    fn state_of(&mut self, name: &str, value: &Tensor) -> Result<()> {
        if self.state.contains_key(name) {
            return Ok(());
        }
        if graph::capturing(value.device()) {
            let text = format!("{name} has no state yet, which every replay would clear: call prepare first");
            return Err(Error::new(ErrorKind::Graph, "optimiser", text));
        }
        let zeros = || Tensor::zeros(value.shape(), DType::F32, value.device());
        let second = match self.algorithm {
            Algorithm::AdamW { .. } => Some(zeros()?),
            Algorithm::Sgd { .. } | Algorithm::Lars { .. } => None,
        };
        self.state.insert(name.to_string(), State { first: zeros()?, second });
        Ok(())
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
                    tensor.to_device(param.value().device())
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
