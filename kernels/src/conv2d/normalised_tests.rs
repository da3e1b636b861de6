//! Convolutions that normalise and rectify what they read: the bits of a pass for that and a convolution behind it, on the
//! device that tests have.

use super::cases::Case;
use super::mma::{Beside, Pass, forward_with_sums as forward_by, launch, run_by, tiles};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::norm::{BatchStatistics, batch_map, batch_statistics};
use crate::testing::device;
use proptest::prelude::*;

const EPS: f32 = 1e-5;

fn put(x: &Array<f64>, dtype: DType) -> Tensor {
    on_device(x, dtype, device()).unwrap()
}

fn bits(x: &Tensor) -> Vec<half::bf16> {
    x.to_device(Device::Cpu).unwrap().to_vec().unwrap()
}

/// x with a mean, and the map of its channels: with shifts, so that padding, were it normalised, would not be zero.
fn input(z: &Sizes) -> (Tensor, Tensor) {
    let x = Array::random(&z.input(), 1, 2.0).map(|v: f64| v + 3.0);
    let (weight, bias) = (Array::random(&[z.c], 4, 1.0), Array::random(&[z.c], 5, 1.0));
    let x = put(&x, DType::BF16);
    let (weight, bias) = (put(&weight, DType::F32), put(&bias, DType::F32));
    let BatchStatistics { map, .. } = batch_statistics(&x, None, Some(&weight), Some(&bias), EPS).unwrap();
    (x, map)
}

/// Both passes by one tile, in fenced and poisoned memory, against the same tile's passes of what is stored.
fn check(tile: crate::matmul::mma_tile::MmaTile, z: &Sizes) {
    let (x, map) = input(z);
    let w = put(&Array::random(&z.weight(), 2, 0.3), DType::BF16);
    let dy = put(&Array::random(&z.output(), 3, 1.0), DType::BF16);
    let stored = batch_map(&x, &map, None, true).unwrap();
    let by = |pass, b: &Tensor, shape: &[usize]| {
        let mut out = Tensor::empty(shape, DType::BF16, device())?;
        run_by("conv2d", tile, z, pass, [&stored, b], &mut out)?;
        Ok::<_, Error>(bits(&out))
    };
    let y = by(Pass::Forward, &w, &z.output()).unwrap();
    let dw = by(Pass::WeightGradient, &dy, &z.weight()).unwrap();
    let [found_y, found_dw] = guarded(device(), || {
        let mut y = Tensor::empty(&z.output(), DType::BF16, device())?;
        forward_by("conv2d", tile, z, [&x, &w], Some(&map), &mut y)?;
        let mut dw = Tensor::empty(&z.weight(), DType::BF16, device())?;
        let beside = Beside { sums: None, map: Some(&map) };
        launch("conv2d_wgrad", tile, z, Pass::WeightGradient, [&x, &dy], &mut dw, beside)?;
        Ok([bits(&y), bits(&dw)])
    })
    .unwrap();
    assert_eq!(found_y, y, "{tile:?} {z:?} forward");
    assert_eq!(found_dw, dw, "{tile:?} {z:?} wgrad");
}

/// n, h, w, c, o, r, s, stride, padding: as the tests of all passes have them; one pixel to one pixel, in several steps of
/// 64 channels; long sums of pixels, in parts.
const SIZES: [[usize; 9]; 8] = [
    [1, 5, 4, 64, 64, 3, 3, 1, 1],
    [2, 7, 9, 8, 64, 3, 3, 1, 1],
    [1, 9, 8, 24, 72, 3, 2, 1, 0],
    [1, 7, 9, 72, 128, 5, 5, 3, 2],
    [2, 6, 6, 16, 64, 1, 1, 2, 0],
    [2, 9, 8, 200, 72, 1, 1, 1, 0],
    [3, 20, 16, 40, 8, 1, 3, 1, 1],
    [1, 3, 3, 8, 8, 2, 2, 4, 2],
];

