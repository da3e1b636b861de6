//! The CUDA kernels against the references, in f32 and bf16, aligned and not.

use super::cases::{Case, cases};
use super::*;
use crate::array::{Array, Real};
use crate::check::{FLOATS, check_launcher, each, guarded, misaligned, on_device};
use crate::compare;

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

fn tanh_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    reference::tanh(&x[0])
}
fn tanh_backward_reference<T: Real>(x: &[Array<T>]) -> Array<T> {
    reference::tanh_backward(&x[0], &x[1])
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
    check!("tanh", |x| tanh(&x[0]), tanh_reference),
    check!("tanh_backward", |x| tanh_backward(&x[0], &x[1]), tanh_backward_reference),
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
    // A logarithm wants numbers above 0.
    let positive = a.map(|v| v.abs() + 0.25);
    check_launcher(
        device,
        "ln",
        &[&positive],
        2.0,
        |x| Ok(vec![ln(&x[0])?]),
        |x| vec![reference::ln(&x[0])],
        |x| vec![reference::ln(&x[0])],
    )?;
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

/// Whole packs and their neighbours, rows of fours that are no packs of bf16, several blocks, several pieces of rows.
fn fused_shapes() -> Vec<Vec<usize>> {
    let shapes: [&[usize]; 11] = [
        &[1, 1],
        &[0, 3],
        &[2, 0],
        &[5, 7],
        &[3, 5, 8],
        &[2, 7, 12],
        &[2, 3, 64],
        &[2, 9, 264],
        &[31, 67],
        &[7, 50, 16],
        &[3, 5, 7, 33],
    ];
    shapes.iter().map(|s| s.to_vec()).collect()
}

fn check_bias(device: Device, case: &Case) -> Result<()> {
    let n = case.shape[case.shape.len() - 1];
    let (x, bias) = (case.operand(1), Array::random(&[n], case.seed, 1.0));
    fn gelus<T: Real>(x: &[Array<T>]) -> Vec<Array<T>> {
        let pre = reference::add_bias(&x[0], &x[1]);
        vec![reference::gelu(&pre), pre]
    }
    fn relus<T: Real>(x: &[Array<T>]) -> Vec<Array<T>> {
        vec![reference::relu(&reference::add_bias(&x[0], &x[1]))]
    }
    let gelu = |x: &[Tensor]| bias_gelu(&x[0], &x[1]).map(|(y, pre)| vec![y, pre]);
    check_launcher(device, "bias_gelu", &[&x, &bias], 2.0, gelu, gelus, gelus)?;
    let relu = |x: &[Tensor]| Ok(vec![bias_relu(&x[0], &x[1])?]);
    check_launcher(device, "bias_relu", &[&x, &bias], 2.0, relu, relus, relus)
}

/// Rows of both halves: twice the case's width.
fn check_gated(device: Device, case: &Case) -> Result<()> {
    let mut wide = case.clone();
    if let Some(n) = wide.shape.last_mut() {
        *n *= 2;
    }
    let (dy, x) = (case.operand(2), wide.operand(1));
    fn forward<T: Real>(x: &[Array<T>]) -> Vec<Array<T>> {
        vec![reference::swiglu(&x[0])]
    }
    fn backward<T: Real>(x: &[Array<T>]) -> Vec<Array<T>> {
        vec![reference::swiglu_backward(&x[0], &x[1])]
    }
    let launcher = |x: &[Tensor]| Ok(vec![swiglu(&x[0])?]);
    check_launcher(device, "swiglu", &[&x], 2.0, launcher, forward, forward)?;
    let launcher = |x: &[Tensor]| Ok(vec![swiglu_backward(&x[0], &x[1])?]);
    check_launcher(device, "swiglu_backward", &[&dy, &x], 2.0, launcher, backward, backward)
}

/// With and without scale and keep, which are f32 beside a branch of either type.
fn check_residual(device: Device, case: &Case) -> Result<()> {
    let (samples, n) = (case.shape[0], case.shape[case.shape.len() - 1]);
    let scale = Array::<f64>::random(&[n], case.seed + 1, 1.0);
    let keep = Array::<f64>::random(&[samples], case.seed + 2, 1.0).map(|v| if v < 0.0 { 0.0 } else { 1.25 });
    for (with_scale, with_keep) in [(false, false), (true, false), (false, true), (true, true)] {
        let (scale, keep) = (with_scale.then_some(&scale), with_keep.then_some(&keep));
        let single = [scale, keep].map(|f| f.map(Array::cast::<f32>));
        let [s32, k32] = [single[0].as_ref(), single[1].as_ref()];
        for dtype in FLOATS {
            let (x, branch) = (case.operand(1).rounded_to(dtype), case.operand(2).rounded_to(dtype));
            let (x32, branch32) = (x.cast(), branch.cast());
            let naive = reference::residual_scale(&x32, &branch32, s32, k32);
            let oracle = reference::residual_scale(&x, &branch, scale, keep);
            let naive_back = reference::residual_scale_backward(&x32, &branch32, s32, k32);
            let oracle_back = reference::residual_scale_backward(&x, &branch, scale, keep);
            for put in [on_device as fn(&_, _, _) -> _, misaligned] {
                let (y, dbranch, dscale) = guarded(device, || {
                    let (tx, tb) = (put(&x, dtype, device)?, put(&branch, dtype, device)?);
                    let factor = |f: Option<&Array<f64>>| f.map(|f| put(f, DType::F32, device)).transpose();
                    let (s, k) = (factor(scale)?, factor(keep)?);
                    let y = residual_scale(&tx, &tb, s.as_ref(), k.as_ref())?;
                    let (db, ds) = residual_scale_backward(&tx, &tb, s.as_ref(), k.as_ref())?;
                    let host = |t: Tensor| t.to_device(Device::Cpu);
                    Ok((host(y)?, host(db)?, ds.map(host).transpose()?))
                })?;
                y.require_dtype("residual_scale", "y", dtype)?;
                compare::check("residual_scale", &y, &naive, &oracle, 2.0)?;
                dbranch.require_dtype("residual_scale_backward", "dbranch", dtype)?;
                compare::check("dbranch", &dbranch, &naive_back.0, &oracle_back.0, 2.0)?;
                if let Some(dscale) = dscale {
                    dscale.require_dtype("residual_scale_backward", "dscale", DType::F32)?;
                    compare::check("dscale", &dscale, &naive_back.1, &oracle_back.1, 3.0)?;
                }
            }
        }
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let single = each(&cases(), |case| check_case(device, case))?;
    let fused: Vec<Case> = (0u64..).zip(fused_shapes()).map(|(seed, shape)| Case { shape, seed }).collect();
    let fused = each(&fused, |case| {
        check_bias(device, case)?;
        check_gated(device, case)?;
        check_residual(device, case)
    })?;
    Ok(single + fused)
}
