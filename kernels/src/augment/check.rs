//! The CUDA kernels against the CPU: the same bits in f32, the same value rounded once in bf16.

use super::cases::{Batch, batches, cases};
use super::*;
use crate::check::{FLOATS, guarded};
use half::bf16;

/// The bytes as a u8 tensor on a device; misaligned: the first at an odd address.
#[track_caller]
pub(super) fn bytes_on(bytes: &[u8], shape: &[usize], misaligned: bool, device: Device) -> Result<Tensor> {
    if !misaligned {
        return Tensor::from_slice(bytes, shape)?.to_device(device);
    }
    let mut more = vec![0xff];
    more.extend_from_slice(bytes);
    let all = Tensor::from_slice(&more, &[more.len()])?.to_device(device)?;
    all.narrow(0, 1, bytes.len())?.reshape(shape)
}

/// The views of a batch as the device makes them, in f32.
#[track_caller]
pub(super) fn device_views(
    batch: &Batch,
    draws: &[u8],
    dtype: DType,
    misaligned: bool,
    device: Device,
) -> Result<Vec<Vec<f32>>> {
    let (views, samples) = (batch.recipes.len(), batch.places.len());
    let images = bytes_on(&batch.pixels, &[batch.pixels.len()], misaligned, device)?;
    let draws = bytes_on(draws, &[views, samples, draws.len() / (views * samples)], misaligned, device)?;
    let made = on_device(&images, &draws, &batch.recipes, batch.channels, dtype)?;
    let values = |(view, recipe): (&Tensor, &Recipe)| {
        view.require_shape("check", "view", &[samples, recipe.height, recipe.width, batch.channels])?;
        view.require_dtype("check", "view", dtype)?;
        match dtype {
            DType::BF16 => Ok(view.to_vec::<bf16>()?.iter().map(|v| v.to_f32()).collect()),
            _ => view.to_vec::<f32>(),
        }
    };
    made.iter().zip(&batch.recipes).map(values).collect()
}

#[track_caller]
fn compare(actual: &[Vec<f32>], expected: &[Vec<f32>], batch: &Batch, dtype: DType) -> Result<()> {
    for (v, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
            let e = if dtype == DType::BF16 { bf16::from_f32(e).to_f32() } else { e };
            if a.to_bits() != e.to_bits() {
                let sample = i / (actual.len() / batch.places.len());
                let rule = format!("the CPU has {e:e} and the device {a:e} at element {i} of view {v}");
                return Err(Error::value("augment", rule)
                    .with("type", dtype)
                    .with("image", batch.places[sample])
                    .with("drawn", batch.parameters[v][sample]));
            }
        }
    }
    Ok(())
}

#[track_caller]
fn check_batch(device: Device, batch: &Batch) -> Result<()> {
    let (draws, expected) = (batch.draws()?, batch.views()?);
    for dtype in FLOATS {
        for misaligned in [false, true] {
            let made = guarded(device, || device_views(batch, &draws, dtype, misaligned, device))?;
            compare(&made, &expected, batch, dtype)?;
        }
    }
    Ok(())
}

/// The resizes of [`cases`], each as it is and mirrored.
fn resizes() -> Vec<Batch> {
    let batch = |case: cases::Case| {
        let [height, width, channels] = case.image;
        let recipe =
            Recipe { interpolation: case.interpolation, ..Recipe::evaluation(case.size[0], case.size[1]) };
        let mut batch = Batch::new(channels, &[[height, width]], vec![recipe; 2], 7);
        for (flip, p) in [false, true].into_iter().zip(&mut batch.parameters) {
            (p[0].crop, p[0].flip) = (case.crop, flip);
        }
        batch
    };
    cases().into_iter().filter(|case| matches!(case.image[2], 1 | 3)).map(batch).collect()
}

/// Runs every batch on a CUDA device and gives their number. The error names the batch and the draws.
pub fn check(device: Device) -> Result<usize> {
    let (batches, resizes) = (batches(), resizes());
    for (name, batch) in &batches {
        check_batch(device, batch).map_err(|e| e.with("batch", name))?;
    }
    for batch in &resizes {
        check_batch(device, batch).map_err(|e| e.with("batch", "resize"))?;
    }
    Ok(batches.len() + resizes.len())
}
