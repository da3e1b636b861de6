//! Every pass against the reference: exactly on integers, within twice the naive error on random values.

use super::cases::{Case, cases, strategy};
use super::*;
use crate::array::Array;
use crate::compare::{check, check_equal};
use crate::simd::{Level, level};
use engine::memory::guard;
use engine::{Error, Result};
use proptest::prelude::*;

/// Forward, input gradient and weight gradient of one level.
fn all_at(level: Level, z: &Sizes, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<[Tensor; 3]> {
    let empty = |shape: [usize; 4]| Tensor::empty(&shape, DType::F32, Device::Cpu);
    let (mut y, mut dx, mut dw) = (empty(z.output())?, empty(z.input())?, empty(z.weight())?);
    let (x, w, dy) = (x.as_slice()?, w.as_slice()?, dy.as_slice()?);
    cpu::forward_at(level, z, x, w, y.as_mut_slice()?)?;
    cpu::input_gradient_at(level, z, dy, w, dx.as_mut_slice()?)?;
    cpu::weight_gradient_at(level, z, x, dy, dw.as_mut_slice()?)?;
    Ok([y, dx, dw])
}

fn levels() -> impl Iterator<Item = Level> {
    [Level::Baseline, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level())
}

fn dot(a: &Array<f64>, b: &Array<f64>) -> f64 {
    a.data.iter().zip(&b.data).map(|(x, y)| x * y).sum()
}

/// Integer inputs: every level gives the reference's bits, and the three passes are adjoint.
fn exact(case: &Case) -> Result<()> {
    let z = case.sizes()?;
    let x = Array::<f32>::integers(&z.input(), 1, 3);
    let w = Array::<f32>::integers(&z.weight(), 2, 3);
    let dy = Array::<f32>::integers(&z.output(), 3, 3);
    let expected = [
        reference::forward(&z, &x, &w),
        reference::input_gradient(&z, &dy, &w),
        reference::weight_gradient(&z, &x, &dy),
    ];
    for level in levels() {
        let found = all_at(level, &z, &x.to_tensor()?, &w.to_tensor()?, &dy.to_tensor()?)?;
        for ((what, found), expected) in ["forward", "dgrad", "wgrad"].iter().zip(&found).zip(&expected) {
            check_equal(&format!("{what} {level:?} {case:?}"), found, &expected.to_tensor()?)?;
        }
        let [y, dx, dw] = found.each_ref().map(Array::<f64>::from_tensor);
        let products = [dot(&y?, &dy.cast()), dot(&x.cast(), &dx?), dot(&w.cast(), &dw?)];
        assert_eq!(products[0], products[1], "{case:?}");
        assert_eq!(products[0], products[2], "{case:?}");
    }
    Ok(())
}

#[test]
fn integers_are_exact_at_every_level() {
    for case in cases() {
        exact(&case).unwrap();
    }
}

#[test]
fn errors_are_at_most_twice_the_naive_ones() {
    for case in cases() {
        let z = case.sizes().unwrap();
        let x = Array::<f32>::random(&z.input(), 1, 1.0).map(|v| if v > 2.0 { 40.0 * v } else { v });
        let w = Array::<f32>::random(&z.weight(), 2, 0.3);
        let dy = Array::<f32>::random(&z.output(), 3, 1.0);
        let (x64, w64, dy64) = (x.cast::<f64>(), w.cast::<f64>(), dy.cast::<f64>());
        let g = case.g;
        let (xt, wt, dyt) = (x.to_tensor().unwrap(), w.to_tensor().unwrap(), dy.to_tensor().unwrap());
        let y = forward(&xt, &wt, g).unwrap();
        check("forward", &y, &reference::forward(&z, &x, &w), &reference::forward(&z, &x64, &w64), 2.0)
            .unwrap();
        let dx = input_gradient(&dyt, &wt, xt.shape(), g).unwrap();
        let (naive, oracle) =
            (reference::input_gradient(&z, &dy, &w), reference::input_gradient(&z, &dy64, &w64));
        check("dgrad", &dx, &naive, &oracle, 2.0).unwrap();
        let dw = weight_gradient(&xt, &dyt, wt.shape(), g).unwrap();
        let (naive, oracle) =
            (reference::weight_gradient(&z, &x, &dy), reference::weight_gradient(&z, &x64, &dy64));
        check("wgrad", &dw, &naive, &oracle, 3.0).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn any_geometry_is_exact(case in strategy()) {
        exact(&case).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in cases() {
        let z = case.sizes().unwrap();
        let [x, w, dy] = [z.input(), z.weight(), z.output()]
            .map(|shape| Array::<f32>::random(&shape, 7, 1.0).to_tensor().unwrap());
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all_at(level(), &z, &x, &w, &dy)).unwrap()
        };
        let one = run(1);
        for threads in [2, 3] {
            for (a, b) in run(threads).iter().zip(&one) {
                check_equal(&format!("{threads} threads {case:?}"), a, b).unwrap();
            }
        }
    }
}

#[test]
fn nothing_is_written_outside_and_nothing_left_out() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for case in cases() {
            let scope = guard();
            exact(&case).unwrap();
            scope.finish().unwrap();
        }
    });
}

#[test]
fn empty_sizes() {
    let g = Geometry::new(1, 1);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    // No image, no input channel, no output channel.
    for (n, c, o) in [(0, 3, 4), (2, 0, 4), (2, 3, 0)] {
        let (x, w, dy) = (zeros(&[n, 4, 5, c]), zeros(&[o, 3, 3, c]), zeros(&[n, 4, 5, o]));
        for result in [
            forward(&x, &w, g).unwrap(),
            input_gradient(&dy, &w, x.shape(), g).unwrap(),
            weight_gradient(&x, &dy, w.shape(), g).unwrap(),
        ] {
            assert!(result.as_slice::<f32>().unwrap().iter().all(|&v| v == 0.0));
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    let g = Geometry::new(1, 0);
    let (x, w) = (zeros(&[1, 4, 4, 2]), zeros(&[3, 3, 3, 2]));
    let message = |e: Error| format!("{e}");
    let channels = message(forward(&x, &zeros(&[3, 3, 3, 4]), g).unwrap_err());
    assert!(channels.contains("input channels"), "{channels}");
    let large = message(forward(&x, &zeros(&[3, 5, 5, 2]), g).unwrap_err());
    assert!(large.contains("fit into the padded image"), "{large}");
    let stride = message(forward(&x, &w, Geometry::new(0, 0)).unwrap_err());
    assert!(stride.contains("stride"), "{stride}");
    let groups = message(forward(&x, &w, g.in_groups(2)).unwrap_err());
    assert!(groups.contains("divide both input and output channels"), "{groups}");
    assert!(message(forward(&x, &w, g.in_groups(0)).unwrap_err()).contains("groups must be at least 1"));
    let inner = message(forward(&x, &zeros(&[4, 3, 3, 2]), g.in_groups(2)).unwrap_err());
    assert!(inner.contains("as many input channels as a group"), "{inner}");
    let dy = message(input_gradient(&zeros(&[1, 3, 2, 3]), &w, x.shape(), g).unwrap_err());
    assert!(dy.contains("dy must have shape [1, 2, 2, 3]"), "{dy}");
    let strided = x.permute(&[0, 2, 1, 3]).unwrap();
    assert!(message(forward(&strided, &w, g).unwrap_err()).contains("contiguous"));
    assert_eq!(output_shape(&[2, 9, 8, 3], &[5, 3, 3, 3], Geometry::new(2, 1)).unwrap(), [2, 5, 4, 5]);
}
