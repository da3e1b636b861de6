//! The numbers of one view of one sample, drawn from a counter-based stream.

use super::recipe::{ColorJitter, CropRule, Recipe};
use super::{Crop, ImageRef};
use engine::{Error, Philox, Result};

/// The index of the random stream of view `view` of sample `sample` in epoch `epoch`, for
/// `Philox::new(seed, Purpose::Augment, index)`.
///
/// From the high bits: 24 of epoch, 32 of sample, 8 of view, so different triples never share a stream. An
/// error where one does not fit.
#[track_caller]
pub fn stream_index(epoch: usize, sample: usize, view: usize) -> Result<u64> {
    let (epoch, sample, view) = (epoch as u64, sample as u64, view as u64);
    if epoch >> 24 != 0 || sample >> 32 != 0 || view >> 8 != 0 {
        let rule = "epochs are below 2^24, samples below 2^32, views below 2^8";
        return Err(
            Error::value("augmentation stream", rule).with("(epoch, sample, view)", (epoch, sample, view))
        );
    }
    Ok(epoch << 40 | sample << 8 | view)
}

/// One of the four operations of colour jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JitterOperation {
    /// See [`super::brightness`].
    Brightness,
    /// See [`super::contrast`].
    Contrast,
    /// See [`super::saturation`].
    Saturation,
    /// See [`super::hue`].
    Hue,
}

/// Drawn colour jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// First to last.
    pub order: [JitterOperation; 4],
    /// Factor.
    pub brightness: f32,
    /// Factor.
    pub contrast: f32,
    /// Factor.
    pub saturation: f32,
    /// Shift in full circles.
    pub hue: f32,
}

/// All that was drawn for one view of one sample; [`super::apply`] needs no other randomness.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// The part of the image that becomes the view.
    pub crop: Crop,
    /// Whether it is mirrored.
    pub flip: bool,
    /// Colour jitter, where applied.
    pub jitter: Option<Jitter>,
    /// Whether colour is taken away.
    pub grayscale: bool,
    /// The blur's sigma in output pixels, where applied.
    pub blur: Option<f32>,
    /// Whether values of at least 0.5 are inverted.
    pub solarize: bool,
}

impl Parameters {
    /// Draws the parameters of one view of an image of `height` x `width` pixels.
    ///
    /// Every draw is made whether or not it is used, and the crop, whose number of tries varies, comes last:
    /// recipes that differ in one probability draw the same values for all else.
    pub fn draw(recipe: &Recipe, height: usize, width: usize, random: &mut Philox) -> Parameters {
        let flip = random.chance(recipe.flip);
        let jitter = draw_jitter(recipe.jitter.as_ref(), random);
        let grayscale = random.chance(recipe.grayscale);
        let (often, sigma) = match recipe.blur {
            Some(b) => (b.probability, b.sigma),
            None => (0.0, [1.0; 2]),
        };
        let blurred = random.chance(often);
        let sigma = random.range(sigma[0], sigma[1]);
        let solarize = random.chance(recipe.solarize);
        let crop = match recipe.crop {
            CropRule::Whole => Crop { top: 0, left: 0, height, width },
            CropRule::Random { area, aspect } => draw_crop(height, width, area, aspect, random),
        };
        Parameters { crop, flip, jitter, grayscale, blur: blurred.then_some(sigma), solarize }
    }

    /// The parameters that only resize the image.
    pub fn identity(image: &ImageRef<'_>) -> Parameters {
        Parameters {
            crop: image.whole(),
            flip: false,
            jitter: None,
            grayscale: false,
            blur: None,
            solarize: false,
        }
    }
}

fn draw_jitter(jitter: Option<&ColorJitter>, random: &mut Philox) -> Option<Jitter> {
    use JitterOperation::{Brightness, Contrast, Hue, Saturation};
    let off = ColorJitter { probability: 0.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
    let jitter = jitter.unwrap_or(&off);
    let applied = random.chance(jitter.probability);
    let mut order = [Brightness, Contrast, Saturation, Hue];
    for i in (1..4).rev() {
        order.swap(i, random.below(i + 1));
    }
    let mut factor = |s: f32| random.range((1.0 - s).max(0.0), 1.0 + s);
    let (brightness, contrast, saturation) =
        (factor(jitter.brightness), factor(jitter.contrast), factor(jitter.saturation));
    let hue = random.range(-jitter.hue, jitter.hue);
    applied.then_some(Jitter { order, brightness, contrast, saturation, hue })
}

/// torchvision's `RandomResizedCrop.get_params`, in f64.
fn draw_crop(height: usize, width: usize, area: [f32; 2], aspect: [f32; 2], random: &mut Philox) -> Crop {
    let whole = (height * width) as f64;
    let aspect = aspect.map(f64::from);
    let logs = aspect.map(f64::ln);
    for _ in 0..10 {
        let target = whole * f64::from(random.range(area[0], area[1]));
        let ratio = (logs[0] + (logs[1] - logs[0]) * f64::from(random.uniform())).exp();
        let w = (target * ratio).sqrt().round_ties_even() as usize;
        let h = (target / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = random.below(height - h + 1);
            let left = random.below(width - w + 1);
            return Crop { top, left, height: h, width: w };
        }
    }
    central_crop(height, width, aspect)
}

/// The largest central crop whose width / height lies in the range `aspect`.
fn central_crop(height: usize, width: usize, aspect: [f64; 2]) -> Crop {
    let ratio = width as f64 / height as f64;
    let (h, w) = if ratio < aspect[0] {
        ((width as f64 / aspect[0]).round_ties_even() as usize, width)
    } else if ratio > aspect[1] {
        (height, (height as f64 * aspect[1]).round_ties_even() as usize)
    } else {
        (height, width)
    };
    let (h, w) = (h.clamp(1, height), w.clamp(1, width));
    Crop { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}
