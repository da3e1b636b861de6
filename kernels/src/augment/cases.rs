//! Shapes and crops that tests and benchmarks share.

use super::{
    Blur, ColorJitter, Crop, CropRule, ImageRef, Interpolation, Parameters, Place, Recipe, Workspace, apply,
    pack, record_bytes,
};
use crate::array::Array;
use engine::random::Purpose;
use engine::{Philox, Result};

/// One resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Height, width, channels of the image.
    pub image: [usize; 3],
    /// The part that is shown.
    pub crop: Crop,
    /// Height and width of the output.
    pub size: [usize; 2],
    /// The filter.
    pub interpolation: Interpolation,
}

impl Case {
    /// Bytes an image that holds this case's crop, with constant, black, white and noisy parts.
    pub fn bytes(&self, seed: u64) -> Vec<u8> {
        let [height, width, channels] = self.image;
        let noise = Array::<f32>::integers(&[height * width * channels], seed, 127);
        let row = |i: usize| i / (width * channels);
        let value = |(i, v): (usize, &f32)| match row(i) % 5 {
            0 => 0,
            1 => 255,
            _ => (v + 128.0) as u8,
        };
        noise.data.iter().enumerate().map(value).collect()
    }
}

/// Sizes of one pixel, primes, the pass's block of 32 values and its neighbours, up, down and equal.
pub fn cases() -> Vec<Case> {
    let shapes = [
        ([1, 1, 1], (0, 0, 1, 1), [1, 1]),
        ([1, 1, 3], (0, 0, 1, 1), [5, 4]),
        ([7, 11, 3], (0, 0, 7, 11), [1, 1]),
        ([28, 28, 1], (0, 0, 28, 28), [28, 28]),
        ([28, 28, 1], (3, 5, 17, 13), [28, 28]),
        ([28, 28, 1], (0, 0, 28, 28), [14, 7]),
        ([13, 31, 1], (0, 0, 13, 31), [13, 17]),
        ([13, 33, 1], (1, 0, 11, 32), [32, 31]),
        ([9, 40, 3], (8, 2, 1, 37), [3, 33]),
        ([23, 19, 3], (2, 3, 19, 16), [32, 16]),
        ([64, 47, 3], (0, 0, 64, 47), [5, 6]),
        ([6, 7, 2], (1, 1, 4, 5), [9, 3]),
    ];
    let all = |(image, (top, left, height, width), size)| {
        [Interpolation::Bilinear, Interpolation::Bicubic].map(|interpolation| Case {
            image,
            crop: Crop { top, left, height, width },
            size,
            interpolation,
        })
    };
    shapes.into_iter().flat_map(all).collect()
}

/// Any small resize.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    let sizes = (1usize..24, 1usize..40, prop_oneof![Just(1usize), Just(3)]);
    (sizes, any::<[u16; 4]>(), 1usize..24, 1usize..40, any::<bool>()).prop_map(
        |((h, w, c), part, out_h, out_w, cubic)| {
            let (height, width) = (1 + usize::from(part[0]) % h, 1 + usize::from(part[1]) % w);
            let (top, left) =
                (usize::from(part[2]) % (h - height + 1), usize::from(part[3]) % (w - width + 1));
            Case {
                image: [h, w, c],
                crop: Crop { top, left, height, width },
                size: [out_h, out_w],
                interpolation: if cubic { Interpolation::Bicubic } else { Interpolation::Bilinear },
            }
        },
    )
}

/// Images of any sizes in one buffer and views of each, for kernels that make a whole batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Of every image.
    pub channels: usize,
    /// The bytes of all images.
    pub pixels: Vec<u8>,
    /// Where each image lies among them.
    pub places: Vec<Place>,
    /// One a view.
    pub recipes: Vec<Recipe>,
    /// \[views\]\[images\]
    pub parameters: Vec<Vec<Parameters>>,
}

