//! Making one batch: the pixels of every view of some samples.

use crate::Dataset;
use engine::random::Purpose;
use engine::{DType, Device, Error, Philox, Result, Tensor};
use kernels::augment::{self, ImageRef, Parameters, Recipe, Workspace, stream_index};
use rayon::prelude::*;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Samples, each seen in one or more ways.
#[derive(Debug, Clone)]
pub struct Batch {
    /// One tensor a view: f32 \[B, H, W, C\] on the CPU. Row b of all views is the same sample.
    pub views: Vec<Tensor>,
    /// Which image of the dataset each row is.
    pub indices: Vec<usize>,
    /// The class of each row; `None` unless every sample of the batch has a label.
    pub labels: Option<Vec<i32>>,
    /// The epoch it belongs to.
    pub epoch: usize,
    /// Its position in the epoch.
    pub step_in_epoch: usize,
}

/// On which threads the samples of a batch are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling one.
    One,
    /// All of rayon's.
    Pool,
}

/// Which batch to make.
pub(crate) struct Request<'a> {
    pub dataset: &'a dyn Dataset,
    pub views: &'a [Recipe],
    pub seed: u64,
    pub epoch: usize,
    pub step: usize,
    pub indices: &'a [usize],
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Makes a batch. A panic in the dataset is an error that carries its message.
pub(crate) fn make(request: &Request<'_>, threads: Threads) -> Result<Batch> {
    catch_unwind(AssertUnwindSafe(|| make_unguarded(request, threads))).unwrap_or_else(|panic| {
        let text = format!("{}: panicked while it was read: {}", request.dataset.name(), describe(&*panic));
        Err(Error::value("load batch", text).with("epoch", request.epoch).with("step", request.step))
    })
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn make_unguarded(request: &Request<'_>, threads: Threads) -> Result<Batch> {
    let _operation = engine::memory::operation("load batch");
    let channels = request.dataset.channels();
    let mut views = Vec::with_capacity(request.views.len());
    for (v, recipe) in request.views.iter().enumerate() {
        let shape = [request.indices.len(), recipe.height, recipe.width, channels];
        let mut view = Tensor::empty(&shape, DType::F32, Device::Cpu)?;
        let one = recipe.height * recipe.width * channels;
        let out = view.as_mut_slice::<f32>()?;
        match threads {
            Threads::One => out
                .chunks_exact_mut(one)
                .zip(request.indices)
                .try_for_each(|(out, &sample)| make_view(request, v, sample, out))?,
            Threads::Pool => out
                .par_chunks_exact_mut(one)
                .zip(request.indices)
                .with_min_len(8)
                .try_for_each(|(out, &sample)| make_view(request, v, sample, out))?,
        }
        views.push(view);
    }
    let labels = request
        .indices
        .iter()
        .map(|&i| request.dataset.label(i).and_then(|l| i32::try_from(l).ok()))
        .collect();
    Ok(Batch {
        views,
        indices: request.indices.to_vec(),
        labels,
        epoch: request.epoch,
        step_in_epoch: request.step,
    })
}

fn make_view(request: &Request<'_>, view: usize, sample: usize, out: &mut [f32]) -> Result<()> {
    let image = request.dataset.image(sample)?;
    let recipe = &request.views[view];
    let index = stream_index(request.epoch, sample, view)?;
    let mut random = Philox::new(request.seed, Purpose::Augment, index);
    let parameters = Parameters::draw(recipe, image.height, image.width, &mut random);
    let image = ImageRef::new(&image.pixels, image.height, image.width, image.channels)?;
    WORKSPACE.with_borrow_mut(|w| augment::apply(image, &parameters, recipe, w, out))
}
