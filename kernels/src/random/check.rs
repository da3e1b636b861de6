//! The CUDA kernels against the CPU: words and uniforms bit for bit, the others within rounding.

use super::cases::{Case, PURPOSE, cases};
use super::*;
use crate::check::{each, guarded};

/// An error unless all elements are within four units in the last place of `largest`.
#[track_caller]
fn near(what: &str, found: &[f32], expected: &[f32], largest: f32) -> Result<()> {
    let allowed = 4.0 * f32::EPSILON * largest;
    let close = |i: &usize| (found[*i] - expected[*i]).abs() <= allowed;
    let wrong = (0..expected.len()).find(|i| !close(i));
    match wrong {
        None if found.len() == expected.len() => Ok(()),
        None => Err(Error::value(what, "another number of elements")),
        Some(i) => Err(Error::value(what, format!("element {i} is {}, expected {}", found[i], expected[i]))),
    }
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    let Case { shape, seed, index } = case;
    let (seed, index) = (*seed, *index);
    let both = |f: &dyn Fn(Device) -> Result<Tensor>| -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((guarded(device, || f(device)?.to_vec::<f32>())?, f(Device::Cpu)?.to_vec::<f32>()?))
    };
    let bits = guarded(device, || words(shape, seed, PURPOSE, index, device)?.to_vec::<i32>())?;
    if bits != words(shape, seed, PURPOSE, index, Device::Cpu)?.to_vec::<i32>()? {
        return Err(Error::value("words", "other words"));
    }
    let (found, expected) = both(&|on| uniform(shape, -2.1, 3.3, seed, PURPOSE, index, on))?;
    if found.iter().zip(&expected).any(|(a, b)| a.to_bits() != b.to_bits()) {
        return Err(Error::value("uniform", "other bits"));
    }
    // The largest value that 24 bits make is 5.8 standard deviations.
    let (found, expected) = both(&|on| normal(shape, 0.5, 2.0, seed, PURPOSE, index, on))?;
    near("normal", &found, &expected, 0.5 + 5.8 * 2.0)?;
    for bound in [0.3, 1.0, 2.0] {
        // No candidate of these streams is so near its bound that devices could disagree.
        let (found, expected) = both(&|on| truncated_normal(shape, 0.02, bound, seed, PURPOSE, index, on))?;
        near("truncated_normal", &found, &expected, 5.8 * 0.02).map_err(|e| e.with("bound", bound))?;
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    each(&cases(), |case| check_case(device, case))
}