impl Batch {
    /// Noisy images of these heights and widths; parameters are drawn.
    pub fn new(channels: usize, sizes: &[[usize; 2]], recipes: Vec<Recipe>, seed: u64) -> Batch {
        let (mut pixels, mut places) = (Vec::new(), Vec::new());
        for (i, &[height, width]) in sizes.iter().enumerate() {
            let image = [height, width, channels];
            let crop = Crop { top: 0, left: 0, height, width };
            let case = Case { image, crop, size: [1, 1], interpolation: Interpolation::Bilinear };
            places.push(Place { offset: pixels.len(), height, width });
            pixels.extend(case.bytes(seed + i as u64));
        }
        let draw = |v: usize, recipe: &Recipe| {
            let one = |(i, place): (usize, &Place)| {
                let mut random = Philox::new(seed, Purpose::Test, (v << 32 | i) as u64);
                Parameters::draw(recipe, place.height, place.width, &mut random)
            };
            places.iter().enumerate().map(one).collect()
        };
        let parameters = recipes.iter().enumerate().map(|(v, r)| draw(v, r)).collect();
        Batch { channels, pixels, places, recipes, parameters }
    }

    /// The records of all views, [`record_bytes`] each.
    pub fn draws(&self) -> Result<Vec<u8>> {
        let one = record_bytes(&self.recipes);
        let mut draws = vec![0; self.recipes.len() * self.places.len() * one];
        let mut records = draws.chunks_exact_mut(one);
        for (recipe, parameters) in self.recipes.iter().zip(&self.parameters) {
            for ((p, &place), record) in parameters.iter().zip(&self.places).zip(&mut records) {
                pack(p, recipe, place, record)?;
            }
        }
        Ok(draws)
    }

    /// The views as [`apply`] makes them: \[views\], each \[images, height, width, channels\].
    pub fn views(&self) -> Result<Vec<Vec<f32>>> {
        let mut workspace = Workspace::default();
        let mut make = |recipe: &Recipe, parameters: &[Parameters]| {
            let one = recipe.height * recipe.width * self.channels;
            let mut view = vec![0.0; one * self.places.len()];
            for ((p, place), out) in parameters.iter().zip(&self.places).zip(view.chunks_exact_mut(one)) {
                let bytes = &self.pixels[place.offset..][..place.height * place.width * self.channels];
                let image = ImageRef::new(bytes, place.height, place.width, self.channels)?;
                apply(image, p, recipe, &mut workspace, out)?;
            }
            Ok(view)
        };
        self.recipes.iter().zip(&self.parameters).map(|(r, p)| make(r, p)).collect()
    }
}

/// All that can happen to a view, each thing often.
pub fn everything(channels: usize, size: [usize; 2], interpolation: Interpolation) -> Recipe {
    let recipe = Recipe {
        crop: CropRule::Random { area: [0.05, 1.0], aspect: [0.5, 2.0] },
        interpolation,
        flip: 0.5,
        jitter: Some(ColorJitter {
            probability: 0.8,
            brightness: 0.8,
            contrast: 0.8,
            saturation: 0.8,
            hue: 0.4,
        }),
        grayscale: 0.3,
        blur: Some(Blur { probability: 0.6, sigma: [0.1, 2.0], kernel_fraction: 0.4 }),
        solarize: 0.3,
        ..Recipe::evaluation(size[0], size[1])
    };
    recipe.normalized(&[0.485, 0.456, 0.406][..channels], &[0.229, 0.224, 0.225][..channels])
}

