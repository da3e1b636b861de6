//! Convolutions on tensor cores: every tile and pass on the device that tests have, exactly on integers.

use super::cases::Case;
use super::mma::{Pass, TILES, applies, run_by, tile_of, tiles};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::matmul::mma_tile::{MmaTile, STEPS, tests::HELD};
use crate::testing::device;
use proptest::prelude::*;

/// One pass by one tile, in fenced and poisoned memory, against the reference rounded once.
fn check(tile: MmaTile, z: &Sizes, pass: Pass) {
    let make = |shape: [usize; 4], seed| Array::<f64>::integers(&shape, seed, 3);
    let [x, w, dy] = [make(z.input(), 1), make(z.weight(), 2), make(z.output(), 3)];
    let (a, b, expected) = match pass {
        Pass::Forward => (&x, &w, reference::forward(z, &x, &w)),
        Pass::InputGradient => (&dy, &w, reference::input_gradient(z, &dy, &w)),
        Pass::WeightGradient => (&x, &dy, reference::weight_gradient(z, &x, &dy)),
    };
    let found = guarded(device(), || {
        let put = |x: &Array<f64>| on_device(x, DType::BF16, device());
        let (a, b) = (put(a)?, put(b)?);
        assert!(applies(z, pass, [&a, &b]), "{z:?} {pass:?}");
        let mut out = Tensor::empty(&expected.shape, DType::BF16, device())?;
        run_by("conv2d", tile, z, pass, [&a, &b], &mut out)?;
        out.to_device(Device::Cpu)
    })
    .unwrap();
    let (found, expected) = (Array::<f64>::from_tensor(&found).unwrap(), expected.rounded_to(DType::BF16));
    let wrong = found.data.iter().zip(&expected.data).position(|(x, y)| x != y);
    if let Some(i) = wrong {
        panic!("{tile:?} {z:?} {pass:?}: element {i} is {} and not {}", found.data[i], expected.data[i]);
    }
}

/// n, h, w, c, o, r, s, stride, padding: steps over several kernel elements, in one, and across their ends; strides
/// with classes of different kernels and classes without pixels; padding; ragged pixels and channels; long sums of
/// pixels, in parts; kernels of nearly as many elements as a word has bits, in a row and in two columns.
const SIZES: [[usize; 9]; 11] = [
    [1, 5, 4, 64, 64, 3, 3, 1, 1],
    [2, 7, 9, 8, 64, 3, 3, 1, 1],
    [1, 9, 8, 24, 72, 3, 2, 1, 0],
    [2, 8, 7, 64, 64, 3, 3, 2, 1],
    [1, 7, 9, 72, 128, 5, 5, 3, 2],
    [2, 6, 6, 16, 64, 1, 1, 2, 0],
    [1, 3, 3, 8, 64, 2, 2, 4, 2],
    [3, 20, 16, 40, 8, 1, 3, 1, 1],
    [1, 6, 5, 136, 192, 3, 3, 2, 1],
    [1, 3, 40, 8, 64, 1, 31, 1, 15],
    [1, 20, 3, 8, 64, 16, 2, 1, 1],
];

#[test]
fn every_tile_and_pass_is_exact_on_integers() {
    for [n, h, w, c, o, r, s, stride, padding] in SIZES {
        let z = Case { n, h, w, c, o, r, s, g: Geometry::new(stride, padding) }.sizes().unwrap();
        for tile in tiles(device()).iter().copied() {
            for pass in [Pass::Forward, Pass::InputGradient, Pass::WeightGradient] {
                if pass != Pass::InputGradient || o.is_multiple_of(64) {
                    check(tile, &z, pass);
                }
            }
        }
    }
}

/// Two blocks compute all tiles in turn, those of classes without kernel elements among them, which have no loop.
#[test]
fn blocks_that_stay_compute_every_tile() {
    HELD.set(Some(2));
    for [n, h, w, c, o, r, s, stride, padding] in [
        [2, 12, 11, 64, 64, 3, 3, 2, 1],
        [3, 12, 14, 72, 128, 1, 1, 2, 0],
        [2, 13, 12, 8, 192, 2, 2, 3, 1],
        [3, 11, 10, 24, 320, 3, 3, 1, 1],
    ] {
        let z = Case { n, h, w, c, o, r, s, g: Geometry::new(stride, padding) }.sizes().unwrap();
        for tile in tiles(device()).iter().copied() {
            check(tile, &z, Pass::Forward);
            check(tile, &z, Pass::InputGradient);
        }
    }
    HELD.set(None);
}

/// Weight gradients whose blocks sum more pixels than they find the places of at once, several times: in one part by the tile
/// of 64 x 64, and in parts of nine tiles by all.
#[test]
fn long_sums_of_pixels_are_exact_on_integers() {
    for ([n, h, w, c, o, r, s], tiles) in
        [([1, 32, 31, 16, 8, 1, 3], &[MmaTile::T64x64][..]), ([9, 58, 57, 8, 8, 1, 2], tiles(device()))]
    {
        let z = Case { n, h, w, c, o, r, s, g: Geometry::new(1, 1) }.sizes().unwrap();
        for &tile in tiles {
            let (_, steps) = tile.parts(1, z.n * z.p * z.q);
            assert!(steps > 8 * STEPS, "{tile:?}: parts of {steps}");
            check(tile, &z, Pass::WeightGradient);
        }
    }
}

