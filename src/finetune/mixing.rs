//! What makes labels soft: mixup (Zhang et al. 2018), CutMix (Yun et al. 2019) and random erasing (Zhong et al. 2020).
//!
//! A batch is mixed with itself in reverse order: image b with image B - 1 - b, as timm's `Mixup` in its mode `batch` does.
//! Both kinds of mixing are `x + w (partner - x)` with a weight w at each pixel, the product of one number a row and one a
//! column: in mixup all are 1 - lambda, in CutMix w is 1 in a box and 0 outside. The part that labels take of the partner
//! is the mean of w. Erasing is the same with an image of zeros, the mean of normalised images (RE-M of the paper; MAE erases
//! to noise). So a step uploads rows and columns, not pictures, and all of it can be captured.
//!
//! Everything is drawn on the host from the seed and the step.

use engine::random::Purpose;
use engine::{Device, Philox, Result, Tensor};
use kernels::{copy, elementwise};

/// How batches are mixed and erased.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixing {
    /// lambda of mixup is drawn from Beta(mixup, mixup); 0 for none.
    pub mixup: f32,
    /// One minus the box's part of the image in CutMix is drawn from Beta(cutmix, cutmix); 0 for none.
    pub cutmix: f32,
    /// How often a batch is mixed. Where there are both kinds, each is taken half of the times.
    pub probability: f32,
    /// How often an image has a box erased.
    pub erase: f32,
}

/// What is drawn to mix a batch: the partner's weight at pixel (y, x) is `rows[y] columns[x]`, in labels it is `part`.
/// One tensor f32 [1, H + W + 1] holds them in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// \[H\]
    pub rows: Vec<f32>,
    /// \[W\]
    pub columns: Vec<f32>,
    /// In 0 to 1.
    pub part: f32,
}

/// Tries to fit a box before an image is left whole.
const TRIES: usize = 10;
/// Least and greatest part of the image that is erased, and greatest height / width: Zhong et al. 2020, section 3.3.
const ERASED_AREA: [f32; 2] = [0.02, 1.0 / 3.0];
const ERASED_ASPECT: f32 = 1.0 / 0.3;

impl Mixing {
    /// Whether batches are mixed.
    pub fn mixes(&self) -> bool {
        self.probability > 0.0 && (self.mixup > 0.0 || self.cutmix > 0.0)
    }

    /// How the batch of a step of images of `size`, rows and columns, is mixed.
    pub fn mix(&self, seed: u64, step: u64, size: [usize; 2]) -> Mix {
        let [height, width] = size;
        let mut random = Philox::new(seed, Purpose::Probe, 2 * step);
        let even = |weight: f32| Mix { rows: vec![weight; height], columns: vec![1.0; width], part: weight };
        if !random.chance(self.probability) {
            return even(0.0);
        }
        let cuts = self.cutmix > 0.0 && (self.mixup == 0.0 || random.chance(0.5));
        if !cuts {
            return even(1.0 - beta(self.mixup, &mut random));
        }
        // The box has the image's shape, its centre lies anywhere in it, and what is outside is cut off.
        let side = (1.0 - beta(self.cutmix, &mut random)).max(0.0).sqrt();
        let mut span = |n: usize| -> (Vec<f32>, usize) {
            let (cut, centre) = ((n as f32 * side) as usize, random.below(n));
            let inside = centre.saturating_sub(cut / 2)..(centre + cut / 2).min(n);
            ((0..n).map(|i| f32::from(u8::from(inside.contains(&i)))).collect(), inside.len())
        };
        let ((rows, down), (columns, across)) = (span(height), span(width));
        Mix { rows, columns, part: (down * across) as f32 / (height * width) as f32 }
    }

    /// What a step erases of a batch, [B, H + W]: 1 at the rows, then at the columns, of the box of each image; 0 elsewhere.
    pub fn erasures(&self, seed: u64, step: u64, batch: usize, size: [usize; 2]) -> Vec<f32> {
        let [height, width] = size;
        let mut boxes = vec![0.0; batch * (height + width)];
        let mut random = Philox::new(seed, Purpose::Probe, 2 * step + 1);
        for marks in boxes.chunks_exact_mut((height + width).max(1)) {
            if !random.chance(self.erase) {
                continue;
            }
            for _ in 0..TRIES {
                let area = random.range(ERASED_AREA[0], ERASED_AREA[1]) * (height * width) as f32;
                let aspect = random.range(-ERASED_ASPECT.ln(), ERASED_ASPECT.ln()).exp();
                let side = |area: f32| area.sqrt().round() as usize;
                let (h, w) = (side(area * aspect), side(area / aspect));
                if h < height && w < width {
                    let (top, left) = (random.below(height - h + 1), random.below(width - w + 1));
                    marks[top..top + h].fill(1.0);
                    marks[height + left..height + left + w].fill(1.0);
                    break;
                }
            }
        }
        boxes
    }
}

