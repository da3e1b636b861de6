//! Times the making of views: `cargo run --release -p data --example view_speed`.
//!
//! One thread, the best of 25 passes over 256 (or 32 large) drawn views; then whole batches through the loader.

use data::{Loader, LoaderOptions};
use engine::random::Purpose;
use engine::{Philox, Result};
use kernels::augment::{Blur, ImageRef, Parameters, Recipe, Workspace, apply, stream_index};
use std::time::Instant;

fn main() -> Result<()> {
    let blurred = |recipe: Recipe| Recipe { blur: Some(Blur::with_probability(0.5)), ..recipe };
    let small = [28, 28, 1];
    views("evaluation", small, &Recipe::evaluation(28, 28).normalized(&[0.3], &[0.3]), 256)?;
    views("crop and flip", small, &Recipe::crop_and_flip(28, 28, [0.2, 1.0]), 256)?;
    views("SimCLR", small, &Recipe::simclr(28, 28, 0.5), 256)?;
    views("SimCLR with blur", small, &blurred(Recipe::simclr(28, 28, 0.5)), 256)?;
    views("SimCLR", [32, 32, 3], &Recipe::simclr(32, 32, 0.5), 256)?;
    let photo = [375, 500, 3];
    views("crop and flip to 224", photo, &Recipe::crop_and_flip(224, 224, [0.08, 1.0]), 32)?;
    views("SimCLR with blur to 224", photo, &blurred(Recipe::simclr(224, 224, 1.0)), 32)?;
    for workers in [0, 1, 2] {
        batches(workers)?;
    }
    Ok(())
}

fn views(name: &str, shape: [usize; 3], recipe: &Recipe, count: usize) -> Result<()> {
    let [height, width, channels] = shape;
    let pixels: Vec<u8> = (0..height * width * channels).map(|i| (i * 7919 % 251) as u8).collect();
    let image = ImageRef::new(&pixels, height, width, channels)?;
    let mut out = vec![0f32; recipe.height * recipe.width * channels];
    let mut workspace = Workspace::default();
    let mut best = f64::INFINITY;
    for _ in 0..25 {
        let start = Instant::now();
        for sample in 0..count {
            let mut random = Philox::new(1, Purpose::Augment, stream_index(0, sample, 0)?);
            let parameters = Parameters::draw(recipe, height, width, &mut random);
            apply(image, &parameters, recipe, &mut workspace, &mut out)?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let each = best * 1e6 / count as f64;
    println!("{height}x{width}x{channels} {name}: {each:.1} us a view, {:.2} ms for 256", each * 0.256);
    Ok(())
}

fn batches(workers: usize) -> Result<()> {
    let recipes = vec![Recipe::simclr(28, 28, 0.5).normalized(&[0.29], &[0.35]); 2];
    let options = LoaderOptions { workers, ..LoaderOptions::default() };
    let loader = Loader::new(data::open("sample", None)?.train, recipes, options)?;
    let mut best = f64::INFINITY;
    for epoch in 0..5 {
        let start = Instant::now();
        for batch in loader.epoch(epoch, 0)? {
            batch?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let each = best * 1e3 / loader.steps_per_epoch() as f64;
    println!("sample, SimCLR, batch 256, two views, {workers} workers: {each:.2} ms a batch");
    Ok(())
}
