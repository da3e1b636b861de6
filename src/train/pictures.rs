//! Pictures of what a method makes of a few training images, in a run's folder.

use super::run::RunFolder;
use crate::evaluate::features::spread;
use data::{Dataset, Evaluation};
use engine::{DType, Device, Error, Result, Tensor};
use kernels::augment::Recipe;
use objectives::{Batch, Objective, Pictures, Run};
use std::path::PathBuf;
use std::sync::Arc;

/// Images shown.
const IMAGES: usize = 8;
/// White pixels between images.
const GAP: usize = 2;

/// Makes pictures of the same images each time.
pub struct Album {
    folder: PathBuf,
    /// One batch a view of the method, in f32, and what it draws for them.
    views: Vec<Tensor>,
    draws: Vec<Tensor>,
    device: Device,
}

impl Album {
    /// Pictures of evenly spread training images, each view without randomness.
    pub fn new(
        folder: &RunFolder,
        train: &Arc<dyn Dataset>,
        objective: &dyn Objective,
        run: &Run,
    ) -> Result<Album> {
        let images = spread(train, IMAGES)?;
        let view = |recipe: &Recipe| -> Result<Tensor> {
            let mut batches = Evaluation::new(images.clone(), super::evaluated(recipe), IMAGES)?;
            let view = batches.next().transpose()?.and_then(|batch| batch.views.into_iter().next());
            view.ok_or_else(|| Error::value("pictures", "there is no training image"))?.to_device(run.device)
        };
        let views = objective.views().iter().map(view).collect::<Result<_>>()?;
        let draws = match objective.draws(&Run { batch: images.len(), ..*run })? {
            Some(draws) => draws(0)?.iter().map(|x| x.to_device(run.device)).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Album { folder: folder.path().join("pictures"), views, draws, device: run.device })
    }

    /// What the method shows, if it has something to show.
    pub fn pictures(&self, objective: &mut dyn Objective) -> Result<Option<Pictures>> {
        let clock = objectives::draws::clock(0, self.device)?;
        objective.pictures(&Batch { views: &self.views, draws: &self.draws, clock: &clock })
    }

    /// Writes `pictures/STEP-COLUMNS.png` if the method has something to show; a row shows an image.
    pub fn add(&self, objective: &mut dyn Objective, step: u64) -> Result<()> {
        let Some(pictures) = self.pictures(objective)? else { return Ok(()) };
        let names: Vec<&str> = pictures.columns.iter().map(|c| c.0).collect();
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::io("write pictures", &self.folder, e))?;
        let path = self.folder.join(format!("{step:06}-{}.png", names.join("-")));
        let (size, pixels) = grid(&pictures)?;
        data::write_png(&path, size, &pixels)
    }
}

/// All images side by side: height, width, 3, and bytes.
pub fn grid(pictures: &Pictures) -> Result<([usize; 3], Vec<u8>)> {
    let wrong = || Error::shape("pictures", "columns must be [N, H, W, 1 or 3] of one N, H and W");
    let Some((_, first)) = pictures.columns.first() else { return Err(wrong()) };
    let &[n, h, w, _] = first.shape() else { return Err(wrong()) };
    let count = pictures.columns.len();
    let [height, width] = [n * (h + GAP) + GAP, count * (w + GAP) + GAP];
    let mut pixels = vec![255; height * width * 3];
    for (column, (_, images)) in pictures.columns.iter().enumerate() {
        images.require_dtype("pictures", "column", DType::F32)?;
        let channels = match *images.shape() {
            [a, b, c, channels @ (1 | 3)] if [a, b, c] == [n, h, w] => channels,
            _ => return Err(wrong().argument("column", images)),
        };
        for (i, pixel) in images.as_slice::<f32>()?.chunks_exact(channels).enumerate() {
            let (image, y, x) = (i / (h * w), i / w % h, i % w);
            let at = ((image * (h + GAP) + GAP + y) * width + column * (w + GAP) + GAP + x) * 3;
            for c in 0..3 {
                pixels[at + c] = (pixel[c.min(channels - 1)] * 255.0).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
    Ok(([height, width, 3], pixels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_an_image_and_grey_becomes_rgb() {
        let grey = Tensor::from_slice(&[0.0f32, 1.0, 0.5, 2.0], &[2, 1, 2, 1]).unwrap();
        let rgb: Vec<f32> = (0..12).map(|v| v as f32 / 255.0).collect();
        let rgb = Tensor::from_slice(&rgb, &[2, 1, 2, 3]).unwrap();
        let ([height, width, 3], pixels) =
            grid(&Pictures { columns: vec![("a", grey), ("b", rgb)] }).unwrap()
        else {
            panic!("pictures are RGB")
        };
        assert_eq!((height, width), (2 + 1 + 2 + 1 + 2, 2 + 2 + 2 + 2 + 2));
        let at = |y: usize, x: usize| &pixels[(y * width + x) * 3..][..3];
        assert_eq!((at(0, 0), at(2, 2), at(2, 3)), (&[255; 3][..], &[0; 3][..], &[255; 3][..]));
        assert_eq!((at(5, 2), at(5, 3), at(2, 6)), (&[128; 3][..], &[255; 3][..], &[0, 1, 2][..]));
        assert_eq!(at(5, 7), [9, 10, 11]);
        assert_eq!(at(4, 2), [255; 3], "a gap");
    }
}
