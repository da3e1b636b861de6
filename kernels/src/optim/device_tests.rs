//! The CUDA kernels on the device that tests have.

use super::cases::Case;
use super::check::{self, Held, Place, Rule, rules, run, run_with, same};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;

#[test]
fn steps_agree_with_the_cpu_bit_for_bit() {
    check::check(device()).unwrap();
}

/// Zeros, huge, tiny and impossible gradients, at the first step and late.
#[test]
fn edge_values_agree_with_the_cpu() {
    const EDGES: [f64; 10] = [0.0, -0.0, 1e30, -1e30, 1e-30, 1e-40, f64::INFINITY, f64::NAN, 1.0, 3e38];
    const SIZES: [usize; 2] = [10, 9];
    let case = Case { sizes: SIZES.to_vec(), scale: 1.0, decay: 0.1, zeros: false, steps: 2, holds: false };
    let gradients = |only: fn(&f64) -> bool| {
        let kept: Vec<f64> = EDGES.into_iter().filter(only).collect();
        move |step: usize| -> Vec<Vec<f64>> {
            let edge = |i: usize| kept[(i + step) % kept.len()];
            SIZES.map(|n| (0..n).map(edge).collect()).to_vec()
        }
    };
    for rule in rules() {
        for before in [0, 999_999] {
            for only in [|_: &f64| true, |x: &f64| x.abs() <= 1e30, |x: &f64| *x == 0.0] {
                let all = |place| run_with(&case, rule, 1.0, place, gradients(only));
                let expected = all(Place { before, ..Place::cpu(DType::F32) }).unwrap();
                let place = Place { device: device(), before, ..Place::cpu(DType::F32) };
                let found = guarded(device(), || all(place)).unwrap();
                same(&format!("{rule:?} after {before}"), &found, &expected).unwrap();
            }
        }
    }
}

/// Where weights or gradients are zero, LARS's ratio is 1 and the step is finite.
#[test]
fn lars_moves_where_a_norm_is_zero() {
    for (zeros, scale) in [(true, 1.0), (false, 0.0), (true, 0.0)] {
        let case = Case { sizes: vec![33, 17], scale, decay: 0.05, zeros, steps: 2, holds: false };
        for variant in [LarsVariant::Simclr, LarsVariant::Byol, LarsVariant::Lightly] {
            check::check_steps(device(), &case, Rule::Lars(variant), 0, 0).unwrap();
            let place = Place { device: device(), ..Place::cpu(DType::F32) };
            let moved =
                run(&case, Rule::Lars(variant), 1.0, place).unwrap()[0].value.to_vec::<f32>().unwrap();
            assert!(moved.iter().all(|x| x.is_finite()));
            assert_eq!(moved.iter().all(|&x| x == 0.0), zeros && scale == 0.0);
        }
    }
}

/// A momentum buffer that was never written is not read at the first step.
#[test]
fn first_sgd_step_ignores_the_old_buffer() {
    guarded(device(), || {
        let x = |x: f64| on_device(&Array::new(&[5], vec![x; 5]), DType::F32, device());
        let (mut value, gradient) = (x(0.0)?, x(3.0)?);
        let mut first = Tensor::empty(&[5], DType::F32, device())?;
        let slot = Slot {
            value: &mut value,
            gradient: &gradient,
            first: &mut first,
            second: None,
            low: None,
            average: None,
            weight_decay: 0.0,
            rate_scale: 1.0,
            adapt: false,
            hold: Hold::None,
        };
        sgd(&mut [slot], &Step::at(1.0), 0.9, false, StepCount::Value(0))?;
        assert_eq!(value.to_vec::<f32>()?, [-3.0; 5]);
        assert_eq!(first.to_vec::<f32>()?, [3.0; 5]);
        Ok(())
    })
    .unwrap();
}

fn bits(all: &[Held]) -> Vec<u32> {
    let tensors = all.iter().flat_map(|h| [&h.value, &h.first, &h.second, &h.average]);
    tensors.flat_map(|t| t.to_vec::<f32>().unwrap()).map(f32::to_bits).collect()
}

