//! The CUDA kernels against the references: exactly on integers, within twice the naive error on random values.

use super::cases::{Case, cases};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, check_launcher, guarded, misaligned, on_device};
use crate::compare;

/// batch, m, n, k: tiles of 16 and 64 rows and their neighbours, packs of 4 and 8 elements, steps of a tile and their
/// neighbours, sums in parts with a ragged last one, many products.
const SIZES: &[[usize; 4]] = &[
    [2, 15, 17, 33],
    [1, 16, 16, 8],
    [1, 63, 65, 31],
    [1, 64, 64, 32],
    [1, 65, 63, 16],
    [1, 127, 20, 48],
    [1, 125, 61, 20],
    [1, 120, 124, 40],
    [1, 60, 60, 520],
    [1, 24, 129, 40],
    [5, 8, 8, 8],
    [1, 16, 24, 1000],
    [2, 17, 9, 777],
    [1, 2, 1, 2049],
    [70, 1, 2, 3],
];

/// Multiplications of the largest product that the emulated device is given: the checks are to take seconds there.
const MOST_EMULATED: usize = 2_000_000;

/// The cases of the CPU and those above, every combination of transposed sides.
fn device_cases() -> Vec<Case> {
    let most = if engine::cuda::extension::is_emulated() { MOST_EMULATED } else { usize::MAX };
    let all =
        SIZES.iter().flat_map(|&[batch, m, n, k]| {
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(transpose_a, transpose_b)| Case { batch, m, n, k, transpose_a, transpose_b })
        });
    cases().into_iter().chain(all).filter(|c| c.batch * c.m * c.n * c.k <= most).collect()
}

/// Integers whose sums are exact: every type gives the reference rounded once, bit for bit.
fn exact(
    device: Device,
    what: &str,
    inputs: &[&Array<f32>],
    expected: &Array<f32>,
    launcher: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    for dtype in FLOATS {
        for (place, put) in [("", on_device as fn(&_, _, _) -> _), ("misaligned ", misaligned)] {
            // One place a type is enough: random values go through both.
            if (dtype == DType::F32) == place.is_empty() {
                continue;
            }
            let found = guarded(device, || {
                let tensors =
                    inputs.iter().map(|x| put(&x.cast(), dtype, device)).collect::<Result<Vec<_>>>()?;
                Array::<f32>::from_tensor(&launcher(&tensors)?)
            })?;
            let expected = expected.rounded_to(dtype).to_tensor()?;
            compare::check_equal(&format!("{what}, {place}{dtype}"), &found.to_tensor()?, &expected)?;
        }
    }
    Ok(())
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    let (ta, tb) = (case.transpose_a, case.transpose_b);
    let a = Array::random(&case.a(), 1, 1.0).map(|v| if v > 2.0 { 40.0 * v } else { v });
    let b = Array::random(&case.b(), 2, 1.0);
    check_launcher(
        device,
        "matmul",
        &[&a, &b],
        2.0,
        |x| Ok(vec![matmul(&x[0], &x[1], ta, tb)?]),
        |x| vec![reference::matmul(&x[0], &x[1], ta, tb)],
        |x| vec![reference::matmul(&x[0], &x[1], ta, tb)],
    )?;
    let (a, b) = (Array::integers(&case.a(), 1, 3), Array::integers(&case.b(), 2, 3));
    let expected = reference::matmul(&a, &b, ta, tb);
    exact(device, "matmul", &[&a, &b], &expected, |x| matmul(&x[0], &x[1], ta, tb))
}

/// x `[.., K]`, N.
const LINEAR: &[(&[usize], usize)] =
    &[(&[2, 5, 37], 19), (&[3, 8], 1), (&[40, 64], 64), (&[7, 1032], 12), (&[1, 0], 5), (&[2, 3, 24], 70)];

fn check_linear(device: Device, shape: &[usize], n: usize) -> Result<()> {
    let k = shape[shape.len() - 1];
    let weight = [n, k];
    let (x, w, b) =
        (Array::random(shape, 1, 1.0), Array::random(&weight, 2, 0.3), Array::random(&[n], 3, 1.0));
    check_launcher(
        device,
        "linear",
        &[&x, &w, &b],
        2.0,
        |x| Ok(vec![linear(&x[0], &x[1], Some(&x[2]))?, linear(&x[0], &x[1], None)?]),
        |x| vec![reference::linear(&x[0], &x[1], Some(&x[2])), reference::linear(&x[0], &x[1], None)],
        |x| vec![reference::linear(&x[0], &x[1], Some(&x[2])), reference::linear(&x[0], &x[1], None)],
    )?;
    let (x, w, b) =
        (Array::integers(shape, 1, 3), Array::integers(&weight, 2, 3), Array::integers(&[n], 3, 9));
    let expected = reference::linear(&x, &w, Some(&b));
    exact(device, "linear", &[&x, &w, &b], &expected, |x| linear(&x[0], &x[1], Some(&x[2])))
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let cases = device_cases();
    for case in &cases {
        check_case(device, case).map_err(|e| e.with("case", case))?;
    }
    for (x, n) in LINEAR {
        check_linear(device, x, *n).map_err(|e| e.with("case", (x, n)))?;
    }
    Ok(cases.len() + LINEAR.len())
}
