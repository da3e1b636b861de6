//! The CUDA kernels on the device that tests have.

use super::cases::{Case, Values};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, on_device};
use crate::testing::device;
use half::bf16;

fn put(x: &Array<f64>, dtype: DType) -> Tensor {
    on_device(x, dtype, device()).unwrap()
}

fn parameter(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap().to_device(device()).unwrap()
}

fn values_of(x: &Tensor) -> Vec<f32> {
    Array::<f32>::from_tensor(x).unwrap().data
}

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// Everything that the family computes, from a [rows, channels] of each kind of block.
fn all_results(case: &Case, dtype: DType) -> Vec<Tensor> {
    let (x, dy) = (put(&case.input(), dtype), put(&case.operand(2), dtype));
    let out = batch_forward(&x, None, None, Some(&dy), true, 1e-5).unwrap();
    let (m, v) = (&out.mean, &out.variance);
    let back = batch_backward(&dy, &x, Some(&out.y), m, v, None, true, true, true, 1e-5).unwrap();
    let (sum, y, mean, rstd) = layer_forward_residual(&x, &dy, None, None, 1e-6).unwrap();
    let (dx, dweight, dbias) = layer_backward_residual(&dy, &x, &sum, &mean, &rstd, None).unwrap();
    let (u, norm) = l2_forward(&x, 1e-12).unwrap();
    let du = l2_backward(&dy, &u, &norm, 1e-12).unwrap();
    let dr = back.dresidual.unwrap();
    let batch = [out.y, out.mean, out.variance, back.dx, back.dweight, back.dbias, dr];
    batch.into_iter().chain([sum, y, mean, rstd, dx, dweight, dbias, u, norm, du]).collect()
}

#[test]
fn repeated_runs_give_the_same_bits() {
    for (rows, channels, dtype) in [(301, 33, DType::F32), (150, 64, DType::BF16), (9, 1_040, DType::BF16)] {
        let case = Case { rows, channels, values: Values::Mixed };
        let bits = || {
            let results = all_results(&case, dtype);
            results.iter().flat_map(values_of).map(f32::to_bits).collect::<Vec<_>>()
        };
        let first = bits();
        for run in 1..20 {
            assert_eq!(bits(), first, "run {run} of {case:?}");
        }
    }
}

/// Sums of integers are exact whatever their order: a wrong index shows.
#[test]
fn sums_of_integers_are_exact() {
    for (rows, channels) in [(1, 1), (63, 8), (1_025, 12), (67, 130), (5, 1_100)] {
        for dtype in FLOATS {
            let dy = Array::<f64>::integers(&[rows, channels], 3, 4);
            let x = put(&Array::integers(&[rows, channels], 4, 4), dtype);
            let out = batch_forward(&x, None, None, None, false, 1e-5).unwrap();
            let dy_tensor = put(&dy, dtype);
            let (m, v) = (&out.mean, &out.variance);
            let batch = batch_backward(&dy_tensor, &x, None, m, v, None, false, true, true, 1e-5).unwrap();
            assert!(batch.dresidual.unwrap().shares_storage(&dy_tensor));
            let (_, mean, rstd) = layer_forward(&x, None, None, 1e-6).unwrap();
            let (_, _, layer_dbias) = layer_backward(&dy_tensor, &x, &mean, &rstd, None).unwrap();
            let mut sums = vec![0f32; channels];
            for row in dy.data.chunks(channels) {
                sums.iter_mut().zip(row).for_each(|(s, &v)| *s += v as f32);
            }
            assert_eq!(values_of(&batch.dbias), sums, "batch, {rows} x {channels} {dtype}");
            assert_eq!(values_of(&layer_dbias), sums, "layer, {rows} x {channels} {dtype}");
        }
    }
}

/// The numbers behind the tolerance: a deviation of 0.1 about 1000 is known to a part in 1e5.
#[test]
fn variance_does_not_cancel() {
    for (rows, channels) in [(5_000, 4), (700, 3), (300, 40)] {
        let x = Case { rows, channels, values: Values::Offset }.input();
        let (_, oracle) = reference::batch_statistics(&x);
        let found = batch_forward(&put(&x, DType::F32), None, None, None, false, 1e-5).unwrap().variance;
        for (f, o) in values_of(&found).iter().zip(&oracle.data) {
            assert!((f64::from(*f) / o - 1.0).abs() < 1e-5, "{rows} x {channels}: {f} and {o}");
        }
    }
}

