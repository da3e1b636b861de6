//! Sums of the channels of a convolution's result, made where it is computed, and the batch normalisation that takes them.

use super::cases::Case;
use super::mma::{Pass, forward_with_sums as forward_by, run_by, tiles};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::compare;
use crate::matmul::cuda::Sizes as Product;
use crate::matmul::mma::{Beside, product_by};
use crate::matmul::mma_tile::{MmaTile, tests::HELD};
use crate::norm::{self, BatchStatistics};
use crate::testing::device;

const EPS: f32 = 1e-5;

fn put(x: &Array<f64>) -> Tensor {
    on_device(x, DType::BF16, device()).unwrap()
}

fn array(x: &Tensor) -> Array<f64> {
    Array::from_tensor(&x.to_device(Device::Cpu).unwrap()).unwrap()
}

/// Sums of y [rows, C] over runs of `tile` rows, from their definition.
fn tile_sums<T: crate::array::Real>(y: &Array<T>, channels: usize, tile: usize) -> Array<T> {
    let tiles: Vec<_> = y.data.chunks(tile * channels).collect();
    let mut sums = Vec::new();
    for rows in &tiles {
        let column = |c: usize| rows.iter().skip(c).step_by(channels).copied();
        let n = T::of((rows.len() / channels) as f64);
        let of: Vec<T> = (0..channels).map(|c| column(c).fold(T::ZERO, |s, v| s + v)).collect();
        let squares = (0..channels).map(|c| {
            let mean = of[c] / n;
            column(c).fold(T::ZERO, |s, v| s + (v - mean) * (v - mean))
        });
        sums.extend(of.iter().copied().chain(squares));
    }
    Array::new(&[tiles.len(), 2, channels], sums)
}

/// y has the bits of the convolution alone; its sums are those of what y holds.
fn check_sums(what: &str, y: &Tensor, plain: &Tensor, sums: &TileSums, tile: usize) {
    assert_eq!(array(y), array(plain), "{what}: y");
    let (y, channels) = (array(y), *plain.shape().last().unwrap());
    let found = sums.sums.to_device(Device::Cpu).unwrap();
    let (naive, oracle) = (tile_sums(&y.cast::<f32>(), channels, tile), tile_sums(&y, channels, tile));
    compare::check(what, &found, &naive, &oracle, 2.0).unwrap();
}

/// Statistics and result of normalisation are within the bound of the launch that reads y.
fn check_norm(what: &str, y: &Tensor, sums: &TileSums) {
    let found = norm::batch_statistics(y, Some(sums), None, None, EPS).unwrap();
    let normal = norm::batch_map(y, &found.map, None, false).unwrap();
    let y = array(y);
    let (mean, variance) = norm::reference::batch_statistics(&y);
    let (mean32, variance32) = norm::reference::batch_statistics(&y.cast::<f32>());
    let near = |what: &str, found: &Tensor, naive: &Array<f32>, oracle: &Array<f64>| {
        compare::check(what, &found.to_device(Device::Cpu).unwrap(), naive, oracle, 2.0).unwrap();
    };
    near(&format!("{what}: mean"), &found.mean, &mean32, &mean);
    near(&format!("{what}: variance"), &found.variance, &variance32, &variance);
    let of = |x: &Array<f32>| {
        norm::reference::batch_apply(x, (&mean32, &variance32), None, None, None, false, EPS.into())
    };
    let oracle = norm::reference::batch_apply(&y, (&mean, &variance), None, None, None, false, EPS.into());
    near(&format!("{what}: normalised"), &normal, &of(&y.cast()), &oracle);
}

/// n, h, w, c, o, r, s, stride, padding: one tile and less, ragged ends, several tiles of rows and columns.
const SIZES: [[usize; 9]; 5] = [
    [1, 2, 3, 8, 8, 3, 3, 1, 1],
    [2, 9, 8, 16, 24, 3, 3, 1, 1],
    [1, 16, 16, 8, 64, 3, 3, 1, 1],
    [3, 11, 10, 24, 136, 2, 3, 2, 1],
    [2, 17, 12, 8, 200, 1, 1, 2, 0],
];

/// Also where two blocks compute all tiles in turn.
#[test]
fn every_tile_leaves_the_sums_of_what_it_stores() {
    HELD.set(Some(2));
    for [n, h, w, c, o, r, s, stride, padding] in SIZES {
        let case = Case { n, h, w, c, o, r, s, g: Geometry::new(stride, padding) };
        let z = case.sizes().unwrap();
        let (x, w) = (put(&Array::random(&z.input(), 1, 2.0)), put(&Array::random(&z.weight(), 2, 0.5)));
        for tile in tiles(device()).iter().copied() {
            let mut plain = Tensor::empty(&z.output(), DType::BF16, device()).unwrap();
            run_by("conv2d", tile, &z, Pass::Forward, [&x, &w], &mut plain).unwrap();
            let (y, sums) = guarded(device(), || {
                let mut y = Tensor::empty(&z.output(), DType::BF16, device())?;
                let sums = forward_by("conv2d", tile, &z, [&x, &w], None, &mut y)?;
                Ok((y, sums))
            })
            .unwrap();
            let what = format!("{tile:?} {case:?}");
            check_sums(&what, &y, &plain, &sums, tile.rows());
            check_norm(&what, &y, &sums);
        }
    }
    HELD.set(None);
}

