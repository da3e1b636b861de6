//! Writing PNG files.

use engine::files::write_atomically;
use engine::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Writes 8-bit pixels of `[height, width, channels]`, grey (1) or RGB (3), as a PNG file.
///
/// Errors: another number of bytes or channels, or a file that cannot be written.
#[track_caller]
pub fn write_png(path: &Path, size: [usize; 3], pixels: &[u8]) -> Result<()> {
    let colour = check(size, pixels)?;
    write_atomically(path, |out| encode(out, size, colour, png::Compression::Balanced, pixels))
}

/// The bytes of a PNG file of the same, as small as the format allows in reasonable time.
#[track_caller]
pub fn encode_png(size: [usize; 3], pixels: &[u8]) -> Result<Vec<u8>> {
    let colour = check(size, pixels)?;
    let mut bytes = Vec::new();
    encode(&mut bytes, size, colour, png::Compression::High, pixels)
        .map_err(|e| Error::value("encode PNG", e.to_string()))?;
    Ok(bytes)
}

#[track_caller]
fn check([height, width, channels]: [usize; 3], pixels: &[u8]) -> Result<png::ColorType> {
    let colour = match channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        _ => return Err(Error::shape("write PNG", format!("has 1 or 3 channels, not {channels}"))),
    };
    if pixels.is_empty() || pixels.len() != height * width * channels {
        let text = format!("{} bytes are not {height} x {width} pixels of {channels} channels", pixels.len());
        return Err(Error::shape("write PNG", text));
    }
    Ok(colour)
}

fn encode(
    out: impl Write,
    [height, width, _]: [usize; 3],
    colour: png::ColorType,
    compression: png::Compression,
    pixels: &[u8],
) -> std::io::Result<()> {
    let mut encoder = png::Encoder::new(out, width as u32, height as u32);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(compression);
    let mut writer = encoder.write_header().map_err(std::io::Error::other)?;
    writer.write_image_data(pixels).map_err(std::io::Error::other)?;
    writer.finish().map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        for channels in [1, 3] {
            let pixels: Vec<u8> = (0..2 * 5 * channels).map(|i| (i * 23) as u8).collect();
            write_png(&path, [2, 5, channels], &pixels).unwrap();
            let image = crate::decode::read(&path).unwrap();
            assert_eq!((image.height, image.width, image.channels), (2, 5, channels));
            assert_eq!(image.pixels.as_ref(), pixels);
            let bytes = encode_png([2, 5, channels], &pixels).unwrap();
            assert_eq!(crate::decode::decode(&path, &bytes).unwrap(), image);
        }
        assert!(write_png(&path, [2, 5, 3], &[0; 29]).is_err());
        assert!(write_png(&path, [1, 1, 2], &[0; 2]).is_err());
    }
}
