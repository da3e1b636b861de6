//! The CUDA kernels on the device that tests have.

use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// What is contiguous already is not copied; what is copied is counted.
#[test]
fn copies_are_counted() {
    let x = on_device(&Array::random(&[3, 5], 1, 1.0), DType::BF16, device()).unwrap();
    let part = x.narrow(0, 1, 2).unwrap();
    assert!(contiguous(&part).unwrap().shares_storage(&x));
    assert!(contiguous(&x.reshape(&[15]).unwrap()).unwrap().shares_storage(&x));
    let before = copies();
    assert!(!contiguous(&x.transpose(0, 1).unwrap()).unwrap().shares_storage(&x));
    assert!(copies() > before);
}

/// No index makes a kernel leave its memory: what is outside gathers NaN (0 in integers) and adds nothing.
#[test]
fn indices_outside_touch_nothing() {
    let index = [2, 3, -1, i32::MAX, i32::MIN, 0];
    let inside = |i: usize| matches!(index[i], 0..3);
    let (gathered, added, labels) = guarded(device(), || {
        let index = Tensor::from_slice(&index, &[6])?.to_device(device())?;
        let x = on_device(&Array::new(&[3, 4], vec![1.0; 12]), DType::BF16, device())?;
        let gathered = gather_rows(&x, &index)?;
        let labels = Tensor::from_slice(&[1i32, 1, 1], &[3])?.to_device(device())?;
        let ones = on_device(&Array::new(&[6, 4], vec![1.0; 24]), DType::F32, device())?;
        let added = scatter_add_rows(&ones, &index, 3)?.to_vec::<f32>()?;
        Ok((Array::<f64>::from_tensor(&gathered)?, added, gather_rows(&labels, &index)?.to_vec::<i32>()?))
    })
    .unwrap();
    assert!(gathered.data.iter().enumerate().all(|(i, v)| v.is_nan() != inside(i / 4)), "{gathered:?}");
    assert_eq!(labels, [1, 0, 0, 0, 0, 1]);
    assert_eq!(added, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
}

/// NaN of one row stays in the row that it goes to.
#[test]
fn nan_stays_in_its_row() {
    let mut dy = Array::<f64>::random(&[20, 5], 1, 1.0);
    dy.data[7 * 5 + 2] = f64::NAN;
    let index: Vec<i32> = (0..20).map(|i| i % 9).collect();
    let index = Tensor::from_slice(&index, &[20]).unwrap().to_device(device()).unwrap();
    let dy = on_device(&dy, DType::F32, device()).unwrap();
    let out = scatter_add_rows(&dy, &index, 9).unwrap().to_vec::<f32>().unwrap();
    assert!(out.iter().enumerate().all(|(i, v)| v.is_nan() == (i == 7 * 5 + 2)), "{out:?}");
}

#[test]
fn sums_have_the_same_bits_every_time() {
    let index: Vec<i32> = (0..1500).map(|i| i * i % 3).collect();
    let index = Tensor::from_slice(&index, &[1500]).unwrap().to_device(device()).unwrap();
    for dtype in crate::check::FLOATS {
        let dy = on_device(&Array::random(&[1500, 4], 1, 1.0), dtype, device()).unwrap();
        let add = || Array::<f64>::from_tensor(&scatter_add_rows(&dy, &index, 3).unwrap()).unwrap();
        let first = add();
        (1..20).for_each(|_| assert_eq!(first, add(), "{dtype}"));
    }
    // Two of many rows receive most.
    let index: Vec<i32> = (0..2100).map(|i| if i % 7 < 2 { 100 * (i % 7) } else { i % 600 }).collect();
    let index = Tensor::from_slice(&index, &[2100]).unwrap().to_device(device()).unwrap();
    let dy = on_device(&Array::random(&[2100, 5], 1, 1.0), DType::F32, device()).unwrap();
    let add = || scatter_add_rows(&dy, &index, 600).unwrap().to_vec::<f32>().unwrap();
    let first = add();
    (1..5).for_each(|_| assert_eq!(first, add()));
}

#[test]
fn wrong_arguments_are_errors() {
    let x = on_device(&Array::random(&[3, 4], 1, 1.0), DType::F32, device()).unwrap();
    let index = Tensor::from_slice(&[0i32, 1], &[2]).unwrap();
    assert_eq!(gather_rows(&x, &index).unwrap_err().kind(), engine::ErrorKind::Device);
    let index = index.to_device(device()).unwrap();
    assert!(gather_rows(&x.transpose(0, 1).unwrap(), &index).unwrap_err().message().contains("contiguous"));
    assert!(gather_rows(&x, &index.reshape(&[1, 2]).unwrap()).unwrap_err().message().contains("rank 1"));
    assert!(gather_rows(&x, &x).is_err());
    assert!(scatter_add_rows(&x, &index, 3).is_err());
    let across = x.transpose(0, 1).unwrap();
    assert!(cat(&[&across, &across], 0).unwrap_err().message().contains("contiguous"));
    assert!(cast(&across, DType::BF16).unwrap_err().message().contains("contiguous"));
}

/// A window that is not inside its plane, or has none, is NaN; nothing is read there.
#[test]
fn windows_outside_touch_nothing() {
    let places =
        [[0, 0, 0], [1, 2, 1], [2, 0, 0], [-1, 0, 0], [0, 3, 0], [0, -1, 0], [0, 0, 2], [0, 0, i32::MIN]];
    let found = guarded(device(), || {
        let x = on_device(&Array::new(&[2, 4, 3], vec![1.0; 24]), DType::BF16, device())?;
        let at = Tensor::from_slice(places.as_flattened(), &[8, 3])?.to_device(device())?;
        Array::<f64>::from_tensor(&windows(&x, &at, [2, 2])?)
    })
    .unwrap();
    assert!(found.data.iter().enumerate().all(|(i, v)| v.is_nan() == (i / 4 > 1)), "{found:?}");
}
