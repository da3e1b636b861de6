//! Checking launchers on a CUDA device against their references, with fenced and poisoned memory: what a family's
//! `check.rs` is made of, for tests and for `pretext kernels check`.

use crate::array::Array;
use crate::compare;
use engine::cuda::memory as memory_of_devices;
use engine::{DType, Device, Result, Tensor, cuda, memory};
use std::fmt::Debug;

/// The element types that CUDA kernels compute in.
pub const FLOATS: [DType; 2] = [DType::F32, DType::BF16];

/// Runs `f` with every new block of memory, on host and device, fenced and filled with NaN, which the emulated device
/// takes for never written; waits for the device, and reports what was written outside.
#[track_caller]
pub fn guarded<T>(device: Device, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let scope = memory::guard();
    let result = f().and_then(|value| synchronize(device).map(|()| value));
    scope.finish()?;
    // The emulated device, where it runs a launch under all schedules, copies all memory, what is cached included.
    memory_of_devices::trim()?;
    result
}

/// Waits for the device; faults in kernels show here.
#[track_caller]
pub fn synchronize(device: Device) -> Result<()> {
    match device {
        Device::Cuda(ordinal) => cuda::context(ordinal)?.synchronize(),
        Device::Cpu => Ok(()),
    }
}

/// The values on the device in an element type.
#[track_caller]
pub fn on_device(x: &Array<f64>, dtype: DType, device: Device) -> Result<Tensor> {
    x.to_tensor_of(dtype)?.to_device(device)
}

/// The same values one element behind a multiple of 16 bytes, so that no 16-byte access is allowed.
#[track_caller]
pub fn misaligned(x: &Array<f64>, dtype: DType, device: Device) -> Result<Tensor> {
    let mut data = vec![f64::NAN];
    data.extend_from_slice(&x.data);
    let all = on_device(&Array::new(&[data.len()], data), dtype, device)?;
    all.narrow(0, 1, x.len())?.reshape(&x.shape)
}

/// Runs `check` for each case and gives their number. The error names the case.
#[track_caller]
pub fn each<T: Debug>(cases: &[T], check: impl Fn(&T) -> Result<()>) -> Result<usize> {
    for case in cases {
        check(case).map_err(|e| e.with("case", case))?;
    }
    Ok(cases.len())
}

/// Checks a launcher whose inputs are all of one float type, in f32 and bf16, aligned and not: every result is on the
/// device, has this type, and is within `factor` times the naive error (see [`compare::check`]) for the inputs as
/// rounded to the type.
///
/// Errors name the type and the result.
#[track_caller]
pub fn check_launcher(
    device: Device,
    what: &str,
    inputs: &[&Array<f64>],
    factor: f64,
    launcher: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    naive: impl Fn(&[Array<f32>]) -> Vec<Array<f32>>,
    oracle: impl Fn(&[Array<f64>]) -> Vec<Array<f64>>,
) -> Result<()> {
    for dtype in FLOATS {
        let rounded: Vec<Array<f64>> = inputs.iter().map(|x| x.rounded_to(dtype)).collect();
        let naive = naive(&rounded.iter().map(Array::cast).collect::<Vec<_>>());
        let oracle = oracle(&rounded);
        for (place, put) in [("", on_device as fn(&_, _, _) -> _), ("misaligned ", misaligned)] {
            let results = guarded(device, || {
                let tensors = rounded.iter().map(|x| put(x, dtype, device)).collect::<Result<Vec<_>>>()?;
                launcher(&tensors)?.iter().map(|y| y.to_device(Device::Cpu)).collect::<Result<Vec<_>>>()
            })?;
            for (i, result) in results.iter().enumerate() {
                let what = format!("{what}, result {i}, {place}{dtype}");
                result.require_dtype(&what, "result", dtype)?;
                compare::check(&what, result, &naive[i], &oracle[i], factor)?;
            }
        }
    }
    Ok(())
}
