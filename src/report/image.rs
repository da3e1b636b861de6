//! Small images for the page: from floats or datasets to PNG, embedded as `data:` addresses.

use engine::{Error, Result};
use kernels::augment::{Crop, ImageRef, Interpolation, Normalize, resized_crop};
use std::borrow::Cow;

/// 8-bit pixels, rows of pixels, channels last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Height, width and channels, 1 (grey) or 3 (RGB).
    pub size: [usize; 3],
    /// `height * width * channels` bytes.
    pub pixels: Vec<u8>,
}

/// A value of 0 to 1 as a byte; others are cut off, NaN is black.
pub fn byte(value: f32) -> u8 {
    (value * 255.0).round().clamp(0.0, 255.0) as u8
}

impl Picture {
    /// A picture of values of 0 to 1.
    pub fn from_unit(size: [usize; 3], values: &[f32]) -> Picture {
        Picture { size, pixels: values.iter().map(|v| byte(*v)).collect() }
    }

    /// A dataset's image.
    pub fn of(image: &data::Image<'_>) -> Picture {
        Picture { size: [image.height, image.width, image.channels], pixels: image.pixels.to_vec() }
    }

    /// The picture, or a smaller one whose longer side has `side` pixels.
    pub fn at_most(self, side: usize) -> Result<Picture> {
        let [height, width, channels] = self.size;
        let longer = height.max(width);
        if longer <= side {
            return Ok(self);
        }
        let scaled = |n: usize| (n * side).div_ceil(longer).max(1);
        let (h, w) = (scaled(height), scaled(width));
        let image = ImageRef::new(&self.pixels, height, width, channels)?;
        let crop = Crop { top: 0, left: 0, height, width };
        let values = resized_crop(image, crop, h, w, Interpolation::Bilinear)?;
        Ok(Picture::from_unit([h, w, channels], &values))
    }

    /// The same in RGB.
    pub fn rgb(&self) -> Cow<'_, [u8]> {
        match self.size[2] {
            1 => Cow::Owned(self.pixels.iter().flat_map(|v| [*v; 3]).collect()),
            _ => Cow::Borrowed(&self.pixels),
        }
    }

    /// The PNG file as an address that holds it.
    pub fn address(&self) -> Result<String> {
        Ok(format!("data:image/png;base64,{}", base64(&data::encode_png(self.size, &self.pixels)?)))
    }
}

/// Undoes `(x - mean) / std`; channels are the last dimension.
pub fn denormalise(values: &mut [f32], normalize: Option<&Normalize>) {
    let Some(Normalize { mean, std }) = normalize else { return };
    for pixel in values.chunks_exact_mut(mean.len().max(1)) {
        pixel.iter_mut().zip(mean.iter().zip(std)).for_each(|(v, (mean, std))| *v = *v * std + mean);
    }
}

/// Base64 (RFC 4648), padded.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Equally large cells in one PNG file.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// Height and width of a cell.
    pub cell: [usize; 2],
    /// Cells a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// The whole as an address.
    pub address: String,
}

impl Sheet {
    /// A sheet of pictures of one size, about as many a row as rows. An error if sizes differ or there is no picture.
    pub fn new(pictures: &[Picture]) -> Result<Sheet> {
        let wrong = || Error::shape("report", "a sheet takes at least one picture, all of one size");
        let first = pictures.first().ok_or_else(wrong)?;
        let [height, width, channels] = first.size;
        if pictures.iter().any(|p| p.size != first.size) {
            return Err(wrong());
        }
        let columns = (pictures.len() as f64).sqrt().ceil() as usize;
        let rows = pictures.len().div_ceil(columns);
        let [h, w] = [rows * height, columns * width];
        let mut pixels = vec![255; h * w * channels];
        for (i, picture) in pictures.iter().enumerate() {
            let (top, left) = (i / columns * height, i % columns * width);
            for y in 0..height {
                let to = ((top + y) * w + left) * channels;
                let from = &picture.pixels[y * width * channels..][..width * channels];
                pixels[to..to + from.len()].copy_from_slice(from);
            }
        }
        let address = Picture { size: [h, w, channels], pixels }.address()?;
        Ok(Sheet { cell: [height, width], columns, rows, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_rfc_4648s() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn normalisation_is_undone_by_channel() {
        let normalize = Normalize { mean: vec![0.5, 0.25], std: vec![0.5, 2.0] };
        let mut values = [0.0, 0.0, 1.0, -0.125];
        denormalise(&mut values, Some(&normalize));
        assert_eq!(values, [0.5, 0.25, 1.0, 0.0]);
        denormalise(&mut values, None);
        assert_eq!(values, [0.5, 0.25, 1.0, 0.0]);
    }

    #[test]
    fn a_sheet_has_each_picture_in_its_cell() {
        let one = |v: u8| Picture { size: [1, 2, 1], pixels: vec![v, v + 1] };
        let sheet = Sheet::new(&[one(10), one(20), one(30)]).unwrap();
        assert_eq!((sheet.cell, sheet.columns, sheet.rows), ([1, 2], 2, 2));
        let whole = Picture { size: [2, 4, 1], pixels: vec![10, 11, 20, 21, 30, 31, 255, 255] };
        assert_eq!(sheet.address, whole.address().unwrap());
        assert!(Sheet::new(&[]).is_err());
        assert!(Sheet::new(&[one(1), Picture { size: [2, 1, 1], pixels: vec![0, 0] }]).is_err());
    }

    #[test]
    fn large_pictures_shrink_and_small_ones_stay() {
        let picture = Picture { size: [4, 8, 1], pixels: vec![100; 32] };
        assert_eq!(picture.clone().at_most(8).unwrap(), picture);
        assert_eq!(picture.at_most(4).unwrap(), Picture { size: [2, 4, 1], pixels: vec![100; 8] });
        assert_eq!((byte(f32::NAN), byte(-1.0), byte(0.5), byte(2.0)), (0, 0, 128, 255));
    }
}
