//! Shuffled batches, made ahead by worker threads and delivered in order.

use crate::batch::{self, Make, Request, Threads, make};
use crate::{Batch, Dataset, RawBatch};
use engine::random::Purpose;
use engine::{Error, ErrorKind, Philox, Result};
use kernels::augment::{Recipe, stream_index};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How a [`Loader`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples a batch.
    pub batch: usize,
    /// Of the order and of every view.
    pub seed: u64,
    /// Threads that make batches ahead. 0: each batch is made when it is asked for, on all of rayon's threads.
    pub workers: usize,
    /// Whether a last, smaller batch is left out. What normalises over the batch wants that.
    pub drop_last: bool,
    /// At most how many batches are made or being made before they are asked for; at least 1.
    pub prefetch: usize,
}

impl Default for LoaderOptions {
    /// Batches of 256, seed 0, two workers, no last batch, four batches ahead.
    fn default() -> LoaderOptions {
        LoaderOptions { batch: 256, seed: 0, workers: 2, drop_last: true, prefetch: 4 }
    }
}

/// Batches of augmented views of a dataset, in an order that is new every epoch.
///
/// The order of an epoch is `Philox(seed, Shuffle, epoch).permutation(n)`; the parameters of a view come from
/// `Philox(seed, Augment, stream_index(epoch, sample, view))`. So a batch depends on the seed, the epoch and its
/// samples alone: not on the number of workers, nor on where an interrupted epoch is taken up again.
///
/// [`Loader::epoch`] makes the views here; [`Loader::raw_epoch`] gives images and draws, of which a device makes the
/// views. Both have the same samples in the same order with the same draws.
pub struct Loader {
    plan: Arc<Plan>,
}

struct Plan {
    dataset: Arc<dyn Dataset>,
    views: Vec<Recipe>,
    options: LoaderOptions,
}

impl Loader {
    /// One tensor a recipe of `views` in every batch.
    ///
    /// Errors: no view or more than 256; a recipe's field out of its range; a batch of 0 or larger than the dataset;
    /// an empty dataset.
    #[track_caller]
    pub fn new(dataset: Arc<dyn Dataset>, views: Vec<Recipe>, options: LoaderOptions) -> Result<Loader> {
        let wrong = |rule: String| Err(Error::value("loader", rule).with("dataset", dataset.name()));
        let n = dataset.len();
        if views.is_empty() {
            return wrong("needs at least one view".into());
        }
        stream_index(0, n.saturating_sub(1), views.len() - 1)?;
        for view in &views {
            view.check(dataset.channels())?;
        }
        if options.batch == 0 || n == 0 {
            return wrong(format!("a batch of {} from {n} images has no sample", options.batch));
        }
        if options.batch > n {
            return wrong(format!(
                "a batch of {} is larger than the {n} images there are: choose a batch of at most {n}",
                options.batch
            ));
        }
        Ok(Loader { plan: Arc::new(Plan { dataset, views, options }) })
    }

