//! The cross-entropy with a teacher against the references, and what must hold whatever the numbers, on the CPU and on the
//! device that tests have.

use super::xent_cases::{XentCase, xent_cases, xent_strategy};
use super::xent_check::{Inputs, require_xent, run_xent};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, on_device};
use crate::elementwise::tests::same_on_any_number_of_threads;
use crate::softmax_xent::{self, Target};
use crate::testing::device;
use crate::{compare, elementwise};
use proptest::prelude::*;

fn inputs(case: &XentCase, dtype: DType, device: Device) -> Inputs {
    Inputs::new(case, dtype, |x, dtype| on_device(x, dtype, device)).unwrap()
}

fn check_case(case: &XentCase) {
    for by_value in [true, false] {
        let guard = memory::guard();
        let results = run_xent(case, &inputs(case, DType::F32, Device::Cpu), by_value).unwrap();
        require_xent(case, DType::F32, &results).map_err(|e| e.with("case", case)).unwrap();
        drop(results);
        guard.finish().unwrap();
    }
}

#[test]
fn the_cross_entropy_agrees_with_the_references() {
    xent_cases().iter().for_each(check_case);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_cross_entropy_agrees_on_random_problems(case in xent_strategy()) {
        check_case(&case);
    }
}

/// What it replaces: the teacher's softmax in memory, targets put together, the student's cross-entropy with them.
#[test]
fn it_is_the_composition_of_its_parts() {
    let case = XentCase::new(4, 5, 1000);
    let Inputs { student, teacher, center, dloss, .. } = inputs(&case, DType::F32, Device::Cpu);
    let [temperature, tau] = case.temperatures;
    let (p, entropy) = teacher_softmax(&teacher, center.as_ref(), temperature.into()).unwrap();
    let p = Array::<f64>::from_tensor(&p).unwrap();
    let targets = reference::matched(&p, case.m(), case.matching).to_tensor().unwrap();
    let x = elementwise::scale(&student, 1.0 / tau).unwrap();
    let (loss, lse) = softmax_xent::forward(&x, Target::Probabilities(&targets), 0.0).unwrap();
    let dx = softmax_xent::backward(&dloss, &x, Target::Probabilities(&targets), 0.0, &lse).unwrap();
    let dx = elementwise::scale(&dx, 1.0 / tau).unwrap();
    let found = run_xent(&case, &inputs(&case, DType::F32, Device::Cpu), true).unwrap();
    for (found, right) in [(&found[1], &entropy), (&found[4], &loss), (&found[5], &dx)] {
        let values = |x: &Tensor| Array::<f64>::from_tensor(x).unwrap().data;
        let (error, _) = compare::error(&values(found), &values(right));
        assert!(error < 1e-6, "{error:.3e}");
    }
}

fn values(x: &Tensor) -> Vec<f32> {
    crate::copy::cast(x, DType::F32).unwrap().to_vec().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

#[test]
fn threads_do_not_matter() {
    let case = XentCase { shares: true, ..XentCase::new(5, 4, 9000) };
    let inputs = inputs(&case, DType::F32, Device::Cpu);
    same_on_any_number_of_threads("teacher_xent", || run_xent(&case, &inputs, true).unwrap());
}

#[test]
fn runs_on_the_device_are_equal_bit_for_bit() {
    let case = XentCase { shares: true, ..XentCase::new(3, 4, 1200) };
    for dtype in FLOATS {
        let inputs = inputs(&case, dtype, device());
        let all = || run_xent(&case, &inputs, true).unwrap().iter().flat_map(bits).collect::<Vec<_>>();
        let first = all();
        (0..5).for_each(|_| assert_eq!(all(), first, "{dtype}"));
    }
}

/// With uniform distributions a row costs ln K for each of the teacher's rows that it is compared with: one for the first two
/// crops, two for others.
#[test]
fn crops_are_compared_with_other_crops() {
    for device in [Device::Cpu, device()] {
        let zeros = |rows: usize| Tensor::zeros(&[rows, 8], DType::F32, device).unwrap();
        let (student, logits) = (zeros(3 * 4), zeros(3 * 2));
        let teacher = Teacher { logits: &logits, center: None, temperature: 0.04.into() };
        let (known, _) = teacher_rows(&teacher).unwrap();
        let (loss, _) = teacher_xent_forward(&student, &teacher, &known, 0.1, Matching::OtherCrops).unwrap();
        for (row, loss) in values(&loss).into_iter().enumerate() {
            let pairs = if row < 6 { 1.0 } else { 2.0 };
            assert!((loss - pairs * 8f32.ln()).abs() < 1e-5, "row {row}: {loss}");
        }
        // The teacher is sure of class 0 in its first crop and of class 1 in the second, the student always of class 0.
        let sure = |classes: &[usize]| {
            let mut x = vec![0f32; 8 * classes.len()];
            classes.iter().enumerate().for_each(|(i, c)| x[8 * i + c] = 20.0);
            Tensor::from_slice(&x, &[classes.len(), 8]).unwrap().to_device(device).unwrap()
        };
        let (student, logits) = (sure(&[0, 0, 0]), sure(&[0, 1]));
        let teacher = Teacher { logits: &logits, center: None, temperature: 1.0.into() };
        let (known, _) = teacher_rows(&teacher).unwrap();
        let (loss, _) = teacher_xent_forward(&student, &teacher, &known, 1.0, Matching::OtherCrops).unwrap();
        let loss = values(&loss);
        assert!(loss.iter().zip([20.0, 0.0, 20.0]).all(|(l, r)| (l - r).abs() < 1e-4), "{loss:?}");
    }
}

/// NaN stays in the images that have it; a row of nothing but minus infinity costs nothing, and one of the teacher's asks for
/// nothing; a loss near zero keeps its digits.
#[test]
fn odd_rows_stay_in_their_place() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for device in [Device::Cpu, device()] {
        let put = |x: &[f32]| Tensor::from_slice(x, &[x.len() / 4, 4]).unwrap().to_device(device).unwrap();
        let student = put(&[
            [0.0, 1.0, 2.0, nan],
            [-inf, -inf, -inf, -inf],
            [1.0, 2.0, 3.0, 4.0],
            [15.0, 0.0, 0.0, 0.0],
            [1.0, -inf, 2.0, 3.0],
        ]
        .concat());
        let logits =
            put(&[[0.0; 4], [0.0; 4], [-inf; 4], [60.0, 0.0, 0.0, 0.0], [50.0, -inf, 0.0, 0.0]].concat());
        let teacher = Teacher { logits: &logits, center: None, temperature: 0.5.into() };
        let (known, entropy) = teacher_rows(&teacher).unwrap();
        let (loss, rows) = teacher_xent_forward(&student, &teacher, &known, 1.0, Matching::SameRow).unwrap();
        let dloss = Tensor::full(&[5], 1.0, device).unwrap();
        let dx =
            teacher_xent_backward(&dloss, &student, &teacher, &known, 1.0, Matching::SameRow, &rows).unwrap();
        let (loss, dx) = (values(&loss), values(&dx));
        assert!(loss[0].is_nan() && dx[..4].iter().any(|d| d.is_nan()), "{device}: {loss:?}");
        assert_eq!((loss[1], loss[2]), (0.0, 0.0), "{device}");
        assert!(dx[4..12].iter().all(|d| *d == 0.0), "{device}: {dx:?}");
        let right = 3.0 * (-15f32).exp();
        assert!((loss[3] - right).abs() < 1e-5 * right, "{device}: {} for {right}", loss[3]);
        assert!(loss[4].is_finite() && dx[16..].iter().all(|d| d.is_finite()), "{device}: {loss:?} {dx:?}");
        assert_eq!(values(&entropy)[2], 0.0);
    }
}

