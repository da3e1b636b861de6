//! Optimisers: what holds for which parameter, the state kept for each, and its place in a checkpoint.
//!
//! The arithmetic is in `kernels::optim`, one pass over all parameters.

mod rule;

pub use kernels::optim::{Clip, Hold, Scope};
pub use rule::Rule;

use crate::Param;
use crate::module::{self, Module};
use engine::cuda::graph;
use engine::safetensors::Contents;
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::optim::{self as kernel, Clipped, LarsVariant, Scalar, Slot, Step, StepCount};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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

impl Algorithm {
    /// Whether a second moment is kept beside the first.
    fn has_second(&self) -> bool {
        matches!(self, Algorithm::AdamW { .. })
    }
}

/// The numbers of a step, by value or, for a step that is captured in a CUDA graph, in device memory.
#[derive(Debug, Clone, Copy)]
pub struct Numbers<'a> {
    /// Learning rate.
    pub rate: Scalar<'a>,
    /// Multiplies the weight decay of all parameters.
    pub decay_scale: Scalar<'a>,
    /// Steps that were taken before this one.
    pub before: StepCount<'a>,
}

/// What is kept of one parameter: its rule and its moments.
struct State {
    rule: Rule,
    first: Tensor,
    second: Option<Tensor>,
}

/// Gives a parameter's rule.
type Rules = Box<dyn Fn(&str, &Param) -> Rule + Send + Sync>;

/// An optimiser over all trainable parameters of a module.
///
/// Without [`Optimizer::with_rules`] weight decay and LARS' trust ratio apply to weights and tokens only: biases and
/// normalisation parameters are left out.
pub struct Optimizer {
    algorithm: Algorithm,
    weight_decay: f32,
    rules: Rules,
    steps: u64,
    state: BTreeMap<String, State>,
}

impl Optimizer {
    /// An optimiser that has taken no step.
    pub fn new(algorithm: Algorithm, weight_decay: f32) -> Optimizer {
        let rules = Box::new(|_: &str, param: &Param| Rule::of(param));
        Optimizer { algorithm, weight_decay, rules, steps: 0, state: BTreeMap::new() }
    }

    /// With a rule for each parameter instead of [`Rule::of`]. `rules` is given a parameter's name and the parameter
    /// once, before its first step here; what it says is kept.
    pub fn with_rules(mut self, rules: impl Fn(&str, &Param) -> Rule + Send + Sync + 'static) -> Optimizer {
        self.rules = Box::new(rules);
        self
    }

    /// Steps taken. Replays of a captured step are not seen here: see [`Optimizer::set_steps`].
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Says how many steps were taken, after replays of a captured step.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// One step at this learning rate, using up the gradients. Gives the norm of all gradients together before clipping,
    /// f32 [1] on their device; with `clip` they are scaled down to its limit. Parameters that a rule holds count for
    /// norms as any.
    ///
    /// Errors, naming them, if parameters have no gradient: freeze those that are not meant to be trained.
    #[track_caller]
    pub fn step<M: Module + ?Sized>(
        &mut self,
        network: &mut M,
        rate: Scalar,
        clip: Option<Clip>,
    ) -> Result<Tensor> {
        let numbers = Numbers { rate, decay_scale: Scalar::Value(1.0), before: StepCount::Value(self.steps) };
        self.step_after(network, &numbers, clip)
    }

