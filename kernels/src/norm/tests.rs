//! Against the references; the same bits on any number of threads; nothing written outside.

use super::cases::{Case, Values, cases, strategy};
use super::check::{Place, check_batch, check_l2, check_layer, check_layer_residual};
use super::*;
use crate::array::Array;
use crate::compare::check_equal;
use crate::elementwise::tests::same_on_any_number_of_threads;
use engine::{DType, Device, Tensor, memory};
use proptest::prelude::*;

#[test]
fn batch_agrees_with_the_reference() {
    for (i, case) in cases().iter().enumerate() {
        // Every combination on small cases, one each on large ones.
        let all = [(true, true, true), (true, false, true), (false, true, false), (true, true, false)];
        let small = case.rows * case.channels < 20_000;
        let some = if small { &all[..] } else { &all[i % 4..][..1] };
        for &(affine, residual, relu) in some {
            let guard = memory::guard();
            check_batch(&Place::CPU, case, affine, residual, relu)
                .unwrap_or_else(|e| panic!("{case:?} affine {affine} residual {residual} relu {relu}: {e}"));
            guard.finish().unwrap();
        }
    }
}

#[test]
fn layer_agrees_with_the_reference() {
    for (i, case) in cases().iter().enumerate() {
        let guard = memory::guard();
        check_layer(&Place::CPU, case, i % 3 != 0).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        check_layer_residual(&Place::CPU, case, i % 3 != 0).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        guard.finish().unwrap();
    }
}

#[test]
fn l2_agrees_with_the_reference() {
    for case in cases() {
        let guard = memory::guard();
        check_l2(&Place::CPU, &case).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        guard.finish().unwrap();
    }
}

proptest! {
    // A naive sum may be exact by luck, which no tolerance made of its error allows for: the cases are fixed.
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]
    #[test]
    fn random_cases_agree_with_the_reference(
        case in strategy(), affine in any::<bool>(), residual in any::<bool>(), relu in any::<bool>()
    ) {
        check_batch(&Place::CPU, &case, affine, residual, relu).unwrap();
        check_layer(&Place::CPU, &case, affine).unwrap();
        check_layer_residual(&Place::CPU, &case, affine).unwrap();
        check_l2(&Place::CPU, &case).unwrap();
    }
}

/// The numbers behind the tolerance: a deviation of 0.1 about 1000 is known to a part in 1e5.
#[test]
fn variance_does_not_cancel() {
    for (rows, channels) in [(50_000, 16), (4_000, 3), (3_000, 300)] {
        let x = Case { rows, channels, values: Values::Offset }.input();
        let (_, oracle) = reference::batch_statistics(&x);
        let found = batch_forward(&x.to_tensor().unwrap(), None, None, None, false, 1e-5).unwrap().variance;
        for (f, o) in found.to_vec::<f32>().unwrap().iter().zip(&oracle.data) {
            assert!((f64::from(*f) / o - 1.0).abs() < 1e-5, "{rows} x {channels}: {f} and {o}");
        }
    }
}

#[test]
fn constants_normalise_to_the_bias_exactly() {
    let x = Case { rows: 1_000, channels: 5, values: Values::Constant }.input().to_tensor().unwrap();
    let bias = Tensor::from_slice(&[1f32, -2.0, 0.5, 0.0, 3.0], &[5]).unwrap();
    let out = batch_forward(&x, None, Some(&bias), None, false, 1e-5).unwrap();
    let rows = bias.reshape(&[1, 5]).unwrap().expand(&[1_000, 5]).unwrap();
    check_equal("y", &out.y, &rows).unwrap();
    assert_eq!(out.variance.to_vec::<f32>().unwrap(), [0.0; 5]);
    let x = Tensor::full(&[3, 5], 0.1, Device::Cpu).unwrap();
    let (y, _, rstd) = layer_forward(&x, None, None, 1e-6).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [0.0; 15]);
    assert_eq!(rstd.to_vec::<f32>().unwrap(), [1e3; 3]);
}

