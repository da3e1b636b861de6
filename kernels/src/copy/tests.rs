//! Against the references, in every element type; nothing written outside.

use super::cases::{Case, cases, strategy};
use super::*;
use crate::elementwise::tests::same_on_any_number_of_threads;
use proptest::prelude::*;

fn check_view<T: Element + PartialEq + std::fmt::Debug>(case: &Case, value: impl Fn(usize) -> T) {
    let view = case.view(value).unwrap();
    let copied = contiguous(&view).unwrap();
    assert!(copied.is_contiguous());
    assert_eq!(copied.shape(), view.shape());
    assert!(copied.to_vec::<T>().unwrap() == reference::contiguous::<T>(&view).unwrap(), "{case:?}");
    assert_eq!(view.is_contiguous(), copied.shares_storage(&view), "a copy only where one is needed");
}

fn check_case(case: &Case) {
    check_view(case, |i| i as i32);
    check_view(case, |i| i as f32 + 0.5);
    check_view(case, |i| (i * 7 % 251) as u8);
    check_view(case, |i| bf16::from_f32((i % 256) as f32));
}

#[test]
fn views_are_copied_in_order() {
    for case in cases() {
        let guard = memory::guard();
        check_case(&case);
        guard.finish().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_views_are_copied_in_order(case in strategy()) {
        check_case(&case);
    }
}

#[test]
fn expanded_views() {
    let x = Tensor::from_slice(&[1i32, 2, 3], &[1, 3, 1]).unwrap();
    for shape in [[4, 3, 1], [1, 3, 5], [40, 3, 700], [2, 3, 1]] {
        let view = x.expand(&shape).unwrap();
        let want = reference::contiguous::<i32>(&view).unwrap();
        assert_eq!(contiguous(&view).unwrap().to_vec::<i32>().unwrap(), want);
        let view = view.permute(&[1, 2, 0]).unwrap();
        let want = reference::contiguous::<i32>(&view).unwrap();
        assert_eq!(contiguous(&view).unwrap().to_vec::<i32>().unwrap(), want);
    }
}

fn counting(shape: &[usize], from: i32) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_slice(&(from..from + n as i32).collect::<Vec<_>>(), shape).unwrap()
}

#[test]
fn concatenation() {
    for (a, b, c, dim) in [
        ([2, 3, 4], [2, 1, 4], [2, 0, 4], 1),
        ([2, 3, 4], [5, 3, 4], [1, 3, 4], 0),
        ([2, 3, 4], [2, 3, 1], [2, 3, 7], 2),
        ([300, 2, 301], [300, 1, 301], [300, 3, 301], 1),
        ([0, 3, 4], [0, 3, 4], [0, 3, 4], 0),
        ([2, 0, 4], [2, 0, 4], [2, 0, 4], 1),
    ] {
        let guard = memory::guard();
        let (a, b, c) = (counting(&a, 0), counting(&b, 1_000_000), counting(&c, 2_000_000));
        let out = cat(&[&a, &b, &c], dim).unwrap();
        assert_eq!(out.shape()[dim], a.shape()[dim] + b.shape()[dim] + c.shape()[dim]);
        assert_eq!(out.to_vec::<i32>().unwrap(), reference::cat::<i32>(&[&a, &b, &c], dim).unwrap());
        drop(out);
        guard.finish().unwrap();
    }
    let (a, b) = (counting(&[2, 3], 0), counting(&[3, 3], 0));
    assert!(cat(&[&a, &b], 1).unwrap_err().message().contains("dimension 1"));
    assert!(cat(&[&a, &a], 2).is_err());
    assert!(cat(&[], 0).is_err());
    assert!(cat(&[&a, &Tensor::full(&[2, 3], 0.0, Device::Cpu).unwrap()], 0).is_err());
}