    /// [`Optimizer::step`] with the step's numbers from elsewhere: from device memory, for a step that is captured in a
    /// CUDA graph.
    ///
    /// A graph must find the state where it is: take one step, or call [`Optimizer::prepare`], before the capture.
    #[track_caller]
    pub fn step_after<M: Module + ?Sized>(
        &mut self,
        network: &mut M,
        numbers: &Numbers,
        clip: Option<Clip>,
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
        let mut groups = Vec::with_capacity(trained.len());
        for (name, param) in &trained {
            groups.push(self.state_of(name, param)?.rule.group);
        }
        let norms = gradients.iter().collect::<Vec<_>>();
        let (norm, scales) = match clip {
            None => (kernel::global_norm(&norms)?, None),
            Some(clip) => {
                let Clipped { norm, scales } = kernel::clip_scales(&norms, &groups, clip)?;
                (norm, Some(scales))
            }
        };
        let step = Step {
            decay_scale: numbers.decay_scale,
            gradient_scales: scales.as_ref(),
            ..Step::at(numbers.rate)
        };
        let mut states: BTreeMap<&str, &mut State> =
            self.state.iter_mut().map(|(name, state)| (name.as_str(), state)).collect();
        // A parameter with an algorithm of its own is updated in another launch.
        let mut slots: Vec<(Algorithm, Vec<Slot>)> =
            vec![(self.algorithm, Vec::with_capacity(trained.len()))];
        for ((name, param), gradient) in trained.iter_mut().zip(&gradients) {
            let Some(state) = states.remove(name.as_str()) else {
                return Err(Error::value("optimiser", format!("two parameters are called {name}")));
            };
            let (value, low) = param.parts_mut();
            let algorithm = state.rule.algorithm.unwrap_or(self.algorithm);
            let slot = Slot {
                value,
                gradient,
                first: &mut state.first,
                second: state.second.as_mut(),
                low,
                average: None,
                weight_decay: state.rule.weight_decay * self.weight_decay,
                rate_scale: state.rule.rate_scale,
                adapt: state.rule.adapt,
                hold: state.rule.hold,
            };
            match slots.iter_mut().find(|(a, _)| *a == algorithm) {
                Some((_, slots)) => slots.push(slot),
                None => slots.push((algorithm, vec![slot])),
            }
        }
        self.steps += 1;
        let before = numbers.before;
        for (algorithm, mut slots) in slots.into_iter().filter(|(_, slots)| !slots.is_empty()) {
            match algorithm {
                Algorithm::Sgd { momentum, nesterov } => {
                    kernel::sgd(&mut slots, &step, momentum, nesterov, before)?
                }
                Algorithm::Lars { momentum, trust, variant } => {
                    kernel::lars(&mut slots, &step, momentum, trust, variant, before)?
                }
                Algorithm::AdamW { betas, eps } => kernel::adamw(&mut slots, &step, betas, eps, before)?,
            }
        }
        Ok(norm)
    }

    /// Makes the state of all trained parameters that have none, which the first step does otherwise.
    #[track_caller]
    pub fn prepare<M: Module + ?Sized>(&mut self, network: &mut M) -> Result<()> {
        let _named = engine::memory::operation("optimiser");
        for (name, param) in module::parts(network).params.iter().filter(|(_, p)| p.is_trainable()) {
            self.state_of(name, param)?;
        }
        Ok(())
    }

    /// The state of a parameter: its rule and zeros if there is none yet.
    #[track_caller]
    fn state_of(&mut self, name: &str, param: &Param) -> Result<&State> {
        let value = param.value();
        if !self.state.contains_key(name) && graph::capturing(value.device()) {
            let text = format!("{name} has no state yet, which every replay would clear: call prepare first");
            return Err(Error::new(ErrorKind::Graph, "optimiser", text));
        }
        let entry = match self.state.entry(name.to_string()) {
            Entry::Occupied(entry) => return Ok(entry.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        let zeros = || Tensor::zeros(value.shape(), DType::F32, value.device());
        let rule = (self.rules)(name, param);
        let second = rule.algorithm.unwrap_or(self.algorithm).has_second().then(zeros).transpose()?;
        Ok(entry.insert(State { rule, first: zeros()?, second }))
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
                let rule = (self.rules)(name, param);
                let has_second = rule.algorithm.unwrap_or(self.algorithm).has_second();
                let second = has_second.then(|| get("second")).transpose()?;
                all.insert(name.clone(), State { rule, first: get("first")?, second });
            }
        }
        self.state = all;
        self.steps = steps;
        Ok(())
    }
}
