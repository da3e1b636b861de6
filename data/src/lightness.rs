//! Colour images as those see them that were trained on lightness alone.

use crate::{Dataset, Image};
use engine::{Error, Result, Tensor};
use kernels::color::rgb_to_lab;
use std::borrow::Cow;
use std::sync::Arc;

/// The lightness of another dataset's images: L of Lab, 0 to 100, as bytes 0 to 255, one channel.
pub struct Lightness {
    of: Arc<dyn Dataset>,
    name: String,
}

impl Lightness {
    /// The lightness of `of`, whose images must be in colour.
    #[track_caller]
    pub fn new(of: Arc<dyn Dataset>) -> Result<Lightness> {
        if of.channels() != 3 {
            let text = format!(
                "{} has no colour to take away: its images have {} channel",
                of.name(),
                of.channels()
            );
            return Err(Error::value("lightness", text));
        }
        let name = format!("lightness of {}", of.name());
        Ok(Lightness { of, name })
    }
}

impl Dataset for Lightness {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.of.len()
    }

    fn channels(&self) -> usize {
        1
    }

    fn size(&self) -> Option<[usize; 2]> {
        self.of.size()
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let Image { pixels, height, width, .. } = self.of.image(index)?;
        let rgb: Vec<f32> = pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
        let lab = rgb_to_lab(&Tensor::from_slice(&rgb, &[height * width, 3])?)?;
        let byte = |lab: &[f32]| (lab[0] * 2.55).round().clamp(0.0, 255.0) as u8;
        let pixels = lab.as_slice::<f32>()?.chunks_exact(3).map(byte).collect();
        Ok(Image { pixels: Cow::Owned(pixels), height, width, channels: 1 })
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.of.label(index)
    }

    fn classes(&self) -> &[String] {
        self.of.classes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    /// Values of Lab: white 100, red 53.24, green 87.74, grey 128 53.59.
    #[test]
    fn colours_have_their_lightness() {
        let pixels = vec![255, 255, 255, 255, 0, 0, 0, 255, 0, 128, 128, 128];
        let set = InMemory::new("x", pixels, [2, 2, 3], vec![0], vec!["a".into()]).unwrap();
        let light = Lightness::new(Arc::new(set)).unwrap();
        let image = light.image(0).unwrap();
        assert_eq!((image.channels, light.channels(), light.label(0), light.len()), (1, 1, Some(0), 1));
        assert_eq!(image.pixels.as_ref(), [255, 136, 224, 137]);
        assert!(light.image(1).is_err());
        let grey = InMemory::new("x", vec![1; 4], [2, 2, 1], vec![], vec![]).unwrap();
        assert!(Lightness::new(Arc::new(grey)).err().unwrap().message().contains("no colour"));
    }
}
