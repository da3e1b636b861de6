//! Dilated convolution (stride 1) as ordinary convolutions.
//!
//! With dilation d an output pixel in row p meets padded input rows p, p + d, ..: those of the same remainder modulo d, and in
//! columns alike. Pixels of equal remainders, taken out of the padded image, are an image of their own, over which the kernel
//! moves undilated. So all d x d such phases of all images are one batch of smaller images without padding, and each pixel is
//! of exactly one phase: copied out, convolved, copied back. Phases are as large as the largest; what is missing is zero.

use super::{Sizes, dense, weight};
use crate::parallel;
use crate::simd::Level;
use engine::Result;
use engine::memory::Scratch;

/// Images of which every `step`-th pixel makes a phase: [N, H, W, C] with `border` zeros above and to the left of them, and phases
/// [N step step, height, width, C].
#[derive(Clone, Copy)]
struct Phases {
    step: usize,
    border: usize,
    /// H, W, C.
    image: [usize; 3],
    /// Of a phase.
    size: [usize; 2],
}

impl Phases {
    fn len(&self) -> usize {
        self.size[0] * self.size[1] * self.image[2]
    }

    /// Where a phase's pixel lies in its image; outside in the border and behind the image.
    fn place(&self, phase: usize, [i, j]: [usize; 2]) -> Option<usize> {
        let [h, w, c] = self.image;
        let row = (i * self.step + phase / self.step % self.step).checked_sub(self.border)?;
        let column = (j * self.step + phase % self.step).checked_sub(self.border)?;
        (row < h && column < w).then_some((row * w + column) * c)
    }

    /// The phases of images.
    fn take(&self, images: &[f32], phases: &mut [f32]) {
        let [h, w, c] = self.image;
        parallel::chunks(phases, self.len(), |start, phase| {
            let number = start / self.len();
            let image = &images[number / (self.step * self.step) * h * w * c..][..h * w * c];
            for (at, to) in phase.chunks_exact_mut(c).enumerate() {
                match self.place(number, [at / self.size[1], at % self.size[1]]) {
                    Some(from) => to.copy_from_slice(&image[from..from + c]),
                    None => to.fill(0.0),
                }
            }
        });
    }

    /// Images from their phases; pixels that are of none become zero.
    fn put(&self, phases: &[f32], images: &mut [f32]) {
        let [h, w, c] = self.image;
        let each = self.step * self.step * self.len();
        parallel::chunks(images, h * w * c, |start, image| {
            let phases = &phases[start / (h * w * c) * each..][..each];
            for (at, to) in image.chunks_exact_mut(c).enumerate() {
                let (row, column) = (at / w + self.border, at % w + self.border);
                let phase = row % self.step * self.step + column % self.step;
                let (i, j) = (row / self.step, column / self.step);
                match i < self.size[0] && j < self.size[1] {
                    true => {
                        let from = phase * self.len() + (i * self.size[1] + j) * c;
                        to.copy_from_slice(&phases[from..from + c]);
                    }
                    false => to.fill(0.0),
                }
            }
        });
    }
}

/// The convolution of all phases, and those of inputs and of outputs.
fn phases(z: &Sizes) -> (Sizes, Phases, Phases) {
    let d = z.dilation;
    let (p, q) = (z.p.div_ceil(d), z.q.div_ceil(d));
    let (h, w) = (p + z.r - 1, q + z.s - 1);
    let each = Sizes { n: z.n * d * d, h, w, p, q, padding: 0, dilation: 1, ..*z };
    let inputs = Phases { step: d, border: z.padding, image: [z.h, z.w, z.c], size: [h, w] };
    let outputs = Phases { step: d, border: 0, image: [z.p, z.q, z.o], size: [p, q] };
    (each, inputs, outputs)
}

fn taken(images: &[f32], phases: Phases, count: usize) -> Result<Scratch<f32>> {
    let mut all = Scratch::<f32>::new(count * phases.len())?;
    phases.take(images, &mut all);
    Ok(all)
}

/// See [`crate::conv2d::forward`].
pub(super) fn forward_at(level: Level, z: &Sizes, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
    if y.is_empty() || z.c == 0 {
        y.fill(0.0);
        return Ok(());
    }
    let (each, inputs, outputs) = phases(z);
    let x = taken(x, inputs, each.n)?;
    let mut parts = Scratch::<f32>::new(each.n * outputs.len())?;
    dense::forward_at(level, &each, &x, w, &mut parts)?;
    outputs.put(&parts, y);
    Ok(())
}

/// See [`crate::conv2d::input_gradient`].
pub(super) fn input_gradient_at(
    level: Level,
    z: &Sizes,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    if dx.is_empty() || z.o == 0 {
        dx.fill(0.0);
        return Ok(());
    }
    let (each, inputs, outputs) = phases(z);
    let dy = taken(dy, outputs, each.n)?;
    let mut parts = Scratch::<f32>::new(each.n * inputs.len())?;
    dense::input_gradient_at(level, &each, &dy, w, &mut parts)?;
    inputs.put(&parts, dx);
    Ok(())
}

/// See [`crate::conv2d::weight_gradient`].
pub(super) fn weight_gradient_at(
    level: Level,
    z: &Sizes,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) -> Result<()> {
    if dw.is_empty() {
        return Ok(());
    }
    let (each, inputs, outputs) = phases(z);
    let (x, dy) = (taken(x, inputs, each.n)?, taken(dy, outputs, each.n)?);
    weight::weight_gradient_at(level, &each, &x, &dy, dw)
}