#[test]
fn rows_by_index_and_back() {
    for (n, width, m) in [(1, 1, 1), (5, 3, 17), (64, 129, 300), (7, 0, 3), (3, 4, 0), (1000, 33, 2000)] {
        let guard = memory::guard();
        let index: Vec<i32> = (0..m).map(|i| (i * i + 3 * i) % n).collect();
        let index = Tensor::from_slice(&index, &[m as usize]).unwrap();
        let x = crate::array::Array::<f32>::random(&[n as usize, width], 4, 1.0);
        let out = gather_rows(&x.to_tensor().unwrap(), &index).unwrap();
        assert_eq!(out.shape(), [m as usize, width]);
        let values = out.to_vec::<f32>().unwrap();
        for (row, &i) in index.as_slice::<i32>().unwrap().iter().enumerate() {
            assert_eq!(values[row * width..][..width], x.data[i as usize * width..][..width]);
        }
        let added = scatter_add_rows(&out, &index, n as usize).unwrap();
        let want = reference::scatter_add(&values, width, index.as_slice().unwrap(), n as usize);
        assert_eq!(added.to_vec::<f32>().unwrap(), want, "duplicates in order");
        drop((out, added));
        guard.finish().unwrap();
    }
}

/// A queue of seven keys that takes three at a time, from place 5 on: around its end, the others as they were.
#[test]
fn rows_are_put_at_their_index() {
    let guard = memory::guard();
    let mut queue = counting(&[7, 2, 2], 0);
    let other = queue.clone();
    let index = Tensor::from_slice(&[5, 6, 0], &[3]).unwrap();
    let keys = counting(&[3, 2, 2], 100);
    put_rows(&mut queue, &index, &keys).unwrap();
    let mut right: Vec<i32> = (0..28).collect();
    right[20..28].copy_from_slice(&[100, 101, 102, 103, 104, 105, 106, 107]);
    right[0..4].copy_from_slice(&[108, 109, 110, 111]);
    assert_eq!(queue.to_vec::<i32>().unwrap(), right);
    assert_eq!(other.to_vec::<i32>().unwrap(), (0..28).collect::<Vec<_>>());
    for bad in [7, -1, i32::MIN] {
        let index = Tensor::from_slice(&[1, 2, bad], &[3]).unwrap();
        let error = put_rows(&mut queue, &index, &keys).unwrap_err();
        assert!(error.message().contains(&format!("index 2 is {bad}, outside 0 .. 7")), "{error}");
    }
    assert_eq!(queue.to_vec::<i32>().unwrap(), right, "an index outside writes nothing");
    assert!(put_rows(&mut queue, &index, &counting(&[3, 4], 0)).is_err());
    assert!(put_rows(&mut queue, &index, &counting(&[2, 2, 2], 0)).is_err());
    assert!(put_rows(&mut queue, &index, &Tensor::full(&[3, 2, 2], 0.0, Device::Cpu).unwrap()).is_err());
    drop((queue, other, index, keys));
    guard.finish().unwrap();
}

#[test]
fn indices_outside_are_errors() {
    let x = Tensor::full(&[3, 2], 1.0, Device::Cpu).unwrap();
    for bad in [3, -1, i32::MAX] {
        let index = Tensor::from_slice(&[0, bad], &[2]).unwrap();
        let error = gather_rows(&x, &index).unwrap_err();
        assert!(error.message().contains(&format!("index 1 is {bad}, outside 0 .. 3")), "{error}");
    }
    let index = Tensor::from_slice(&[0, 1, 2], &[3]).unwrap();
    assert!(scatter_add_rows(&x, &index, 2).is_err());
    assert!(scatter_add_rows(&x, &Tensor::from_slice(&[0], &[1]).unwrap(), 2).is_err());
    assert!(gather_rows(&x, &x).is_err());
}

