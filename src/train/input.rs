//! The input of each step, on the device that trains: views of images, and what the method draws.
//!
//! For the CPU the loader's workers make the views. For a CUDA device they read images and draw what is to be done to
//! them; both go to the device through page-locked memory while it computes ([`Staging`]), and the views are made there,
//! in the step. The method's draws, and in front of them labels where they are wanted, go the same way. All always lie at
//! the same place, so that a captured step finds them.

use super::Machine;
use crate::config::Config;
use data::{Dataset, Epoch, Loader, LoaderOptions, RawBatch};
use engine::cuda::Staging;
use engine::{DType, Device, Error, Result, Tensor};
use kernels::augment::{self, Recipe};
use objectives::{Draws, Objective, Precision, Run};
use std::sync::Arc;

/// Batches on their way at once: one that is copied while another is computed on.
const SLOTS: usize = 2;

/// Batches, one after another.
pub struct Input {
    loader: Loader,
    run: Run,
    source: Source,
}

/// What a step works on.
#[derive(Debug, Clone, Default)]
pub struct StepInput {
    /// One batch a view.
    pub views: Vec<Tensor>,
    /// What the method drew; in front of it the images' labels, i32 [B], where they are wanted.
    pub draws: Vec<Tensor>,
}

/// How batches reach the device.
enum Source {
    Host(OnHost),
    Device(Box<OnDevice>),
}

/// What the method draws, from the step on that comes next.
struct Drawer {
    draws: Option<Draws>,
    labelled: bool,
    step: u64,
}

impl Drawer {
    /// The draws of the next step, and in front of them its labels where they are wanted.
    fn next(&mut self, labels: Option<Vec<i32>>) -> Result<Vec<Tensor>> {
        let step = self.step;
        self.step += 1;
        let mut all = Vec::new();
        if self.labelled {
            let labels = labels.ok_or_else(|| {
                Error::value("load batch", "a batch has images without labels, which training needs here")
            })?;
            all.push(Tensor::from_slice(&labels, &[labels.len()])?);
        }
        if let Some(draws) = &self.draws {
            all.extend(draws(step)?);
        }
        Ok(all)
    }
}

struct OnHost {
    epoch: Option<Epoch>,
    drawer: Drawer,
    current: StepInput,
}

/// What makes views on a CUDA device.
struct OnDevice {
    epoch: Option<Epoch<RawBatch>>,
    drawer: Drawer,
    staging: Option<Staging>,
    /// The step's images, u8 [B, H, W, C], what is to be done to them, u8 [views, B, record], and what the method drew, behind
    /// the labels if there are any.
    current: Vec<Tensor>,
    device: Device,
    recipes: Vec<Recipe>,
    channels: usize,
    dtype: DType,
}

impl Input {
    /// The batches that a configuration describes, with their labels if `labelled` is set.
    pub fn new(
        config: &Config,
        objective: &dyn Objective,
        train: &Arc<dyn Dataset>,
        labelled: bool,
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
        let run = Run {
            steps: config.steps.unwrap_or(loader.steps_per_epoch() as u64 * config.training.epochs as u64),
            steps_per_epoch: loader.steps_per_epoch() as u64,
            batch: config.training.batch,
            device: machine.device,
        };
        let drawer = Drawer { draws: objective.draws(&run)?, labelled, step: 0 };
        let source = match machine.device {
            Device::Cpu => Source::Host(OnHost { epoch: None, drawer, current: StepInput::default() }),
            device @ Device::Cuda(_) => Source::Device(Box::new(OnDevice {
                epoch: None,
                drawer,
                staging: None,
                current: Vec::new(),
                device,
                recipes,
                channels: train.channels(),
                dtype: match config.training.precision {
                    Precision::F32 | Precision::Tf32 => DType::F32,
                    Precision::Bf16 => DType::BF16,
                },
            })),
        };
        Ok(Input { loader, run, source })
    }

    /// The run that the configuration describes.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Starts an epoch at one of its steps.
    pub fn begin(&mut self, epoch: usize, step: u64) -> Result<()> {
        let total = epoch as u64 * self.run.steps_per_epoch + step;
        match &mut self.source {
            Source::Host(source) => {
                source.epoch = Some(self.loader.epoch(epoch, step as usize)?);
                source.drawer.step = total;
            }
            Source::Device(source) => {
                source.epoch = Some(self.loader.raw_epoch(epoch, step as usize)?);
                source.drawer.step = total;
                source.send()?;
            }
        }
        Ok(())
    }

    /// Goes on to the epoch's next batch; false if there is none.
    pub fn advance(&mut self) -> Result<bool> {
        match &mut self.source {
            Source::Host(source) => {
                let Some(batch) = source.epoch.as_mut().and_then(Iterator::next).transpose()? else {
                    return Ok(false);
                };
                source.current = StepInput { views: batch.views, draws: source.drawer.next(batch.labels)? };
                Ok(true)
            }
            Source::Device(source) => source.advance(),
        }
    }

    /// The batch, on the device.
    pub fn current(&self) -> Result<StepInput> {
        match &self.source {
            Source::Host(source) => Ok(source.current.clone()),
            Source::Device(source) => source.current(),
        }
    }
}

/// The bytes of a tensor in host memory.
fn bytes(tensor: &Tensor) -> Result<&[u8]> {
    match tensor.dtype() {
        DType::U8 => tensor.as_slice::<u8>(),
        DType::I32 => Ok(bytemuck::cast_slice(tensor.as_slice::<i32>()?)),
        DType::F32 => Ok(bytemuck::cast_slice(tensor.as_slice::<f32>()?)),
        DType::BF16 => Ok(bytemuck::cast_slice(tensor.as_slice::<half::bf16>()?)),
    }
}

impl OnDevice {
    /// Sends the epoch's next batch, if there is one, on its way.
    fn send(&mut self) -> Result<()> {
        let Some(batch) = self.epoch.as_mut().and_then(Iterator::next).transpose()? else { return Ok(()) };
        let mut tensors = vec![batch.images, batch.draws];
        tensors.extend(self.drawer.next(batch.labels)?);
        let parts = tensors.iter().map(bytes).collect::<Result<Vec<&[u8]>>>()?;
        let staging = match &mut self.staging {
            Some(staging) => staging,
            // Batches of one run have one size.
            None => {
                let place = |part: &Tensor| Tensor::empty(part.shape(), part.dtype(), self.device);
                self.current = tensors.iter().map(place).collect::<Result<_>>()?;
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
        if let Some(staging) = &mut self.staging {
            staging.take_into(&mut self.current.iter_mut().collect::<Vec<_>>())?;
        }
        Ok(true)
    }

    fn current(&self) -> Result<StepInput> {
        match self.current.as_slice() {
            [images, records, draws @ ..] => {
                let views = augment::on_device(images, records, &self.recipes, self.channels, self.dtype)?;
                Ok(StepInput { views, draws: draws.to_vec() })
            }
            _ => Ok(StepInput::default()),
        }
    }
}
