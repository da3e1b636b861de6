//! Running a case, and running a check over many.

use crate::setting::{put, setting, unit};
use autograd::case::{Case, Input};
use autograd::op::apply_shared;
use autograd::{Spec, Var};
use engine::{DType, Tensor};
use half::bf16;
use kernels::array::Array;
use kernels::compare;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a check says of a case: passed, not applicable for a reason, or wrong.
pub type Verdict = Result<Outcome, String>;

/// See [`Verdict`].
pub enum Outcome {
    Passed,
    Skipped(&'static str),
}

/// A check of one case.
pub type Check = fn(&Case) -> Verdict;

/// All failures of a check on an operation's cases. A check that applied to no case is a failure too, unless
/// it is about graphs and this is the CPU.
pub fn failures(operation: &str, cases: &[Case], name: &str, check: Check) -> Vec<String> {
    let mut found = Vec::new();
    let mut applied = false;
    let mut reason = "there is no case";
    for case in cases {
        let verdict = catch_unwind(AssertUnwindSafe(|| check(case)));
        // Launches under all schedules copy all memory of the device, what is cached included.
        let trimmed = engine::cuda::memory::trim().map_err(text);
        let verdict = verdict.map(|verdict| trimmed.and(verdict));
        match verdict {
            Ok(Ok(Outcome::Passed)) => applied = true,
            Ok(Ok(Outcome::Skipped(why))) => reason = why,
            Ok(Err(text)) => {
                applied = true;
                found.push(format!("{operation} [{}] {name}: {text}", case.label));
            }
            Err(_) => {
                applied = true;
                found.push(format!("{operation} [{}] {name}: panicked", case.label));
            }
        }
    }
    match (applied, reason) {
        (true, _) => {}
        (false, crate::checks::NO_GRAPHS) => {}
        (false, _) => found.push(format!("{operation} {name}: applied to no case: {reason}")),
    }
    found
}

/// The message of an engine error.
pub fn text(error: engine::Error) -> String {
    format!("{error:?}")
}

/// The case's inputs as tensors of the setting.
pub fn tensors(case: &Case) -> Result<Vec<Tensor>, String> {
    let setting = setting();
    let tensor =
        |i: &Input| i.tensor_in(setting.float).and_then(|x| x.to_device(setting.device)).map_err(text);
    case.inputs.iter().map(tensor).collect()
}

/// The values of the case's inputs, as the tensors hold them.
pub fn values(case: &Case) -> Vec<Array<f64>> {
    case.inputs.iter().map(|i| i.values_in(setting().float)).collect()
}

/// Outputs of a forward pass and gradients of a backward pass.
pub struct Step {
    pub outputs: Vec<Tensor>,
    /// One an input; `None` where none was asked for.
    pub gradients: Vec<Option<Tensor>>,
}

/// Forward, then backward with the gradient `cotangent` of the differentiable output; gradients of the inputs
/// in `which`.
pub fn step(case: &Case, inputs: &[Tensor], cotangent: &Tensor, which: &[bool]) -> Result<Step, String> {
    let vars = leaves(inputs, which);
    let outputs = apply_shared(case.op.clone(), &vars.iter().collect::<Vec<_>>()).map_err(text)?;
    outputs[differentiable_output(case, outputs.len())?].backward_from(cotangent.clone()).map_err(text)?;
    let mut gradients = Vec::new();
    for (i, var) in vars.iter().enumerate() {
        let gradient = var.gradient();
        if which[i] && gradient.is_none() {
            return Err(format!("input {i} got no gradient"));
        }
        gradients.push(gradient);
    }
    Ok(Step { outputs: outputs.into_iter().map(Var::into_value).collect(), gradients })
}

/// Leaves for the inputs in `which`, constants for the others.
pub fn leaves(inputs: &[Tensor], which: &[bool]) -> Vec<Var> {
    let var =
        |(x, &leaf): (&Tensor, &bool)| if leaf { Var::leaf(x.clone()) } else { Var::constant(x.clone()) };
    inputs.iter().zip(which).map(var).collect()
}

/// Which inputs are differentiable.
pub fn differentiable(case: &Case) -> Vec<bool> {
    case.inputs.iter().map(|i| i.differentiable).collect()
}

/// The position of the output that gradients flow into. These checks know operations with exactly one.
pub fn differentiable_output(case: &Case, outputs: usize) -> Result<usize, String> {
    let mut all = (0..outputs).filter(|&i| case.op.is_differentiable(i));
    match (all.next(), all.next()) {
        (Some(i), None) => Ok(i),
        _ => Err("exactly one output must be differentiable".into()),
    }
}

/// The oracle's outputs at these inputs.
pub fn oracle(case: &Case) -> Vec<Array<f64>> {
    (case.oracle)(&values(case))
}

/// The element type of the differentiable output.
pub fn output_dtype(case: &Case) -> Result<DType, String> {
    let dtype = |i: &Input| i.dtype_in(setting().float);
    let specs: Vec<Spec> =
        case.inputs.iter().map(|i| Spec { shape: i.values.shape.clone(), dtype: dtype(i) }).collect();
    let outputs = case.op.infer(&specs).map_err(text)?;
    Ok(outputs[differentiable_output(case, outputs.len())?].dtype)
}

/// A random gradient of the differentiable output, as a tensor of its type holds it.
pub fn cotangent_values(case: &Case, seed: u64) -> Result<Array<f64>, String> {
    let outputs = oracle(case);
    let shape = &outputs[differentiable_output(case, outputs.len())?].shape;
    Ok(Array::random(shape, seed, 1.0).rounded_to(output_dtype(case)?))
}

/// As [`cotangent_values`], as a tensor.
pub fn cotangent(case: &Case, seed: u64) -> Result<Tensor, String> {
    put(&cotangent_values(case, seed)?, output_dtype(case)?)
}

/// A tensor of the same values in memory of its own.
pub fn fresh(x: &Tensor) -> Result<Tensor, String> {
    put(&Array::from_tensor(x).map_err(text)?, x.dtype())?.reshape(x.shape()).map_err(text)
}

/// An error unless `actual` is within `factor` times the naive error. In bf16 each rounding of a value between the
/// operation's steps may do what the last one does, to results in f32 too.
pub fn near_reference(
    case: &Case,
    what: &str,
    actual: &Tensor,
    naive: &Array<f32>,
    oracle: &Array<f64>,
    factor: f64,
) -> Result<(), String> {
    if case.roundings == 0 || setting().float != DType::BF16 {
        return compare::check(what, actual, naive, oracle, factor).map_err(text);
    }
    let found = Array::<f64>::from_tensor(actual).map_err(text)?;
    let (error, at) = compare::error(&found.data, &oracle.data);
    let allowed = (1 + case.roundings) as f64 * unit();
    match found.shape == oracle.shape && error <= allowed {
        true => Ok(()),
        false => {
            Err(format!("{what}: error {error:e} of the largest element, allowed {allowed:e}; element {at}"))
        }
    }
}

/// The bits of a tensor's elements, in row-major order.
pub fn bits(x: &Tensor) -> Result<Vec<u32>, String> {
    match x.dtype() {
        DType::F32 => Ok(x.to_vec::<f32>().map_err(text)?.into_iter().map(f32::to_bits).collect()),
        DType::BF16 => {
            Ok(x.to_vec::<bf16>().map_err(text)?.into_iter().map(|v| u32::from(v.to_bits())).collect())
        }
        DType::I32 => Ok(x.to_vec::<i32>().map_err(text)?.into_iter().map(|v| v as u32).collect()),
        DType::U8 => Ok(x.to_vec::<u8>().map_err(text)?.into_iter().map(u32::from).collect()),
    }
}

/// An error unless both steps gave the same bits.
pub fn same_bits(what: &str, a: &Step, b: &Step) -> Result<(), String> {
    let named = |s: &Step| -> Vec<(String, Option<Tensor>)> {
        let outputs = s.outputs.iter().enumerate().map(|(i, t)| (format!("output {i}"), Some(t.clone())));
        let gradients = s.gradients.iter().enumerate().map(|(i, t)| (format!("gradient {i}"), t.clone()));
        outputs.chain(gradients).collect()
    };
    for ((name, x), (_, y)) in named(a).into_iter().zip(named(b)) {
        match (x, y) {
            (Some(x), Some(y)) => equal_bits(&format!("{what}: {name}"), &x, &y)?,
            (None, None) => {}
            _ => return Err(format!("{what}: {name} is there only once")),
        }
    }
    Ok(())
}

/// An error unless both tensors have the same shape and bits.
pub fn equal_bits(what: &str, x: &Tensor, y: &Tensor) -> Result<(), String> {
    if x.shape() != y.shape() {
        return Err(format!("{what} has shape {:?} and {:?}", x.shape(), y.shape()));
    }
    match bits(x)?.iter().zip(&bits(y)?).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(i) => {
            let value = |t: &Tensor| Array::<f64>::from_tensor(t).map_or(f64::NAN, |v| v.data[i]);
            Err(format!("{what} differs at element {i}: {:e} and {:e}", value(x), value(y)))
        }
    }
}