#[test]
fn constants_normalise_to_the_bias_exactly() {
    let bias = [1f32, -2.0, 0.5, 0.0, 3.0];
    for dtype in FLOATS {
        for rows in [1, 100, 1_000] {
            let x = put(&Case { rows, channels: 5, values: Values::Constant }.input(), dtype);
            let out = batch_forward(&x, None, Some(&parameter(&bias)), None, false, 1e-5).unwrap();
            assert_eq!(values_of(&out.y), bias.repeat(rows));
            assert_eq!(values_of(&out.variance), [0.0; 5]);
        }
        for width in [5, 192, 1_024, 1_500] {
            let x = put(&Array::new(&[3, width], vec![0.1; 3 * width]), dtype);
            let (y, _, rstd) = layer_forward(&x, None, None, 1e-6).unwrap();
            assert_eq!(values_of(&y), vec![0.0; 3 * width]);
            assert!(values_of(&rstd).iter().all(|r| (r / 1e3 - 1.0).abs() < 2e-7));
        }
    }
}

#[test]
fn nan_stays_in_its_channel_or_row() {
    for (channels, bad) in [(17, 300 * 17 + 4), (1_100, 2 * 1_100 + 1_099)] {
        let rows = if channels == 17 { 700 } else { 5 };
        let mut x = Array::<f64>::random(&[rows, channels], 1, 1.0);
        x.data[bad] = f64::NAN;
        let dy = put(&Array::random(&[rows, channels], 2, 1.0), DType::F32);
        let x = put(&x, DType::F32);
        let out = batch_forward(&x, None, None, None, true, 1e-5).unwrap();
        let (m, v) = (&out.mean, &out.variance);
        let back = batch_backward(&dy, &x, Some(&out.y), m, v, None, true, true, true, 1e-5).unwrap();
        for t in [&out.y, &out.mean, &out.variance, &back.dx, &back.dweight] {
            for (i, v) in values_of(t).into_iter().enumerate() {
                assert_eq!(v.is_nan(), i % channels == bad % channels, "element {i}");
            }
        }
        let (y, mean, rstd) = layer_forward(&x, None, None, 1e-6).unwrap();
        let (dx, ..) = layer_backward(&dy, &x, &mean, &rstd, None).unwrap();
        let (u, norm) = l2_forward(&x, 1e-12).unwrap();
        let du = l2_backward(&dy, &u, &norm, 1e-12).unwrap();
        for t in [y, dx, u, du] {
            for (i, v) in values_of(&t).into_iter().enumerate() {
                assert_eq!(v.is_nan(), i / channels == bad / channels, "element {i}");
            }
        }
    }
}

#[test]
fn lengths_neither_vanish_nor_overflow() {
    for width in [2, 1_200] {
        let mut rows = vec![0f64; 4 * width];
        for (row, unit) in rows.chunks_mut(width).zip([1e30, 1e-30, 1e37, 1e-38]) {
            (row[0], row[width - 1]) = (3.0 * unit, 4.0 * unit);
        }
        for dtype in FLOATS {
            let (y, norm) = l2_forward(&put(&Array::new(&[4, width], rows.clone()), dtype), 0.0).unwrap();
            let near = if dtype == DType::F32 { 1e-6 } else { 8e-3 };
            for (found, wanted) in values_of(&norm).iter().zip([5e30f32, 5e-30, 5e37, 5e-38]) {
                assert!((found / wanted - 1.0).abs() < near, "{found} and {wanted}");
            }
            for row in values_of(&y).chunks(width) {
                assert!((row[0] - 0.6).abs() < near && (row[width - 1] - 0.8).abs() < near);
            }
        }
    }
}

