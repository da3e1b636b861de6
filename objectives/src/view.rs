//! How a view of an image is made, as settings say it.

use crate::DataProfile;
use crate::settings::require;
use engine::Result;
use kernels::augment::{Blur, ColorJitter, CropRule, Interpolation, Normalize, Recipe};
use serde::Deserialize;

/// Smallest and greatest width / height of a crop, in all methods here.
const ASPECT: [f32; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// The settings of a view, a table such as `[settings.view]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Rows and columns of a view; 0 is the image's own size. Objects look larger in crops than in whole images;
    /// smaller views undo that (Touvron et al. 2019, "Fixing the train-test resolution discrepancy") and cost
    /// less. Evaluation sees whole images.
    pub size: usize,
    /// Least and greatest part of the image's area that a view shows.
    pub crop: [f32; 2],
    /// How often a view is mirrored.
    pub flip: f32,
    /// Colour jitter: brightness, contrast, saturation, hue. On grey images the last two do nothing.
    pub jitter: [f32; 4],
    /// How often a view is jittered.
    pub jitter_probability: f32,
    /// How often colour is taken away. On grey images it does nothing.
    pub grayscale: f32,
    /// How often a view is blurred.
    pub blur: f32,
    /// How often values of at least 0.5 are inverted.
    pub solarize: f32,
}

impl View {
    /// The recipe for images of `profile`, which ends in `normalize`. Errors name the field of `table` and what it must be.
    #[track_caller]
    pub fn recipe(
        &self,
        method: &str,
        table: &str,
        profile: &DataProfile,
        normalize: &Option<Normalize>,
    ) -> Result<Recipe> {
        let part = |name: &str, p: f32| {
            ((0.0..=1.0).contains(&p), format!("{table}.{name} must be in 0 ..= 1, not {p}"))
        };
        let [low, high] = self.crop;
        require(
            method,
            &[
                (
                    low > 0.0 && low <= high && high <= 1.0,
                    format!(
                        "{table}.crop must be [least, greatest] with 0 < least <= greatest <= 1, not {:?}",
                        self.crop
                    ),
                ),
                (
                    self.jitter[..3].iter().all(|s| *s >= 0.0 && s.is_finite()),
                    format!("{table}.jitter must not be negative: {:?}", self.jitter),
                ),
                (
                    (0.0..=0.5).contains(&self.jitter[3]),
                    format!(
                        "{table}.jitter: hue is a part of the circle in 0 ..= 0.5, not {}",
                        self.jitter[3]
                    ),
                ),
                part("flip", self.flip),
                part("jitter_probability", self.jitter_probability),
                part("grayscale", self.grayscale),
                part("blur", self.blur),
                part("solarize", self.solarize),
            ],
        )?;
        let (height, width) = match self.size {
            0 => (profile.height, profile.width),
            size => (size, size),
        };
        let grey = profile.channels == 1;
        let [brightness, contrast, saturation, hue] = self.jitter;
        let (saturation, hue) = if grey { (0.0, 0.0) } else { (saturation, hue) };
        let jitter =
            ColorJitter { probability: self.jitter_probability, brightness, contrast, saturation, hue };
        let jitters = self.jitter_probability > 0.0 && [brightness, contrast, saturation, hue] != [0.0; 4];
        let recipe = Recipe {
            height,
            width,
            crop: CropRule::Random { area: self.crop, aspect: ASPECT },
            interpolation: Interpolation::Bicubic,
            flip: self.flip,
            jitter: jitters.then_some(jitter),
            grayscale: if grey { 0.0 } else { self.grayscale },
            blur: (self.blur > 0.0).then(|| Blur::with_probability(self.blur)),
            solarize: self.solarize,
            normalize: normalize.clone(),
        };
        recipe.check(profile.channels)?;
        Ok(recipe)
    }
}

/// Mean and deviation that the channels of a view are normalised by: `normalize` in settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistics {
    /// Values stay in 0 to 1.
    None,
    /// ImageNet's, torchvision's values. For grey images the grey value's (Rec. 601 weights) of these.
    Imagenet,
    /// CIFAR-10's. For grey images as above.
    Cifar,
    /// Fashion-MNIST's: grey.
    FashionMnist,
}

/// Weights of red, green, blue in grey (ITU-R BT.601).
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

impl Statistics {
    /// The last step of a view of images with so many channels.
    pub fn normalize(self, channels: usize) -> Option<Normalize> {
        let (mean, std) = match self {
            Statistics::None => return None,
            Statistics::Imagenet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            Statistics::Cifar => ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
            Statistics::FashionMnist => ([0.2860; 3], [0.3530; 3]),
        };
        let grey = |v: [f32; 3]| v.iter().zip(GREY).map(|(v, g)| v * g).sum::<f32>();
        Some(match channels {
            1 => Normalize { mean: vec![grey(mean)], std: vec![grey(std)] },
            _ => Normalize { mean: mean.to_vec(), std: std.to_vec() },
        })
    }
}
