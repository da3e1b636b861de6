//! Products with activations, their gradients, a residual or a bias's gradient: the bits of the steps one by one, on the device
//! that tests have.

use super::cuda::Sizes;
use super::mma::{Beside, product_by};
use super::mma_tile::{MmaTile, tests::HELD};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;
use crate::{elementwise, reduce};

fn random(shape: &[usize], seed: u64, scale: f32) -> Tensor {
    on_device(&Array::random(shape, seed, scale), DType::BF16, device()).unwrap()
}

fn bits(x: &Tensor) -> Vec<half::bf16> {
    x.to_device(Device::Cpu).unwrap().to_vec().unwrap()
}

/// The product by blocks of one tile, and nothing besides.
fn plain(tile: MmaTile, sizes: Sizes, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let mut out = Tensor::empty(&[sizes.m, sizes.n], DType::BF16, device()).unwrap();
    product_by("matmul", tile, sizes, a, b, bias, &mut out, Beside::Nothing).unwrap();
    out
}

/// M, N, K: one block, ragged ends, rows that are not whole packs in the result, several tiles.
const SIZES: [[usize; 3]; 4] = [[16, 8, 8], [70, 136, 72], [9, 13, 200], [200, 264, 40]];

#[test]
fn gelu_behind_a_product_changes_no_bit() {
    HELD.set(Some(2));
    for [m, n, k] in SIZES {
        let (x, w, b) = (random(&[m, k], 1, 1.0), random(&[n, k], 2, 0.3), random(&[n], 3, 1.0));
        for tile in MmaTile::of(device()).iter().copied() {
            let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
            let pre = plain(tile, sizes, &x, &w, Some(&b));
            let y = elementwise::gelu(&pre).unwrap();
            let [found, kept] = guarded(device(), || {
                let mut y = Tensor::empty(&[m, n], DType::BF16, device())?;
                let mut pre = Tensor::empty(&[m, n], DType::BF16, device())?;
                let beside = Beside::Gelu(Some(&mut pre));
                product_by("linear_gelu", tile, sizes, &x, &w, Some(&b), &mut y, beside)?;
                Ok([bits(&y), bits(&pre)])
            })
            .unwrap();
            assert_eq!(found, bits(&y), "{tile:?} {m} {n} {k}");
            assert_eq!(kept, bits(&pre), "{tile:?} {m} {n} {k}");
        }
        let (found, none) = linear_gelu(&x, &w, Some(&b), false).unwrap();
        let y = elementwise::gelu(&linear(&x, &w, Some(&b)).unwrap()).unwrap();
        assert_eq!(bits(&found), bits(&y));
        assert!(none.is_none());
    }
    HELD.set(None);
}

#[test]
fn gelu_gradient_behind_a_product_changes_no_bit() {
    // What is contiguous in the weight is now N.
    for [m, n, k] in SIZES.map(|[m, n, k]| [m, n.next_multiple_of(8), k]) {
        let (dy, w, pre) = (random(&[m, k], 1, 1.0), random(&[k, n], 2, 0.3), random(&[m, n], 3, 2.0));
        for tile in MmaTile::of(device()).iter().copied() {
            let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: false };
            let expected = elementwise::gelu_backward(&plain(tile, sizes, &dy, &w, None), &pre).unwrap();
            let found = guarded(device(), || {
                let mut out = Tensor::empty(&[m, n], DType::BF16, device())?;
                let beside = Beside::GeluBackward(&pre);
                product_by("matmul_gelu_backward", tile, sizes, &dy, &w, None, &mut out, beside)?;
                Ok(bits(&out))
            })
            .unwrap();
            assert_eq!(found, bits(&expected), "{tile:?} {m} {n} {k}");
        }
        let expected = elementwise::gelu_backward(&matmul(&dy, &w, false, false).unwrap(), &pre).unwrap();
        assert_eq!(bits(&matmul_gelu_backward(&dy, &w, &pre).unwrap()), bits(&expected));
    }
}

#[test]
fn relu_behind_a_product_changes_no_bit() {
    for [m, n, k] in SIZES {
        let (x, w, b) = (random(&[m, k], 1, 1.0), random(&[n, k], 2, 0.3), random(&[n], 3, 1.0));
        for tile in MmaTile::of(device()).iter().copied() {
            let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
            let expected = elementwise::relu(&plain(tile, sizes, &x, &w, Some(&b))).unwrap();
            let found = guarded(device(), || {
                let mut y = Tensor::empty(&[m, n], DType::BF16, device())?;
                product_by("linear_relu", tile, sizes, &x, &w, Some(&b), &mut y, Beside::Relu)?;
                Ok(bits(&y))
            })
            .unwrap();
            assert_eq!(found, bits(&expected), "{tile:?} {m} {n} {k}");
        }
        let expected = elementwise::relu(&linear(&x, &w, Some(&b)).unwrap()).unwrap();
        assert_eq!(bits(&linear_relu(&x, &w, Some(&b)).unwrap()), bits(&expected));
    }
}

