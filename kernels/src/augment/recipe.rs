//! What may happen to a view: ranges and probabilities, before any number is drawn.

use super::Interpolation;
use engine::{Error, Result};

/// Which part of the image a view shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CropRule {
    /// All of it.
    Whole,
    /// A rectangle of random area, shape and place (torchvision's `RandomResizedCrop`): up to ten tries that
    /// fit, then the largest central part whose aspect ratio is allowed.
    Random {
        /// Least and greatest part of the image's area, in (0, 1\].
        area: [f32; 2],
        /// Least and greatest width / height; the logarithm is uniform.
        aspect: [f32; 2],
    },
}

/// Colour jitter: four operations in a random order, all or none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorJitter {
    /// How often the four are applied.
    pub probability: f32,
    /// The factor is uniform in \[max(0, 1 - b), 1 + b\].
    pub brightness: f32,
    /// As `brightness`.
    pub contrast: f32,
    /// As `brightness`. Without effect on one channel.
    pub saturation: f32,
    /// The shift is uniform in \[-h, h\], in full circles, at most 0.5. Without effect on one channel.
    pub hue: f32,
}

/// Gaussian blur.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blur {
    /// How often it is applied.
    pub probability: f32,
    /// The standard deviation in output pixels is uniform between these.
    pub sigma: [f32; 2],
    /// Kernel size as a part of the output's shorter side, see [`Blur::kernel`].
    pub kernel_fraction: f32,
}

impl Blur {
    /// SimCLR's (Chen et al. 2020, appendix A): sigma in \[0.1, 2\], kernel a tenth of the side.
    pub fn with_probability(probability: f32) -> Blur {
        Blur { probability, sigma: [0.1, 2.0], kernel_fraction: 0.1 }
    }

    /// Taps for an output whose shorter side is `side`: `2 floor(fraction side / 2) + 1`, at least 3.
    pub fn kernel(&self, side: usize) -> usize {
        let half = (side as f64 * f64::from(self.kernel_fraction) / 2.0).floor() as usize;
        2 * half.max(1) + 1
    }
}

/// `(x - mean) / std` by channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// One a channel.
    pub mean: Vec<f32>,
    /// One a channel, positive.
    pub std: Vec<f32>,
}

/// What may happen to a view. The steps apply in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Rows of the output.
    pub height: usize,
    /// Columns of the output.
    pub width: usize,
    /// Which part of the image.
    pub crop: CropRule,
    /// How that part becomes the output's size.
    pub interpolation: Interpolation,
    /// How often the view is mirrored.
    pub flip: f32,
    /// Colour jitter.
    pub jitter: Option<ColorJitter>,
    /// How often colour is taken away (all channels become the grey value).
    pub grayscale: f32,
    /// Blur.
    pub blur: Option<Blur>,
    /// How often values of at least 0.5 are inverted.
    pub solarize: f32,
    /// The last step; `None` leaves values in \[0, 1\].
    pub normalize: Option<Normalize>,
}

impl Recipe {
    /// The whole image resized to `height` x `width`; nothing random, values in \[0, 1\].
    pub fn evaluation(height: usize, width: usize) -> Recipe {
        Recipe {
            height,
            width,
            crop: CropRule::Whole,
            interpolation: Interpolation::Bilinear,
            flip: 0.0,
            jitter: None,
            grayscale: 0.0,
            blur: None,
            solarize: 0.0,
            normalize: None,
        }
    }

    /// A random resized crop of `area` (aspect ratio 3/4 to 4/3, bicubic) and a flip half of the time: what
    /// MAE and supervised training use.
    pub fn crop_and_flip(height: usize, width: usize, area: [f32; 2]) -> Recipe {
        Recipe {
            crop: CropRule::Random { area, aspect: [3.0 / 4.0, 4.0 / 3.0] },
            interpolation: Interpolation::Bicubic,
            flip: 0.5,
            ..Recipe::evaluation(height, width)
        }
    }

    /// SimCLR's views (Chen et al. 2020, appendix A): crop of 8 % to 100 %, flip, jitter of the given
    /// `strength` (1 on ImageNet, 0.5 on images of 32 pixels) with probability 0.8, grey with 0.2, no blur: add
    /// `Blur::with_probability(0.5)` for large images. Values stay in \[0, 1\].
    pub fn simclr(height: usize, width: usize, strength: f32) -> Recipe {
        Recipe {
            jitter: Some(ColorJitter {
                probability: 0.8,
                brightness: 0.8 * strength,
                contrast: 0.8 * strength,
                saturation: 0.8 * strength,
                hue: 0.2 * strength,
            }),
            grayscale: 0.2,
            ..Recipe::crop_and_flip(height, width, [0.08, 1.0])
        }
    }

