//! All steps of one view on one thread; batches run many views at once.

use super::draw::{JitterOperation, Parameters};
use super::recipe::Recipe;
use super::resample::Filter;
use super::{ImageRef, blur, color, resample};
use engine::{Error, Result};

/// Buffers that [`apply`] uses and keeps: make one a thread.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Filters of rows and of columns.
    pub(super) vertical: Filter,
    pub(super) horizontal: Filter,
    /// An image between two one-dimensional passes.
    pub(super) between: Vec<f32>,
    /// The one-dimensional Gaussian.
    pub(super) kernel: Vec<f32>,
}

impl Workspace {
    /// The first `len` elements of the buffer between passes; contents are arbitrary.
    pub(super) fn between(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        &mut buffer[..len]
    }
}

/// Makes the view that `parameters` describe: `out` is `recipe.height` x `recipe.width` x channels, HWC.
///
/// A pure function of image, parameters and the recipe's sizes, interpolation, blur kernel and normalisation;
/// `workspace` only saves allocations. Errors if sizes do not fit or the crop is not inside the image; the
/// recipe's ranges are checked by [`Recipe::check`], once, by the caller.
#[track_caller]
pub fn apply(
    image: ImageRef<'_>,
    parameters: &Parameters,
    recipe: &Recipe,
    workspace: &mut Workspace,
    out: &mut [f32],
) -> Result<()> {
    let (height, width, channels) = (recipe.height, recipe.width, image.channels);
    resample::check(&image, parameters.crop, height, width)?;
    if !matches!(channels, 1 | 3) || out.len() != height * width * channels {
        return Err(Error::shape(
            "augment",
            "needs 1 or 3 channels and an output of height x width x channels",
        )
        .with("height", height)
        .with("width", width)
        .with("channels", channels)
        .with("output", out.len()));
    }
    let size = [height, width];
    resample::resized_crop(
        &image,
        parameters.crop,
        size,
        recipe.interpolation,
        parameters.flip,
        workspace,
        out,
    );
    // Rounded bilinear weights can exceed 1 by a unit in the last place; cubic ones overshoot by much more.
    color::clamp(out);
    if let Some(jitter) = &parameters.jitter {
        for operation in jitter.order {
            match operation {
                JitterOperation::Brightness => color::brightness(out, jitter.brightness),
                JitterOperation::Contrast => color::contrast(out, channels, jitter.contrast),
                JitterOperation::Saturation => color::saturation(out, channels, jitter.saturation),
                JitterOperation::Hue => color::hue(out, channels, jitter.hue),
            }
        }
    }
    if parameters.grayscale {
        color::grayscale(out, channels);
    }
    if let (Some(sigma), Some(rule)) = (parameters.blur, &recipe.blur) {
        let kernel = rule.kernel(height.min(width));
        blur::gaussian(out, [height, width, channels], kernel, sigma, workspace);
        color::clamp(out);
    }
    if parameters.solarize {
        color::solarize(out, 0.5);
    }
    if let Some(n) = &recipe.normalize {
        if n.mean.len() != channels || n.std.len() != channels {
            return Err(Error::shape("augment", "normalisation needs one mean and one std a channel")
                .with("mean", &n.mean)
                .with("channels", channels));
        }
        color::normalize(out, &n.mean, &n.std);
    }
    Ok(())
}
