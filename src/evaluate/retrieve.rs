//! Nearest images: what an encoder takes for alike, as indices, as a picture, and as precision among the nearest.

use super::knn::Neighbour;
use data::{Dataset, Image, write_png};
use engine::{Error, Result};
use std::path::Path;

/// The nearest training images of some test images.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieved {
    /// Which test images.
    pub queries: Vec<usize>,
    /// Of each the nearest training images, nearest first.
    pub neighbours: Vec<Vec<Neighbour>>,
}

/// Of each of all test samples, the share of its `k` nearest training samples that are of its class: its mean, 0 to 1.
pub fn precision(neighbours: &[Vec<Neighbour>], train: &[i32], test: &[i32]) -> f64 {
    let share = |(near, class): (&Vec<Neighbour>, &i32)| {
        near.iter().filter(|n| train[n.index] == *class).count() as f64 / near.len().max(1) as f64
    };
    neighbours.iter().zip(test).map(share).sum::<f64>() / test.len().max(1) as f64
}

/// Pixels between pictures, and the width of frames.
const GAP: usize = 4;
const FRAME: usize = 2;
/// Images are shown at least this wide.
const LEAST: usize = 56;
const WHITE: [u8; 3] = [255, 255, 255];
const RIGHT: [u8; 3] = [0, 150, 60];
const WRONG: [u8; 3] = [210, 40, 40];

/// Writes a picture: in each row a test image, and behind a wider gap its nearest training images, framed green where the class
/// is the same and red where it is not.
pub fn write_grid(path: &Path, found: &Retrieved, train: &dyn Dataset, test: &dyn Dataset) -> Result<()> {
    let [height, width] = test.size().ok_or_else(|| {
        Error::value("retrieve", format!("{}: images must have one size to be shown", test.name()))
    })?;
    let zoom = LEAST.div_ceil(height.min(width).max(1)).max(1);
    let cell = [height * zoom + 2 * FRAME + GAP, width * zoom + 2 * FRAME + GAP];
    let columns = 1 + found.neighbours.iter().map(Vec::len).max().unwrap_or(0);
    let size = [found.queries.len() * cell[0] + GAP, columns * cell[1] + 2 * GAP];
    let mut canvas = Canvas { size, pixels: WHITE.repeat(size[0] * size[1]) };
    for (row, (&query, near)) in found.queries.iter().zip(&found.neighbours).enumerate() {
        let top = GAP + row * cell[0];
        canvas.draw([top, GAP], &test.image(query)?, zoom, WHITE);
        for (column, near) in near.iter().enumerate() {
            let same = train.label(near.index) == test.label(query);
            let left = 2 * GAP + (column + 1) * cell[1];
            canvas.draw([top, left], &train.image(near.index)?, zoom, if same { RIGHT } else { WRONG });
        }
    }
    write_png(path, [size[0], size[1], 3], &canvas.pixels)
}

/// An RGB picture.
struct Canvas {
    size: [usize; 2],
    pixels: Vec<u8>,
}

impl Canvas {
    /// An image, each pixel `zoom` wide and high, in a frame whose corner lies at `at`. What does not fit is cut off.
    fn draw(&mut self, at: [usize; 2], image: &Image, zoom: usize, frame: [u8; 3]) {
        let inner = [image.height * zoom, image.width * zoom];
        for y in 0..inner[0] + 2 * FRAME {
            for x in 0..inner[1] + 2 * FRAME {
                let inside = (FRAME..FRAME + inner[0]).contains(&y) && (FRAME..FRAME + inner[1]).contains(&x);
                let colour = match inside {
                    false => frame,
                    true => {
                        let (row, column) = ((y - FRAME) / zoom, (x - FRAME) / zoom);
                        let at = (row * image.width + column) * image.channels;
                        // One channel is grey: all three show it.
                        [0, 1, 2].map(|c| image.pixels[at + c.min(image.channels - 1)])
                    }
                };
                let (y, x) = (at[0] + y, at[1] + x);
                if y < self.size[0] && x < self.size[1] {
                    self.pixels[(y * self.size[1] + x) * 3..][..3].copy_from_slice(&colour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_the_share_of_the_right_class_among_the_nearest() {
        let near = |indices: &[usize]| {
            indices.iter().map(|&index| Neighbour { index, similarity: 1.0 }).collect::<Vec<_>>()
        };
        let found = [near(&[0, 1, 2, 3]), near(&[3, 2, 1, 0])];
        let p = precision(&found, &[7, 7, 7, 5], &[7, 5]);
        assert_eq!(p, (0.75 + 0.25) / 2.0);
        assert_eq!(precision(&[], &[], &[]), 0.0);
    }

    /// The grid decoded again: pixels where they belong, frames in the right colour.
    #[test]
    fn a_grid_shows_images_and_says_which_are_right() {
        let set = |pixels: Vec<u8>, labels: Vec<u8>| {
            data::InMemory::new("x", pixels, [1, 1, 1], labels, vec!["a".into(), "b".into()]).unwrap()
        };
        let (train, test) = (set(vec![10, 20], vec![0, 1]), set(vec![30], vec![1]));
        let near = |index| Neighbour { index, similarity: 0.5 };
        let found = Retrieved { queries: vec![0], neighbours: vec![vec![near(1), near(0)]] };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.png");
        write_grid(&path, &found, &train, &test).unwrap();
        let picture = data::decode::read(&path).unwrap();
        let cell = LEAST + 2 * FRAME + GAP;
        assert_eq!((picture.height, picture.width), (cell + GAP, 3 * cell + 2 * GAP));
        let at = |y: usize, x: usize| {
            let from = (y * picture.width + x) * 3;
            [picture.pixels[from], picture.pixels[from + 1], picture.pixels[from + 2]]
        };
        let middle = GAP + FRAME + LEAST / 2;
        assert_eq!(at(middle, middle), [30; 3]);
        assert_eq!(at(middle, middle + GAP + cell), [20; 3]);
        assert_eq!(at(middle, middle + GAP + 2 * cell), [10; 3]);
        assert_eq!(at(GAP, 2 * GAP + cell), RIGHT);
        assert_eq!(at(GAP, 2 * GAP + 2 * cell), WRONG);
    }
}
