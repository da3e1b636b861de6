//! What a run shows while it trains: progress, online kNN, collapse signals.

use super::events::StepEvent;
use super::run::Metrics;
use crate::config;
use crate::evaluate::inputs::Source;
use crate::evaluate::{features, health, knn};
use crate::output::Output;
use data::Dataset;
use engine::{Result, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use kernels::augment::Recipe;
use objectives::Objective;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Seconds between lines where nobody watches a progress bar.
const LINE_SECONDS: u64 = 10;

/// Progress on the terminal and measurements between epochs.
pub struct Monitor<'a> {
    settings: &'a config::Monitor,
    output: &'a Output,
    /// Labelled training samples for the online kNN, and how the encoder wants them.
    sample: Option<(Arc<dyn Dataset>, Recipe)>,
    steps: u64,
    bar: Option<ProgressBar>,
    begun: Instant,
    said: Instant,
    /// When the last step or measurement ended.
    resumed: Instant,
    images: u64,
    /// Time in steps, waiting for images included, measurements not.
    training: Duration,
    note: String,
    /// The newest step's figures.
    latest: Option<StepEvent>,
}

impl<'a> Monitor<'a> {
    /// A monitor for a run of `steps` steps on `train`.
    pub fn new(
        settings: &'a config::Monitor,
        train: &Arc<dyn Dataset>,
        objective: &dyn Objective,
        output: &'a Output,
        steps: u64,
    ) -> Result<Monitor<'a>> {
        let labelled = !train.is_empty() && train.label(0).is_some();
        let wanted = settings.every_epochs > 0 && settings.knn_samples >= 10 && labelled;
        let sample = match wanted {
            true => {
                let input = features::evaluation_recipe(objective, &super::profile(train.as_ref())?);
                let sample = features::spread(train, settings.knn_samples)?;
                Some((features::as_seen(features::lightness(objective), &sample)?, input))
            }
            false => None,
        };
        let bar = (output.is_interactive() && !output.json).then(|| {
            let bar = ProgressBar::new(steps);
            let template = "{bar:30} {pos}/{len} steps, {eta} left, {msg}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        Ok(Monitor {
            settings,
            output,
            sample,
            steps,
            bar,
            begun: now,
            said: now,
            resumed: now,
            images: 0,
            training: Duration::ZERO,
            note: String::new(),
            latest: None,
        })
    }

    /// Training begins, or goes on, at `step`.
    pub fn start(&mut self, step: u64) {
        self.begun = Instant::now();
        (self.said, self.resumed) = (self.begun, self.begun);
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.reset_eta();
        }
    }

    /// Steps up to `step`, of `images` images together, are done; `latest` is the last of them.
    pub fn steps(&mut self, step: u64, latest: &StepEvent, images: usize) {
        self.images += images as u64;
        self.training += self.resumed.elapsed();
        self.resumed = Instant::now();
        let rate = self.images as f64 / self.training.as_secs_f64().max(1e-9);
        let loss = latest.figure("loss").unwrap_or(f32::NAN);
        self.latest = Some(latest.clone());
        let text = format!("loss {loss:.3}, {rate:.0} images/s{}", self.note);
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(text);
        } else if !self.output.json && self.said.elapsed() >= Duration::from_secs(LINE_SECONDS) {
            self.said = Instant::now();
            self.output.say(&format!("step {step}/{}: {text}", self.steps));
        }
    }

    /// Whether there is something to measure after this epoch.
    pub fn is_due(&self, epoch: usize, last: bool) -> bool {
        let every = self.settings.every_epochs;
        every > 0 && (last || epoch.is_multiple_of(every))
    }

    /// An epoch has ended: measures what is due and writes it to the metrics.
    pub fn epoch(
        &mut self,
        metrics: &mut Metrics,
        objective: &mut dyn Objective,
        embeddings: &Tensor,
        step: u64,
        epoch: usize,
        last: bool,
    ) -> Result<()> {
        if !self.is_due(epoch, last) {
            return Ok(());
        }
        let dim = embeddings.shape().last().copied().unwrap_or(1);
        let health = health::measure(&embeddings.to_vec::<f32>()?, dim);
        let mut event = json!({"event": "health", "step": step, "epoch": epoch, "std": health.std,
            "rank": health.rank, "dim": health.dim});
        self.note = format!(", std {:.3}, rank {:.0}", health.std, health.rank);
        if let Some((sample, input)) = &self.sample {
            let (all, _) = features::labelled(objective.encoder(), Source::Own, input, sample)?;
            let (ask, bank) = ask_and_bank(all.len());
            let top1 = knn::accuracy(&all.select(&bank), &all.select(&ask), knn::Settings::default())?;
            event["knn"] = json!(top1);
            self.note = format!(", kNN {top1:.1}{}", self.note);
            engine::memory::trim();
        }
        metrics.push(&event);
        self.output.event(&event);
        let latest = self.latest.as_ref();
        let figure = |name: &str| match name {
            "step" => Some(step as f32),
            _ => latest.and_then(|event| event.figure(name)),
        };
        let method = objective.warning(&figure);
        for warning in health.warning().into_iter().chain(method) {
            let event = json!({"event": "warning", "step": step, "message": warning});
            metrics.push(&event);
            self.output.event(&event);
            self.tell(&format!("warning at step {step}: {warning}"));
        }
        if self.bar.is_none() && !self.output.json {
            self.output.say(&format!("epoch {epoch}, step {step}/{}{}", self.steps, self.note));
        }
        self.resumed = Instant::now();
        Ok(())
    }

    fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.say(text)),
            None => self.output.say(text),
        }
    }

    /// Training is over, from step `first` to `last`.
    pub fn finish(&mut self, first: u64, last: u64) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let per_step = 1e3 * self.training.as_secs_f64() / (last - first).max(1) as f64;
        if last > first {
            self.output.say(&format!(
                "{} steps in {seconds:.1} s ({per_step:.1} ms a step){}",
                last - first,
                self.note
            ));
        }
    }
}

/// Every fifth sample asks, the others are the bank. All are training images: the test part is not looked at.
fn ask_and_bank(n: usize) -> (Vec<usize>, Vec<usize>) {
    (0..n).partition(|i| i % 5 == 0)
}

#[cfg(test)]
mod tests {
    /// A query that is in the bank is its own nearest neighbour, and every encoder looks perfect.
    #[test]
    fn no_query_is_in_the_bank() {
        for n in [0, 1, 7, 100] {
            let (ask, bank) = super::ask_and_bank(n);
            assert!(ask.iter().all(|i| !bank.contains(i)));
            assert_eq!(ask.len() + bank.len(), n);
        }
    }
}
