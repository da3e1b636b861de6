//! Image augmentation: random resized crop, flip, colour jitter, grayscale, blur, solarize, normalise.
//!
//! Two stages, so that any device can do the second. [`Parameters::draw`] turns a [`Recipe`] (ranges and
//! probabilities) and one counter-based random stream into the numbers of one view of one sample; it is cheap
//! and always on the CPU. [`apply`] is then a pure function of pixels and numbers. Nothing is drawn per batch.
//!
//! [`on_device`] does the second stage for a whole batch on a CUDA device, with the bits of [`apply`]; the draws travel
//! there as bytes ([`pack`]).
//!
//! Semantics are those of torchvision's v2 transforms on float images in \[0, 1\]; memory is HWC. The order is
//! fixed: crop and resize, flip, jitter (its four operations in a drawn order), grayscale, blur, solarize,
//! normalise. Everything before `normalise` stays in \[0, 1\]. On images of one channel saturation, hue and
//! grayscale are the identity, as they must be: there is no colour to change.
//!
//! A view of H x W x C from a crop of h x w reads `h w C` bytes (a device the sectors of 32 bytes that hold them) and
//! writes `4 H W C`. The resize costs
//! `2 H C (w t_v + W t_h)` operations, where a filter has `t = 2 support max(1, in / out)` taps (support 1
//! bilinear, 2 bicubic); a blur of K taps `4 K H W C`; hue about 40 a pixel; the rest two to eight each.

mod blur;
pub mod cases;
pub mod check;
mod color;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
mod draw;
mod packed;
mod recipe;
pub mod reference;
mod resample;
#[cfg(test)]
mod tests;
pub mod workloads;

pub use cpu::{Workspace, apply};
pub use draw::{Jitter, JitterOperation, Parameters, stream_index};
pub use packed::{Place, pack, record_bytes};
pub use recipe::{Blur, ColorJitter, CropRule, Normalize, Recipe};
pub use resample::resize_weights;

use engine::{DType, Device, Error, ErrorKind, Result, Tensor};

/// A view of one image: rows of pixels, channels last (HWC).
#[derive(Debug, Clone, Copy)]
pub struct ImageRef<'a> {
    pixels: Pixels<'a>,
    height: usize,
    width: usize,
    channels: usize,
}

