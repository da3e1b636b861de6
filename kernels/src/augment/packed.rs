//! The draws of views as bytes that a device reads: what [`super::on_device`] takes beside the pixels.
//!
//! A record is a [`Record`] and the weights of the blur. All records of a batch have one size, which the recipes
//! decide ([`record_bytes`]), so that a batch is one array \[views, samples, record\] of bytes.

use super::draw::{JitterOperation, Parameters};
use super::recipe::Recipe;
use super::{Interpolation, blur};
use bytemuck::{Pod, Zeroable};
use engine::{Error, Result};

/// One view of one sample. The kernels have the same struct.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub(super) struct Record {
    /// Where the image's bytes start in the buffer of pixels.
    pub offset: u64,
    /// Height and width of the image.
    pub image: [u32; 2],
    /// Top, left, height, width.
    pub crop: [u32; 4],
    /// Brightness, contrast, saturation, hue.
    pub jitter: [f32; 4],
    /// Of the normalisation; zeros where there is none.
    pub mean: [f32; 3],
    /// Of the normalisation; ones where there is none.
    pub std: [f32; 3],
    /// [`FLIP`] and its like; from bit [`ORDER`] on two bits for each operation of the jitter, first to last.
    pub flags: u32,
    /// Weights of the blur from the middle to one end, which follow the record; 0 for no blur.
    pub taps: u32,
}

const _: () = assert!(size_of::<Record>() == 80 && size_of::<Record>().is_multiple_of(ALIGNMENT));

pub(super) const FLIP: u32 = 1;
pub(super) const JITTER: u32 = 2;
pub(super) const GREY: u32 = 4;
pub(super) const SOLARIZE: u32 = 8;
pub(super) const BICUBIC: u32 = 16;
pub(super) const ORDER: u32 = 8;

/// Records are a multiple of this many bytes.
const ALIGNMENT: usize = 16;

/// Where an image lies in a buffer of pixels that holds those of a batch one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bytes before it.
    pub offset: usize,
    /// Rows.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
}

/// Bytes of a record for views that these recipes describe.
pub fn record_bytes(recipes: &[Recipe]) -> usize {
    let taps = |recipe: &Recipe| recipe.blur.map_or(0, |b| b.kernel(recipe.height.min(recipe.width)) / 2 + 1);
    let taps = recipes.iter().map(taps).max().unwrap_or(0);
    (size_of::<Record>() + 4 * taps).next_multiple_of(ALIGNMENT)
}

/// Writes the record of one view of the image at `place`: `out` has [`record_bytes`] bytes.
///
/// Everything that [`super::apply`] takes from the recipe is in it, and the weights of the blur as the CPU computes
/// them. Errors: a record too small for the blur, a crop outside the image, sizes of 2^32 pixels and more, a
/// normalisation of more than three channels.
#[track_caller]
pub fn pack(parameters: &Parameters, recipe: &Recipe, place: Place, out: &mut [u8]) -> Result<()> {
    let Parameters { crop, .. } = *parameters;
    let inside = |start: usize, len: usize, size: usize| len > 0 && start <= size && len <= size - start;
    if !inside(crop.top, crop.height, place.height) || !inside(crop.left, crop.width, place.width) {
        let rule = "the crop must lie in the image and not be empty";
        return Err(Error::value("pack draws", rule).with("crop", crop).with("image", place));
    }
    let sizes = u32::try_from(place.height).and_then(|h| Ok([h, u32::try_from(place.width)?]));
    let Ok(image) = sizes else {
        return Err(Error::value("pack draws", "images have less than 2^32 rows and columns"));
    };
    let mut weights = Vec::new();
    if let (Some(sigma), Some(rule)) = (parameters.blur, &recipe.blur) {
        blur::weights(rule.kernel(recipe.height.min(recipe.width)), sigma, &mut weights);
        weights.drain(..weights.len() / 2);
    }
    let mut record = Record {
        offset: place.offset as u64,
        image,
        // What lies inside the image fits where its sizes do.
        crop: [crop.top, crop.left, crop.height, crop.width].map(|v| v as u32),
        jitter: [0.0; 4],
        mean: [0.0; 3],
        std: [1.0; 3],
        flags: flags(parameters, recipe),
        taps: weights.len() as u32,
    };
    if let Some(j) = &parameters.jitter {
        record.jitter = [j.brightness, j.contrast, j.saturation, j.hue];
    }
    if let Some(n) = &recipe.normalize {
        let channels = n.mean.len();
        if channels > 3 || n.std.len() != channels {
            return Err(Error::shape("pack draws", "a normalisation has one to three channels"));
        }
        record.mean[..channels].copy_from_slice(&n.mean);
        record.std[..channels].copy_from_slice(&n.std);
    }
    let (header, blur) = (bytemuck::bytes_of(&record), bytemuck::cast_slice::<f32, u8>(&weights));
    let end = header.len() + blur.len();
    if out.len() < end {
        return Err(Error::value("pack draws", format!("a record of {} bytes needs {end}", out.len())));
    }
    out[..header.len()].copy_from_slice(header);
    out[header.len()..end].copy_from_slice(blur);
    out[end..].fill(0);
    Ok(())
}

