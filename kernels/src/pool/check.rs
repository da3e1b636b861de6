//! The CUDA kernels against the references, in f32 and bf16, aligned and not.

use super::cases::{Case, cases};
use super::*;
use crate::array::{Array, Real};
use crate::check::{FLOATS, check_launcher, each, guarded, misaligned, on_device};

/// The cases of the CPU, and whole packs of bf16, a window that passes over rows, and two blocks of images.
fn device_cases() -> Vec<Case> {
    let further = [
        ([2, 9, 9, 24], 3, 2, 1),
        ([3, 5, 4, 8], 2, 1, 1),
        ([1, 8, 8, 32], 2, 3, 0),
        ([1, 6, 7, 4], 4, 2, 2),
        ([70, 3, 3, 8], 3, 3, 0),
    ];
    let further = further.map(|(input, kernel, stride, padding)| Case { input, kernel, stride, padding });
    cases().into_iter().chain(further).collect()
}

/// Small integers, so that ties abound and sums are exact.
fn check_max(device: Device, case: &Case) -> Result<()> {
    let (z, Case { kernel, stride, padding, .. }) = (case.sizes()?, *case);
    let x = Array::<f64>::integers(&case.input, 1, 4);
    let (expected, at) = reference::max_forward(&z, &x);
    let dy = Array::<f64>::integers(&expected.shape, 2, 4);
    let gradient = reference::max_backward(&dy, &at, &case.input);
    for dtype in FLOATS {
        for put in [on_device as fn(&_, _, _) -> _, misaligned] {
            let (y, index, dx) = guarded(device, || {
                let (y, index) = max_forward(&put(&x, dtype, device)?, kernel, stride, padding)?;
                let dx =
                    max_backward(&put(&dy, dtype, device)?, &index, &case.input, kernel, stride, padding)?;
                dx.require_dtype("max_pool_bwd", "dx", dtype)?;
                Ok((Array::<f64>::from_tensor(&y)?, index.to_vec::<i32>()?, Array::<f64>::from_tensor(&dx)?))
            })?;
            let wrong = |what| Err(Error::value("max_pool", what).with("dtype", dtype));
            if y != expected {
                return wrong("another maximum");
            } else if index != at {
                return wrong("another position");
            } else if dx != gradient {
                return wrong("another gradient");
            }
        }
    }
    Ok(())
}

fn average<T: Real>(x: &[Array<T>]) -> Vec<Array<T>> {
    vec![reference::global_average_forward(&x[0])]
}

fn check_average(device: Device, shape: [usize; 4]) -> Result<()> {
    let x = Array::<f64>::random(&shape, 1, 1.0).map(|v| f64::from((v + 10.0) as f32));
    check_launcher(
        device,
        "global_average_pool",
        &[&x],
        2.0,
        |x| Ok(vec![global_average_forward(&x[0])?]),
        average,
        average,
    )?;
    let dy = Array::<f64>::random(&[shape[0], shape[3]], 2, 1.0);
    check_launcher(
        device,
        "global_average_pool_bwd",
        &[&dy],
        2.0,
        |dy| Ok(vec![global_average_backward(&dy[0], &shape)?]),
        |dy| vec![reference::global_average_backward(&dy[0], &shape)],
        |dy| vec![reference::global_average_backward(&dy[0], &shape)],
    )
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let maxima = each(&device_cases(), |case| check_max(device, case))?;
    let shapes = [[3, 7, 7, 64], [2, 1, 1, 5], [1, 33, 35, 3], [20, 4, 4, 16], [1, 2, 3, 1], [2, 28, 28, 8]];
    Ok(maxima + each(&shapes, |shape| check_average(device, *shape))?)
}