#[test]
fn relu_gradient_behind_a_product_changes_no_bit() {
    for [m, n, k] in SIZES.map(|[m, n, k]| [m, n.next_multiple_of(8), k]) {
        let (dy, w) = (random(&[m, k], 1, 1.0), random(&[k, n], 2, 0.3));
        let hidden = elementwise::relu(&random(&[m, n], 3, 2.0)).unwrap();
        for tile in MmaTile::of(device()).iter().copied() {
            let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: false };
            let expected = elementwise::relu_backward(&plain(tile, sizes, &dy, &w, None), &hidden).unwrap();
            let found = guarded(device(), || {
                let mut out = Tensor::empty(&[m, n], DType::BF16, device())?;
                let beside = Beside::ReluBackward(&hidden);
                product_by("matmul_relu_backward", tile, sizes, &dy, &w, None, &mut out, beside)?;
                Ok(bits(&out))
            })
            .unwrap();
            assert_eq!(found, bits(&expected), "{tile:?} {m} {n} {k}");
        }
        let expected = elementwise::relu_backward(&matmul(&dy, &w, false, false).unwrap(), &hidden).unwrap();
        assert_eq!(bits(&matmul_relu_backward(&dy, &w, &hidden).unwrap()), bits(&expected));
    }
}

/// Samples of several rows, one of them dropped, with and without each factor.
#[test]
fn a_residual_behind_a_product_changes_no_bit() {
    HELD.set(Some(2));
    for ([m, n, k], samples) in SIZES.into_iter().zip([2, 7, 3, 1]) {
        let (x, w, b) = (random(&[m, k], 1, 1.0), random(&[n, k], 2, 0.3), random(&[n], 3, 1.0));
        let before = random(&[samples, m / samples, n], 4, 2.0);
        let factors = |shape: &[usize], seed| {
            on_device(&Array::random(shape, seed, 1.0), DType::F32, device()).unwrap()
        };
        let scales = factors(&[n], 5);
        let keeps: Vec<f64> = (0..samples).map(|i| if i == 1 { 0.0 } else { 1.25 + i as f64 }).collect();
        let keeps = on_device(&Array::new(&[samples], keeps), DType::F32, device()).unwrap();
        let x = x.reshape(&[samples, m / samples, k]).unwrap();
        for (scale, keep) in
            [(None, None), (Some(&scales), Some(&keeps)), (Some(&scales), None), (None, Some(&keeps))]
        {
            let residual = Residual { x: &before, scale, keep };
            for tile in MmaTile::of(device()).iter().copied() {
                let sizes = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
                let branch = plain(tile, sizes, &x, &w, Some(&b)).reshape(before.shape()).unwrap();
                let expected = elementwise::residual_scale(&before, &branch, scale, keep).unwrap();
                let [found, kept] = guarded(device(), || {
                    let mut out = Tensor::empty(&[m, n], DType::BF16, device())?;
                    let mut branch = Tensor::empty(&[m, n], DType::BF16, device())?;
                    let beside = Beside::Residual(residual, Some(&mut branch));
                    product_by("linear_residual", tile, sizes, &x, &w, Some(&b), &mut out, beside)?;
                    Ok([bits(&out), bits(&branch)])
                })
                .unwrap();
                assert_eq!(found, bits(&expected), "{tile:?} {m} {n} {k}");
                assert_eq!(kept, bits(&branch), "{tile:?} {m} {n} {k}");
            }
            let branch = linear(&x, &w, Some(&b)).unwrap();
            let expected = elementwise::residual_scale(&before, &branch, scale, keep).unwrap();
            let (found, none) = linear_residual(&x, &w, Some(&b), residual, false).unwrap();
            assert_eq!((bits(&found), found.shape()), (bits(&expected), before.shape()));
            assert!(none.is_none());
        }
    }
    HELD.set(None);
}