#[test]
fn normalising_on_the_way_changes_no_bit() {
    for [n, h, w, c, o, r, s, stride, padding] in SIZES {
        let z = Case { n, h, w, c, o, r, s, g: Geometry::new(stride, padding) }.sizes().unwrap();
        tiles(device()).iter().copied().for_each(|tile| check(tile, &z));
    }
}

/// NaN in x reaches what its windows reach; channels beyond all bounds stay apart.
#[test]
fn nan_is_not_rectified() {
    let g = Geometry::new(1, 1);
    let z = Sizes::new("test", &[1, 4, 5, 8], &[8, 3, 3, 8], g).unwrap();
    let (_, map) = input(&z);
    let mut x = Array::<f64>::random(&z.input(), 1, 1.0);
    let at = x.at(&[0, 1, 2, 5]);
    x.data[at] = f64::NAN;
    let (x, w) = (put(&x, DType::BF16), put(&Array::random(&z.weight(), 2, 1.0), DType::BF16));
    let (y, _) = forward_of_map(&x, &map, &w, g).unwrap();
    let expected = forward(&batch_map(&x, &map, None, true).unwrap(), &w, g).unwrap();
    let (y, expected) = (bits(&y), bits(&expected));
    assert!(expected.iter().any(|v| v.is_nan()) && !expected.iter().all(|v| v.is_nan()));
    for (found, expected) in y.iter().zip(&expected) {
        assert!(found == expected || (found.is_nan() && expected.is_nan()), "{found} {expected}");
    }
}

/// The launchers: where kernels take the map, and where they fall back.
#[test]
fn everywhere_the_two_steps() {
    for (c, o, kernel, dtype, taken, has_sums) in [
        (8, 16, 1, DType::BF16, true, true),
        (8, 16, 3, DType::BF16, false, true),
        (8, 12, 1, DType::BF16, false, false),
        (6, 8, 3, DType::BF16, false, true),
        (8, 16, 1, DType::F32, false, false),
    ] {
        let g = Geometry::new(1, kernel / 2);
        let z = Sizes::new("test", &[2, 5, 4, c], &[o, kernel, kernel, c], g).unwrap();
        let x = put(&Array::random(&z.input(), 1, 1.0), dtype);
        let w = put(&Array::random(&z.weight(), 2, 0.3), dtype);
        let dy = put(&Array::random(&z.output(), 3, 1.0), dtype);
        let map = batch_statistics(&x, None, None, None, EPS).unwrap().map;
        let stored = batch_map(&x, &map, None, true).unwrap();
        assert_eq!(takes_map(&x, &w, g), taken, "{c} {o} {kernel} {dtype}");
        let array = |x: &Tensor| Array::<f64>::from_tensor(&x.to_device(Device::Cpu).unwrap()).unwrap();
        let (y, sums) = forward_of_map(&x, &map, &w, g).unwrap();
        assert_eq!(array(&y), array(&forward(&stored, &w, g).unwrap()));
        assert_eq!(sums.is_some(), has_sums);
        let dw = weight_gradient_of_map(&x, &map, &dy, w.shape(), g).unwrap();
        assert_eq!(array(&dw), array(&weight_gradient(&stored, &dy, w.shape(), g).unwrap()));
        let other =
            batch_statistics(&w.reshape(&[w.len() / 2, 2]).unwrap(), None, None, None, EPS).unwrap().map;
        assert!(forward_of_map(&x, &other, &w, g).unwrap_err().message().contains("map"));
        assert!(weight_gradient_of_map(&x, &other, &dy, w.shape(), g).is_err());
        assert!(weight_gradient_of_map(&x, &map, &x, w.shape(), g).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any geometry.
    #[test]
    fn any_geometry_changes_no_bit(
        number in 0..tiles(device()).len(),
        (n, h, w) in (1..3usize, 1..10usize, 1..10usize),
        (c, o) in (1..10usize, 1..9usize),
        (r, s) in (1..6usize, 1..6usize),
        (stride, padding) in (1..4usize, 0..4usize),
    ) {
        let case = Case { n, h, w, c: 8 * c, o: 8 * o, r, s, g: Geometry::new(stride, padding) };
        if let Ok(z) = case.sizes() {
            check(tiles(device())[number], &z);
        }
    }
}
