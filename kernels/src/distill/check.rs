//! Launchers against the references. On CUDA devices in f32 and bf16, aligned and not, temperatures by value and from
//! memory.

use super::cases::{Case, Rows, cases, rows};
use super::xent_check::check_xent;
use super::*;
use crate::array::{Array, Real};
use crate::check::{FLOATS, each, guarded, misaligned, on_device};
use crate::compare;

/// The results' names, in the order of [`run`].
const NAMES: [&str; 3] = ["p", "entropy", "sinkhorn"];

/// PyTorch's.
pub(super) const EPS: f32 = 1e-8;

/// Probabilities, entropies and Sinkhorn-Knopp's targets on the scores' device.
pub(super) fn run(
    case: &Case,
    scores: &Tensor,
    center: Option<&Tensor>,
    by_value: bool,
) -> Result<Vec<Tensor>> {
    let device = scores.device();
    let temperature = Tensor::scalar(case.temperature)?.to_device(device)?;
    let temperature: Scalar = if by_value { case.temperature.into() } else { (&temperature).into() };
    let valid =
        case.valid.map(|valid| Tensor::from_slice(&[valid as i32], &[1])?.to_device(device)).transpose()?;
    let (p, entropy) = teacher_softmax(scores, center, temperature)?;
    Ok(vec![p, entropy, sinkhorn(scores, temperature, case.iterations, valid.as_ref())?])
}

/// The same from the references.
pub(super) fn expected<T: Real>(
    case: &Case,
    scores: &Array<f64>,
    center: Option<&Array<f64>>,
) -> Vec<Array<T>> {
    let (scores, center) = (scores.cast::<T>(), center.map(Array::cast));
    let temperature = T::of(f64::from(case.temperature));
    let [p, entropy] = reference::teacher_softmax(&scores, center.as_ref(), temperature);
    let valid = case.valid.unwrap_or(case.n);
    vec![p, entropy, reference::sinkhorn(&scores, temperature, case.iterations, valid)]
}

/// An error if results are further from the oracle than twice the naive ones. The temperature divides what scores are
/// rounded to, so that is the least that is allowed: a few roundings of the largest quotient.
pub(super) fn require(
    case: &Case,
    results: &[Tensor],
    scores: &Array<f64>,
    center: Option<&Array<f64>>,
) -> Result<()> {
    let (naive, oracle) = (expected::<f32>(case, scores, center), expected::<f64>(case, scores, center));
    let spread = scores.data.iter().fold(0.0, |m: f64, x| m.max(x.abs())) / f64::from(case.temperature);
    for (i, name) in NAMES.iter().enumerate() {
        results[i].require_dtype(name, "result", DType::F32)?;
        results[i].require_shape(name, "result", &oracle[i].shape)?;
        let found = compare::error(&Array::<f64>::from_tensor(&results[i])?.data, &oracle[i].data).0;
        let naive = compare::error(&naive[i].cast::<f64>().data, &oracle[i].data).0;
        let allowed = 2.0 * naive + (4.0 + spread) * f64::from(f32::EPSILON);
        if found <= allowed {
            continue;
        }
        return Err(Error::value(
            *name,
            format!("is off by {found:.3e} of the largest, allowed {allowed:.3e}"),
        ));
    }
    Ok(())
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    for dtype in FLOATS {
        let (scores, center) = (case.scores().rounded_to(dtype), case.center());
        for (place, put) in [("aligned", on_device as fn(&_, _, _) -> _), ("misaligned", misaligned)] {
            // Rows that are not made of fours go element by element wherever they lie.
            if place == "misaligned" && !case.k.is_multiple_of(4) {
                continue;
            }
            let results = guarded(device, || {
                let x = put(&scores, dtype, device)?;
                let center = center.as_ref().map(|c| put(c, DType::F32, device)).transpose()?;
                let results = run(case, &x, center.as_ref(), place == "aligned")?;
                results.iter().map(|y| y.to_device(Device::Cpu)).collect::<Result<Vec<_>>>()
            })?;
            require(case, &results, &scores, center.as_ref())
                .map_err(|e| e.with("place", place).with("dtype", dtype))?;
        }
    }
    Ok(())
}

/// Loss, nearest and gradient.
pub(super) fn run_koleo(x: &Tensor, dloss: &Tensor) -> Result<[Tensor; 3]> {
    let (loss, nearest) = koleo_forward(x, EPS)?;
    let dx = koleo_backward(dloss, x, &nearest, EPS)?;
    Ok([loss, nearest, dx])
}

/// An error if loss or gradient are further off than twice the naive ones, for the neighbours that were found, or if these
/// are not the nearest up to rounding.
pub(super) fn require_koleo(case: &Rows, results: &[Tensor; 3], dloss: &Array<f64>) -> Result<()> {
    let x = case.x();
    let found: Vec<usize> = results[1].to_vec::<i32>()?.into_iter().map(|i| i as usize).collect();
    let dot = |i: usize, j: usize| {
        let row = |i: usize| &x.data[i * case.d..][..case.d];
        row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f64>()
    };
    for (i, (&found, best)) in found.iter().zip(reference::nearest(&x)).enumerate() {
        if found == i || found >= case.n || dot(i, found) < dot(i, best) - 1e-6 {
            let text = format!("the nearest of row {i} is {best}, not {found}");
            return Err(Error::value("koleo", text));
        }
    }
    let eps = f64::from(EPS);
    let (narrow, narrow_dloss) = (x.cast::<f32>(), dloss.cast::<f32>());
    let naive = reference::koleo(&narrow, &found, EPS);
    compare::check("loss", &results[0], &naive, &reference::koleo(&x, &found, eps), 2.0)?;
    let naive = reference::koleo_backward(&narrow_dloss, &narrow, &found, EPS);
    compare::check("dx", &results[2], &naive, &reference::koleo_backward(dloss, &x, &found, eps), 2.0)
}

fn check_koleo(device: Device, case: &Rows) -> Result<()> {
    let dloss = Array::<f64>::random(&[case.n], 14, 1.0);
    for put in [on_device as fn(&_, _, _) -> _, misaligned] {
        let results = guarded(device, || {
            let [loss, nearest, dx] =
                run_koleo(&put(&case.x(), DType::F32, device)?, &put(&dloss, DType::F32, device)?)?;
            Ok([loss.to_device(Device::Cpu)?, nearest.to_device(Device::Cpu)?, dx.to_device(Device::Cpu)?])
        })?;
        require_koleo(case, &results, &dloss)?;
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    Ok(each(&cases(), |case| check_case(device, case))?
        + each(&rows(), |case| check_koleo(device, case))?
        + check_xent(device)?)
}