impl Mix {
    /// The numbers in one row, [1, H + W + 1].
    pub fn packed(&self) -> Result<Tensor> {
        let all: Vec<f32> = self.rows.iter().chain(&self.columns).chain([&self.part]).copied().collect();
        Tensor::from_slice(&all, &[1, all.len()])
    }
}

/// A number from the Beta(a, a) distribution, as a ratio of two from the Gamma(a) distribution.
fn beta(a: f32, random: &mut Philox) -> f32 {
    let (x, y) = (gamma(f64::from(a), random), gamma(f64::from(a), random));
    // Both can be too small for a number where a is tiny: then it is 0 or 1, each as often.
    match x + y > 0.0 {
        true => (x / (x + y)) as f32,
        false => f32::from(u8::from(random.chance(0.5))),
    }
}

/// A number from the Gamma(a) distribution (Marsaglia and Tsang 2000; below 1 by their equation for a + 1).
fn gamma(a: f64, random: &mut Philox) -> f64 {
    if a < 1.0 {
        let u = 1.0 - f64::from(random.uniform());
        return gamma(a + 1.0, random) * u.powf(1.0 / a);
    }
    let d = a - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = f64::from(random.normal());
        let v = (1.0 + c * x).powi(3);
        let u = 1.0 - f64::from(random.uniform());
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// The rows of a batch in reverse order: i32 [B].
pub fn reversed(batch: usize, device: Device) -> Result<Tensor> {
    let order: Vec<i32> = (0..batch as i32).rev().collect();
    Tensor::from_slice(&order, &[batch])?.to_device(device)
}

/// Products of a row's and a column's number at every value of images [B, H, W, C], in their type: `marks` are
/// [R, H + W ..], R either B or 1.
#[track_caller]
fn weights(images: &Tensor, marks: &Tensor) -> Result<Tensor> {
    let (shape, r) = (images.shape(), marks.shape()[0]);
    let (h, w) = (shape[1], shape[2]);
    let spread = |from: usize, len: usize, there: [usize; 4]| -> Result<Tensor> {
        let numbers = copy::cast(&copy::contiguous(&marks.narrow(1, from, len)?)?, images.dtype())?;
        copy::contiguous(&numbers.reshape(&there)?.expand(shape)?)
    };
    elementwise::mul(&spread(0, h, [r, h, 1, 1])?, &spread(h, w, [r, 1, w, 1])?)
}

/// Images [B, H, W, C] mixed with the images in the order `partners` (i32 [B]) as `mix` ([`Mix::packed`]) says.
#[track_caller]
pub fn mixed(images: &Tensor, partners: &Tensor, mix: &Tensor) -> Result<Tensor> {
    let batch = images.shape()[0];
    let flat = images.reshape(&[batch, images.len() / batch.max(1)])?;
    let partner = copy::gather_rows(&flat, partners)?.reshape(images.shape())?;
    let change = elementwise::mul(&weights(images, mix)?, &elementwise::sub(&partner, images)?)?;
    elementwise::add(images, &change)
}

/// Probabilities [B, V]: `labels` (i32 [B]) and, for their part in `mix` ([`Mix::packed`]), those in the order `partners`;
/// `identity` is [V, V].
#[track_caller]
pub fn soft(labels: &Tensor, partners: &Tensor, mix: &Tensor, identity: &Tensor) -> Result<Tensor> {
    let own = copy::gather_rows(identity, labels)?;
    let partner = copy::gather_rows(&own, partners)?;
    let part = mix.narrow(1, mix.shape()[1] - 1, 1)?;
    let part = copy::contiguous(&part.expand(own.shape())?)?;
    elementwise::add(&own, &elementwise::mul(&part, &elementwise::sub(&partner, &own)?)?)
}

/// Images [B, H, W, C] with zeros in the boxes of [`Mixing::erasures`].
#[track_caller]
pub fn erased(images: &Tensor, boxes: &Tensor) -> Result<Tensor> {
    elementwise::sub(images, &elementwise::mul(images, &weights(images, boxes)?)?)
}

#[cfg(test)]
#[path = "mixing_tests.rs"]
mod tests;
