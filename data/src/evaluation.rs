//! Every image once, in order, without randomness.

use crate::batch::{Request, Threads, make, views};
use crate::{Batch, Dataset};
use engine::{Error, Result};
use kernels::augment::Recipe;
use std::sync::Arc;

/// Iterates over a dataset in its own order, one view an image. The last batch may be smaller.
pub struct Evaluation {
    dataset: Arc<dyn Dataset>,
    recipe: [Recipe; 1],
    batch: usize,
    next: usize,
}

impl Evaluation {
    /// Batches of `batch` images. Errors: a recipe with randomness in it, a batch of 0, an empty dataset.
    #[track_caller]
    pub fn new(dataset: Arc<dyn Dataset>, recipe: Recipe, batch: usize) -> Result<Evaluation> {
        recipe.check(dataset.channels())?;
        if !recipe.is_deterministic() {
            let rule = "evaluation shows every image as it is: use Recipe::evaluation";
            return Err(Error::value("evaluation", rule).with("recipe", &recipe));
        }
        if batch == 0 || dataset.is_empty() {
            let rule = format!("{}: needs a batch of at least 1 and at least one image", dataset.name());
            return Err(Error::value("evaluation", rule).with("batch", batch).with("images", dataset.len()));
        }
        Ok(Evaluation { dataset, recipe: [recipe], batch, next: 0 })
    }
}

impl Iterator for Evaluation {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let end = (self.next + self.batch).min(self.dataset.len());
        if self.next == end {
            return None;
        }
        let indices: Vec<usize> = (self.next..end).collect();
        let step = self.next / self.batch;
        let request = Request {
            dataset: &*self.dataset,
            views: &self.recipe,
            seed: 0,
            epoch: 0,
            step,
            indices: &indices,
        };
        let batch = make(views, &request, Threads::Pool);
        self.next = if batch.is_ok() { end } else { self.dataset.len() };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.dataset.len() - self.next).div_ceil(self.batch);
        (0, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    #[test]
    fn every_image_once_in_order_and_unchanged() {
        let pixels: Vec<u8> = (0..7 * 12).map(|i| (i * 37) as u8).collect();
        let labels = vec![0, 1, 1, 0, 1, 0, 0];
        let names = vec!["a".to_string(), "b".to_string()];
        let set: Arc<dyn Dataset> =
            Arc::new(InMemory::new("x", pixels.clone(), [3, 4, 1], labels, names).unwrap());
        let batches: Vec<Batch> =
            Evaluation::new(set.clone(), Recipe::evaluation(3, 4), 3).unwrap().map(|b| b.unwrap()).collect();
        assert_eq!(batches.iter().map(|b| b.indices.len()).collect::<Vec<_>>(), [3, 3, 1]);
        let seen: Vec<f32> = batches.iter().flat_map(|b| b.views[0].to_vec::<f32>().unwrap()).collect();
        assert_eq!(seen, pixels.iter().map(|&v| f32::from(v) / 255.0).collect::<Vec<_>>());
        let labels: Vec<i32> = batches.iter().flat_map(|b| b.labels.clone().unwrap()).collect();
        assert_eq!(labels, [0, 1, 1, 0, 1, 0, 0]);
        assert!(Evaluation::new(set.clone(), Recipe::simclr(3, 4, 0.5), 3).is_err());
        assert!(Evaluation::new(set, Recipe::evaluation(3, 4), 0).is_err());
    }
}
