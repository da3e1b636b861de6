//! Shapes and crops that tests and benchmarks share.

use super::{Crop, Interpolation};
use crate::array::Array;

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