    /// The same recipe, ending in `(x - mean) / std`.
    pub fn normalized(mut self, mean: &[f32], std: &[f32]) -> Recipe {
        self.normalize = Some(Normalize { mean: mean.to_vec(), std: std.to_vec() });
        self
    }

    /// Whether every view of an image is the same.
    pub fn is_deterministic(&self) -> bool {
        let fixed = |p: f32| p <= 0.0 || p >= 1.0;
        let same = |r: [f32; 2]| r[0] == r[1];
        let jitter = self.jitter.is_none_or(|j| j.probability <= 0.0);
        let blur = self.blur.is_none_or(|b| b.probability <= 0.0 || (fixed(b.probability) && same(b.sigma)));
        let switches = fixed(self.flip) && fixed(self.grayscale) && fixed(self.solarize);
        self.crop == CropRule::Whole && jitter && blur && switches
    }

    /// An error that names the first field outside its range. `channels` are the images'.
    #[track_caller]
    pub fn check(&self, channels: usize) -> Result<()> {
        let wrong = |message: String| Err(Error::value("augmentation recipe", message));
        if self.height == 0 || self.width == 0 {
            return wrong(format!("the output {} x {} has no pixel", self.height, self.width));
        }
        if !matches!(channels, 1 | 3) {
            return wrong(format!("images have 1 (grey) or 3 (RGB) channels, not {channels}"));
        }
        if let CropRule::Random { area, aspect } = self.crop {
            if !(area[0] > 0.0 && area[0] <= area[1] && area[1] <= 1.0) {
                return wrong(format!("the crop's area {area:?} must be a range in (0, 1]"));
            }
            if !(aspect[0] > 0.0 && aspect[0] <= aspect[1] && aspect[1].is_finite()) {
                return wrong(format!("the crop's aspect {aspect:?} must be a range of positive numbers"));
            }
        }
        let jitter = self.jitter.unwrap_or(ColorJitter {
            probability: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
        });
        let blur = self.blur.unwrap_or(Blur::with_probability(0.0));
        let probabilities = [
            ("flip", self.flip),
            ("jitter.probability", jitter.probability),
            ("grayscale", self.grayscale),
            ("blur.probability", blur.probability),
            ("solarize", self.solarize),
        ];
        for (name, p) in probabilities {
            if !(0.0..=1.0).contains(&p) {
                return wrong(format!("{name} is a probability in 0 ..= 1, not {p}"));
            }
        }
        let strengths = [
            ("brightness", jitter.brightness),
            ("contrast", jitter.contrast),
            ("saturation", jitter.saturation),
        ];
        for (name, s) in strengths {
            if !(s >= 0.0 && s.is_finite()) {
                return wrong(format!("jitter.{name} must not be negative, but is {s}"));
            }
        }
        if !(0.0..=0.5).contains(&jitter.hue) {
            return wrong(format!("jitter.hue is a part of the circle in 0 ..= 0.5, not {}", jitter.hue));
        }
        let [low, high] = blur.sigma;
        if !(low > 0.0 && low <= high && high.is_finite()) {
            return wrong(format!("blur.sigma {:?} must be a range of positive numbers", blur.sigma));
        }
        if !(0.0..=1.0).contains(&blur.kernel_fraction) {
            return wrong(format!("blur.kernel_fraction is in 0 ..= 1, not {}", blur.kernel_fraction));
        }
        match &self.normalize {
            Some(n) => check_normalize(&n.mean, &n.std, channels),
            None => Ok(()),
        }
    }
}

#[track_caller]
pub(super) fn check_normalize(mean: &[f32], std: &[f32], channels: usize) -> Result<()> {
    let valid = mean.len() == channels
        && std.len() == channels
        && channels > 0
        && mean.iter().all(|m| m.is_finite())
        && std.iter().all(|s| *s > 0.0 && s.is_finite());
    match valid {
        true => Ok(()),
        false => {
            let rule = format!("needs one finite mean and one positive std for each of {channels} channels");
            Err(Error::value("normalize", rule).with("mean", mean).with("std", std))
        }
    }
}
