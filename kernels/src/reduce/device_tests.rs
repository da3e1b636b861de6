//! The CUDA kernels on the device that tests have.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

#[test]
fn sums_have_the_same_bits_every_time() {
    for dtype in crate::check::FLOATS {
        let x = on_device(&Array::random(&[700, 40], 1, 1.0), dtype, device()).unwrap();
        for dims in [&[0usize][..], &[1], &[0, 1]] {
            let bits = || Array::<f64>::from_tensor(&sum(&x, dims).unwrap()).unwrap();
            let first = bits();
            (1..20).for_each(|_| assert_eq!(first, bits(), "{dims:?} {dtype}"));
        }
    }
}

/// A running sum in f32 would be off by parts in a thousand, one in bf16 would stop at 256 times an element.
#[test]
fn long_sums_keep_their_digits() {
    let n = 1 << 18;
    let x = Tensor::full(&[n], 0.1, device()).unwrap();
    let exact = f64::from(0.1f32) * n as f64;
    let found = f64::from(sum(&x, &[0]).unwrap().item().unwrap());
    assert!((found / exact - 1.0).abs() < 2e-7, "{found} and {exact}");
    let ones = on_device(&Array::new(&[n], vec![1.0; n]), DType::BF16, device()).unwrap();
    let found = Array::<f64>::from_tensor(&sum(&ones, &[0]).unwrap()).unwrap();
    assert_eq!(found.data, [n as f64]);
}

#[test]
fn argmax_orders_special_values() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let rows = [
        ([-inf, -inf, -inf], 0),
        ([-inf, -1e-38, -1.0], 1),
        ([-0.0, 0.0, -1.0], 0),
        ([1.0, inf, inf], 1),
        ([inf, nan, nan], 1),
        ([inf, 1.0, -nan], 2),
    ];
    let flat = Array::new(&[6, 3], rows.iter().flat_map(|r| r.0).collect());
    for dtype in crate::check::FLOATS {
        let found = argmax_last(&on_device(&flat, dtype, device()).unwrap()).unwrap();
        assert_eq!(found.to_vec::<i32>().unwrap(), rows.map(|r| r.1), "{dtype}");
    }
    // Ties and NaN that different threads of a block find.
    let mut long = Array::new(&[1, 5000], vec![-1.0; 5000]);
    for (values, expected) in
        [(vec![], 0), (vec![(4999, 3.0), (77, 3.0)], 77), (vec![(4001, nan), (4900, nan)], 4001)]
    {
        values.into_iter().for_each(|(i, v)| long.data[i] = v);
        let found = argmax_last(&on_device(&long, DType::F32, device()).unwrap()).unwrap();
        assert_eq!(found.to_vec::<i32>().unwrap(), [expected]);
    }
}

#[test]
fn nan_stays_in_its_column() {
    let mut x = Array::<f64>::random(&[300, 17], 1, 1.0);
    x.data[150 * 17 + 4] = f64::NAN;
    let y = sum_rows(&on_device(&x, DType::F32, device()).unwrap()).unwrap().to_vec::<f32>().unwrap();
    assert!(y.iter().enumerate().all(|(j, v)| v.is_nan() == (j == 4)), "{y:?}");
}

#[test]
fn wrong_arguments_are_errors() {
    let x = on_device(&Array::random(&[2, 3], 1, 1.0), DType::BF16, device()).unwrap();
    assert!(sum(&x, &[2]).is_err());
    assert!(sum(&x.transpose(0, 1).unwrap(), &[0]).unwrap_err().message().contains("contiguous"));
    let labels = Tensor::from_slice(&[1i32], &[1]).unwrap().to_device(device()).unwrap();
    assert_eq!(sum(&labels, &[0]).unwrap_err().kind(), engine::ErrorKind::DType);
    // The CPU computes in f32 alone.
    let x = x.to_device(Device::Cpu).unwrap();
    assert_eq!(sum(&x, &[0]).unwrap_err().kind(), engine::ErrorKind::DType);
}
