//! The CUDA kernels against the references, in f32 and bf16, aligned and not.

use super::cases::{Case, cases};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, check_launcher, each, guarded, misaligned, on_device};

/// The smaller cases of the CPU, and shapes around the sizes at which the kernels change their way: 8 (or 16) packs of
/// a row of lanes, 2,048 elements of a row, two pieces of a row or of a column.
fn device_cases() -> Vec<Case> {
    let further: [(&[usize], &[usize], f64); 14] = [
        (&[300, 129], &[0], 1e3),
        (&[140, 264], &[0], 0.0),
        (&[2, 197, 16], &[1], 0.0),
        (&[63, 31], &[0], 0.0),
        (&[64, 33], &[0], 0.0),
        (&[65, 7], &[0], 1.0),
        (&[257, 8], &[0], 1.0),
        (&[3, 2_047], &[1], 1e3),
        (&[3, 2_048], &[1], 0.0),
        (&[3, 2_049], &[1], 0.0),
        (&[1, 33_001], &[1], 1e3),
        (&[129, 16], &[1], 0.0),
        (&[33, 1], &[1], 0.0),
        (&[9_000, 1, 2], &[1], 0.0),
    ];
    let further = further.iter().map(|(shape, dims, mean)| Case {
        shape: shape.to_vec(),
        dims: dims.to_vec(),
        mean: *mean,
    });
    let small = |case: &Case| case.shape.iter().product::<usize>() <= 10_000;
    cases().into_iter().filter(small).chain(further).collect()
}

fn check_sum(device: Device, case: &Case) -> Result<()> {
    // Small integers: every order gives the same f32, and in bf16 it is rounded once.
    let whole = Array::<f64>::integers(&case.shape, 3, 9);
    let exact = reference::sum(&whole, &case.dims);
    for dtype in FLOATS {
        let found =
            guarded(device, || sum(&on_device(&whole, dtype, device)?, &case.dims)?.to_device(Device::Cpu))?;
        let found = Array::<f64>::from_tensor(&found)?;
        if found != exact.rounded_to(dtype) {
            return Err(Error::value("sum", "a sum of integers is not exact").with("dtype", dtype));
        }
    }
    check_launcher(
        device,
        "sum",
        &[&case.input()],
        2.0,
        |x| Ok(vec![sum(&x[0], &case.dims)?]),
        |x| vec![reference::sum(&x[0], &case.dims)],
        |x| vec![reference::sum(&x[0], &case.dims)],
    )
}

/// Few different integers, so that there are ties.
fn check_argmax(device: Device, shape: &[usize]) -> Result<()> {
    let x = Array::<f64>::integers(shape, 5, 9);
    let expected = reference::argmax_last(&x);
    for dtype in FLOATS {
        for put in [on_device as fn(&_, _, _) -> _, misaligned] {
            let found = guarded(device, || argmax_last(&put(&x, dtype, device)?)?.to_vec::<i32>())?;
            if found != expected {
                return Err(Error::value("argmax_last", "another position").with("dtype", dtype));
            }
        }
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    each(&device_cases(), |case| {
        check_sum(device, case)?;
        match case.shape.last() {
            Some(1..) => check_argmax(device, &case.shape),
            _ => Ok(()),
        }
    })
}