    /// Batches an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.plan.steps()
    }

    /// The dataset.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.plan.dataset
    }

    /// The batches of `epoch` from position `start_step` on, for a run that goes on in the middle of an epoch.
    ///
    /// Errors: `start_step` beyond the epoch's end, an epoch of 2^24 or more, no thread to be had.
    #[track_caller]
    pub fn epoch(&self, epoch: usize, start_step: usize) -> Result<Epoch> {
        self.start(epoch, start_step, batch::views)
    }

    /// The same batches as [`Loader::epoch`], with the views still to be made: see [`RawBatch`].
    #[track_caller]
    pub fn raw_epoch(&self, epoch: usize, start_step: usize) -> Result<Epoch<RawBatch>> {
        self.start(epoch, start_step, batch::raw)
    }

    #[track_caller]
    fn start<B: Send + 'static>(&self, epoch: usize, start_step: usize, make: Make<B>) -> Result<Epoch<B>> {
        stream_index(epoch, 0, 0)?;
        let (plan, end) = (self.plan.clone(), self.plan.steps());
        if start_step > end {
            let rule = format!("step {start_step} is beyond the epoch's {end}");
            return Err(Error::value("loader", rule));
        }
        let order =
            Philox::new(plan.options.seed, Purpose::Shuffle, epoch as u64).permutation(plan.dataset.len());
        let state = State { claimed: start_step, delivered: start_step, ready: BTreeMap::new(), stop: false };
        let shared =
            Shared { plan, make, order, epoch, end, state: Mutex::new(state), change: Condvar::new() };
        let mut epoch = Epoch { shared: Arc::new(shared), next: start_step, workers: Vec::new() };
        let workers = self.plan.options.workers.min(self.plan.options.prefetch.max(1)).min(end - start_step);
        for i in 0..workers {
            let shared = epoch.shared.clone();
            let worker = std::thread::Builder::new().name(format!("loader {i}")).spawn(move || shared.work());
            // An early return drops `epoch`, which stops and joins the workers there are.
            epoch.workers.push(worker.map_err(|e| {
                Error::new(
                    ErrorKind::Memory,
                    "loader",
                    format!("cannot start worker {i}: {e}; use fewer workers"),
                )
            })?);
        }
        Ok(epoch)
    }
}

impl Plan {
    fn steps(&self) -> usize {
        let (n, batch) = (self.dataset.len(), self.options.batch);
        if self.options.drop_last { n / batch } else { n.div_ceil(batch) }
    }
}

/// What the workers of an epoch share.
struct Shared<B> {
    plan: Arc<Plan>,
    make: Make<B>,
    order: Vec<usize>,
    epoch: usize,
    end: usize,
    state: Mutex<State<B>>,
    change: Condvar,
}

struct State<B> {
    /// The first step that no worker has taken.
    claimed: usize,
    /// The first step that was not yet asked for.
    delivered: usize,
    ready: BTreeMap<usize, Result<B>>,
    stop: bool,
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<B>>) -> MutexGuard<'a, State<B>> {
        self.change.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, step: usize, threads: Threads) -> Result<B> {
        let size = self.plan.options.batch;
        let indices = &self.order[step * size..((step + 1) * size).min(self.order.len())];
        let Plan { dataset, views, options } = &*self.plan;
        let request =
            Request { dataset: &**dataset, views, seed: options.seed, epoch: self.epoch, step, indices };
        make(self.make, &request, threads)
    }

    /// A worker: takes the next step as long as it is not too far ahead, makes it, puts it down.
    fn work(&self) {
        let ahead = self.plan.options.prefetch.max(1);
        loop {
            let mut state = self.lock();
            while !state.stop && state.claimed < self.end && state.claimed >= state.delivered + ahead {
                state = self.wait(state);
            }
            if state.stop || state.claimed >= self.end {
                return;
            }
            let step = state.claimed;
            state.claimed += 1;
            drop(state);
            let batch = self.make(step, Threads::One);
            self.lock().ready.insert(step, batch);
            self.change.notify_all();
        }
    }
}

/// The batches of one epoch, in order. After an error there are no more.
///
/// Dropping it waits for the batches being made and joins the workers.
pub struct Epoch<B = Batch> {
    shared: Arc<Shared<B>>,
    next: usize,
    workers: Vec<JoinHandle<()>>,
}

impl<B> Epoch<B> {
    fn obtain(&self, step: usize) -> Result<B> {
        if self.workers.is_empty() {
            return self.shared.make(step, Threads::Pool);
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(batch) = state.ready.remove(&step) {
                state.delivered = step + 1;
                self.shared.change.notify_all();
                return batch;
            }
            state = self.shared.wait(state);
        }
    }
}

impl<B> Iterator for Epoch<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        if self.next >= self.shared.end {
            return None;
        }
        let batch = self.obtain(self.next);
        self.next = if batch.is_ok() { self.next + 1 } else { self.shared.end };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.shared.end - self.next))
    }
}

impl<B> Drop for Epoch<B> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.change.notify_all();
        for worker in self.workers.drain(..) {
            // Panics were caught inside; there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
