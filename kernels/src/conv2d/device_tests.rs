//! The CUDA kernels on the device that tests have.

use super::*;
use crate::array::Array;
use crate::check::{FLOATS, on_device};
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

fn random(shape: &[usize], seed: u64, dtype: DType) -> Tensor {
    on_device(&Array::random(shape, seed, 1.0), dtype, device()).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    Array::<f32>::from_tensor(x).unwrap().data.iter().map(|v| v.to_bits()).collect()
}

/// With stride and padding, the weight gradient in parts, of one group, of two, and depthwise.
#[test]
fn repeated_runs_give_the_same_bits() {
    for (groups, input, weight) in [
        (1, [2, 33, 32, 4], [8, 3, 3, 4]),
        (2, [2, 33, 32, 4], [8, 3, 3, 2]),
        (8, [2, 33, 32, 8], [8, 3, 3, 1]),
    ] {
        let g = Geometry::new(2, 1).in_groups(groups);
        for dtype in FLOATS {
            let (x, w) = (random(&input, 1, dtype), random(&weight, 2, dtype));
            let dy = random(&output_shape(&input, &weight, g).unwrap(), 3, dtype);
            let run = || {
                [
                    forward(&x, &w, g).unwrap(),
                    input_gradient(&dy, &w, &input, g).unwrap(),
                    weight_gradient(&x, &dy, &weight, g).unwrap(),
                ]
                .map(|y| bits(&y))
            };
            let first = run();
            for _ in 0..9 {
                assert_eq!(run(), first, "{groups} groups, {dtype}");
            }
        }
    }
}

/// A NaN reaches the results of its group whose windows it is in, and no others.
#[test]
fn nan_stays_in_its_group() {
    for groups in [2, 8] {
        let g = Geometry::new(1, 1).in_groups(groups);
        for dtype in FLOATS {
            let mut x = Array::<f64>::random(&[1, 5, 5, 8], 1, 1.0);
            let at = x.at(&[0, 1, 2, 7]);
            x.data[at] = f64::NAN;
            let x = on_device(&x, dtype, device()).unwrap();
            let w = random(&[16, 3, 3, 8 / groups], 2, dtype);
            let y = Array::<f64>::from_tensor(&forward(&x, &w, g).unwrap()).unwrap();
            for (i, v) in y.data.iter().enumerate() {
                let (p, q, o) = (i / 80, i / 16 % 5, i % 16);
                let meets = p <= 2 && (1..=3).contains(&q) && o / (16 / groups) == groups - 1;
                assert_eq!(v.is_nan(), meets, "{groups} groups, pixel {p}, {q}, channel {o}: {v}");
            }
        }
    }
}

/// A NaN reaches the results whose window it is in, and no others.
#[test]
fn nan_stays_in_the_windows_that_meet_it() {
    let g = Geometry::new(1, 1);
    for dtype in FLOATS {
        for c in [3, 8] {
            let mut x = Array::<f64>::random(&[2, 5, 5, c], 1, 1.0);
            let at = x.at(&[1, 0, 2, c - 1]);
            x.data[at] = f64::NAN;
            let x = on_device(&x, dtype, device()).unwrap();
            let w = random(&[4, 3, 3, c], 2, dtype);
            let y = Array::<f64>::from_tensor(&forward(&x, &w, g).unwrap()).unwrap();
            for (i, v) in y.data.iter().enumerate() {
                let (n, p, q) = (i / 100, i / 20 % 5, i / 4 % 5);
                let meets = n == 1 && p <= 1 && (1..=3).contains(&q);
                assert_eq!(v.is_nan(), meets, "image {n}, pixel {p}, {q}: {v}");
            }
        }
    }
}

#[test]
fn empty_sizes() {
    let g = Geometry::new(1, 1);
    for dtype in FLOATS {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, dtype, device()).unwrap();
        // No image, no input channel, no output channel.
        for (n, c, o) in [(0, 3, 4), (2, 0, 4), (2, 3, 0)] {
            let (x, w, dy) = (zeros(&[n, 4, 5, c]), zeros(&[o, 3, 3, c]), zeros(&[n, 4, 5, o]));
            for result in [
                forward(&x, &w, g).unwrap(),
                input_gradient(&dy, &w, x.shape(), g).unwrap(),
                weight_gradient(&x, &dy, w.shape(), g).unwrap(),
            ] {
                assert!(bits(&result).iter().all(|&v| v == 0));
            }
        }
    }
}

#[test]
fn types_do_not_mix() {
    let g = Geometry::new(1, 0);
    let x = Tensor::zeros(&[1, 4, 4, 2], DType::F32, device()).unwrap();
    let w = Tensor::zeros(&[3, 3, 3, 2], DType::BF16, device()).unwrap();
    assert!(forward(&x, &w, g).unwrap_err().message().contains("weight"));
    let on_cpu = w.to_device(Device::Cpu).unwrap();
    assert!(forward(&on_cpu, &on_cpu, g).unwrap_err().message().contains("f32"));
}
