//! The CUDA kernels against the references, in f32 and bf16, aligned and not.

use super::cases::{Case, cases};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, each, guarded, misaligned, on_device};
use crate::compare;

/// Results to compare: out, lse, and the gradients of queries, keys and values.
const NAMES: [&str; 5] = ["out", "lse", "dquery", "dkey", "dvalue"];

/// Part 0, 1 or 2 of an array [B, T, 3, H, D].
pub(super) fn part<T: crate::array::Real>(x: &Array<T>, part: usize) -> Array<T> {
    let [b, t, h, d] = [x.shape[0], x.shape[1], x.shape[3], x.shape[4]];
    let rows = x.data.chunks((h * d).max(1)).skip(part).step_by(3);
    Array::new(&[b, t, 1, h, d], rows.flatten().copied().collect())
}

/// All results of the reference.
pub(super) fn expected<T: crate::array::Real>(
    case: &Case,
    qkv: &Array<f64>,
    dout: &Array<f64>,
) -> [Array<T>; 5] {
    let (qkv, dout, valid, mask) =
        (qkv.cast(), dout.cast(), case.valid(), case.mask().map(|mask| mask.cast()));
    let (valid, mask) = (valid.as_deref(), mask.as_ref());
    let problem = reference::Problem { qkv: &qkv, valid, mask, scale: case.scale() };
    let (out, lse) = reference::forward(problem);
    let dqkv = reference::backward(&dout, problem);
    [out, lse, part(&dqkv, 0), part(&dqkv, 1), part(&dqkv, 2)]
}

/// All results of the launchers.
pub(super) fn actual(qkv: &Tensor, dout: &Tensor, scores: Scores) -> Result<[Tensor; 5]> {
    let (out, lse) = forward(qkv, scores)?;
    let dqkv = backward(dout, Forward { qkv, scores, out: &out, lse: &lse })?;
    on_the_cpu(out, lse, dqkv)
}

/// Results on the CPU, the gradient in its three parts.
pub(super) fn on_the_cpu(out: Tensor, lse: Tensor, dqkv: Tensor) -> Result<[Tensor; 5]> {
    let dqkv = dqkv.to_device(Device::Cpu)?;
    let parts = [dqkv.narrow(2, 0, 1)?, dqkv.narrow(2, 1, 1)?, dqkv.narrow(2, 2, 1)?];
    let [dquery, dkey, dvalue] = parts;
    Ok([out.to_device(Device::Cpu)?, lse.to_device(Device::Cpu)?, dquery, dkey, dvalue])
}

/// Compares all results with the references: twice the naive error for each.
pub(super) fn compare_all(
    what: &str,
    dtype: DType,
    actual: &[Tensor; 5],
    naive: &[Array<f32>; 5],
    oracle: &[Array<f64>; 5],
) -> Result<()> {
    for (i, name) in NAMES.into_iter().enumerate() {
        let what = format!("{name}{what} {dtype}");
        actual[i].require_dtype(&what, name, if name == "lse" { DType::F32 } else { dtype })?;
        compare::check(&what, &actual[i], &naive[i], &oracle[i], 2.0)?;
    }
    Ok(())
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    for dtype in FLOATS {
        let (qkv, dout) = (case.qkv().rounded_to(dtype), case.dout().rounded_to(dtype));
        let (naive, oracle) = (expected(case, &qkv, &dout), expected(case, &qkv, &dout));
        for (place, put) in [("", on_device as fn(&_, _, _) -> _), (" misaligned", misaligned)] {
            let results = guarded(device, || {
                let scores = case.scores_on(device)?;
                actual(&put(&qkv, dtype, device)?, &put(&dout, dtype, device)?, scores.scores())
            })?;
            compare_all(place, dtype, &results, &naive, &oracle)?;
        }
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    each(&cases(), |case| check_case(device, case))
}
