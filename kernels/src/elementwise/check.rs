//! The CUDA kernels against the references, in f32 and bf16, aligned and not.

use super::cases::{Case, cases};
use super::*;
use crate::array::{Array, Real};
use crate::check::check_launcher;

/// A launcher of one or two inputs by name, with its reference.
struct Check {
    name: &'static str,
    launcher: fn(&[Tensor]) -> Result<Tensor>,
    naive: fn(&[Array<f32>]) -> Array<f32>,
    oracle: fn(&[Array<f64>]) -> Array<f64>,
}

macro_rules! check {
    ($name:literal, $launcher:expr, $reference:ident) => {
        Check { name: $name, launcher: $launcher, naive: $reference::<f32>, oracle: $reference::<f64> }
    };
}

fn add_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    x[0].zip(&x[1], |a, b| a + b)
}
fn sub_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    x[0].zip(&x[1], |a, b| a - b)
}
fn mul_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    x[0].zip(&x[1], |a, b| a * b)
}
fn scale_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    x[0].map(|a| a * T::of(f64::from(0.3f32)))
}
fn add_scaled_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    x[0].zip(&x[1], |a, b| a + T::of(f64::from(-1.7f32)) * b)
}
fn blend_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    let number = |x: f32| T::of(f64::from(x));
    x[0].zip(&x[1], |a, b| number(0.9) * a + number(0.3) * b)
}
fn relu_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    reference::relu(&x[0])
}
fn relu_backward_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    reference::relu_backward(&x[0], &x[1])
}
fn gelu_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    reference::gelu(&x[0])
}
fn gelu_backward_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    reference::gelu_backward(&x[0], &x[1])
}

const CHECKS: &[Check] = &[
    check!("add", |x| add(&x[0], &x[1]), add_reference),
    check!("sub", |x| sub(&x[0], &x[1]), sub_reference),
    check!("mul", |x| mul(&x[0], &x[1]), mul_reference),
    check!("scale", |x| scale(&x[0], 0.3), scale_reference),
    check!("add_scaled", |x| add_scaled(&x[0], &x[1], -1.7), add_scaled_reference),
    check!("relu", |x| relu(&x[0]), relu_reference),
    check!("relu_backward", |x| relu_backward(&x[0], &x[1]), relu_backward_reference),
    check!("gelu", |x| gelu(&x[0]), gelu_reference),
    check!("gelu_backward", |x| gelu_backward(&x[0], &x[1]), gelu_backward_reference),
    check!(
        "add_assign",
        |x| {
            let mut sum = x[0].clone();
            add_assign(&mut sum, &x[1])?;
            Ok(sum)
        },
        add_reference
    ),
    check!(
        "blend_assign",
        |x| {
            let mut blend = x[0].clone();
            blend_assign(&mut blend, 0.9, &x[1], 0.3)?;
            Ok(blend)
        },
        blend_reference
    ),
];

fn check_case(device: Device, case: &Case) -> Result<()> {
    let (a, b) = (case.operand(1), case.operand(2));
    for check in CHECKS {
        check_launcher(
            device,
            check.name,
            &[&a, &b],
            2.0,
            |x| Ok(vec![(check.launcher)(x)?]),
            |x| vec![(check.naive)(x)],
            |x| vec![(check.oracle)(x)],
        )?;
    }
    if let Some(&n) = case.shape.last() {
        let bias = Array::random(&[n], case.seed, 1.0);
        check_launcher(
            device,
            "add_bias",
            &[&a, &bias],
            2.0,
            |x| Ok(vec![add_bias(&x[0], &x[1])?]),
            |x| vec![reference::add_bias(&x[0], &x[1])],
            |x| vec![reference::add_bias(&x[0], &x[1])],
        )?;
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let cases = cases();
    for case in &cases {
        check_case(device, case).map_err(|e| e.with("case", case))?;
    }
    Ok(cases.len())
}