/// The gradients of a row add up to nothing, as what it is compared with adds up to whole distributions.
#[test]
fn gradients_of_a_row_cancel() {
    let case = XentCase::new(2, 4, 1000);
    for device in [Device::Cpu, device()] {
        let dx = run_xent(&case, &inputs(&case, DType::F32, device), true).unwrap().pop().unwrap();
        for row in values(&dx).chunks(case.k) {
            let sum: f64 = row.iter().map(|d| f64::from(*d)).sum();
            assert!(sum.abs() < 1e-5, "{sum:.3e}");
        }
    }
}

/// What the CPU refuses, a device shows as NaN.
#[test]
fn a_temperature_that_is_not_positive_is_nan_on_the_device() {
    let case = XentCase::new(1, 2, 8);
    let Inputs { student, teacher, .. } = inputs(&case, DType::F32, device());
    let zero = Tensor::scalar(0f32).unwrap().to_device(device()).unwrap();
    let teacher = Teacher { logits: &teacher, center: None, temperature: (&zero).into() };
    let (known, _) = teacher_rows(&teacher).unwrap();
    let (loss, _) = teacher_xent_forward(&student, &teacher, &known, 0.1, case.matching).unwrap();
    let (_, usage) = teacher_means(&teacher, &known, None).unwrap();
    assert!(values(&loss).iter().chain(&values(&usage)).all(|x| x.is_nan()));
}

#[test]
fn wrong_arguments_are_named() {
    let x = |n: usize, k: usize| Tensor::zeros(&[n, k], DType::F32, Device::Cpu).unwrap();
    let forward = |student: &Tensor, logits: &Tensor, rows: &Tensor, t: f32, tau: f32, matching| {
        let teacher = Teacher { logits, center: None, temperature: t.into() };
        teacher_xent_forward(student, &teacher, rows, tau, matching).unwrap_err().to_string()
    };
    let says = |text: String, wanted: &str| assert!(text.contains(wanted), "'{wanted}' is not in: {text}");
    let (same, other) = (Matching::SameRow, Matching::OtherCrops);
    says(forward(&x(3, 5), &x(2, 5), &x(2, 2), 1.0, 1.0, same), "as many rows");
    says(forward(&x(3, 5), &x(3, 5), &x(3, 2), 1.0, 1.0, other), "two crops of each image");
    says(forward(&x(3, 5), &x(4, 5), &x(4, 2), 1.0, 1.0, other), "whole crops");
    says(forward(&x(4, 5), &x(4, 6), &x(4, 2), 1.0, 1.0, other), "teacher");
    says(forward(&x(4, 5), &x(4, 5), &x(4, 3), 1.0, 1.0, other), "rows");
    for bad in [0.0, -1.0, f32::NAN] {
        says(forward(&x(4, 5), &x(4, 5), &x(4, 2), bad, 1.0, other), "must be positive");
        says(forward(&x(4, 5), &x(4, 5), &x(4, 2), 1.0, bad, other), "must be positive");
    }
    let logits = x(4, 5);
    let with = |center: Option<&Tensor>, share: Option<&Tensor>| {
        let teacher = Teacher { logits: &logits, center, temperature: 1.0.into() };
        teacher_means(&teacher, &x(4, 2), share).unwrap_err().to_string()
    };
    says(with(Some(&x(1, 5)), None), "center");
    says(with(None, Some(&x(1, 5))), "share");
}