fn flags(parameters: &Parameters, recipe: &Recipe) -> u32 {
    let bit = |condition: bool, bit: u32| if condition { bit } else { 0 };
    let mut flags = bit(parameters.flip, FLIP)
        | bit(parameters.grayscale, GREY)
        | bit(parameters.solarize, SOLARIZE)
        | bit(recipe.interpolation == Interpolation::Bicubic, BICUBIC);
    if let Some(jitter) = &parameters.jitter {
        flags |= JITTER;
        for (i, operation) in jitter.order.iter().enumerate() {
            let code = match operation {
                JitterOperation::Brightness => 0,
                JitterOperation::Contrast => 1,
                JitterOperation::Saturation => 2,
                JitterOperation::Hue => 3,
            };
            flags |= code << (ORDER + 2 * i as u32);
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::{Blur, Crop, Jitter};

    #[test]
    fn records_hold_every_draw() {
        use JitterOperation::{Brightness, Contrast, Hue, Saturation};
        let recipe = Recipe { blur: Some(Blur::with_probability(1.0)), ..Recipe::simclr(40, 50, 1.0) }
            .normalized(&[0.25], &[0.5]);
        let parameters = Parameters {
            crop: Crop { top: 1, left: 2, height: 3, width: 4 },
            flip: true,
            jitter: Some(Jitter {
                order: [Hue, Brightness, Saturation, Contrast],
                brightness: 0.5,
                contrast: 1.5,
                saturation: 0.75,
                hue: -0.125,
            }),
            grayscale: false,
            blur: Some(1.0),
            solarize: true,
        };
        let place = Place { offset: 77, height: 5, width: 6 };
        assert_eq!(record_bytes(std::slice::from_ref(&recipe)), 80 + 16);
        assert_eq!(record_bytes(&[Recipe::evaluation(9, 9)]), 80);
        let mut bytes = vec![0xff; 96];
        pack(&parameters, &recipe, place, &mut bytes).unwrap();
        let record: Record = bytemuck::pod_read_unaligned(&bytes[..80]);
        let expected = Record {
            offset: 77,
            image: [5, 6],
            crop: [1, 2, 3, 4],
            jitter: [0.5, 1.5, 0.75, -0.125],
            mean: [0.25, 0.0, 0.0],
            std: [0.5, 1.0, 1.0],
            flags: FLIP | JITTER | SOLARIZE | BICUBIC | (3 | 2 << 4 | 1 << 6) << ORDER,
            taps: 3,
        };
        assert_eq!(record, expected);
        let weights: Vec<f32> = bytes[80..92].chunks(4).map(bytemuck::pod_read_unaligned).collect();
        let mut whole = Vec::new();
        blur::weights(5, 1.0, &mut whole);
        assert_eq!(weights, whole[2..]);
        assert_eq!(bytes[92..], [0; 4]);

        assert!(pack(&parameters, &recipe, place, &mut bytes[..88]).is_err());
        let small = Place { width: 5, ..place };
        assert!(
            pack(&parameters, &recipe, small, &mut bytes).unwrap_err().message().contains("lie in the image")
        );
    }
}
