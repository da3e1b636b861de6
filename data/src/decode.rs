//! JPEG, PNG and WebP files as bytes of pixels.
//!
//! What a file is, its first bytes say, not its name. Pixels keep the file's own sRGB values: colour profiles, gamma and the
//! camera's orientation tag are not applied. 16-bit values are rounded to 8 bits, transparent pixels are laid on white.

use crate::Image;
use engine::{Error, Result};
use kernels::augment::{Crop, ImageRef, Interpolation, resized_crop};
use png::{BitDepth, ColorType, Transformations};
use std::borrow::Cow;
use std::io::Cursor;
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Endings of names of image files, in small letters.
pub const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Rows and columns that an image may have at most; a file that says more is taken to be corrupt.
const MOST: usize = 1 << 15;

/// What transparent pixels are laid on.
const BACKGROUND: u32 = 255;

/// Reads and decodes the image file `path`: grey (1 channel) or RGB (3). Errors name the file and what is wrong with it.
#[track_caller]
pub fn read(path: &Path) -> Result<Image<'static>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read image", path, e))?;
    decode(path, &bytes)
}

/// Decodes the content of an image file; `path` is for messages.
#[track_caller]
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Image<'static>> {
    let decoded = match bytes {
        [0xff, 0xd8, ..] => jpeg(bytes, DecoderOptions::default()),
        [0x89, b'P', b'N', b'G', ..] => png(bytes),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp(bytes),
        [] => Err("is empty".into()),
        _ => Err("is neither JPEG nor PNG nor WebP".into()),
    };
    finish(path, decoded)
}

/// As [`decode`] for a JPEG, without the processor's vector instructions, which may round otherwise: the same bytes on every
/// machine.
pub(crate) fn portable_jpeg(path: &Path, bytes: &[u8]) -> Result<Image<'static>> {
    finish(path, jpeg(bytes, DecoderOptions::default().set_use_unsafe(false)))
}

/// Height, width, channels (1, 2 with alpha, 3, 4 with alpha) and 8-bit values.
type Decoded = std::result::Result<([usize; 3], Vec<u8>), String>;

#[track_caller]
fn finish(path: &Path, decoded: Decoded) -> Result<Image<'static>> {
    let fail = |text: String| Error::format("decode image", path, text);
    let ([height, width, values], pixels) = decoded.map_err(fail)?;
    if pixels.len() != height * width * values || pixels.is_empty() {
        let text = format!("{} bytes are not {height} x {width} pixels of {values} values", pixels.len());
        return Err(fail(text));
    }
    let (channels, pixels) = match values {
        2 | 4 => (values - 1, pixels.chunks_exact(values).flat_map(flatten).collect()),
        _ => (values, pixels),
    };
    Ok(Image { pixels: Cow::Owned(pixels), height, width, channels })
}

/// The colours of a pixel whose last value is its opacity, on the background.
fn flatten(pixel: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let (colours, alpha) = pixel.split_at(pixel.len() - 1);
    let alpha = u32::from(alpha[0]);
    colours.iter().map(move |&v| ((u32::from(v) * alpha + BACKGROUND * (255 - alpha) + 127) / 255) as u8)
}

fn jpeg(bytes: &[u8], options: DecoderOptions) -> Decoded {
    // Without `strict_mode` a file that is cut short decodes with grey in the place of what is missing.
    let options = options.set_strict_mode(true).set_max_width(MOST).set_max_height(MOST);
    let text = |e| format!("is a corrupt JPEG: {e:?}");
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(text)?;
    let (out, values) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let pixels = decoder.decode().map_err(text)?;
    let info = decoder.info().ok_or("is a JPEG without a frame")?;
    Ok(([usize::from(info.height), usize::from(info.width), values], pixels))
}

fn png(bytes: &[u8]) -> Decoded {
    let text = |e| format!("is a corrupt PNG: {e}");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(text)?;
    let (height, width) = (reader.info().height as usize, reader.info().width as usize);
    if height > MOST || width > MOST {
        return Err(format!("is a PNG of {height} x {width} pixels: at most {MOST} a side are read"));
    }
    let size = reader.output_buffer_size().ok_or("is a PNG too large for memory")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(text)?;
    // Reads on to the end: the last rows may be there while what checks them is not.
    reader.finish().map_err(text)?;
    pixels.truncate(frame.buffer_size());
    let values = match frame.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err("is a PNG whose palette is missing".into()),
    };
    if frame.bit_depth == BitDepth::Sixteen {
        let value = |v: &[u8]| ((u32::from(v[0]) << 8 | u32::from(v[1])) * 255 + 32767) / 65535;
        pixels = pixels.chunks_exact(2).map(|v| value(v) as u8).collect();
    }
    Ok(([height, width, values], pixels))
}

fn webp(bytes: &[u8]) -> Decoded {
    let text = |e| format!("is a corrupt WebP: {e}");
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(text)?;
    let ((width, height), values) = (decoder.dimensions(), if decoder.has_alpha() { 4 } else { 3 });
    let mut pixels = vec![0; decoder.output_buffer_size().ok_or("is a WebP too large for memory")?];
    decoder.read_image(&mut pixels).map_err(text)?;
    Ok(([height as usize, width as usize, values], pixels))
}

/// The bytes of `crop` of an image at `size` x `size` pixels (bilinear, antialiased), grey or RGB as `channels` says.
#[track_caller]
pub(crate) fn resized(image: &Image<'_>, crop: Crop, size: usize, channels: usize) -> Result<Vec<u8>> {
    let source = ImageRef::new(&image.pixels, image.height, image.width, image.channels)?;
    let values = resized_crop(source, crop, size, size, Interpolation::Bilinear)?;
    let bytes: Vec<u8> = values.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect();
    Ok(with_channels(bytes, image.channels, channels))
}

/// Grey values three times if RGB is wanted. RGB stays RGB.
pub(crate) fn with_channels(pixels: Vec<u8>, channels: usize, wanted: usize) -> Vec<u8> {
    match (channels, wanted) {
        (1, 3) => pixels.into_iter().flat_map(|v| [v; 3]).collect(),
        _ => pixels,
    }
}
