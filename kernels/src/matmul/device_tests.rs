//! The CUDA kernels on the device that tests have.

use super::*;
use crate::array::Array;
use crate::check::{FLOATS, on_device};
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// Random operands of `[m, k] x [k, n]` on the device.
fn operands(m: usize, n: usize, k: usize, dtype: DType) -> (Tensor, Tensor) {
    let put = |shape: &[usize], seed| on_device(&Array::random(shape, seed, 1.0), dtype, device()).unwrap();
    (put(&[m, k], 1), put(&[k, n], 2))
}

fn bits(x: &Tensor) -> Vec<u32> {
    Array::<f32>::from_tensor(x).unwrap().data.iter().map(|v| v.to_bits()).collect()
}

/// One block a tile, and a sum in three parts.
#[test]
fn repeated_runs_give_the_same_bits() {
    for dtype in FLOATS {
        for (m, n, k) in [(40, 24, 100), (8, 16, 800)] {
            let (a, b) = operands(m, n, k, dtype);
            let first = bits(&matmul(&a, &b, false, false).unwrap());
            for _ in 0..19 {
                assert_eq!(bits(&matmul(&a, &b, false, false).unwrap()), first);
            }
        }
    }
}

/// What one row of A and one column of B hold does not reach the others, whatever fills up the tile.
#[test]
fn nan_and_infinity_stay_in_their_row_and_column() {
    for dtype in FLOATS {
        for (m, n, k) in [(20, 18, 37), (9, 7, 700)] {
            let mut a = Array::<f64>::random(&[m, k], 1, 1.0);
            let mut b = Array::<f64>::random(&[k, n], 2, 1.0);
            a.data[3 * k + k - 1] = f64::NAN;
            b.data[(k - 1) * n + 4] = f64::INFINITY;
            let (a, b) = (on_device(&a, dtype, device()).unwrap(), on_device(&b, dtype, device()).unwrap());
            let y = Array::<f64>::from_tensor(&matmul(&a, &b, false, false).unwrap()).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let v = y.get(&[i, j]);
                    assert_eq!(v.is_finite(), i != 3 && j != 4, "[{i}, {j}] is {v}");
                    assert_eq!(v.is_nan(), i == 3, "[{i}, {j}] is {v}");
                }
            }
        }
    }
}

/// Scaling an operand by a power of two scales every result exactly.
#[test]
fn powers_of_two_pass_through() {
    let (m, n, k) = (19, 33, 600);
    let x = Array::<f64>::random(&[m, k], 1, 1.0);
    let b = on_device(&Array::random(&[k, n], 2, 1.0), DType::F32, device()).unwrap();
    let product = |x: &Array<f64>| {
        let a = on_device(x, DType::F32, device()).unwrap();
        Array::<f64>::from_tensor(&matmul(&a, &b, false, false).unwrap()).unwrap()
    };
    assert_eq!(product(&x.map(|v| 1024.0 * v)), product(&x).map(|v| 1024.0 * v));
}

#[test]
fn empty_sizes() {
    for dtype in FLOATS {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, dtype, device()).unwrap();
        let product = matmul(&zeros(&[2, 0]), &zeros(&[0, 3]), false, false).unwrap();
        assert_eq!(bits(&product), [0; 6]);
        assert!(matmul(&zeros(&[0, 4]), &zeros(&[4, 3]), false, false).unwrap().is_empty());
        assert!(matmul(&zeros(&[5, 4]), &zeros(&[4, 0]), false, false).unwrap().is_empty());
        assert!(matmul(&zeros(&[0, 5, 4]), &zeros(&[0, 4, 2]), false, false).unwrap().is_empty());
        let bias = on_device(&Array::new(&[2], vec![1.0, -2.0]), dtype, device()).unwrap();
        let rows = linear(&zeros(&[3, 0]), &zeros(&[2, 0]), Some(&bias)).unwrap();
        assert_eq!(Array::<f64>::from_tensor(&rows).unwrap().data, [1.0, -2.0, 1.0, -2.0, 1.0, -2.0]);
    }
}

#[test]
fn types_do_not_mix() {
    let a = Tensor::zeros(&[2, 3], DType::F32, device()).unwrap();
    let b = Tensor::zeros(&[3, 2], DType::BF16, device()).unwrap();
    assert!(matmul(&a, &b, false, false).unwrap_err().message().contains("b"));
    assert!(linear(&b, &a, None).is_err());
    let half = b.to_device(Device::Cpu).unwrap();
    assert!(matmul(&half, &half, true, false).unwrap_err().message().contains("f32"));
}
