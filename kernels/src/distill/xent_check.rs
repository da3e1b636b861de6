//! The cross-entropy with a teacher against the references. On CUDA devices in f32 and bf16, aligned and not, temperatures by
//! value and from memory.

use super::xent_cases::{XentCase, xent_cases};
use super::*;
use crate::array::{Array, Real};
use crate::check::{FLOATS, each, guarded, misaligned, on_device};
use crate::compare;

/// What a case's results are called, in the order of [`run_xent`].
const NAMES: [&str; 6] = ["probabilities", "entropy", "mean", "usage", "loss", "dstudent"];

/// The tensors of a case.
pub(super) struct Inputs {
    pub student: Tensor,
    pub teacher: Tensor,
    pub center: Option<Tensor>,
    pub share: Option<Tensor>,
    pub dloss: Tensor,
}

impl Inputs {
    pub fn new(
        case: &XentCase,
        dtype: DType,
        put: impl Fn(&Array<f64>, DType) -> Result<Tensor>,
    ) -> Result<Inputs> {
        let f32 = |x: Option<Array<f64>>| x.map(|x| put(&x, DType::F32)).transpose();
        Ok(Inputs {
            student: put(&case.student(), dtype)?,
            teacher: put(&case.teacher(), dtype)?,
            center: f32(case.center_values())?,
            share: f32(case.share())?,
            dloss: put(&case.dloss(), DType::F32)?,
        })
    }

    /// The teacher, with the case's temperature by value.
    pub fn of(&self, case: &XentCase) -> Teacher<'_> {
        let temperature = case.temperatures[0].into();
        Teacher { logits: &self.teacher, center: self.center.as_ref(), temperature }
    }
}

/// The rows' numbers, entropies, means of logits and probabilities, losses and gradients on the inputs' device.
pub(super) fn run_xent(case: &XentCase, inputs: &Inputs, by_value: bool) -> Result<Vec<Tensor>> {
    let device = inputs.student.device();
    let [value, tau] = case.temperatures;
    let temperature = Tensor::scalar(value)?.to_device(device)?;
    let mut teacher = inputs.of(case);
    if !by_value {
        teacher.temperature = (&temperature).into();
    }
    let (known, entropy) = teacher_rows(&teacher)?;
    let (mean, usage) = teacher_means(&teacher, &known, inputs.share.as_ref())?;
    let (loss, rows) = teacher_xent_forward(&inputs.student, &teacher, &known, tau, case.matching)?;
    let dstudent =
        teacher_xent_backward(&inputs.dloss, &inputs.student, &teacher, &known, tau, case.matching, &rows)?;
    Ok(vec![known, entropy, mean, usage, loss, dstudent])
}

/// The same from the references, with probabilities in the place of rows' numbers.
fn expected<T: Real>(case: &XentCase, dtype: DType) -> Vec<Array<T>> {
    let (student, teacher) =
        (case.student().rounded_to(dtype).cast(), case.teacher().rounded_to(dtype).cast());
    let center = case.center_values().map(|c| c.cast());
    let [temperature, tau] = case.temperatures.map(|t| T::of(f64::from(t)));
    let [p, entropy] = reference::teacher_softmax(&teacher, center.as_ref(), temperature);
    let (n, k) = (case.n(), case.k);
    let share = |i: usize| match case.share() {
        None => T::of(1.0 / n as f64),
        Some(share) => T::of(share.data[i]),
    };
    let mean = |x: &Array<T>| {
        let mut out = Array::zeros(&[k]);
        for i in 0..n {
            (0..k).for_each(|j| out.data[j] += share(i) * x.data[i * k + j]);
        }
        out
    };
    let targets = reference::matched(&p, case.m(), case.matching);
    let loss = reference::teacher_xent(&student, tau, &targets);
    let dstudent = reference::teacher_xent_backward(&case.dloss().cast(), &student, tau, &targets);
    let (mean, usage) = (mean(&teacher), mean(&p));
    vec![p, entropy, mean, usage, loss, dstudent]
}

/// An error if results are further from the oracle than twice the naive ones. Temperatures divide what logits are rounded to, so
/// a few roundings of the largest quotient are allowed, and one of bf16 where the result is that.
pub(super) fn require_xent(case: &XentCase, dtype: DType, results: &[Tensor]) -> Result<()> {
    let (naive, oracle) = (expected::<f32>(case, dtype), expected::<f64>(case, dtype));
    let largest = |x: Array<f64>| x.data.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let center = case.center_values().map_or(0.0, largest);
    let [temperature, tau] = case.temperatures.map(f64::from);
    let spread = ((largest(case.teacher()) + center) / temperature).max(largest(case.student()) / tau);
    for (i, name) in NAMES.iter().enumerate() {
        let mut found = Array::<f64>::from_tensor(&results[i])?;
        if i == 0 {
            let (teacher, center) = (case.teacher().rounded_to(dtype), case.center_values());
            found = reference::teacher_probabilities(&teacher, center.as_ref(), temperature, &found);
        }
        let own = if i == 5 { dtype } else { DType::F32 };
        results[i].require_dtype(name, "result", own)?;
        if found.shape != oracle[i].shape {
            return Err(Error::shape(*name, format!("{:?} for {:?}", found.shape, oracle[i].shape)));
        }
        let error = compare::error(&found.data, &oracle[i].data).0;
        let naive = naive[i].cast::<f64>().rounded_to(own);
        let least = if own == DType::BF16 { f64::from(half::bf16::EPSILON) } else { 0.0 };
        let naive = compare::error(&naive.data, &oracle[i].data).0;
        let allowed = 2.0 * naive + (4.0 + spread) * f64::from(f32::EPSILON) + least;
        if error > allowed {
            let text = format!("is off by {error:.3e} of the largest, allowed {allowed:.3e}");
            return Err(Error::value(*name, text));
        }
    }
    Ok(())
}

fn check_case(device: Device, case: &XentCase) -> Result<()> {
    for dtype in FLOATS {
        for (place, put) in [("aligned", on_device as fn(&_, _, _) -> _), ("misaligned", misaligned)] {
            // Rows that are no whole packs go element by element wherever they lie.
            if place == "misaligned" && !case.k.is_multiple_of(16 / dtype.size()) {
                continue;
            }
            let results = guarded(device, || {
                let inputs = Inputs::new(case, dtype, |x, dtype| put(x, dtype, device))?;
                let results = run_xent(case, &inputs, place == "aligned")?;
                results.iter().map(|y| y.to_device(Device::Cpu)).collect::<Result<Vec<_>>>()
            })?;
            require_xent(case, dtype, &results).map_err(|e| e.with("place", place).with("dtype", dtype))?;
        }
    }
    Ok(())
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub(super) fn check_xent(device: Device) -> Result<usize> {
    each(&xent_cases(), |case| check_case(device, case))
}