#[test]
fn nan_stays_in_its_channel_or_row() {
    let mut x = Array::<f32>::random(&[700, 17], 1, 1.0);
    x.data[300 * 17 + 4] = f32::NAN;
    let (x, dy) = (x.to_tensor().unwrap(), Array::<f32>::random(&[700, 17], 2, 1.0).to_tensor().unwrap());
    let out = batch_forward(&x, None, None, None, true, 1e-5).unwrap();
    let back = batch_backward(&dy, &x, Some(&out.y), &out.mean, &out.variance, None, true, true, true, 1e-5)
        .unwrap();
    for t in [&out.y, &out.mean, &out.variance, &back.dx, &back.dweight] {
        for (i, v) in t.to_vec::<f32>().unwrap().into_iter().enumerate() {
            assert_eq!(v.is_nan(), i % 17 == 4, "element {i}");
        }
    }
    let (y, ..) = layer_forward(&x, None, None, 1e-6).unwrap();
    let (u, _) = l2_forward(&x, 1e-12).unwrap();
    for t in [y, u] {
        for (i, v) in t.to_vec::<f32>().unwrap().into_iter().enumerate() {
            assert_eq!(v.is_nan(), i / 17 == 300, "element {i}");
        }
    }
}

#[test]
fn lengths_neither_vanish_nor_overflow() {
    let x = Tensor::from_slice(&[3e30f32, 4e30, 3e-30, 4e-30], &[2, 2]).unwrap();
    let (y, norm) = l2_forward(&x, 0.0).unwrap();
    for (found, wanted) in norm.to_vec::<f32>().unwrap().iter().zip([5e30f32, 5e-30]) {
        assert!((found / wanted - 1.0).abs() < 1e-6);
    }
    for (found, wanted) in y.to_vec::<f32>().unwrap().iter().zip([0.6f32, 0.8, 0.6, 0.8]) {
        assert!((found - wanted).abs() < 1e-6);
    }
}

#[test]
fn threads_do_not_matter() {
    for channels in [1, 3, 16, 64, 300] {
        let case = Case { rows: 300_000 / channels, channels, values: Values::Mixed };
        let (x, dy) = (case.input().to_tensor().unwrap(), case.operand(2).to_tensor().unwrap());
        same_on_any_number_of_threads("norm", || {
            let out = batch_forward(&x, None, None, Some(&dy), true, 1e-5).unwrap();
            let (m, v) = (&out.mean, &out.variance);
            let back = batch_backward(&dy, &x, Some(&out.y), m, v, None, true, true, true, 1e-5).unwrap();
            let (y, mean, rstd) = layer_forward(&x, None, None, 1e-6).unwrap();
            let (dx, dweight, dbias) = layer_backward(&dy, &x, &mean, &rstd, None).unwrap();
            let (u, _) = l2_forward(&x, 1e-12).unwrap();
            let dr = back.dresidual.unwrap();
            vec![out.y, out.mean, out.variance, back.dx, back.dweight, dr, y, dx, dweight, dbias, u]
        });
    }
}

#[test]
fn nothing_and_wrong_arguments() {
    let empty = Tensor::zeros(&[0, 4], DType::F32, Device::Cpu).unwrap();
    assert!(batch_forward(&empty, None, None, None, false, 1e-5).is_err());
    let c = Tensor::full(&[4], 1.0, Device::Cpu).unwrap();
    assert!(batch_apply(&empty, &c, &c, None, None, None, true, 1e-5).unwrap().is_empty());
    let (y, mean, rstd) = layer_forward(&empty, Some(&c), None, 1e-5).unwrap();
    assert!(y.is_empty());
    let (_, dweight, _) = layer_backward(&empty, &empty, &mean, &rstd, None).unwrap();
    assert_eq!(dweight.to_vec::<f32>().unwrap(), [0.0; 4]);
    assert!(l2_forward(&empty, 1e-12).unwrap().0.is_empty());
    let flat = Tensor::zeros(&[3, 0], DType::F32, Device::Cpu).unwrap();
    assert!(layer_forward(&flat, None, None, 1e-5).is_err());
    assert_eq!(l2_forward(&flat, 1e-12).unwrap().1.to_vec::<f32>().unwrap(), [0.0; 3]);
    assert!(batch_forward(&flat, None, None, None, false, 1e-5).unwrap().mean.is_empty());

    let x = Tensor::full(&[3, 4], 1.0, Device::Cpu).unwrap();
    let error = batch_backward(&x, &x, None, &c, &c, None, true, false, true, 1e-5).unwrap_err();
    assert!(error.message().contains("needs y"), "{error}");
    let short = Tensor::full(&[3], 1.0, Device::Cpu).unwrap();
    assert!(batch_forward(&x, Some(&short), None, None, false, 1e-5).is_err());
    assert!(batch_forward(&x, None, None, Some(&c), false, 1e-5).is_err());
    assert!(layer_forward(&x, None, Some(&short), 1e-5).is_err());
    assert!(l2_forward(&c, 1e-12).is_err());
    assert!(batch_forward(&x.transpose(0, 1).unwrap(), None, None, None, false, 1e-5).is_err());
}
