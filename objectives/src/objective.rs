//! What a pre-training method is to the trainer.

use crate::Training;
use autograd::{Module, Var};
use engine::{Result, Tensor};
use kernels::augment::Recipe;
use models::Encoder;

/// What defaults depend on: the images that a method will see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataProfile {
    /// Rows of the views.
    pub height: usize,
    /// Columns of the views.
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

/// Where training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Optimiser steps done before this one: 0 at the first.
    pub step: u64,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Passes over the data done before this one.
    pub epoch: usize,
}

/// The loss of one batch and what is watched beside it.
pub struct Loss {
    /// The scalar to minimise.
    pub value: Var,
    /// [rows, D]: what the loss compares, without history. Its spread and rank show a collapse.
    pub embeddings: Tensor,
    /// Further figures by name: scalars on the device, read when they are shown.
    pub signals: Vec<(&'static str, Tensor)>,
}

/// A pre-training method at work: its networks, views and loss.
pub trait Objective: Send {
    /// The method's name.
    fn name(&self) -> &'static str;

    /// How each view of an image is made. The trainer gives [`Objective::loss`] one batch for each.
    fn views(&self) -> &[Recipe];

    /// The loss of a batch. `views[v]` is [B, H, W, C], f32 or bf16, on the device of the networks; row i of every view
    /// shows the same image.
    ///
    /// On a CUDA device this may be captured once and replayed: nothing may be read from the device or uploaded to it
    /// (`Tensor::constant` is for what never changes), state is written in place, and a number that changes from step to
    /// step must be looked up on the device, as the trainer does with the learning rate (`kernels::optim::schedule`): `at`
    /// is that of the captured step in all replays.
    fn loss(&mut self, views: &[Tensor], at: &Progress) -> Result<Loss>;

    /// What happens after the optimiser's step: moving averages, queues.
    fn after_step(&mut self, at: &Progress) -> Result<()> {
        let _ = at;
        Ok(())
    }

    /// Everything to train and to checkpoint. Queues and centres are buffers in it, targets are frozen.
    fn networks(&mut self) -> &mut dyn Module;

    /// What is kept after training; a part of [`Objective::networks`].
    fn encoder(&mut self) -> &mut dyn Encoder;
}

/// Makes an objective from its own settings (those left out have their defaults), the data's profile, the
/// encoder to train and the seed of what else it has.
pub type Build = fn(&toml::Table, &DataProfile, Box<dyn Encoder>, u64) -> Result<Box<dyn Objective>>;

/// An entry of the list of methods.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// What the command line calls it.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// The paper.
    pub reference: &'static str,
    /// How it is trained unless told otherwise.
    pub training: fn(&DataProfile) -> Training,
    /// Its own settings with their defaults: all that `build` takes.
    pub settings: fn(&DataProfile) -> toml::Table,
    /// Makes it.
    pub build: Build,
    /// The architecture it takes unless told otherwise, and its width.
    pub arch: fn(&DataProfile) -> (&'static str, Option<usize>),
}
