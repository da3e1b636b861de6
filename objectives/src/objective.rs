//! What a pre-training method is to the trainer.

use autograd::optim::Algorithm;
use autograd::{Module, Var};
use engine::{Device, Error, Result, Tensor};
use kernels::augment::Recipe;
use models::Encoder;

/// What defaults depend on: the images that a method will see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataProfile {
    /// Rows of the images.
    pub height: usize,
    /// Columns of the images.
    pub width: usize,
    /// Channels: 1 grey, 3 RGB.
    pub channels: usize,
    /// Number of training images.
    pub len: usize,
}

impl DataProfile {
    /// The shorter side in pixels.
    pub fn side(&self) -> usize {
        self.height.min(self.width)
    }
}

/// What schedules and state are made for, before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Optimiser steps of a pass over the data.
    pub steps_per_epoch: u64,
    /// Images a step.
    pub batch: usize,
    /// Where the networks compute.
    pub device: Device,
}

impl Run {
    /// Steps of so many epochs, at least one where there is any part of an epoch.
    pub fn steps_of(&self, epochs: f32) -> u64 {
        (f64::from(epochs) * self.steps_per_epoch as f64).ceil() as u64
    }
}

/// What a method draws on the host for each step (masks, permutations, dropped branches): a pure function of the step's
/// number. The tensors of all steps have the same shapes and types (f32 or i32).
pub type Draws = Box<dyn Fn(u64) -> Result<Vec<Tensor>> + Send + Sync>;

/// One step's input, on the device of the networks.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// One batch a view, [B, H, W, C], f32 or bf16; row i of every view shows the same image.
    pub views: &'a [Tensor],
    /// What [`Objective::draws`] gave for this step.
    pub draws: &'a [Tensor],
    /// i32 \[1\]: the optimiser steps that were taken before this one. Numbers that change from step to step are looked up
    /// with it on the device ([`crate::schedule::DeviceSchedule`]).
    pub clock: &'a Tensor,
}

impl<'a> Batch<'a> {
    /// The only view of `method`; an error if there is another number.
    #[track_caller]
    pub fn single(&self, method: &str) -> Result<&'a Tensor> {
        match self.views {
            [view] => Ok(view),
            views => Err(Error::value(method, format!("takes one view, got {}", views.len()))),
        }
    }

    /// The two views that `method` compares; an error if there is another number, or they differ in shape or type.
    #[track_caller]
    pub fn pair(&self, method: &str) -> Result<[&'a Tensor; 2]> {
        let [a, b] = self.views else {
            return Err(Error::value(method, format!("compares two views, got {}", self.views.len())));
        };
        b.require_shape(method, "second view", a.shape())?;
        b.require_dtype(method, "second view", a.dtype())?;
        Ok([a, b])
    }

    /// What was drawn for this step as number `i`; an error if it was not.
    #[track_caller]
    pub fn draw(&self, method: &str, i: usize) -> Result<&'a Tensor> {
        self.draws.get(i).ok_or_else(|| {
            Error::value(method, format!("draw {i} is missing: a step needs what `draws` gives for it"))
        })
    }
}

/// The loss of one batch and what is watched beside it.
pub struct Loss {
    /// The scalar to minimise.
    pub value: Var,
    /// [rows, D], f32: what the loss compares, without history. Its spread and rank show a collapse.
    pub embeddings: Tensor,
    /// Further figures by name: f32 scalars on the device, read when they are shown.
    pub signals: Vec<(&'static str, Tensor)>,
}

/// What is special about a parameter's training; see `autograd::optim`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Special {
    /// Multiplies the learning rate.
    pub rate_scale: f32,
    /// How the first steps differ.
    pub hold: Hold,
    /// Parameters of one group are clipped together where `training.clip_scope` says so.
    pub group: u32,
    /// The parameter is trained by an optimiser of its own, without weight decay: an adversary's.
    pub optimiser: Option<Algorithm>,
}

pub use kernels::optim::Hold;

impl Default for Special {
    fn default() -> Special {
        Special { rate_scale: 1.0, hold: Hold::None, group: 0, optimiser: None }
    }
}

/// What a method makes of some images, side by side.
pub struct Pictures {
    /// A name, and images [N, H, W, 1 or 3] with values of 0 to 1, f32 in host memory, for each column; row n of all shows the
    /// same image. Names say what is shown, such as `masked`, and which pixels are predicted.
    pub columns: Vec<(&'static str, Tensor)>,
}

/// A pre-training method at work: its networks, views and loss.
pub trait Objective: Send {
    /// The method's name.
    fn name(&self) -> &'static str;

    /// How each view of an image is made. The trainer gives [`Objective::loss`] one batch for each.
    fn views(&self) -> &[Recipe];

    /// What is drawn on the host for each step, if anything.
    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let _ = run;
        Ok(None)
    }

    /// Looks at training images once, before the first step of a new run and while the networks are on the CPU: `views` gives
    /// batches [B, H, W, C] of them, whole and at the size of the first view. What is learnt belongs into buffers.
    fn prepare(&mut self, views: &mut dyn Iterator<Item = Result<Tensor>>) -> Result<()> {
        let _ = views;
        Ok(())
    }

    /// Makes the schedules of a run, once, when the networks are on their device. An error if the run does not suit the
    /// method's settings.
    fn begin(&mut self, run: &Run) -> Result<()> {
        let _ = run;
        Ok(())
    }

    /// The loss of a batch.
    ///
    /// On a CUDA device this may be captured once and replayed: nothing may be read from the device or uploaded to it
    /// (`Tensor::constant` is for what never changes), and state is written in place.
    fn loss(&mut self, batch: &Batch) -> Result<Loss>;

    /// What the method makes of a few images, in f32, for a person to look at; `None` if there is nothing to see. Nothing may
    /// change by it.
    fn pictures(&mut self, batch: &Batch) -> Result<Option<Pictures>> {
        let _ = batch;
        Ok(None)
    }

    /// What happens after the optimiser's step of this batch: moving averages, queues. Captured with the step.
    fn after_step(&mut self, batch: &Batch) -> Result<()> {
        let _ = batch;
        Ok(())
    }

    /// What is special about the training of the parameter called `name` in [`Objective::networks`]. Asked once, after
    /// [`Objective::begin`].
    fn special(&self, name: &str) -> Special {
        let _ = name;
        Special::default()
    }

    /// A warning in words if the latest figures (`signals` of [`Loss`], `loss`, and `step`, the steps taken) show a known
    /// sign of failure.
    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let _ = figures;
        None
    }

    /// Everything to train and to checkpoint. Queues and centres are buffers in it, targets are frozen. The encoder that
    /// is trained is called `encoder`.
    fn networks(&mut self) -> &mut dyn Module;

    /// What is kept after training; a part of [`Objective::networks`].
    fn encoder(&mut self) -> &mut dyn Encoder;
}
