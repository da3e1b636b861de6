//! The images of each step, on the device that trains.
//!
//! For the CPU the loader's workers make the views. For a CUDA device they read images and draw what is to be done to
//! them; both go to the device through page-locked memory while it computes ([`Staging`]), and the views are made there,
//! in the step. Images and draws always lie at the same place, so that a captured step finds them.

use super::Machine;
use crate::config::Config;
use data::{Batch, Dataset, Epoch, Loader, LoaderOptions, RawBatch};
use engine::cuda::Staging;
use engine::{DType, Device, Result, Tensor};
use kernels::augment::{self, Recipe};
use objectives::{Objective, Precision};
use std::sync::Arc;

/// Batches on their way at once: one that is copied while another is computed on.
const SLOTS: usize = 2;

/// Batches, one after another.
pub struct Input {
    loader: Loader,
    source: Source,
}

/// How batches reach the device.
enum Source {
    Host { epoch: Option<Epoch>, batch: Option<Batch> },
    Device(Box<OnDevice>),
}

/// What makes views on a CUDA device.
struct OnDevice {
    epoch: Option<Epoch<RawBatch>>,
    staging: Option<Staging>,
    /// u8 [B, H, W, C] and u8 [views, B, record]: the batch of the step.
    current: Option<(Tensor, Tensor)>,
    device: Device,
    recipes: Vec<Recipe>,
    channels: usize,
    dtype: DType,
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
        let recipes = objective.views().to_vec();
        let loader = Loader::new(train.clone(), recipes.clone(), options)?;
        let source = match machine.device {
            Device::Cpu => Source::Host { epoch: None, batch: None },
            device @ Device::Cuda(_) => Source::Device(Box::new(OnDevice {
                epoch: None,
                staging: None,
                current: None,
                device,
                recipes,
                channels: train.channels(),
                dtype: match config.training.precision {
                    Precision::F32 => DType::F32,
                    Precision::Bf16 => DType::BF16,
                },
            })),
        };
        Ok(Input { loader, source })
    }

    /// Batches an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.loader.steps_per_epoch() as u64
    }

    /// Starts an epoch at one of its steps.
    pub fn begin(&mut self, epoch: usize, step: u64) -> Result<()> {
        match &mut self.source {
            Source::Host { epoch: current, .. } => *current = Some(self.loader.epoch(epoch, step as usize)?),
            Source::Device(source) => {
                source.epoch = Some(self.loader.raw_epoch(epoch, step as usize)?);
                source.send()?;
            }
        }
        Ok(())
    }

    /// Goes on to the epoch's next batch; false if there is none.
    pub fn advance(&mut self) -> Result<bool> {
        match &mut self.source {
            Source::Host { epoch, batch } => {
                *batch = epoch.as_mut().and_then(Iterator::next).transpose()?;
                Ok(batch.is_some())
            }
            Source::Device(source) => source.advance(),
        }
    }

    /// The views of the batch, on the device.
    pub fn views(&self) -> Result<Vec<Tensor>> {
        match &self.source {
            Source::Host { batch, .. } => Ok(batch.as_ref().map_or_else(Vec::new, |b| b.views.clone())),
            Source::Device(source) => source.views(),
        }
    }
}

impl OnDevice {
    /// Sends the epoch's next batch, if there is one, on its way.
    fn send(&mut self) -> Result<()> {
        let Some(batch) = self.epoch.as_mut().and_then(Iterator::next).transpose()? else { return Ok(()) };
        let parts = [batch.images.as_slice::<u8>()?, batch.draws.as_slice::<u8>()?];
        let staging = match &mut self.staging {
            Some(staging) => staging,
            // Batches of one run have one size.
            None => {
                let place = |part: &Tensor| Tensor::empty(part.shape(), DType::U8, self.device);
                self.current = Some((place(&batch.images)?, place(&batch.draws)?));
                let bytes = parts.iter().map(|part| part.len()).sum();
                self.staging.insert(Staging::new(self.device, bytes, SLOTS)?)
            }
        };
        staging.put(&parts)
    }

    fn advance(&mut self) -> Result<bool> {
        if self.staging.as_ref().is_none_or(|staging| staging.waiting() == 0) {
            return Ok(false);
        }
        self.send()?;
        if let (Some(staging), Some((images, draws))) = (&mut self.staging, &mut self.current) {
            staging.take_into(&mut [images, draws])?;
        }
        Ok(true)
    }

    fn views(&self) -> Result<Vec<Tensor>> {
        match &self.current {
            Some((images, draws)) => {
                augment::on_device(images, draws, &self.recipes, self.channels, self.dtype)
            }
            None => Ok(Vec::new()),
        }
    }
}
