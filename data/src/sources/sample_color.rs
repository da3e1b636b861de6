//! The images of `sample` on photos: colour, texture and labels without a file to fetch. `data/sample/README.md` says how they
//! are made.

use super::{Availability, Source, no_argument, sample};
use crate::{Dataset, Image, InMemory, Splits, decode};
use engine::random::Purpose;
use engine::{Philox, Result};
use rayon::prelude::*;
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "sample-color",
    spec: "sample-color",
    description: "the images of sample on crops of photos, inside this program: 32 x 32, RGB, 10 classes",
    open,
    probe: |_| Availability::Here("inside this program".to_string()),
};

/// Rows and columns of an image.
const SIDE: usize = 32;
/// Grey values of an item from which on it hides the photo.
const OPAQUE: f32 = 48.0;
/// How much of the item's colour is the photo's; the rest is white.
const TINT: f32 = 0.7;

macro_rules! photos {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("data/sample/photos/", $name), include_bytes!(concat!("../../sample/photos/", $name)).as_slice())),*]
    };
}

/// Photos behind training images.
const TRAIN: &[(&str, &[u8])] = photos![
    "Picture_1A_by_freespace.jpg",
    "Wine_by_Jakkub_Mede.jpg",
    "aitzgorri_by_Aitzol_Berasategi.jpg",
    "friends_by_Aitzol_Berasategi.jpg",
    "life_by_Aitzol_Berasategi.jpg",
    "seeding_by_Clements_Engelhardt.jpg",
    "sunset_by_Aitzol_Berasategi.jpg",
];

/// Photos behind test images.
const TEST: &[(&str, &[u8])] =
    photos!["Picture_0B_by_freespace.jpg", "picosdeeuropa_by_Aitzol_Berasategi.jpg"];

fn open(argument: &str, _: Option<&Path>) -> Result<Splits> {
    no_argument(SOURCE.name, argument)?;
    let (train, test) = sample::items()?;
    Ok(Splits::new(
        composite("sample-color train", &train, TRAIN, 0)?,
        composite("sample-color test", &test, TEST, 1 << 24)?,
    ))
}

/// Each item at a random place on a random window of a photo. Image i of a split draws from `stream + i`.
fn composite(name: &str, items: &InMemory, photos: &[(&str, &[u8])], stream: u64) -> Result<InMemory> {
    let photos: Vec<Image> = photos
        .iter()
        .map(|(path, bytes)| decode::portable_jpeg(Path::new(path), bytes))
        .collect::<Result<_>>()?;
    let one = SIDE * SIDE * 3;
    let mut pixels = vec![0; items.len() * one];
    pixels.par_chunks_exact_mut(one).enumerate().try_for_each(|(i, out)| {
        let mut random = Philox::new(0, Purpose::Split, 1 << 33 | stream | i as u64);
        place(&items.image(i)?, &photos[random.below(photos.len())], &mut random, out);
        Result::Ok(())
    })?;
    let labels = (0..items.len()).filter_map(|i| items.label(i).map(|l| l as u32)).collect();
    InMemory::with_labels(name, pixels, [SIDE, SIDE, 3], labels, items.classes().to_vec())
}

/// The pixel in row `y` and column `x` of an RGB photo.
fn at<'a>(photo: &'a Image<'_>, y: usize, x: usize) -> &'a [u8] {
    let start = (y * photo.width + x) * 3;
    &photo.pixels[start..start + 3]
}

