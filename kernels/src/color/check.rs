//! The CUDA kernels against the references.

use super::cases::{Case, cases, colours};
use super::*;
use crate::array::Array;
use crate::check::{each, guarded, misaligned, on_device};
use crate::compare;

/// Where inputs lie: aligned to 16 bytes, or not.
type Put = fn(&Array<f64>, DType, Device) -> Result<Tensor>;
const PLACES: [Put; 2] = [on_device, misaligned];

pub(super) fn check_lab(device: Device, n: usize) -> Result<()> {
    let x = colours(n);
    for put in PLACES {
        let lab = guarded(device, || rgb_to_lab(&put(&x, DType::F32, device)?)?.to_device(Device::Cpu))?;
        let naive = reference::rgb_to_lab(&x.cast::<f32>());
        compare::check("lab", &lab, &naive, &reference::rgb_to_lab(&x), 2.0)?;
    }
    Ok(())
}

pub(super) fn check_case(device: Device, case: &Case) -> Result<()> {
    let (points, centres, spread) = (case.points(), case.centres(), case.spread());
    let (naive, _) = reference::soft_encode(
        &points.cast::<f32>(),
        &centres.cast(),
        case.neighbours,
        f64::from(spread.sigma),
    );
    let (oracle, bins) = reference::soft_encode(&points, &centres, case.neighbours, f64::from(spread.sigma));
    let weights = Array::<f64>::random(&[case.q], 7, 1.0);
    for put in PLACES {
        let put = |x: &Array<f64>| put(x, DType::F32, device);
        let (targets, nearest, weighted) = guarded(device, || {
            let points = put(&points)?;
            let (targets, nearest) = soft_encode(&points, &put(&centres)?, spread)?;
            let images = points.reshape(&[1, case.n, 2])?;
            let weighted = pixel_weights(&images, &nearest, &put(&weights)?, 0.0)?;
            Ok((targets.to_device(Device::Cpu)?, nearest.to_vec::<i32>()?, weighted.to_vec::<f32>()?))
        })?;
        compare::check("targets", &targets, &naive, &oracle, 2.0)?;
        if nearest != bins {
            return Err(Error::value("soft_encode", "another bin is the nearest"));
        }
        let expected: Vec<f32> = bins.iter().map(|&bin| weights.data[bin as usize] as f32).collect();
        // One point in the middle of the plane is an image without colour.
        if points.data.iter().any(|v| *v != 0.0) && weighted != expected {
            return Err(Error::value("pixel_weights", "another weight"));
        }
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    Ok(each(&[1, 10, 255, 300], |n| check_lab(device, *n))?
        + each(&cases(), |case| check_case(device, case))?)
}