#[test]
fn casts() {
    let x = [0.0f32, -0.0, 1.9, -1.9, 255.0, 256.0, -1.0, 3e9, -3e9, f32::NAN, f32::INFINITY, 1e-40];
    let t = Tensor::from_slice(&x, &[12]).unwrap();
    let as_i32 = cast(&t, DType::I32).unwrap().to_vec::<i32>().unwrap();
    assert_eq!(as_i32, [0, 0, 1, -1, 255, 256, -1, i32::MAX, i32::MIN, 0, i32::MAX, 0]);
    let as_u8 = cast(&t, DType::U8).unwrap().to_vec::<u8>().unwrap();
    assert_eq!(as_u8, [0, 0, 1, 0, 255, 255, 0, 255, 0, 0, 255, 0]);
    let as_bf16 = cast(&t, DType::BF16).unwrap();
    for (found, &v) in as_bf16.to_vec::<bf16>().unwrap().iter().zip(&x) {
        let want = bf16::from_f32(v);
        assert!(found.to_bits() == want.to_bits() || (found.is_nan() && v.is_nan()), "{v}");
    }
    // Halfway between two bf16 values: to the even one. Just above it in f32: up.
    let halves = Tensor::from_slice(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.003_906_4f32], &[3]).unwrap();
    let back = cast(&cast(&halves, DType::BF16).unwrap(), DType::F32).unwrap();
    assert_eq!(back.to_vec::<f32>().unwrap(), [1.0, 1.015_625, 1.007_812_5]);
    // Just above halfway between two bf16 values by less than f32 tells: still up.
    let above = Tensor::from_slice(&[0x4040_0001i32, -0x4040_0001, 0x40c0_0000, 0x40bf_ffff], &[4]).unwrap();
    let back = cast(&cast(&above, DType::BF16).unwrap(), DType::F32).unwrap().to_vec::<f32>().unwrap();
    let step = 8_388_608.0;
    assert_eq!(back, [129.0, -129.0, 130.0, 129.0].map(|v| v * step));
    let big = Tensor::from_slice(&[16_777_217i32, 300, -5], &[3]).unwrap();
    assert_eq!(cast(&big, DType::F32).unwrap().to_vec::<f32>().unwrap(), [16_777_216.0, 300.0, -5.0]);
    assert_eq!(cast(&big, DType::U8).unwrap().to_vec::<u8>().unwrap(), [255, 255, 0]);
    assert!(cast(&t, DType::F32).unwrap().shares_storage(&t));
}

#[test]
fn threads_do_not_matter() {
    let x = crate::array::Array::<f32>::random(&[50, 40, 60], 1, 1.0).to_tensor().unwrap();
    let index: Vec<i32> = (0..5000).map(|i| i % 7).collect();
    let index = Tensor::from_slice(&index, &[5000]).unwrap();
    let dy = crate::array::Array::<f32>::random(&[5000, 40], 2, 1.0).to_tensor().unwrap();
    same_on_any_number_of_threads("copy", || {
        let view = x.permute(&[2, 0, 1]).unwrap();
        vec![contiguous(&view).unwrap(), scatter_add_rows(&dy, &index, 7).unwrap()]
    });
}

#[test]
fn windows_of_planes() {
    for (shape, size, count) in windows::CASES {
        let guard = memory::guard();
        let at = windows::places(shape, size, count);
        let x = counting(&shape, 5);
        let values = x.to_vec::<i32>().unwrap();
        let index = Tensor::from_slice(&at, &[count, 3]).unwrap();
        let found = windows(&x, &index, size).unwrap();
        assert_eq!(found.shape(), [count, size[0], size[1]]);
        assert_eq!(found.to_vec::<i32>().unwrap(), reference::windows(&values, shape, &at, size));
        drop((x, index, found));
        guard.finish().unwrap();
    }
    let x = counting(&[2, 5, 4], 0);
    for bad in [[2, 0, 0], [-1, 0, 0], [0, 4, 0], [0, 0, 3], [0, -1, 0]] {
        let at = Tensor::from_slice(&[[0; 3], bad].concat(), &[2, 3]).unwrap();
        let error = windows(&x, &at, [2, 2]).unwrap_err();
        assert!(error.message().contains(&format!("window 1 is at {bad:?}")), "{error}");
    }
    let at = Tensor::from_slice(&[0; 3], &[1, 3]).unwrap();
    assert!(windows(&x, &at, [6, 1]).unwrap_err().message().contains("larger"));
    assert!(windows(&x, &at.reshape(&[3, 1]).unwrap(), [1, 1]).is_err());
    assert!(windows(&counting(&[5, 4], 0), &at, [1, 1]).is_err());
    assert!(windows(&x, &Tensor::full(&[1, 3], 0.0, Device::Cpu).unwrap(), [1, 1]).is_err());
}