#[derive(Debug, Clone, Copy)]
enum Pixels<'a> {
    U8(&'a [u8]),
    F32(&'a [f32]),
}

impl<'a> ImageRef<'a> {
    /// Bytes 0 ..= 255, which stand for 0 ..= 1. An error unless there are `height * width * channels`.
    #[track_caller]
    pub fn new(pixels: &'a [u8], height: usize, width: usize, channels: usize) -> Result<ImageRef<'a>> {
        check_count("image", pixels.len(), height, width, channels)?;
        Ok(ImageRef { pixels: Pixels::U8(pixels), height, width, channels })
    }

    /// Floats, normally in \[0, 1\]. An error unless there are `height * width * channels`.
    #[track_caller]
    pub fn from_f32(pixels: &'a [f32], height: usize, width: usize, channels: usize) -> Result<ImageRef<'a>> {
        check_count("image", pixels.len(), height, width, channels)?;
        Ok(ImageRef { pixels: Pixels::F32(pixels), height, width, channels })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values a pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The crop that is the whole image.
    pub fn whole(&self) -> Crop {
        Crop { top: 0, left: 0, height: self.height, width: self.width }
    }
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// How pixels are weighted when an image changes its size. Both are antialiased: where the image shrinks, the
/// filter is stretched by the factor, so that every pixel of the source counts (torch's
/// `interpolate(antialias=True)`, Pillow's `resize`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interpolation {
    /// A triangle of half-width 1.
    #[default]
    Bilinear,
    /// Keys' cubic convolution with a = -1/2 and half-width 2 ("Cubic convolution interpolation for digital
    /// image processing", 1981). It can overshoot the range of its input.
    Bicubic,
}

#[track_caller]
fn check_count(what: &str, count: usize, height: usize, width: usize, channels: usize) -> Result<()> {
    let wanted = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
    if wanted == Some(count) && count > 0 {
        return Ok(());
    }
    Err(Error::shape(
        what,
        format!("{count} values do not make {height} x {width} pixels of {channels} channels, at least one"),
    ))
}

#[track_caller]
fn check_color(what: &str, pixels: &[f32], channels: usize) -> Result<()> {
    if !matches!(channels, 1 | 3) {
        return Err(Error::shape(what, format!("works on 1 (grey) or 3 (RGB) channels, not {channels}")));
    }
    match pixels.len().is_multiple_of(channels) {
        true => Ok(()),
        false => {
            Err(Error::shape(what, format!("{} values are not whole pixels of {channels}", pixels.len())))
        }
    }
}

/// The part `crop` of the image, resized to `height` x `width`, HWC. Not clamped: bicubic can overshoot.
///
/// Errors if the crop is empty or not inside the image, or the output has no pixel.
#[track_caller]
pub fn resized_crop(
    image: ImageRef<'_>,
    crop: Crop,
    height: usize,
    width: usize,
    interpolation: Interpolation,
) -> Result<Vec<f32>> {
    resample::check(&image, crop, height, width)?;
    let mut out = vec![0.0; height * width * image.channels];
    resample::resized_crop(
        &image,
        crop,
        [height, width],
        interpolation,
        false,
        &mut Workspace::default(),
        &mut out,
    );
    Ok(out)
}

/// Mirrors every row, in place: left becomes right.
#[track_caller]
pub fn horizontal_flip(pixels: &mut [f32], height: usize, width: usize, channels: usize) -> Result<()> {
    check_count("horizontal_flip", pixels.len(), height, width, channels)?;
    for row in pixels.chunks_exact_mut(width * channels) {
        for x in 0..width / 2 {
            for c in 0..channels {
                row.swap(x * channels + c, (width - 1 - x) * channels + c);
            }
        }
    }
    Ok(())
}

/// `clamp(factor x, 0, 1)`, in place.
pub fn brightness(pixels: &mut [f32], factor: f32) {
    color::brightness(pixels, factor);
}

/// `clamp(factor x + (1 - factor) m, 0, 1)`, in place; m is the mean of the grey image.
#[track_caller]
pub fn contrast(pixels: &mut [f32], channels: usize, factor: f32) -> Result<()> {
    check_color("contrast", pixels, channels)?;
    color::contrast(pixels, channels, factor);
    Ok(())
}

/// `clamp(factor x + (1 - factor) grey(x), 0, 1)`, in place. The identity on one channel.
#[track_caller]
pub fn saturation(pixels: &mut [f32], channels: usize, factor: f32) -> Result<()> {
    check_color("saturation", pixels, channels)?;
    color::saturation(pixels, channels, factor);
    Ok(())
}

/// Turns the hue by `shift` full circles (-0.5 ..= 0.5), in place, through HSV. The identity on one channel.
#[track_caller]
pub fn hue(pixels: &mut [f32], channels: usize, shift: f32) -> Result<()> {
    check_color("hue", pixels, channels)?;
    if !(-0.5..=0.5).contains(&shift) {
        return Err(Error::value(
            "hue",
            format!("a shift is a part of the circle in -0.5 ..= 0.5, not {shift}"),
        ));
    }
    color::hue(pixels, channels, shift);
    Ok(())
}

/// Every channel becomes `0.2989 R + 0.587 G + 0.114 B` (ITU-R 601), in place. The identity on one channel.
#[track_caller]
pub fn grayscale(pixels: &mut [f32], channels: usize) -> Result<()> {
    check_color("grayscale", pixels, channels)?;
    color::grayscale(pixels, channels);
    Ok(())
}

/// A Gaussian of `kernel` x `kernel` taps (odd) and standard deviation `sigma` pixels, in place. Outside the
/// image lies its reflection about the edge pixels' centres.
#[track_caller]
pub fn gaussian_blur(
    pixels: &mut [f32],
    height: usize,
    width: usize,
    channels: usize,
    kernel: usize,
    sigma: f32,
) -> Result<()> {
    check_count("gaussian_blur", pixels.len(), height, width, channels)?;
    if kernel.is_multiple_of(2) || !(sigma > 0.0 && sigma.is_finite()) {
        return Err(Error::value("gaussian_blur", "needs an odd kernel and a positive sigma")
            .with("kernel", kernel)
            .with("sigma", sigma));
    }
    blur::gaussian(pixels, [height, width, channels], kernel, sigma, &mut Workspace::default());
    Ok(())
}

/// Inverts what is at least `threshold`: `x` becomes `1 - x`, in place.
pub fn solarize(pixels: &mut [f32], threshold: f32) {
    color::solarize(pixels, threshold);
}

/// `(x - mean) / std` by channel, in place. An error unless there is a mean and a positive std a channel.
#[track_caller]
pub fn normalize(pixels: &mut [f32], mean: &[f32], std: &[f32]) -> Result<()> {
    recipe::check_normalize(mean, std, mean.len())?;
    color::normalize(pixels, mean, std);
    Ok(())
}

/// All views of a batch, made on the CUDA device that holds its pixels: one tensor \[B, height, width, channels\] a
/// recipe, f32 or bf16.
///
/// `images` is u8, the images of the batch one after another (\[B, H, W, C\] or any other shape); `draws` is u8
/// \[views, B, [`record_bytes`]\], filled by [`pack`] with the same recipes. In f32 every value has the bits of
/// [`apply`]; in bf16 it is that value, rounded once. Views of one size that follow one another are made by one launch and
/// share a storage, in which they lie one after another.
///
/// Draws are read by the device alone, so that a captured graph makes the views of whatever lies in both tensors when it
/// runs. A record that describes no view of an image inside `images` makes its view NaN.
///
/// Errors: no CUDA device (the CPU makes views with [`apply`]); shapes that do not fit; no 1 or 3 channels; a type that is
/// not f32 or bf16; sides over 1024.
#[track_caller]
pub fn on_device(
    images: &Tensor,
    draws: &Tensor,
    recipes: &[Recipe],
    channels: usize,
    dtype: DType,
) -> Result<Vec<Tensor>> {
    let name = "augment";
    let _operation = engine::memory::operation(name);
    images.require_dtype(name, "images", DType::U8)?;
    draws.require_dtype(name, "draws", DType::U8)?;
    let samples = draws.shape().get(1).copied().unwrap_or(0);
    draws.require_shape(name, "draws", &[recipes.len(), samples, record_bytes(recipes)])?;
    if !matches!(channels, 1 | 3) {
        return Err(Error::shape(name, format!("works on 1 (grey) or 3 (RGB) channels, not {channels}")));
    }
    match images.device() {
        Device::Cpu => {
            let rule = "the pixels must lie on a CUDA device; on the CPU the loader makes views";
            return Err(Error::new(ErrorKind::Device, name, rule).argument("images", images));
        }
        Device::Cuda(_) => cuda::check(recipes)?,
    }
    let mut views = Vec::with_capacity(recipes.len());
    let size = |recipe: &Recipe| (recipe.height, recipe.width);
    for group in recipes.chunk_by(|a, b| size(a) == size(b)) {
        let made = cuda::views(images, draws, &group[0], channels, dtype, views.len(), group.len())?;
        for i in 0..group.len() {
            let shape = [samples, group[0].height, group[0].width, channels];
            views.push(made.narrow(0, i, 1)?.reshape(&shape)?);
        }
    }
    Ok(views)
}