/// An infinite value, zero rows and zero eps do what the CPU does.
#[test]
fn edge_values_are_as_on_the_cpu() {
    let x = Array::<f64>::new(&[3, 2], vec![f64::INFINITY, 1.0, 0.0, 0.0, 2.0, -2.0]);
    let on_cpu = x.to_tensor().unwrap();
    let moved = put(&x, DType::F32);
    for eps in [0.0, 1e-12] {
        let (cpu, norm) = l2_forward(&on_cpu, eps).unwrap();
        let (cuda, moved_norm) = l2_forward(&moved, eps).unwrap();
        crate::compare::check_equal("norm", &moved_norm.to_device(Device::Cpu).unwrap(), &norm).unwrap();
        for (a, b) in values_of(&cpu).iter().zip(values_of(&cuda)) {
            assert!((a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-6, "{a} and {b}");
        }
    }
}

/// The sum is rounded once, and what is normalised is the rounded sum.
#[test]
fn the_residual_sum_is_rounded_before_it_is_normalised() {
    let case = Case { rows: 5, channels: 200, values: Values::Mixed };
    let (x, branch) = (put(&case.input(), DType::BF16), put(&case.operand(3), DType::BF16));
    let (sum, y, mean, rstd) = layer_forward_residual(&x, &branch, None, None, 1e-6).unwrap();
    let (again, mean_again, rstd_again) = layer_forward(&sum, None, None, 1e-6).unwrap();
    assert_eq!(y.to_vec::<bf16>().unwrap(), again.to_vec::<bf16>().unwrap());
    assert_eq!(values_of(&mean), values_of(&mean_again));
    assert_eq!(values_of(&rstd), values_of(&rstd_again));
}

#[test]
fn nothing_and_wrong_arguments() {
    for dtype in FLOATS {
        let empty = Tensor::zeros(&[0, 4], dtype, device()).unwrap();
        assert!(batch_forward(&empty, None, None, None, false, 1e-5).is_err());
        let c = parameter(&[1.0; 4]);
        assert!(batch_apply(&empty, &c, &c, None, None, None, true, 1e-5).unwrap().is_empty());
        let none = batch_backward(&empty, &empty, None, &c, &c, None, false, false, false, 1e-5).unwrap();
        assert_eq!(values_of(&none.dweight), [0.0; 4]);
        for width in [4, 2_000] {
            let empty = Tensor::zeros(&[0, width], dtype, device()).unwrap();
            let (y, mean, rstd) = layer_forward(&empty, None, None, 1e-5).unwrap();
            assert!(y.is_empty());
            let (_, dweight, dbias) = layer_backward(&empty, &empty, &mean, &rstd, None).unwrap();
            assert_eq!((values_of(&dweight), values_of(&dbias)), (vec![0.0; width], vec![0.0; width]));
            assert!(l2_forward(&empty, 1e-12).unwrap().0.is_empty());
        }
        let flat = Tensor::zeros(&[3, 0], dtype, device()).unwrap();
        assert!(layer_forward(&flat, None, None, 1e-5).is_err());
        assert_eq!(values_of(&l2_forward(&flat, 1e-12).unwrap().1), [0.0; 3]);
        assert!(batch_forward(&flat, None, None, None, false, 1e-5).unwrap().mean.is_empty());
    }
    let x = put(&Array::zeros(&[3, 4]), DType::BF16);
    // Parameters and statistics are f32 whatever x is, and the rest is of x's type.
    let half = put(&Array::zeros(&[4]), DType::BF16);
    assert!(batch_forward(&x, Some(&half), None, None, false, 1e-5).is_err());
    let single = put(&Array::zeros(&[3, 4]), DType::F32);
    assert!(batch_forward(&x, None, None, Some(&single), false, 1e-5).is_err());
    assert!(layer_forward_residual(&x, &single, None, None, 1e-5).is_err());
    let on_cpu = Tensor::full(&[4], 1.0, Device::Cpu).unwrap();
    assert!(layer_forward(&x, Some(&on_cpu), None, 1e-5).is_err());
    assert!(
        layer_forward(&Array::<f64>::zeros(&[3, 4]).to_tensor_of(DType::BF16).unwrap(), None, None, 1e-5)
            .is_err()
    );
}
