//! Against streams drawn one number after another; moments; the same bits on any number of threads.

use super::cases::{Case, PURPOSE, cases, strategy};
use super::*;
use crate::elementwise::tests::same_on_any_number_of_threads;
use engine::Philox;
use proptest::prelude::*;

fn check_case(case: &Case) -> Result<()> {
    let Case { shape, seed, index } = case;
    let (seed, index) = (*seed, *index);
    let n: usize = shape.iter().product();
    let found = uniform(shape, -2.0, 3.0, seed, PURPOSE, index, Device::Cpu)?;
    assert_eq!(found.shape(), shape);
    assert_eq!(found.to_vec::<f32>()?, reference::uniform(n, -2.0, 3.0, seed, PURPOSE, index));
    let mut stream = Philox::new(seed, PURPOSE, index);
    let expected: Vec<i32> = (0..n).map(|_| stream.next_u32() as i32).collect();
    assert_eq!(words(shape, seed, PURPOSE, index, Device::Cpu)?.to_vec::<i32>()?, expected);
    let found = normal(shape, 0.5, 2.0, seed, PURPOSE, index, Device::Cpu)?.to_vec::<f32>()?;
    assert_eq!(found, reference::normal(n, 0.5, 2.0, seed, PURPOSE, index));
    let mut stream = Philox::new(seed, PURPOSE, index);
    for v in found.iter().step_by(2) {
        assert_eq!(*v, 0.5 + 2.0 * stream.normal());
    }
    let found = truncated_normal(shape, 0.02, 1.5, seed, PURPOSE, index, Device::Cpu)?.to_vec::<f32>()?;
    for (i, v) in found.iter().enumerate() {
        assert_eq!(*v, reference::truncated_normal(i as u32, 0.02, 1.5, seed, PURPOSE, index));
    }
    Ok(())
}

#[test]
fn all_cases_are_the_streams_numbers() {
    for case in cases() {
        let guard = memory::guard();
        check_case(&case).unwrap();
        guard.finish().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn random_cases_are_the_streams_numbers(case in strategy()) {
        check_case(&case).unwrap();
    }
}

/// Mean and variance in f64.
fn moments(x: &Tensor) -> (f64, f64) {
    let x = x.to_vec::<f32>().unwrap();
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (mean, x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
}

/// Variance of a normal value within +-b, by Simpson's rule.
fn truncated_variance(b: f64) -> f64 {
    let steps = 2000;
    let h = b / f64::from(steps);
    let (mut mass, mut second) = (0.0, 0.0);
    for i in 0..=steps {
        let z = h * f64::from(i);
        let weight = if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * f64::from(i % 2) };
        let density = weight * (-0.5 * z * z).exp();
        mass += density;
        second += density * z * z;
    }
    second / mass
}

#[test]
fn distributions_have_their_moments() {
    let n = 200_000usize;
    // Five standard errors; a value's fourth moment is at most three times its squared variance.
    let near = |x: &Tensor, mean: f64, variance: f64| {
        let (m, v) = moments(x);
        let n = n as f64;
        assert!((m - mean).abs() < 5.0 * (variance / n).sqrt(), "mean {m}, not {mean}");
        assert!((v / variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {v}, not {variance}");
    };
    near(&uniform(&[n], -1.0, 3.0, 1, PURPOSE, 0, Device::Cpu).unwrap(), 1.0, 16.0 / 12.0);
    near(&normal(&[n], 2.0, 0.5, 2, PURPOSE, 0, Device::Cpu).unwrap(), 2.0, 0.25);
    for bound in [0.01, 0.5, 0.99, 1.0, 2.0, 4.0] {
        let x = truncated_normal(&[n], 2.0, bound, 3, PURPOSE, 0, Device::Cpu).unwrap();
        assert!(x.to_vec::<f32>().unwrap().iter().all(|v| v.abs() <= 2.0 * bound));
        near(&x, 0.0, 4.0 * truncated_variance(f64::from(bound)));
    }
}

/// Neighbours in a Box-Muller pair share a radius: their correlation must still be 0.
#[test]
fn pairs_are_uncorrelated() {
    let x = normal(&[200_000], 0.0, 1.0, 9, PURPOSE, 0, Device::Cpu).unwrap().to_vec::<f32>().unwrap();
    let product: f64 = x.chunks(2).map(|p| f64::from(p[0] * p[1])).sum::<f64>() / 100_000.0;
    assert!(product.abs() < 5.0 / 100_000f64.sqrt(), "{product}");
}

#[test]
fn threads_do_not_matter() {
    same_on_any_number_of_threads("random", || {
        vec![
            uniform(&[50_001], 0.0, 1.0, 1, PURPOSE, 2, Device::Cpu).unwrap(),
            normal(&[50_001], 0.0, 1.0, 1, PURPOSE, 2, Device::Cpu).unwrap(),
            truncated_normal(&[50_001], 1.0, 2.0, 1, PURPOSE, 2, Device::Cpu).unwrap(),
        ]
    });
}

#[test]
fn wrong_arguments_are_errors() {
    let u = |shape: &[usize], low, high| uniform(shape, low, high, 0, PURPOSE, 0, Device::Cpu);
    assert!(u(&[2], f32::NAN, 1.0).is_err());
    assert!(u(&[2], f32::MIN, f32::MAX).is_err());
    assert!(u(&[1 << 34, 2], 0.0, 1.0).unwrap_err().message().contains("at most"));
    assert!(u(&[usize::MAX, usize::MAX, 3], 0.0, 1.0).is_err());
    assert!(normal(&[2], 0.0, f32::INFINITY, 0, PURPOSE, 0, Device::Cpu).is_err());
    assert!(truncated_normal(&[2], 1.0, 0.0, 0, PURPOSE, 0, Device::Cpu).is_err());
    assert!(truncated_normal(&[(1 << 32) + 1], 1.0, 2.0, 0, PURPOSE, 0, Device::Cpu).is_err());
}
