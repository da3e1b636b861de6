//! Holes in images, for inpainting: which pixels are hidden, and how much each counts.

use engine::random::Purpose;
use engine::{Error, Philox, Result, Tensor};
use kernels::augment::{ImageRef, Interpolation, resized_crop};
use serde::Deserialize;

/// Where holes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoleShape {
    /// The middle square.
    Centre,
    /// A blob of an image's own, new at every step.
    Random,
}

/// Random holes are about this part of the shorter side across: the reference's noise has 0.06 of a pixel's frequency for images
/// of 128 pixels, a cell of 16.7 pixels.
const CELL: f64 = 0.13;

/// How holes are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HoleRule {
    /// Rows and columns of the images.
    pub size: [usize; 2],
    /// Where holes are.
    pub shape: HoleShape,
    /// Part of the image's area that is hidden. For [`HoleShape::Centre`] the ring counts as part of it.
    pub area: f32,
    /// Width in pixels of the ring of visible pixels around a hole that are predicted too. In the centre it lies inside the
    /// square, which makes the hole smaller (the reference's `overlapPred`).
    pub ring: usize,
    /// What a pixel of the ring counts, where one of the hole counts 1.
    pub ring_weight: f32,
}

/// Holes of a batch.
#[derive(Debug, Clone)]
pub struct Holes {
    /// f32 [B, H, W, 1]: 1 where a pixel is hidden, else 0.
    pub hidden: Tensor,
    /// f32 [B, H, W, 1]: what a pixel counts; adds up to 1 over the batch.
    pub weights: Tensor,
}

impl HoleRule {
    /// An error unless holes and visible pixels are left.
    #[track_caller]
    pub fn check(&self, method: &str) -> Result<()> {
        let hidden = self.draw(0, 0, 1)?.hidden.to_vec::<f32>()?;
        let count = hidden.iter().filter(|v| **v > 0.0).count();
        match count > 0 && count < hidden.len() {
            true => Ok(()),
            false => {
                let text = format!(
                    "an area of {} with a ring of {} pixels hides {count} of {} pixels: some must be hidden and some left",
                    self.area,
                    self.ring,
                    hidden.len()
                );
                Err(Error::new(engine::ErrorKind::Usage, format!("{method} settings"), text))
            }
        }
    }

    /// The part of an image's pixels that is hidden, the same in all.
    pub fn share(&self) -> Result<f32> {
        let hidden = self.draw(0, 0, 1)?.hidden.to_vec::<f32>()?;
        Ok(hidden.iter().sum::<f32>() / hidden.len() as f32)
    }

    /// Top, left, height and width of the middle square with its ring.
    pub fn square(&self) -> [usize; 4] {
        let side = |n: usize| ((n as f64 * f64::from(self.area).sqrt()).round() as usize).clamp(1, n);
        let (height, width) = (side(self.size[0]), side(self.size[1]));
        [(self.size[0] - height) / 2, (self.size[1] - width) / 2, height, width]
    }

    /// The holes of a step, one an image.
    pub fn draw(&self, seed: u64, step: u64, batch: usize) -> Result<Holes> {
        let [h, w] = self.size;
        let (mut hidden, mut weights) =
            (Vec::with_capacity(batch * h * w), Vec::with_capacity(batch * h * w));
        for sample in 0..batch {
            let hole = match self.shape {
                HoleShape::Centre => self.centre(),
                HoleShape::Random => self.blob(seed, step * batch as u64 + sample as u64)?,
            };
            let near = self.ring_of(&hole);
            let weight = |(hole, near): (&bool, &bool)| match (hole, near) {
                (true, _) => 1.0,
                (false, true) => self.ring_weight,
                _ => 0.0,
            };
            weights.extend(hole.iter().zip(&near).map(weight));
            hidden.extend(hole.iter().map(|h| f32::from(u8::from(*h))));
        }
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        weights.iter_mut().for_each(|w| *w = (f64::from(*w) / total.max(1.0)) as f32);
        let shape = [batch, h, w, 1];
        Ok(Holes {
            hidden: Tensor::from_slice(&hidden, &shape)?,
            weights: Tensor::from_slice(&weights, &shape)?,
        })
    }

    /// The middle square without its ring.
    fn centre(&self) -> Vec<bool> {
        let [top, left, height, width] = self.square();
        let inside =
            |i: usize, start: usize, len: usize| i >= start + self.ring && i + self.ring < start + len;
        let [h, w] = self.size;
        (0..h * w).map(|i| inside(i / w, top, height) && inside(i % w, left, width)).collect()
    }

    /// The darkest pixels of smooth noise, as many as the area says: the reference takes noise below a threshold and draws again
    /// until a fifth to three tenths are hidden.
    fn blob(&self, seed: u64, index: u64) -> Result<Vec<bool>> {
        let [h, w] = self.size;
        let cell = CELL * h.min(w) as f64;
        let [rows, columns] = [h, w].map(|n| (n as f64 / cell).ceil() as usize + 1);
        let mut random = Philox::new(seed, Purpose::Mask, index);
        let noise: Vec<f32> = (0..rows * columns).map(|_| random.uniform()).collect();
        let noise = ImageRef::from_f32(&noise, rows, columns, 1)?;
        let smooth = resized_crop(noise, noise.whole(), h, w, Interpolation::Bicubic)?;
        let mut order: Vec<usize> = (0..h * w).collect();
        order.sort_by(|&a, &b| smooth[a].total_cmp(&smooth[b]));
        let mut hole = vec![false; h * w];
        let count = (f64::from(self.area) * (h * w) as f64).round() as usize;
        order.iter().take(count).for_each(|&i| hole[i] = true);
        Ok(hole)
    }

    /// Pixels that are not hidden but at most `ring` rows and columns from one that is.
    fn ring_of(&self, hole: &[bool]) -> Vec<bool> {
        let [h, w] = self.size;
        let near = |y: usize, x: usize| {
            let rows = y.saturating_sub(self.ring)..(y + self.ring + 1).min(h);
            rows.flat_map(|r| (x.saturating_sub(self.ring)..(x + self.ring + 1).min(w)).map(move |c| (r, c)))
                .any(|(r, c)| hole[r * w + c])
        };
        (0..h * w).map(|i| !hole[i] && self.ring > 0 && near(i / w, i % w)).collect()
    }
}
