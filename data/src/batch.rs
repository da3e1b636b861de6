//! Making one batch: the pixels of every view of some samples, or their images and the draws of every view.

use crate::Dataset;
use engine::random::Purpose;
use engine::{DType, Device, Error, Philox, Result, Tensor};
use kernels::augment::{
    self, ImageRef, Parameters, Place, Recipe, Workspace, pack, record_bytes, stream_index,
};
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

/// Samples as they are, and what is to be done to each: a device makes the views ([`augment::on_device`]) and gets the
/// bits of a [`Batch`] of the same loader, epoch and step.
#[derive(Debug, Clone)]
pub struct RawBatch {
    /// The images' bytes one after another: u8 on the CPU, \[B, H, W, C\] where the images of the dataset have one size,
    /// \[bytes\] where not.
    pub images: Tensor,
    /// What was drawn: u8 \[views, B, record\] on the CPU, records of [`augment::pack`].
    pub draws: Tensor,
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

/// What makes a batch of samples: [`views`] or [`raw`].
pub(crate) type Make<B> = fn(&Request<'_>, Threads) -> Result<B>;

/// Makes a batch. A panic in the dataset is an error that carries its message.
pub(crate) fn make<B>(batch: Make<B>, request: &Request<'_>, threads: Threads) -> Result<B> {
    catch_unwind(AssertUnwindSafe(|| batch(request, threads))).unwrap_or_else(|panic| {
        let text = format!("{}: panicked while it was read: {}", request.dataset.name(), describe(&*panic));
        Err(Error::value("load batch", text).with("epoch", request.epoch).with("step", request.step))
    })
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn labels(request: &Request<'_>) -> Option<Vec<i32>> {
    let label = |&i: &usize| request.dataset.label(i).and_then(|l| i32::try_from(l).ok());
    request.indices.iter().map(label).collect()
}

/// The views of samples, made here.
pub(crate) fn views(request: &Request<'_>, threads: Threads) -> Result<Batch> {
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
    Ok(Batch {
        views,
        indices: request.indices.to_vec(),
        labels: labels(request),
        epoch: request.epoch,
        step_in_epoch: request.step,
    })
}

/// The numbers of one view of one sample: a function of (seed, epoch, sample, view) and the image's size alone.
fn draw(
    request: &Request<'_>,
    view: usize,
    sample: usize,
    height: usize,
    width: usize,
) -> Result<Parameters> {
    let index = stream_index(request.epoch, sample, view)?;
    let mut random = Philox::new(request.seed, Purpose::Augment, index);
    Ok(Parameters::draw(&request.views[view], height, width, &mut random))
}

fn make_view(request: &Request<'_>, view: usize, sample: usize, out: &mut [f32]) -> Result<()> {
    let image = request.dataset.image(sample)?;
    let parameters = draw(request, view, sample, image.height, image.width)?;
    let recipe = &request.views[view];
    let image = ImageRef::new(&image.pixels, image.height, image.width, image.channels)?;
    WORKSPACE.with_borrow_mut(|w| augment::apply(image, &parameters, recipe, w, out))
}

/// The images of samples, and the draws of their views.
pub(crate) fn raw(request: &Request<'_>, threads: Threads) -> Result<RawBatch> {
    let _operation = engine::memory::operation("load batch");
    let (samples, channels) = (request.indices.len(), request.dataset.channels());
    let read = |&sample: &usize| request.dataset.image(sample);
    let images = match threads {
        Threads::One => request.indices.iter().map(read).collect::<Result<Vec<_>>>()?,
        Threads::Pool => request.indices.par_iter().with_min_len(8).map(read).collect::<Result<Vec<_>>>()?,
    };
    let bytes: usize = images.iter().map(|image| image.pixels.len()).sum();
    let shape = request.dataset.size().map(|[height, width]| vec![samples, height, width, channels]);
    let shape = shape.filter(|s| s.iter().product::<usize>() == bytes).unwrap_or_else(|| vec![bytes]);
    let mut pixels = Tensor::empty(&shape, DType::U8, Device::Cpu)?;
    let mut rest = pixels.as_mut_slice::<u8>()?;
    let mut places = Vec::with_capacity(samples);
    for image in &images {
        // Says what is wrong if the dataset gives other bytes than it says.
        ImageRef::new(&image.pixels, image.height, image.width, image.channels)?;
        if image.channels != channels {
            let rule = format!("an image has {} channels, the dataset {channels}", image.channels);
            return Err(Error::shape("load batch", rule).with("dataset", request.dataset.name()));
        }
        places.push(Place { offset: bytes - rest.len(), height: image.height, width: image.width });
        let (this, behind) = rest.split_at_mut(image.pixels.len());
        this.copy_from_slice(&image.pixels);
        rest = behind;
    }
    let one = record_bytes(request.views);
    let mut draws = Tensor::empty(&[request.views.len(), samples, one], DType::U8, Device::Cpu)?;
    let mut records = draws.as_mut_slice::<u8>()?.chunks_exact_mut(one);
    for (v, recipe) in request.views.iter().enumerate() {
        for ((&place, &sample), record) in places.iter().zip(request.indices).zip(&mut records) {
            let parameters = draw(request, v, sample, place.height, place.width)?;
            pack(&parameters, recipe, place, record)?;
        }
    }
    Ok(RawBatch {
        images: pixels,
        draws,
        indices: request.indices.to_vec(),
        labels: labels(request),
        epoch: request.epoch,
        step_in_epoch: request.step,
    })
}
