//! The CUDA kernels on the device that tests have.

use super::*;
use crate::array::Array;
use crate::check::{FLOATS, guarded, on_device};
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

#[test]
fn nan_and_infinities() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for dtype in FLOATS {
        let x = Array::new(&[1, 2, 4, 1], vec![1.0, nan, 3.0, -inf, -inf, nan, -inf, -inf]);
        let (y, index) = max_forward(&on_device(&x, dtype, device()).unwrap(), 2, 2, 0).unwrap();
        let y = Array::<f64>::from_tensor(&y).unwrap();
        assert!(y.data[0].is_nan() && y.data[1] == 3.0, "{y:?}");
        assert_eq!(index.to_vec::<i32>().unwrap(), [5, 2], "the last NaN is kept");
        let x = on_device(&Array::new(&[1, 2, 2, 8], vec![-inf; 32]), dtype, device()).unwrap();
        let (y, index) = max_forward(&x, 3, 2, 1).unwrap();
        assert!(Array::<f64>::from_tensor(&y).unwrap().data.iter().all(|&v| v == -inf));
        assert_eq!(index.to_vec::<i32>().unwrap(), [0; 8], "the first on ties");
    }
}

/// NaN in a window's gradient goes to its maximum alone.
#[test]
fn nan_in_a_gradient_stays_where_it_belongs() {
    let x = Array::new(&[1, 3, 3, 1], (0..9).map(f64::from).collect());
    let (_, index) = max_forward(&on_device(&x, DType::F32, device()).unwrap(), 2, 1, 0).unwrap();
    let dy = Array::new(&[1, 2, 2, 1], vec![1.0, f64::NAN, 2.0, 3.0]);
    let dy = on_device(&dy, DType::F32, device()).unwrap();
    let dx = max_backward(&dy, &index, &[1, 3, 3, 1], 2, 1, 0).unwrap().to_vec::<f32>().unwrap();
    assert!(dx[5].is_nan());
    assert_eq!([&dx[..5], &dx[6..]].concat(), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 3.0]);
}

/// No index makes the kernel leave its memory, and what is outside its window goes nowhere.
#[test]
fn indices_outside_touch_nothing() {
    let dx = guarded(device(), || {
        let index = Tensor::from_slice(&[-1, 16, i32::MAX, 10], &[1, 2, 2, 1])?.to_device(device())?;
        let dy = on_device(&Array::new(&[1, 2, 2, 1], vec![1.0; 4]), DType::F32, device())?;
        max_backward(&dy, &index, &[1, 4, 4, 1], 2, 2, 0)?.to_vec::<f32>()
    })
    .unwrap();
    assert!(dx.iter().enumerate().all(|(i, &v)| v == f32::from(u8::from(i == 10))), "{dx:?}");
}

#[test]
fn results_have_the_same_bits_every_time() {
    for dtype in FLOATS {
        let x = on_device(&Array::random(&[2, 9, 8, 16], 1, 1.0), dtype, device()).unwrap();
        let run = || {
            let (y, index) = max_forward(&x, 3, 1, 1).unwrap();
            let dx = max_backward(&y, &index, x.shape(), 3, 1, 1).unwrap();
            let average = global_average_forward(&x).unwrap();
            [y, dx, average].map(|t| Array::<f64>::from_tensor(&t).unwrap())
        };
        let first = run();
        (1..20).for_each(|_| assert_eq!(first, run(), "{dtype}"));
    }
}

#[test]
fn empty_sizes_and_wrong_arguments() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::BF16, device()).unwrap();
    let (y, index) = max_forward(&zeros(&[0, 4, 4, 3]), 2, 2, 0).unwrap();
    assert!(y.is_empty());
    assert!(max_backward(&y, &index, &[0, 4, 4, 3], 2, 2, 0).unwrap().is_empty());
    assert!(max_forward(&zeros(&[2, 4, 4, 0]), 2, 2, 0).unwrap().0.is_empty());
    assert!(global_average_forward(&zeros(&[0, 4, 4, 3])).unwrap().is_empty());
    assert!(global_average_forward(&zeros(&[2, 0, 4, 3])).is_err());
    assert!(global_average_backward(&zeros(&[2, 0]), &[2, 4, 4, 0]).unwrap().is_empty());
    let across = zeros(&[1, 4, 4, 8]).transpose(1, 3).unwrap();
    assert!(max_forward(&across, 2, 2, 0).unwrap_err().message().contains("contiguous"));
    assert!(global_average_forward(&across).unwrap_err().message().contains("contiguous"));
}
