//! What is profiled and timed: views that fit shared memory, and views that do not.

use super::cases::{Batch, everything};
use super::*;
use crate::registry::{Run, Workload};

#[track_caller]
fn prepare(batch: &Batch, device: Device, dtype: DType) -> Result<Run> {
    let draws = batch.draws()?;
    let shape = [batch.recipes.len(), batch.places.len(), record_bytes(&batch.recipes)];
    let images = check::bytes_on(&batch.pixels, &[batch.pixels.len()], false, device)?;
    let draws = check::bytes_on(&draws, &shape, false, device)?;
    let (recipes, channels) = (batch.recipes.clone(), batch.channels);
    Ok(Box::new(move || on_device(&images, &draws, &recipes, channels, dtype).map(drop)))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "SimCLR 2 views of 32 images 28x28x1",
            prepare: |device, dtype| {
                let recipe =
                    Recipe { blur: Some(Blur::with_probability(0.5)), ..Recipe::simclr(28, 28, 0.5) };
                prepare(&Batch::new(1, &[[28, 28]; 32], vec![recipe; 2], 1), device, dtype)
            },
        },
        Workload {
            label: "SimCLR 2 views of 16 images 32x32x3",
            prepare: |device, dtype| {
                let recipe = Recipe::simclr(32, 32, 0.5);
                prepare(&Batch::new(3, &[[32, 32]; 16], vec![recipe; 2], 2), device, dtype)
            },
        },
        Workload {
            label: "all steps, 2 views 96x96x3 of 160x120x3",
            prepare: |device, dtype| {
                let recipe = everything(3, [96, 96], Interpolation::Bicubic);
                prepare(&Batch::new(3, &[[120, 160]; 2], vec![recipe], 3), device, dtype)
            },
        },
    ]
}
