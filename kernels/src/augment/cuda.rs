//! Launches of `augment.cu`.

use super::recipe::Recipe;
use crate::cuda::{THREADS, Typed, typed_kernels};
use engine::cuda::Launch;
use engine::{DType, Device, Error, Result, Tensor};

/// Bytes of dynamic shared memory that a block takes at most: with the static part, what every device from sm_80 on has
/// (sm_86 the least, 99 KiB).
const SHARED: usize = 98 << 10;
/// Sides of a view at most; for longer ones the tables of a resize do not fit beside the strip.
pub(super) const LONGEST_SIDE: usize = 1024;
/// Floats for the weights of a strip's rows; and for those of a blur, which has at most one tap more than a side and zeros
/// at both ends.
const ROW_WEIGHTS: usize = LONGEST_SIDE + 16;
/// Blocks a multiprocessor that make large views; each has an image in the workspace.
const LARGE_BLOCKS: usize = 3;

typed_kernels! {
    family: "augment", file: "augment.cu", options: ["--fmad=false"];
    VIEWS_GREY = "augment_views_grey", shared SHARED;
    VIEWS_RGB = "augment_views_rgb", shared SHARED;
    LARGE_VIEWS_GREY = "augment_large_views_grey", shared SHARED;
    LARGE_VIEWS_RGB = "augment_large_views_rgb", shared SHARED;
}

/// `Sizes` of augment.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Sizes {
    image_bytes: u64,
    height: u32,
    width: u32,
    items: u32,
    record: u32,
    column_weights: u32,
    row_weights: u32,
    strip: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Sizes>() == 40);

impl Sizes {
    /// How shared memory is divided for views of these sizes.
    fn new(height: usize, width: usize, values: usize) -> Sizes {
        // 18 taps a column: bilinear reductions to an eighth, bicubic ones to a quarter. Wider filters are computed
        // where they are used. No reduction at all takes 6.
        let column_weights = (18 * width).min((4 << 10).max(6 * width)).next_multiple_of(4);
        Sizes {
            image_bytes: 0,
            height: height as u32,
            width: width as u32,
            items: 0,
            record: 0,
            column_weights: column_weights as u32,
            row_weights: ROW_WEIGHTS as u32,
            strip: (values + values / 4 + 32).clamp(2 << 10, 8 << 10) as u32,
            padding: 0,
        }
    }

    /// Bytes of shared memory, with the image or without.
    fn shared(&self, image: usize) -> usize {
        let floats = self.column_weights + self.row_weights + self.strip;
        16 * (self.height + self.width) as usize + 4 * (floats as usize + image)
    }
}

/// Views `first .. first + count` of a batch, which have one size: \[count, samples, height, width, channels\].
#[track_caller]
pub(super) fn views(
    images: &Tensor,
    draws: &Tensor,
    recipe: &Recipe,
    channels: usize,
    dtype: DType,
    first: usize,
    count: usize,
) -> Result<Tensor> {
    let device = images.device();
    let (height, width, samples) = (recipe.height, recipe.width, draws.shape()[1]);
    let values = height * width * channels;
    let mut out = Tensor::empty(&[count, samples, height, width, channels], dtype, device)?;
    let items = count * samples;
    let sizes = Sizes::new(height, width, values);
    let large = sizes.shared(values) > SHARED;
    let kernel: &Typed = match (channels, large) {
        (1, false) => &VIEWS_GREY,
        (1, true) => &LARGE_VIEWS_GREY,
        (_, false) => &VIEWS_RGB,
        (_, true) => &LARGE_VIEWS_RGB,
    };
    let blocks = match large {
        true => items.min(LARGE_BLOCKS * multiprocessors(device)?),
        false => items,
    };
    let mut workspace = match large {
        true => Some(Tensor::empty(&[blocks, values], DType::F32, device)?),
        false => None,
    };
    let in_workspace = workspace.as_ref().map_or(0, Tensor::len);
    let records = draws.narrow(0, first, count)?;
    let record = draws.shape()[2];
    let sizes = Sizes {
        image_bytes: images.len() as u64,
        items: u32::try_from(items).map_err(|_| Error::shape("augment", "too many views"))?,
        record: record as u32,
        ..sizes
    };
    Launch::new(kernel.of("augment", dtype)?, device)?
        .read(images)?
        .read(&records)?
        .write(&mut out)?
        .write_optional(workspace.as_mut())?
        .value(sizes)
        // Of the images the sectors that crops touch, which only the device knows: all at most. What lies in the
        // workspace is written and read.
        .bytes(images.len() + records.len() + out.len() * dtype.size() + 8 * in_workspace)
        .flops(flops(recipe, channels) * items as f64)
        .shared(sizes.shared(if large { 0 } else { values }))
        .grid(blocks)
        .block(THREADS)
        .run()?;
    Ok(out)
}

#[track_caller]
fn multiprocessors(device: Device) -> Result<usize> {
    match device {
        Device::Cuda(ordinal) => Ok(engine::cuda::context(ordinal)?.limits().multiprocessors),
        Device::Cpu => Ok(1),
    }
}

/// Operations of a view from a crop of its own size with everything in it that the recipe allows.
fn flops(recipe: &Recipe, channels: usize) -> f64 {
    let values = (recipe.height * recipe.width * channels) as f64;
    let taps = 2.0 * recipe.interpolation.support();
    let blur = recipe.blur.map_or(0, |b| b.kernel(recipe.height.min(recipe.width)));
    let jitter = if recipe.jitter.is_some() { 24.0 } else { 0.0 };
    values * (4.0 * taps + 4.0 * blur as f64 + jitter + 4.0)
}

/// An error unless the kernels can make views of these recipes.
#[track_caller]
pub(super) fn check(recipes: &[Recipe]) -> Result<()> {
    let side = recipes.iter().map(|r| r.height.max(r.width)).max().unwrap_or(0);
    match side <= LONGEST_SIDE {
        true => Ok(()),
        false => {
            let rule = format!("on a device sides of views are at most {LONGEST_SIDE}, not {side}");
            Err(Error::value("augment", rule))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the image, shared memory is enough for every view that is allowed, and the tables hold an unreduced row.
    #[test]
    fn the_largest_views_fit() {
        for side in 1..=LONGEST_SIDE {
            for (height, width) in [(side, side), (side, LONGEST_SIDE), (LONGEST_SIDE, side)] {
                let sizes = Sizes::new(height, width, height * width * 3);
                assert!(sizes.shared(0) <= SHARED, "{height} x {width}");
                assert!(sizes.column_weights as usize >= 6 * width);
                // A blur remembers a row for each tap from the middle to an end.
                assert!(
                    sizes.strip as usize > LONGEST_SIDE / 2 && sizes.row_weights as usize > LONGEST_SIDE + 7
                );
            }
        }
    }
}
