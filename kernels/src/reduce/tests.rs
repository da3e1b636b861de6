//! Against the references; the same bits on any number of threads; nothing written outside.

use super::cases::{Case, cases, strategy};
use super::*;
use crate::array::Array;
use crate::compare::{check_equal, error};
use crate::elementwise::tests::same_on_any_number_of_threads;
use proptest::prelude::*;

/// Twice the naive error, and what is always allowed: four roundings of the largest result, and one of a partial sum. Those of
/// values that cancel are as large as the root of the sum of their squares, however small the result, and the naive order may
/// be lucky.
fn check_sum(x: &Array<f64>, dims: &[usize], found: &Tensor) -> Result<()> {
    let (naive, oracle) = (reference::sum(&x.cast::<f32>(), dims), reference::sum(x, dims));
    let largest = |x: &Array<f64>| x.data.iter().fold(0f64, |m, v| m.max(v.abs()));
    let partial = largest(&reference::sum(&x.map(|v| v * v), dims)).sqrt();
    let always = f64::from(f32::EPSILON) * (4.0 + partial / largest(&oracle).max(f64::MIN_POSITIVE));
    let found = Array::<f64>::from_tensor(found)?;
    assert_eq!(found.shape, oracle.shape);
    let (found, at) = error(&found.data, &oracle.data);
    let allowed = 2.0 * error(&naive.cast::<f64>().data, &oracle.data).0 + always;
    match found <= allowed {
        true => Ok(()),
        false => {
            let text = format!("error {found:.3e} at {at}, allowed {allowed:.3e}");
            Err(engine::Error::value("sum", text))
        }
    }
}

fn check_case(case: &Case) -> Result<()> {
    let x = case.input();
    let tensor = x.to_tensor()?;
    check_sum(&x, &case.dims, &sum(&tensor, &case.dims)?)?;
    let whole = Array::<f64>::integers(&case.shape, 3, 9);
    let exact = reference::sum(&whole, &case.dims).to_tensor()?;
    check_equal("sum of integers", &sum(&whole.to_tensor()?, &case.dims)?, &exact)?;
    let last_is_empty = case.shape.last() == Some(&0);
    if !case.shape.is_empty() && !last_is_empty {
        let found = argmax_last(&whole.to_tensor()?)?;
        assert_eq!(found.shape(), &case.shape[..case.shape.len() - 1]);
        assert_eq!(found.to_vec::<i32>()?, reference::argmax_last(&whole), "argmax with ties");
    }
    Ok(())
}

#[test]
fn all_cases_agree_with_the_reference() {
    for case in cases() {
        let guard = memory::guard();
        check_case(&case).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        guard.finish().unwrap();
    }
}

/// Found by the random cases below: 864 values whose sum is about 1.
#[test]
fn sums_of_values_that_cancel() {
    check_case(&Case { shape: vec![6, 6, 12, 2], dims: vec![0, 1, 2, 3], mean: 0.0 }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_cases_agree_with_the_reference(case in strategy()) {
        check_case(&case).unwrap();
    }
}

/// A million equal values: an f32 running sum would be off by parts in a thousand.
#[test]
fn long_sums_keep_their_digits() {
    let n = 1 << 20;
    let x = Tensor::full(&[n], 0.1, Device::Cpu).unwrap();
    let exact = f64::from(0.1f32) * n as f64;
    let found = f64::from(sum(&x, &[0]).unwrap().item().unwrap());
    assert!((found / exact - 1.0).abs() < 2e-7, "{found} and {exact}");
}

#[test]
fn argmax_orders_special_values() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        ([-inf, -inf, -inf], 0),
        ([-inf, -1e-40, -1.0], 1),
        ([-0.0, 0.0, -1.0], 0),
        ([1.0, inf, inf], 1),
        ([inf, nan, nan], 1),
        ([inf, 1.0, -nan], 2),
    ];
    let flat: Vec<f32> = rows.iter().flat_map(|r| r.0).collect();
    let found = argmax_last(&Tensor::from_slice(&flat, &[6, 3]).unwrap()).unwrap();
    assert_eq!(found.to_vec::<i32>().unwrap(), rows.map(|r| r.1));
}

#[test]
fn nan_stays_in_its_column() {
    let mut x = Array::<f32>::random(&[1000, 17], 1, 1.0);
    x.data[500 * 17 + 4] = f32::NAN;
    let y = sum_rows(&x.to_tensor().unwrap()).unwrap().to_vec::<f32>().unwrap();
    assert!(y.iter().enumerate().all(|(j, v)| v.is_nan() == (j == 4)), "{y:?}");
}

#[test]
fn threads_do_not_matter() {
    let x = Array::<f32>::random(&[5, 20_011, 3], 2, 1.0).to_tensor().unwrap();
    same_on_any_number_of_threads("reduce", || {
        let dims: [&[usize]; 5] = [&[0], &[1], &[2], &[0, 2], &[0, 1, 2]];
        let mut all: Vec<Tensor> = dims.iter().map(|d| sum(&x, d).unwrap()).collect();
        all.push(argmax_last(&x).unwrap());
        all
    });
}

#[test]
fn wrong_arguments_are_errors() {
    let x = Tensor::zeros(&[2, 3], DType::F32, Device::Cpu).unwrap();
    assert!(sum(&x, &[2]).is_err());
    assert!(sum(&x, &[1, 1]).is_err());
    assert!(sum_rows(&Tensor::scalar(1.0).unwrap()).is_err());
    let empty = Tensor::zeros(&[2, 0], DType::F32, Device::Cpu).unwrap();
    assert!(argmax_last(&empty).unwrap_err().message().contains("a row needs"));
    assert!(sum(&x.transpose(0, 1).unwrap(), &[0]).is_err());
}