/// Many small tensors and a large one: twenty runs give the same bits.
#[test]
fn runs_repeat_bit_for_bit() {
    let mut sizes: Vec<usize> = (0..100).map(|i| i % 7).collect();
    sizes.insert(50, 3 * table::CHUNK + 5);
    let case = Case { sizes, scale: 1.0, decay: 0.1, zeros: false, steps: 1, holds: false };
    let place = Place { device: device(), ..Place::cpu(DType::F32) };
    let gradients: Vec<Tensor> = case
        .gradients::<f64>(0)
        .iter()
        .map(|g| on_device(&Array::new(&[g.len()], g.clone()), DType::F32, device()).unwrap())
        .collect();
    let gradients: Vec<&Tensor> = gradients.iter().collect();
    for rule in [Rule::Lars(LarsVariant::Byol), Rule::AdamW { betas: (0.9, 0.999) }] {
        let expected = run(&case, rule, 1.0, Place::cpu(DType::F32)).unwrap();
        for _ in 0..20 {
            assert_eq!(bits(&run(&case, rule, 1.0, place).unwrap()), bits(&expected), "{rule:?}");
        }
    }
    let norm = || global_norm(&gradients).unwrap().item().unwrap().to_bits();
    let first = norm();
    assert!((0..20).all(|_| norm() == first));
}

/// Values of minus zero and impossible gradients: a slot that waits keeps every bit on the device too.
#[test]
fn slots_that_wait_keep_every_bit() {
    let x = |x: f32| Tensor::full(&[5], x, device()).unwrap();
    for hold in [Hold::Untouched(3), Hold::Still(3)] {
        for gradient in [-1.0, f32::NAN] {
            let (mut value, mut first, mut second) = (x(-0.0), x(0.0), x(0.0));
            let gradient = x(gradient);
            for before in 0..3 {
                let slot = Slot {
                    value: &mut value,
                    gradient: &gradient,
                    first: &mut first,
                    second: Some(&mut second),
                    low: None,
                    average: None,
                    weight_decay: 0.1,
                    rate_scale: 1.0,
                    adapt: true,
                    hold,
                };
                adamw(&mut [slot], &Step::at(0.5), (0.9, 0.999), 1e-8, StepCount::Value(before)).unwrap();
            }
            let bits: Vec<u32> = value.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
            assert_eq!(bits, [(-0.0f32).to_bits(); 5]);
            let moved = first.to_vec::<f32>().unwrap().iter().all(|&x| x != 0.0);
            assert_eq!(moved, hold == Hold::Still(3), "{hold:?}");
        }
    }
}

/// A parameter that shares its storage moves to a copy, and what shared it keeps the old values.
#[test]
fn a_step_leaves_other_tensors_alone() {
    let one = Tensor::full(&[4], 1.0, device()).unwrap();
    let (mut value, mut first) = (one.clone(), Tensor::zeros(&[4], DType::F32, device()).unwrap());
    let slot = Slot {
        value: &mut value,
        gradient: &one,
        first: &mut first,
        second: None,
        low: None,
        average: None,
        weight_decay: 0.0,
        rate_scale: 1.0,
        adapt: false,
        hold: Hold::None,
    };
    sgd(&mut [slot], &Step::at(0.5), 0.9, false, StepCount::Value(1)).unwrap();
    assert_eq!(value.to_vec::<f32>().unwrap(), [0.5; 4]);
    assert_eq!(one.to_vec::<f32>().unwrap(), [1.0; 4]);
}

#[test]
fn numbers_on_the_wrong_device_or_of_the_wrong_shape_are_refused() {
    let x = Tensor::full(&[2], 1.0, device()).unwrap();
    let on_cpu = Tensor::scalar(1.0).unwrap();
    let mut target = Tensor::zeros(&[2], DType::F32, device()).unwrap();
    let mut follow =
        |decay: Scalar| ema(&mut [Follower { target: &mut target, online: &x, low: None }], decay);
    assert!(follow(Scalar::Tensor(&on_cpu)).unwrap_err().message().contains("must lie on"));
    assert!(follow(Scalar::Tensor(&x)).unwrap_err().message().contains("one element"));
    follow(Scalar::Tensor(&on_cpu.to_device(device()).unwrap())).unwrap();
    let online = &on_cpu.reshape(&[1]).unwrap();
    assert!(ema(&mut [Follower { target: &mut target, online, low: None }], 0.5.into()).is_err());
}

/// Steps before the first: no number, and nothing written.
#[test]
fn negative_steps_stay_inside_memory() {
    guarded(device(), || {
        let step = Tensor::from_slice(&[-3i32], &[1])?.to_device(device())?;
        let values = Tensor::full(&[2], 1.0, device())?;
        assert!(schedule(&values, &step)?.item()?.is_nan());
        let mut history = Tensor::zeros(&[2, 1], DType::F32, device())?;
        record(&mut history, &step, &[&Tensor::full(&[1], 5.0, device())?])?;
        assert_eq!(history.to_vec::<f32>()?, [0.0; 2]);
        Ok(())
    })
    .unwrap();
}
