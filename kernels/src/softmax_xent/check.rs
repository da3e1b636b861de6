//! The CUDA kernels against the references, in f32 and bf16, aligned and not.

use super::cases::{Case, Values, cases};
use super::*;
use crate::array::{Array, Real};
use crate::check::{FLOATS, each, guarded, misaligned, on_device};
use crate::compare::check as near;

/// Where rows change from a warp to a block and to a larger one, and class counts that packs of 16 bytes just fit or not.
fn more_cases() -> Vec<Case> {
    let shapes =
        [(9, 192), (5, 668), (3, 1128), (3, 2047), (2, 2048), (2, 2049), (2, 4096), (1, 16_384), (1, 16_390)];
    let mut all = Vec::new();
    for (m, v) in shapes {
        for soft in [false, true] {
            all.push(Case { m, v, soft, smoothing: 0.1, values: Values::Normal(2.0) });
        }
    }
    for values in [Values::Dominant, Values::Masked, Values::Normal(1e4)] {
        all.push(Case { m: 2, v: 2056, soft: true, smoothing: 0.0, values });
    }
    all
}

/// A case's inputs, rounded to an element type.
pub(super) struct Inputs {
    x: Array<f64>,
    /// The target as weights.
    t: Array<f64>,
    dloss: Array<f64>,
}

impl Inputs {
    pub fn new(case: &Case, dtype: DType) -> Inputs {
        let t = match case.soft {
            true => case.probabilities().rounded_to(dtype),
            false => reference::one_hot(&case.labels(), case.v),
        };
        Inputs { x: case.logits().rounded_to(dtype), t, dloss: case.dloss() }
    }

    /// Loss, lse, dx, softmax.
    pub fn expected<T: Real>(&self, smoothing: f32) -> [Array<T>; 4] {
        let (x, t) = (self.x.cast::<T>(), self.t.cast());
        let (loss, lse) = reference::forward(&x, &t, smoothing);
        let dx = reference::backward(&self.dloss.cast(), &x, &t, smoothing);
        [loss, lse, dx, reference::softmax(&x)]
    }
}

/// What the launchers give, copied to the CPU, in the order of [`Inputs::expected`].
pub(super) fn run(
    case: &Case,
    inputs: &Inputs,
    device: Device,
    put: impl Fn(&Array<f64>) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    guarded(device, || {
        let x = put(&inputs.x)?;
        let t = match case.soft {
            true => put(&inputs.t)?,
            false => Tensor::from_slice(&case.labels(), &[case.m])?.to_device(device)?,
        };
        let (loss, lse) = forward(&x, case.target(&t), case.smoothing)?;
        let dloss = on_device(&inputs.dloss, DType::F32, device)?;
        let dx = backward(&dloss, &x, case.target(&t), case.smoothing, &lse)?;
        [loss, lse, dx, softmax(&x)?].iter().map(|y| y.to_device(Device::Cpu)).collect()
    })
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    for dtype in FLOATS {
        let inputs = Inputs::new(case, dtype);
        let naive = inputs.expected::<f32>(case.smoothing);
        let oracle = inputs.expected::<f64>(case.smoothing);
        for (place, put) in [("", on_device as fn(&_, _, _) -> _), ("misaligned ", misaligned)] {
            let results = run(case, &inputs, device, |x| put(x, dtype, device))?;
            for (i, result) in results.iter().enumerate() {
                let what = format!("{}, {place}{dtype}", ["loss", "lse", "dx", "softmax"][i]);
                result.require_dtype(&what, "result", if i < 2 { DType::F32 } else { dtype })?;
                near(&what, result, &naive[i], &oracle[i], 2.0)?;
            }
        }
    }
    Ok(())
}

/// Targets that add up to something other than one, as those of several crops together do, or to nothing, and one-hot
/// targets beside impossible classes; short and long rows.
pub(super) fn check_sums_of_targets(device: Device) -> Result<()> {
    let wrong = |text: String| Err(Error::value("softmax_xent", text));
    let is_near = |found: f64, right: f64, allowed: f64| (found - right).abs() <= allowed;
    for (v, dtype) in
        [(5, DType::F32), (24, DType::F32), (5000, DType::F32), (24, DType::BF16), (5000, DType::BF16)]
    {
        if device == Device::Cpu && dtype == DType::BF16 {
            continue;
        }
        // Row 0: targets of sum 2. Row 1: none. Row 2: one-hot, all but two classes impossible.
        let mut x = Array::<f64>::random(&[3, v], 6, 2.0);
        x.data[2 * v + 2..].fill(f64::NEG_INFINITY);
        x.data[2 * v..2 * v + 2].fill(0.0);
        let mut t = Array::<f64>::zeros(&[3, v]);
        (t.data[1], t.data[3]) = (1.5, 0.5);
        t.data[2 * v + 1] = 1.0;
        let x = x.rounded_to(dtype);
        let [loss, dx] = guarded(device, || {
            let (x, t) = (on_device(&x, dtype, device)?, on_device(&t, dtype, device)?);
            let (loss, lse) = forward(&x, Target::Probabilities(&t), 0.0)?;
            let dloss = Tensor::full(&[3], 1.0, device)?;
            let dx = backward(&dloss, &x, Target::Probabilities(&t), 0.0, &lse)?;
            Ok([Array::<f64>::from_tensor(&loss)?, Array::<f64>::from_tensor(&dx)?])
        })?;
        let lse = reference::log_sum_exp(&x.data[..v]);
        let right = [2.0 * lse - 1.5 * x.data[1] - 0.5 * x.data[3], 0.0, 2f64.ln()];
        for (row, (found, right)) in loss.data.iter().zip(right).enumerate() {
            if !is_near(*found, right, 1e-5 * lse.max(1.0)) || (row == 1 && *found != 0.0) {
                return wrong(format!("loss of row {row} of {v} is {found}, should be {right}"));
            }
        }
        let unit = 1e-6 + if dtype == DType::BF16 { 0.01 } else { 0.0 };
        for (i, found) in dx.data.iter().enumerate() {
            let (row, j) = (i / v, i % v);
            let right = match row {
                0 => 2.0 * (x.data[j] - lse).exp() - t.data[j],
                2 if j < 2 => [0.5, -0.5][j],
                _ => 0.0,
            };
            let allowed = if row == 0 || (row == 2 && j < 2) { unit } else { 0.0 };
            if !is_near(*found, right, allowed) {
                return wrong(format!("gradient of row {row} of {v} at {j} is {found}, should be {right}"));
            }
        }
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let mut all = [cases(), more_cases()].concat();
    all.sort_by_key(|case| case.m * case.v);
    check_sums_of_targets(device)?;
    each(&all, |case| {
        check_case(device, case)?;
        // The emulated device copies all memory for every schedule: no case should carry the others' along.
        engine::cuda::memory::trim()
    })
}