/// Convolutions of 256 images of a ResNet-50 whose channels are few: what is chosen for many blocks of windows, and for the sums
/// of few results.
#[test]
fn tiles_suit_the_pass() {
    let z = |side, c, o, stride| {
        Case { n: 256, h: side, w: side, c, o, r: 3, s: 3, g: Geometry::new(stride, 1) }.sizes().unwrap()
    };
    use MmaTile::{T64x64, T128x64, T128x128, W128x64, W128x128, W128x256};
    for (z, of_warps, of_all) in [
        (z(56, 64, 64, 1), [T128x64, T128x64, T64x64], [W128x64, W128x64, T64x64]),
        (z(56, 128, 128, 2), [T128x128; 3], [W128x128; 3]),
        (z(28, 128, 128, 1), [T128x128; 3], [W128x128; 3]),
        (z(14, 256, 256, 1), [T128x128; 3], [W128x256, W128x256, W128x128]),
        (z(7, 512, 512, 1), [T128x128; 3], [W128x128; 3]),
    ] {
        for (tiles, expected) in [(&TILES[..3], of_warps), (&TILES[..], of_all)] {
            let passes = [Pass::Forward, Pass::InputGradient, Pass::WeightGradient];
            assert_eq!(passes.map(|pass| tile_of(tiles, &z, pass)), expected, "{z:?}");
        }
    }
}

/// Groups that fill no tile, and more than one, whose sums are cut in parts and not.
#[test]
fn groups_are_exact_on_integers() {
    for ([n, h, w, c, o, r, s, stride, padding], groups) in [
        ([2, 5, 6, 16, 128, 3, 3, 1, 1], 2),
        ([1, 8, 7, 48, 192, 3, 2, 2, 1], 3),
        ([3, 20, 16, 80, 16, 1, 3, 1, 1], 2),
    ] {
        let g = Geometry::new(stride, padding).in_groups(groups);
        let z = Case { n, h, w, c, o, r, s, g }.sizes().unwrap();
        for tile in tiles(device()).iter().copied() {
            for pass in [Pass::Forward, Pass::InputGradient, Pass::WeightGradient] {
                if pass != Pass::InputGradient || z.outer().is_multiple_of(64) {
                    check(tile, &z, pass);
                }
            }
        }
    }
}

/// What a pixel holds reaches the outputs whose windows hold it, and no others.
#[test]
fn nan_stays_in_its_windows() {
    let z = Sizes::new("test", &[1, 6, 7, 8], &[16, 3, 3, 8], Geometry::new(1, 1)).unwrap();
    let mut x = Array::<f64>::random(&z.input(), 1, 1.0);
    let at = x.at(&[0, 2, 3, 5]);
    x.data[at] = f64::NAN;
    let put = |x: &Array<f64>| on_device(x, DType::BF16, device()).unwrap();
    let (x, w) = (put(&x), put(&Array::random(&z.weight(), 2, 1.0)));
    let y = forward(&x, &w, Geometry::new(1, 1)).unwrap();
    let y = Array::<f64>::from_tensor(&y).unwrap();
    for p in 0..6usize {
        for q in 0..7usize {
            for o in 0..16 {
                let reached = p.abs_diff(2) <= 1 && q.abs_diff(3) <= 1;
                assert_eq!(y.get(&[0, p, q, o]).is_nan(), reached, "{p} {q} {o}");
            }
        }
    }
}

/// Stems, large kernels and odd channels stay where they were.
#[test]
fn what_tensor_cores_do_not_take() {
    let zeros = |shape: [usize; 4]| Tensor::zeros(&shape, DType::BF16, device()).unwrap();
    for (input, weight, taken) in [
        ([1, 8, 8, 8], [64, 3, 3, 8], [true, true, true]),
        ([1, 8, 8, 8], [40, 3, 3, 8], [true, false, true]),
        ([1, 8, 8, 8], [5, 3, 3, 8], [true, false, false]),
        ([1, 8, 8, 3], [64, 3, 3, 3], [false, false, false]),
        ([1, 8, 8, 8], [64, 6, 6, 8], [false, false, false]),
    ] {
        let z = Sizes::new("test", &input, &weight, Geometry::new(1, 0)).unwrap();
        let (x, w, dy) = (zeros(z.input()), zeros(z.weight()), zeros(z.output()));
        let found = [
            applies(&z, Pass::Forward, [&x, &w]),
            applies(&z, Pass::InputGradient, [&dy, &w]),
            applies(&z, Pass::WeightGradient, [&x, &dy]),
        ];
        assert_eq!(found, taken, "{z:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any geometry.
    #[test]
    fn any_geometry_is_exact(
        number in 0..tiles(device()).len(),
        (n, h, w) in (1..3usize, 1..10usize, 1..10usize),
        (c, o) in (1..10usize, 1..3usize),
        (r, s) in (1..6usize, 1..6usize),
        (stride, padding) in (1..4usize, 0..4usize),
    ) {
        let case = Case { n, h, w, c: 8 * c, o: 64 * o, r, s, g: Geometry::new(stride, padding) };
        if let Ok(z) = case.sizes() {
            for pass in [Pass::Forward, Pass::InputGradient, Pass::WeightGradient] {
                check(tiles(device())[number], &z, pass);
            }
        }
    }
}