/// The weight's gradient has the product's bits; the bias's is exact on integers. Rows that are not whole packs of steps,
/// several tiles, a long sum in parts.
#[test]
fn a_bias_gradient_comes_with_its_weight() {
    HELD.set(Some(2));
    for [rows, n, k] in [[7, 8, 16], [75, 136, 72], [130, 72, 264], [1100, 24, 40]] {
        let integers = |shape: &[usize], seed| {
            on_device(&Array::integers(shape, seed, 4), DType::BF16, device()).unwrap()
        };
        let (dy, x) = (integers(&[rows, n], 1), integers(&[rows, k], 2));
        let dweight = matmul(&dy, &x, true, false).unwrap();
        let dbias = reduce::sum_rows(&dy).unwrap();
        for tile in MmaTile::of(device()).iter().copied().filter(|&tile| tile != MmaTile::T64x128) {
            let sizes = Sizes { batch: 1, m: n, n: k, k: rows, transpose_a: true, transpose_b: false };
            let [weight, bias] = guarded(device(), || {
                let mut dweight = Tensor::empty(&[n, k], DType::BF16, device())?;
                let mut dbias = Tensor::empty(&[n], DType::BF16, device())?;
                let beside = Beside::RowSums(&mut dbias);
                product_by("weight_and_bias_gradient", tile, sizes, &dy, &x, None, &mut dweight, beside)?;
                Ok([bits(&dweight), bits(&dbias)])
            })
            .unwrap();
            assert_eq!(weight, bits(&dweight), "{tile:?} {rows} {n} {k}");
            assert_eq!(bias, bits(&dbias), "{tile:?} {rows} {n} {k}");
        }
        let [weight, bias] = weight_and_bias_gradient(&dy, &x).unwrap();
        assert_eq!((bits(&weight), bits(&bias)), (bits(&dweight), bits(&dbias)));
    }
    HELD.set(None);
}

/// Off the tensor cores the steps one by one, with their errors.
#[test]
fn other_types_and_wrong_shapes() {
    let cpu = |shape: &[usize], seed| Array::<f64>::random(shape, seed, 1.0).to_tensor().unwrap();
    let (x, w, b, dy) = (cpu(&[5, 7], 1), cpu(&[3, 7], 2), cpu(&[3], 3), cpu(&[5, 3], 4));
    let (y, pre) = linear_gelu(&x, &w, Some(&b), true).unwrap();
    let pre = pre.unwrap();
    let floats = |x: &Tensor| x.to_vec::<f32>().unwrap();
    assert_eq!(floats(&pre), floats(&linear(&x, &w, Some(&b)).unwrap()));
    assert_eq!(floats(&y), floats(&elementwise::gelu(&pre).unwrap()));
    assert_eq!(floats(&linear_relu(&x, &w, Some(&b)).unwrap()), floats(&elementwise::relu(&pre).unwrap()));
    let (out, branch) =
        linear_residual(&x, &w, Some(&b), Residual { x: &dy, scale: Some(&b), keep: None }, true).unwrap();
    assert_eq!(floats(&branch.unwrap()), floats(&pre));
    assert_eq!(floats(&out), floats(&elementwise::residual_scale(&dy, &pre, Some(&b), None).unwrap()));
    let [dweight, dbias] = weight_and_bias_gradient(&dy, &x).unwrap();
    assert_eq!(floats(&dweight), floats(&matmul(&dy, &x, true, false).unwrap()));
    assert_eq!(floats(&dbias), floats(&reduce::sum_rows(&dy).unwrap()));
    let through = matmul_gelu_backward(&dy, &w, &x).unwrap();
    let expected = elementwise::gelu_backward(&matmul(&dy, &w, false, false).unwrap(), &x).unwrap();
    assert_eq!(floats(&through), floats(&expected));
    assert!(linear_gelu(&x, &b, None, false).is_err());
    assert!(linear_gelu(&x, &dy, None, false).is_err());
    assert!(matmul_gelu_backward(&dy, &w, &dy).unwrap_err().message().contains("pre [M, K]"));
    assert!(matmul_gelu_backward(&b, &w, &dy).is_err());
    let masked = matmul_relu_backward(&dy, &w, &x).unwrap();
    let expected = elementwise::relu_backward(&matmul(&dy, &w, false, false).unwrap(), &x).unwrap();
    assert_eq!(floats(&masked), floats(&expected));
    assert!(matmul_relu_backward(&dy, &w, &dy).unwrap_err().message().contains("hidden [M, K]"));
    assert!(linear_relu(&x, &b, None).is_err());
    assert!(linear_residual(&x, &w, None, Residual { x: &x, scale: None, keep: None }, false).is_err());
    assert!(linear_residual(&x, &w, None, Residual { x: &dy, scale: Some(&w), keep: None }, false).is_err());
    assert!(weight_and_bias_gradient(&dy, &w).is_err());
    assert!(weight_and_bias_gradient(&b, &w).is_err());
}
