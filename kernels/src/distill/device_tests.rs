//! The CUDA kernels on the device that tests have.

use super::cases::{Case, Rows};
use super::check::{self, EPS, run, run_koleo};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, guarded, on_device};
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn runs_are_equal_bit_for_bit() {
    let case =
        Case { n: 40, k: 260, scale: 0.3, temperature: 0.07, center: true, iterations: 3, valid: Some(37) };
    let rows = on_device(&Rows { n: 70, d: 140, copies: 0 }.x(), DType::F32, device()).unwrap();
    let dloss = on_device(&Array::random(&[70], 14, 1.0), DType::F32, device()).unwrap();
    for dtype in FLOATS {
        let x = on_device(&case.scores(), dtype, device()).unwrap();
        let center = on_device(&case.center().unwrap(), DType::F32, device()).unwrap();
        let all = || {
            let mut all = run(&case, &x, Some(&center), true).unwrap();
            let [loss, _, dx] = run_koleo(&rows, &dloss).unwrap();
            all.extend([loss, dx]);
            all.iter().map(bits).collect::<Vec<_>>()
        };
        let first = all();
        (0..10).for_each(|_| assert_eq!(all(), first, "{dtype}"));
    }
}

/// A hub that many rows name gets all their gradients.
#[test]
fn many_rows_name_one_neighbour() {
    let (n, d) = (70, 8);
    // Row 0 lies in the middle, the others around it and apart from each other.
    let mut x = Array::<f64>::random(&[n, d], 16, 1.0);
    for row in x.data.chunks_mut(d).skip(1) {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v = f64::from((*v / norm) as f32));
    }
    let nearest: Vec<i32> = (0..n as i32).map(|i| i32::from(i == 0)).collect();
    let of: Vec<usize> = nearest.iter().map(|&i| i as usize).collect();
    let dloss = Array::<f64>::random(&[n], 14, 1.0);
    let found = guarded(device(), || {
        let index = Tensor::from_slice(&nearest, &[n])?.to_device(device())?;
        let put = |x| on_device(x, DType::F32, device());
        koleo_backward(&put(&dloss)?, &put(&x)?, &index, EPS)?.to_device(Device::Cpu)
    })
    .unwrap();
    let naive = reference::koleo_backward(&dloss.cast::<f32>(), &x.cast(), &of, EPS);
    let oracle = reference::koleo_backward(&dloss, &x, &of, f64::from(EPS));
    crate::compare::check("dx", &found, &naive, &oracle, 2.0).unwrap();
}

/// What the CPU refuses: on the device nothing leaves its memory, and what cannot be is NaN.
#[test]
fn wrong_numbers_are_no_addresses() {
    guarded(device(), || {
        let x = on_device(&Array::random(&[6, 8], 1, 0.2), DType::F32, device())?;
        for bad in [0.0, -1.0, f32::NAN] {
            let t = Tensor::scalar(bad)?.to_device(device())?;
            let (p, entropy) = teacher_softmax(&x, None, (&t).into())?;
            assert!(p.to_vec::<f32>()?.iter().chain(&entropy.to_vec::<f32>()?).all(|x| x.is_nan()), "{bad}");
            assert!(sinkhorn(&x, (&t).into(), 3, None)?.to_vec::<f32>()?.iter().all(|x| x.is_nan()), "{bad}");
        }
        let with = |valid: i32| {
            let valid = Tensor::from_slice(&[valid], &[1])?.to_device(device())?;
            sinkhorn(&x, 0.1.into(), 2, Some(&valid))?.to_vec::<f32>()
        };
        assert_eq!(with(-3)?, [0.0; 48]);
        assert_eq!(with(100)?, sinkhorn(&x, 0.1.into(), 2, None)?.to_vec::<f32>()?);
        let dloss = Tensor::full(&[6], 1.0, device())?;
        let nearest = Tensor::from_slice(&[1i32, 0, -1, 6, i32::MAX, 0], &[6])?.to_device(device())?;
        let dx = koleo_backward(&dloss, &x, &nearest, EPS)?.to_vec::<f32>()?;
        for (i, row) in dx.chunks(8).enumerate() {
            assert!(row.iter().all(|x| x.is_nan() == (2..5).contains(&i)), "row {i}");
        }
        Ok(())
    })
    .unwrap();
}

/// NaN and infinities of one row stay in it.
#[test]
fn nan_stays_in_its_row() {
    for dtype in FLOATS {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut x = Array::<f64>::random(&[5, 40], 1, 1.0);
            x.data[2 * 40 + 7] = bad;
            x.data[3 * 40..4 * 40].fill(f64::NEG_INFINITY);
            let x = on_device(&x, dtype, device()).unwrap();
            let (p, entropy) = teacher_softmax(&x, None, 0.1.into()).unwrap();
            let (p, entropy) = (p.to_vec::<f32>().unwrap(), entropy.to_vec::<f32>().unwrap());
            for (i, (row, entropy)) in p.chunks(40).zip(entropy).enumerate() {
                assert_eq!(entropy.is_nan(), i == 2, "{bad}, row {i}");
                assert_eq!(row.iter().any(|p| p.is_nan()), i == 2, "{bad}, row {i}");
            }
            assert_eq!(p[3 * 40..4 * 40], [0.0; 40]);
        }
    }
}

/// Scores that float32 has no exponentials for: as on the CPU.
#[test]
fn scores_far_apart_are_finite() {
    let mut x = Array::<f64>::random(&[24, 12], 3, 0.2);
    x.data[..12].iter_mut().for_each(|x| *x -= 20.0);
    x.data.iter_mut().skip(3).step_by(12).for_each(|x| *x -= 20.0);
    let x = x.rounded_to(DType::F32);
    let on = |device| sinkhorn(&on_device(&x, DType::F32, device)?, 0.05.into(), 3, None)?.to_vec::<f32>();
    let (found, right) = (on(device()).unwrap(), on(Device::Cpu).unwrap());
    assert!(found.iter().zip(&right).all(|(f, r)| (f - r).abs() < 1e-5), "{found:?}");
}