/// Batches with every feature: both numbers of channels, images that differ in size, crops at borders, several views of
/// several sizes; views too large for shared memory, crops wider than a strip or whose bytes do not fit behind it, filters
/// wider than their tables, means that lie between two floats.
pub fn batches() -> Vec<(&'static str, Batch)> {
    use Interpolation::{Bicubic, Bilinear};
    let mixed = [[1, 1], [5, 40], [33, 17], [23, 19]];
    let views = |channels| {
        vec![
            everything(channels, [16, 16], Bicubic),
            everything(channels, [16, 16], Bilinear),
            everything(channels, [9, 7], Bilinear),
            everything(channels, [1, 1], Bicubic),
            everything(channels, [3, 33], Bicubic),
        ]
    };
    let quiet = |recipe: Recipe| Recipe { blur: None, ..recipe };
    let contrast = Recipe {
        jitter: Some(ColorJitter {
            probability: 1.0,
            brightness: 0.0,
            contrast: 0.9,
            saturation: 0.0,
            hue: 0.0,
        }),
        ..Recipe::evaluation(1, 2)
    };
    vec![
        ("grey, equal sizes", Batch::new(1, &[[28, 28]; 4], vec![everything(1, [28, 28], Bicubic); 2], 11)),
        ("RGB, several sizes", Batch::new(3, &mixed, views(3), 12)),
        ("grey, several sizes", Batch::new(1, &mixed, views(1), 13)),
        (
            "RGB without blur",
            Batch::new(3, &[[32, 32]; 5], vec![quiet(everything(3, [16, 16], Bicubic))], 14),
        ),
        ("RGB, wide blur", Batch::new(3, &[[32, 32]; 3], vec![wide_blur(21, 30), wide_blur(30, 19)], 22)),
        ("RGB, large", Batch::new(3, &[[60, 50], [97, 120]], vec![everything(3, [90, 95], Bicubic)], 15)),
        ("grey, large", Batch::new(1, &[[40, 50]], vec![everything(1, [170, 161], Bilinear)], 16)),
        ("RGB, wide", Batch::new(3, &[[4, 701]], vec![Recipe::crop_and_flip(6, 8, [1.0, 1.0]); 2], 17)),
        ("RGB, too wide for its bytes", Batch::new(3, &[[13, 601]], vec![whole(6, 8)], 24)),
        ("RGB, several strips", Batch::new(3, &[[101, 67]], vec![whole(40, 31)], 25)),
        ("RGB, whole and wide", Batch::new(3, &[[5, 701]; 2], vec![whole(6, 8), whole(2, 300)], 18)),
        ("grey, whole and high", Batch::new(1, &[[2100, 3]], vec![whole(3, 2)], 19)),
        ("grey, longest", Batch::new(1, &[[3, 2]], vec![whole(1, 1024), whole(1024, 1)], 23)),
        ("grey, means between floats", Batch::new(1, &[[1, 2]; 64], vec![contrast; 2], 20)),
        ("RGB, corners", corners()),
    ]
}

/// A blur of as many taps as the shorter side has pixels, which sees over both borders.
fn wide_blur(height: usize, width: usize) -> Recipe {
    let blur = Blur { probability: 1.0, sigma: [4.0, 9.0], kernel_fraction: 1.0 };
    Recipe { blur: Some(blur), ..Recipe::crop_and_flip(height, width, [0.3, 1.0]) }
}

/// The whole image, bicubic.
fn whole(height: usize, width: usize) -> Recipe {
    Recipe { interpolation: Interpolation::Bicubic, ..Recipe::evaluation(height, width) }
}

/// Crops of one pixel, a row, a column and a block at each corner of the image that ends the buffer.
fn corners() -> Batch {
    let mut batch =
        Batch::new(3, &[[6, 7], [9, 8]], vec![everything(3, [5, 6], Interpolation::Bicubic); 16], 21);
    for (i, parameters) in batch.parameters.iter_mut().enumerate() {
        for (p, place) in parameters.iter_mut().zip(&batch.places) {
            let [height, width] = [[1, 1], [1, 4], [3, 1], [4, 5]][i / 4];
            let top = if i % 2 == 0 { 0 } else { place.height - height };
            let left = if i % 4 < 2 { 0 } else { place.width - width };
            p.crop = Crop { top, left, height, width };
        }
    }
    batch
}