/// The item, coloured by the mean of one window of the photo, laid on another window.
fn place(item: &Image<'_>, photo: &Image<'_>, random: &mut Philox, out: &mut [u8]) {
    let corner = |random: &mut Philox, side: usize| {
        [random.below(photo.height - side + 1), random.below(photo.width - side + 1)]
    };
    let [top, left] = corner(random, SIDE);
    let mirrored = random.chance(0.5);
    let cloth = corner(random, 4);
    let mut colour = [0.0f32; 3];
    for (y, x) in (0..4).flat_map(|y| (0..4).map(move |x| (y, x))) {
        for (sum, &v) in colour.iter_mut().zip(at(photo, cloth[0] + y, cloth[1] + x)) {
            *sum += f32::from(v) / 16.0;
        }
    }
    let [down, right] = [random.below(SIDE - item.height + 1), random.below(SIDE - item.width + 1)];
    for (i, out) in out.chunks_exact_mut(3).enumerate() {
        let (y, x) = (i / SIDE, i % SIDE);
        let behind = at(photo, top + y, left + if mirrored { SIDE - 1 - x } else { x });
        let inside = y >= down && x >= right && y - down < item.height && x - right < item.width;
        let grey = if inside { f32::from(item.pixels[(y - down) * item.width + x - right]) } else { 0.0 };
        let opacity = (grey / OPAQUE).min(1.0);
        for ((out, &behind), colour) in out.iter_mut().zip(behind).zip(colour) {
            let cloth = grey / 255.0 * (TINT * colour + (1.0 - TINT) * 255.0);
            *out = (opacity * cloth + (1.0 - opacity) * f32::from(behind)).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlap;

    #[test]
    fn labels_are_those_of_the_sample_and_every_image_is_coloured() {
        let (grey, colour) =
            (crate::open("sample", None).unwrap(), crate::open("sample-color", None).unwrap());
        for (a, b) in [(&grey.train, &colour.train), (&grey.test, &colour.test)] {
            assert_eq!((b.len(), b.size(), b.channels()), (a.len(), Some([32, 32]), 3));
            assert_eq!(a.classes(), b.classes());
            assert!((0..a.len()).all(|i| a.label(i) == b.label(i)));
            let coloured = |i: &usize| {
                let spread = |p: &[u8]| p.iter().max().unwrap() - p.iter().min().unwrap();
                b.image(*i).unwrap().pixels.chunks(3).any(|p| spread(p) > 25)
            };
            let count = (0..b.len()).filter(coloured).count();
            assert!(count * 10 > b.len() * 8, "{count} of {} show colour", b.len());
        }
        assert_eq!(overlap(&*colour.train, &*colour.test).unwrap(), []);
    }

    /// The bytes are the same on every machine and in every version: accuracies can be compared.
    #[test]
    fn the_bytes_never_change() {
        let splits = open("", None).unwrap();
        let hash = |set: &dyn Dataset| {
            (0..set.len()).fold(0xcbf2_9ce4_8422_2325u64, |hash, i| {
                let image = set.image(i).unwrap();
                image.pixels.iter().fold(hash, |h, &v| (h ^ u64::from(v)).wrapping_mul(0x0000_0100_0000_01b3))
            })
        };
        assert_eq!(
            [hash(&*splits.train), hash(&*splits.test)].map(|h| format!("{h:016x}")),
            ["1ad97891b14a928b", "1c817edd10970b72"]
        );
    }

    /// An item of one pixel hides the photo there and nowhere else.
    #[test]
    fn an_item_hides_the_photo_where_it_is_bright() {
        let photo = Image { pixels: vec![90; 40 * 40 * 3].into(), height: 40, width: 40, channels: 3 };
        let mut grey = vec![0u8; 28 * 28];
        grey[0] = 200;
        let item = Image { pixels: grey.into(), height: 28, width: 28, channels: 1 };
        let mut out = vec![0; SIDE * SIDE * 3];
        place(&item, &photo, &mut Philox::new(0, Purpose::Test, 0), &mut out);
        let cloth = (200.0f32 / 255.0 * (0.7 * 90.0 + 0.3 * 255.0)).round() as u8;
        assert_eq!(out.iter().filter(|v| **v == cloth).count(), 3);
        assert_eq!(out.iter().filter(|v| **v == 90).count(), out.len() - 3);
    }
}
