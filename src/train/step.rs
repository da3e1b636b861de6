//! One training step: loss, gradients, optimiser, figures. Eager, or captured once as a CUDA graph and replayed.
//!
//! Nothing in a step waits for the host or reads from it: the learning rate is looked up on the device by a step counter
//! that lives there, and figures go to a [`History`] there. So a replay does what an eager step does, bit for bit.

use super::events::StepEvent;
use super::history::History;
use super::input::StepInput;
use autograd::optim::{Clip, Numbers, Optimizer, Scope};
use autograd::{Module, module};
use engine::cuda::graph::Graph;
use engine::{Device, Error, ErrorKind, Result, Tensor};
use kernels::optim::{self, Scalar, StepCount};
use objectives::{Batch, ClipScope, DeviceSchedule, LearningRate, Loss, Objective, Training};
use std::ops::Range;

/// Eager steps before a capture: in these, kernels are compiled and optimiser state and memory for all sizes are made.
const WARM_UP: u64 = 2;
/// Steps whose figures a CUDA device keeps before they are read.
const DEVICE_ROWS: u64 = 10;

/// Takes training steps on the device of the objective's networks.
pub struct Stepper {
    device: Device,
    optimizer: Optimizer,
    clip: Option<Clip>,
    /// The learning rate of every step.
    rates: DeviceSchedule,
    /// What multiplies weight decay at every step.
    decays: DeviceSchedule,
    /// i32 [1]: steps taken.
    clock: Tensor,
    history: Option<History>,
    wants_graph: bool,
    taken: u64,
    captured: Option<Captured>,
}

/// Where each parameter and buffer lies.
fn storages(networks: &mut dyn Module) -> Vec<(String, usize)> {
    let parts = module::parts(networks);
    let params = parts.params.into_iter().map(|(name, param)| (name, param.value().storage_id()));
    let buffers = parts.buffers.into_iter().map(|(name, buffer)| (name, buffer.value().storage_id()));
    params.chain(buffers).collect()
}

/// A step as a graph, and where its replays leave the embeddings.
struct Captured {
    graph: Graph,
    embeddings: Tensor,
}

impl Stepper {
    /// A stepper that has taken `done` of the `steps` of a run.
    pub fn new(
        networks: &mut dyn Module,
        optimizer: Optimizer,
        training: &Training,
        steps: u64,
        done: u64,
        wants_graph: bool,
    ) -> Result<Stepper> {
        let device = module::device(networks);
        let rate = LearningRate::new(training, steps);
        let decay = training.decay_scale(steps);
        let scope = match training.clip_scope {
            ClipScope::Global => Scope::Global,
            ClipScope::Group => Scope::Group,
            ClipScope::Parameter => Scope::Parameter,
        };
        Ok(Stepper {
            device,
            optimizer,
            clip: training.clip.map(|limit| Clip { limit, scope }),
            rates: DeviceSchedule::new(steps, device, |step| rate.at(step))?,
            decays: DeviceSchedule::new(steps, device, |step| decay.at(step))?,
            clock: objectives::draws::clock(done, device)?,
            history: None,
            wants_graph,
            taken: 0,
            captured: None,
        })
    }

    /// Takes a step on what `input` gives, which is called in the step (and captured with it). Gives the embeddings that
    /// the loss compared.
    pub fn step(
        &mut self,
        objective: &mut dyn Objective,
        input: impl FnOnce() -> Result<StepInput>,
    ) -> Result<Tensor> {
        if self.captured.is_none() && self.wants_graph && self.taken >= WARM_UP {
            let device = self.device;
            let before = storages(objective.networks());
            let (graph, embeddings) = Graph::capture(device, || self.eager(objective, input))?;
            if let Some(moved) = before.iter().zip(storages(objective.networks())).find(|(a, b)| **a != *b) {
                let text =
                    format!("{} is replaced in a step: a captured one must write it in place", moved.0.0);
                return Err(Error::new(ErrorKind::Graph, "capture training step", text));
            }
            self.captured = Some(Captured { graph, embeddings });
            return self.replay();
        }
        match self.captured {
            Some(_) => self.replay(),
            None => {
                self.taken += 1;
                self.eager(objective, input)
            }
        }
    }

    fn eager(
        &mut self,
        objective: &mut dyn Objective,
        input: impl FnOnce() -> Result<StepInput>,
    ) -> Result<Tensor> {
        let input = input()?;
        let batch = Batch { views: &input.views, draws: &input.draws, clock: &self.clock };
        let Loss { value, embeddings, signals } = objective.loss(&batch)?;
        value.backward()?;
        let (rate, decay_scale) = (self.rates.at(&self.clock)?, self.decays.at(&self.clock)?);
        let numbers = Numbers {
            rate: Scalar::Tensor(&rate),
            decay_scale: Scalar::Tensor(&decay_scale),
            before: StepCount::Tensor(&self.clock),
        };
        let norm = self.optimizer.step_after(objective.networks(), &numbers, self.clip)?;
        objective.after_step(&batch)?;
        let mut figures = vec![("loss", value.value()), ("rate", &rate), ("gradient_norm", &norm)];
        figures.extend(signals.iter().map(|(name, value)| (*name, value)));
        let rows = self.rows();
        let history = match &mut self.history {
            Some(history) => history,
            None => {
                let names = figures.iter().map(|f| f.0).collect();
                self.history.insert(History::new(rows as usize, names, self.device)?)
            }
        };
        history.record(&self.clock, &figures)?;
        optim::advance(&mut self.clock)?;
        Ok(embeddings)
    }

    fn replay(&mut self) -> Result<Tensor> {
        // Only called with a capture; without one there is nothing to run.
        match &mut self.captured {
            Some(captured) => {
                captured.graph.launch()?;
                Ok(captured.embeddings.clone())
            }
            None => Err(Error::value("training step", "no graph was captured")),
        }
    }

    /// Steps whose figures are kept: they must be read before more are taken.
    pub fn rows(&self) -> u64 {
        match self.device {
            Device::Cpu => 1,
            Device::Cuda(_) => DEVICE_ROWS,
        }
    }

    /// What is to tell of the steps in `range`, counted from 0; waits for the device. There are `per_epoch` steps in an
    /// epoch.
    pub fn events(&self, range: Range<u64>, per_epoch: u64) -> Result<Vec<StepEvent>> {
        let Some(history) = &self.history else { return Ok(Vec::new()) };
        let rows = history.read(range.clone())?;
        let event = |(step, row): (u64, Vec<f32>)| {
            StepEvent::new(step + 1, step / per_epoch, history.names().iter().copied().zip(row).collect())
        };
        Ok(range.zip(rows).map(event).collect())
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }
}
