//! The images of each step, on the device that trains.

use super::Machine;
use crate::config::Config;
use data::{Batch, Dataset, Epoch, Loader, LoaderOptions};
use engine::{Device, Result, Tensor};
use objectives::Objective;
use std::sync::Arc;

/// Batches, one after another.
pub struct Input {
    loader: Loader,
    device: Device,
    epoch: Option<Epoch>,
    batch: Option<Batch>,
}

impl Input {
    /// The batches that a configuration describes.
    pub fn new(
        config: &Config,
        objective: &dyn Objective,
        train: &Arc<dyn Dataset>,
        machine: Machine,
    ) -> Result<Input> {
        let options = LoaderOptions {
            batch: config.training.batch,
            seed: config.seed,
            workers: machine.workers,
            drop_last: true,
            prefetch: machine.workers.max(1) + 1,
        };
        let loader = Loader::new(train.clone(), objective.views().to_vec(), options)?;
        Ok(Input { loader, device: machine.device, epoch: None, batch: None })
    }

    /// Batches an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.loader.steps_per_epoch() as u64
    }

    /// Starts an epoch at one of its steps.
    pub fn begin(&mut self, epoch: usize, step: u64) -> Result<()> {
        self.epoch = Some(self.loader.epoch(epoch, step as usize)?);
        Ok(())
    }

    /// Goes on to the epoch's next batch; false if there is none.
    pub fn advance(&mut self) -> Result<bool> {
        self.batch = self.epoch.as_mut().and_then(Iterator::next).transpose()?;
        Ok(self.batch.is_some())
    }

    /// The views of the batch, on the device.
    pub fn views(&self) -> Result<Vec<Tensor>> {
        let views = self.batch.iter().flat_map(|batch| &batch.views);
        views.map(|view| view.to_device(self.device)).collect()
    }
}