/// Convolutions of one pixel to one pixel are products: all their tiles, ragged and several.
#[test]
fn every_tile_of_a_product_leaves_them_too() {
    for [m, n, k] in [[5, 8, 8], [150, 72, 16], [300, 264, 40]] {
        let (x, w) = (put(&Array::random(&[m, k], 1, 2.0)), put(&Array::random(&[n, k], 2, 0.5)));
        for tile in MmaTile::of(device()).iter().copied() {
            let sizes = Product { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
            let mut plain = Tensor::empty(&[m, n], DType::BF16, device()).unwrap();
            product_by("matmul", tile, sizes, &x, &w, None, &mut plain, Beside::Nothing).unwrap();
            let (y, sums) = guarded(device(), || {
                let mut y = Tensor::empty(&[m, n], DType::BF16, device())?;
                let mut sums = TileSums::new(m, n, tile.rows(), device())?;
                let beside = Beside::Statistics(&mut sums.sums);
                product_by("conv2d", tile, sizes, &x, &w, None, &mut y, beside)?;
                Ok((y, sums))
            })
            .unwrap();
            let what = format!("{tile:?} {m} {n} {k}");
            check_sums(&what, &y, &plain, &sums, tile.rows());
            check_norm(&what, &y, &sums);
        }
    }
}

/// A mean far above the deviation, constant channels, and more tiles than one block merges.
#[test]
fn nothing_cancels() {
    // Output 0 is the first input, output 1 the second, .. by an identity of weights.
    let (rows, channels) = (130 * 128 + 40, 8);
    let mut x = Array::<f64>::random(&[1, rows, 1, channels], 5, 1.0);
    for (i, v) in x.data.iter_mut().enumerate() {
        *v = match i % channels {
            0 => 1000.0 + 4.0 * v.round(),
            1 => -1000.0 + 4.0 * (i / channels % 2) as f64,
            2 => 0.3,
            3 => 1e-3 * *v,
            4 => 3e4 * *v,
            _ => *v + 7.0,
        };
    }
    let mut w = Array::zeros(&[channels, 1, 1, channels]);
    (0..channels).for_each(|i| w.data[i * channels + i] = 1.0);
    let (y, sums) = forward_with_sums(&put(&x), &put(&w), Geometry::new(1, 0)).unwrap();
    let y = y.reshape(&[rows, channels]).unwrap();
    let sums = sums.unwrap();
    assert!(sums.sums.shape()[0] > 128, "{:?}", sums.sums.shape());
    let BatchStatistics { mean, variance, .. } =
        norm::batch_statistics(&y, Some(&sums), None, None, EPS).unwrap();
    let (expected, squares) = norm::reference::batch_statistics(&array(&y));
    let relative = |found: &Tensor, expected: &Array<f64>, bound: f64| {
        for (c, (found, expected)) in array(found).data.iter().zip(&expected.data).enumerate() {
            assert!(
                (found - expected).abs() <= bound * expected.abs(),
                "channel {c}: {found}, not {expected}"
            );
        }
    };
    relative(&mean, &expected, 1e-6);
    relative(&variance, &squares, 1e-6);
    assert_eq!(array(&variance).data[2], 0.0, "a constant channel");
}

/// Off the tensor cores, with channels that are not whole packs, and where a sum is cut in parts, y alone.
#[test]
fn where_there_are_no_sums() {
    let small = |shape: &[usize], dtype| on_device(&Array::random(shape, 1, 1.0), dtype, device()).unwrap();
    let g = Geometry::new(1, 0);
    for (x, w, there) in [
        (small(&[1, 6, 6, 8], DType::BF16), small(&[8, 3, 3, 8], DType::BF16), true),
        (small(&[1, 6, 6, 8], DType::F32), small(&[8, 3, 3, 8], DType::F32), false),
        (small(&[1, 6, 6, 3], DType::BF16), small(&[8, 3, 3, 3], DType::BF16), true),
        (small(&[1, 6, 6, 8], DType::BF16), small(&[12, 3, 3, 8], DType::BF16), false),
        (small(&[1, 6, 6, 8], DType::BF16), small(&[8, 1, 1, 8], DType::BF16), true),
        (small(&[1, 1, 1, 4096], DType::BF16), small(&[8, 1, 1, 4096], DType::BF16), false),
    ] {
        let (y, sums) = forward_with_sums(&x, &w, g).unwrap();
        assert_eq!(sums.is_some(), there, "{x:?} {w:?}");
        assert_eq!(array(&y), array(&forward(&x, &w, g).unwrap()));
        // Sums of another tensor.
        if let Some(sums) = sums {
            let other = small(&[3, 8], DType::BF16);
            let error = norm::batch_statistics(&other, Some(&sums), None, None, EPS).unwrap_err();
            assert!(error.message().contains("sums"), "{error}");
            let other = small(y.shape(), DType::F32);
            assert!(norm::batch_statistics(&other, Some(&sums), None, None, EPS).is_err());
        }
    }
    let x = Array::<f64>::random(&[1, 4, 4, 3], 1, 1.0).to_tensor().unwrap();
    let w = Array::<f64>::random(&[2, 3, 3, 3], 2, 1.0).to_tensor().unwrap();
    let (y, sums) = forward_with_sums(&x, &w, g).unwrap();
    assert!(sums.is_none());
    assert_eq!(y.to_vec::<f32>().unwrap(), forward(&x, &w, g).unwrap().to_vec::<f32>().unwrap());
}
