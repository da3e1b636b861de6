//! The checks of values, layouts, sharing, memory and repetition.

use crate::harness::{
    Outcome, Verdict, bits, cotangent, differentiable, differentiable_output, equal_bits, fresh, leaves,
    near_reference, oracle, same_bits, step, tensors, text, values,
};
use crate::setting::setting;
use autograd::case::Case;
use autograd::op::{Saver, apply_shared};
use autograd::{Spec, Var, ops};
use engine::cuda::graph::Graph;
use engine::{DType, Device, Error, Tensor, memory};
use kernels::array::Array;
use kernels::copy;
use std::sync::OnceLock;

/// Why [`graph_replay_equals_eager`] is skipped.
pub const NO_GRAPHS: &str = "only CUDA devices have graphs";

/// Check 1: What was inferred is what comes out; wrong types and counts are errors.
pub fn inferred_equals_actual(case: &Case) -> Verdict {
    let inputs = tensors(case)?;
    let specs: Vec<Spec> = inputs.iter().map(Spec::of).collect();
    let inferred = case.op.infer(&specs).map_err(text)?;
    let outputs = case.op.forward(&inputs.iter().collect::<Vec<_>>(), &mut Saver::default()).map_err(text)?;
    let actual: Vec<Spec> = outputs.iter().map(Spec::of).collect();
    if inferred != actual {
        return Err(format!("inferred {inferred:?}, got {actual:?}"));
    }
    if case.op.infer(&[]).is_ok() {
        return Err("no input at all is not an error".into());
    }
    for i in 0..specs.len() {
        let mut wrong = specs.clone();
        wrong[i].dtype = DType::U8;
        if case.op.infer(&wrong).is_ok() {
            return Err(format!("a u8 input {i} is not an error"));
        }
        if case.op.has_gradient(i) != case.inputs[i].differentiable {
            return Err(format!("the case and the operation disagree whether input {i} has a gradient"));
        }
    }
    Ok(Outcome::Passed)
}

/// Check 2: Error at most twice the naive f32 reference's, against the f64 reference.
pub fn values_equal_the_reference(case: &Case) -> Verdict {
    let inputs = tensors(case)?;
    let outputs = case.op.forward(&inputs.iter().collect::<Vec<_>>(), &mut Saver::default()).map_err(text)?;
    let naive = (case.naive)(&values(case).iter().map(Array::cast).collect::<Vec<_>>());
    let oracle = oracle(case);
    if outputs.len() != oracle.len() {
        return Err(format!("{} outputs, the reference has {}", outputs.len(), oracle.len()));
    }
    for (i, actual) in outputs.iter().enumerate() {
        let what = format!("output {i}");
        near_reference(case, &what, actual, &naive[i], &oracle[i], 2.0)?;
    }
    Ok(Outcome::Passed)
}

/// A tensor of the same values in other memory.
type Relayout = fn(&Tensor) -> engine::Result<Tensor>;

/// Dimensions laid out in reverse order.
fn permuted(x: &Tensor) -> engine::Result<Tensor> {
    let reverse: Vec<usize> = (0..x.rank()).rev().collect();
    copy::contiguous(&x.permute(&reverse)?)?.permute(&reverse)
}

/// Every second element of a larger tensor, from the second on.
fn interleaved(x: &Tensor) -> engine::Result<Tensor> {
    if x.is_empty() {
        return Ok(x.clone());
    }
    let mut wide = x.shape().to_vec();
    wide.push(1);
    let between = filler(&wide, x.dtype())?;
    let column = copy::contiguous(&x.reshape(&wide)?)?;
    let pairs = copy::cat(&[&between, &column], x.rank())?;
    pairs.narrow(x.rank(), 1, 1)?.reshape(x.shape())
}

/// A range of the first dimension of a larger tensor.
fn offset(x: &Tensor) -> engine::Result<Tensor> {
    if x.rank() == 0 {
        return interleaved(x);
    }
    let mut slice = x.shape().to_vec();
    slice[0] = 2;
    let around = filler(&slice, x.dtype())?;
    copy::cat(&[&around, &copy::contiguous(x)?, &around], 0)?.narrow(0, 2, x.shape()[0])
}

/// What must never be read: NaN, or an index that is out of range.
fn filler(shape: &[usize], dtype: DType) -> engine::Result<Tensor> {
    let on_cpu = match dtype {
        DType::I32 => Tensor::from_slice(&vec![i32::MIN; shape.iter().product()], shape)?,
        _ => Array::<f64>::zeros(shape).map(|_| f64::NAN).to_tensor_of(dtype)?,
    };
    on_cpu.to_device(setting().device)
}

/// The first slice of the first dimension, repeated without copying. Other values than `x`.
fn repeated(x: &Tensor) -> engine::Result<Tensor> {
    match x.shape().first() {
        None | Some(0) => Ok(x.clone()),
        _ => x.narrow(0, 0, 1)?.expand(x.shape()),
    }
}

/// Check 5: Values and gradients have the same bits whatever the strides and offsets of inputs and of the incoming
/// gradient.
pub fn strided_and_offset_inputs(case: &Case) -> Verdict {
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let u = cotangent(case, 901)?;
    let changed = |f: Relayout, xs: &[Tensor]| -> Result<Vec<Tensor>, String> {
        xs.iter().map(|x| f(x).map_err(text)).collect()
    };
    let plain = step(case, &inputs, &u, &which)?;
    for (name, f) in [("permuted", permuted as Relayout), ("interleaved", interleaved), ("offset", offset)] {
        let other = step(case, &changed(f, &inputs)?, &u, &which)?;
        same_bits(&format!("{name} inputs"), &plain, &other)?;
        let other = step(case, &inputs, &f(&u).map_err(text)?, &which)?;
        same_bits(&format!("{name} incoming gradient"), &plain, &other)?;
    }
    // Indices stay: one positive for all rows may be a column that a row must not see.
    let repeat = |x: &Tensor| if x.dtype() == DType::I32 { Ok(x.clone()) } else { repeated(x) };
    let views = inputs.iter().map(|x| repeat(x).map_err(text)).collect::<Result<Vec<_>, _>>()?;
    let copies = changed(copy::contiguous, &views)?;
    let du = repeated(&u).map_err(text)?;
    let expected = step(case, &copies, &copy::contiguous(&du).map_err(text)?, &which)?;
    same_bits("repeated inputs and incoming gradient", &expected, &step(case, &views, &du, &which)?)?;
    Ok(Outcome::Passed)
}

/// Check 6: One tensor as two inputs, and one output used twice: gradients add up.
pub fn used_twice(case: &Case) -> Verdict {
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let u = cotangent(case, 902)?;
    for i in 0..inputs.len() {
        for j in i + 1..inputs.len() {
            let same = inputs[i].shape() == inputs[j].shape() && inputs[i].dtype() == inputs[j].dtype();
            if which[i] && which[j] && same {
                shared_input(case, &inputs, &u, i, j)?;
            }
        }
    }
    if setting().device == Device::Cpu && u.dtype() == DType::BF16 {
        return Ok(Outcome::Skipped("the CPU does not compute in bf16"));
    }
    // y and 2 y, added: the gradient of y must be u + 2 u.
    let vars = leaves(&inputs, &which);
    let outputs = apply_shared(case.op.clone(), &vars.iter().collect::<Vec<_>>()).map_err(text)?;
    let y = &outputs[differentiable_output(case, outputs.len())?];
    let twice = ops::scale(y, 2.0).map_err(text)?;
    ops::add(y, &twice).and_then(|z| z.backward_from(u.clone())).map_err(text)?;
    let double = ops::scale(&Var::constant(u.clone()), 2.0).map_err(text)?;
    let triple = ops::add(&Var::constant(u), &double).map_err(text)?;
    let expected = step(case, &inputs, triple.value(), &which)?;
    for (i, var) in vars.iter().enumerate() {
        if let (Some(actual), Some(expected)) = (var.gradient(), &expected.gradients[i]) {
            equal_bits(&format!("gradient {i} of an output used twice"), &actual, expected)?;
        }
    }
    Ok(Outcome::Passed)
}

/// `op(x, x)` gives x the sum of what `op(a, b)` gives a and b when both are equal to x.
fn shared_input(case: &Case, inputs: &[Tensor], u: &Tensor, i: usize, j: usize) -> Result<(), String> {
    let mut equal = inputs.to_vec();
    equal[j] = fresh(&inputs[i])?;
    let which = differentiable(case);
    let apart = step(case, &equal, u, &which)?;
    let x = Var::leaf(inputs[i].clone());
    let mut vars = leaves(&equal, &which);
    vars[i] = x.clone();
    vars[j] = x.clone();
    let outputs = apply_shared(case.op.clone(), &vars.iter().collect::<Vec<_>>()).map_err(text)?;
    outputs[differentiable_output(case, outputs.len())?].backward_from(u.clone()).map_err(text)?;
    let (Some(actual), Some(a), Some(b)) = (x.gradient(), &apart.gradients[i], &apart.gradients[j]) else {
        return Err(format!("no gradient when inputs {i} and {j} are one tensor"));
    };
    let sum = ops::add(&Var::constant(a.clone()), &Var::constant(b.clone())).map_err(text)?;
    equal_bits(&format!("gradient when inputs {i} and {j} are one tensor"), &actual, sum.value())
}

/// Check 7: A forward and backward pass that was captured as a CUDA graph leaves the same bits at every replay. (That
/// devices agree with the reference, and so with each other, is what the other checks say in each setting.)
pub fn graph_replay_equals_eager(case: &Case) -> Verdict {
    let device = setting().device;
    if device == Device::Cpu {
        return Ok(Outcome::Skipped(NO_GRAPHS));
    }
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let u = cotangent(case, 907)?;
    let eager = step(case, &inputs, &u, &which)?;
    let captured = Graph::capture(device, || {
        step(case, &inputs, &u, &which).map_err(|e| Error::value("captured step", e))
    });
    let (mut graph, captured) = captured.map_err(text)?;
    for _ in 0..2 {
        graph.launch().map_err(text)?;
        same_bits("replayed", &eager, &captured)?;
    }
    Ok(Outcome::Passed)
}

/// Check 8: Among poisoned and fenced buffers: nothing stays unwritten, nothing is written outside, inputs stay as
/// they were.
pub fn every_element_written_and_none_outside(case: &Case) -> Verdict {
    let scope = memory::guard();
    let result = guarded(case);
    scope.finish().map_err(text)?;
    result.map(|()| Outcome::Passed)
}

/// The elements as numbers.
fn number(x: &Tensor) -> Result<Vec<f64>, String> {
    Ok(Array::<f64>::from_tensor(x).map_err(text)?.data)
}

fn guarded(case: &Case) -> Result<(), String> {
    let inputs = tensors(case)?;
    let u = cotangent(case, 903)?;
    let before = inputs.iter().chain([&u]).map(bits).collect::<Result<Vec<_>, _>>()?;
    let run = step(case, &inputs, &u, &differentiable(case))?;
    let gradients = run.gradients.iter().flatten().map(|g| ("gradient", g));
    for (name, x) in run.outputs.iter().map(|y| ("output", y)).chain(gradients) {
        if let Some(at) = number(x)?.iter().position(|v| v.is_nan()) {
            return Err(format!("element {at} of an {name} of shape {:?} was never written", x.shape()));
        }
    }
    let after = inputs.iter().chain([&u]).map(bits).collect::<Result<Vec<_>, _>>()?;
    match before == after {
        true => Ok(()),
        false => Err("an input or the incoming gradient was changed".into()),
    }
}

/// Check 9: The same bits every time, with any number of threads.
pub fn repeated_runs_are_bit_equal(case: &Case) -> Verdict {
    static POOLS: OnceLock<Vec<rayon::ThreadPool>> = OnceLock::new();
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let u = cotangent(case, 904)?;
    let first = step(case, &inputs, &u, &which)?;
    for _ in 0..2 {
        same_bits("again", &first, &step(case, &inputs, &u, &which)?)?;
    }
    for pool in POOLS.get_or_init(|| (1..=3).map(pool).collect()) {
        let what = format!("{} threads", pool.current_num_threads());
        same_bits(&what, &first, &pool.install(|| step(case, &inputs, &u, &which))?)?;
    }
    Ok(Outcome::Passed)
}

/// Check 10: Forward and backward keep nothing once their results are dropped.
pub fn live_bytes_stay_constant(case: &Case) -> Verdict {
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let u = cotangent(case, 905)?;
    step(case, &inputs, &u, &which)?;
    let before = memory::thread_live();
    for i in 1..=3 {
        step(case, &inputs, &u, &which)?;
        let now = memory::thread_live();
        if now != before {
            return Err(format!("{before} bytes live, after {i} more steps {now}"));
        }
    }
    Ok(Outcome::Passed)
}

/// Check 11: The gradient of one input alone is what it is beside all others: what is saved and computed depends on
/// what is needed. A history on an input without gradient is an error when recorded.
pub fn each_gradient_alone(case: &Case) -> Verdict {
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let u = cotangent(case, 906)?;
    let all = step(case, &inputs, &u, &which)?;
    for i in 0..inputs.len() {
        let mut one = vec![false; inputs.len()];
        one[i] = true;
        let run = step(case, &inputs, &u, &one);
        match (which[i], run, &all.gradients[i]) {
            (true, Ok(run), Some(expected)) => {
                let Some(gradient) = &run.gradients[i] else { return Err(format!("no gradient {i} alone")) };
                // Equal as numbers: a zero may have the other sign where a mask is applied elsewhere.
                if number(gradient)? != number(expected)? {
                    equal_bits(&format!("gradient {i} alone"), gradient, expected)?;
                }
            }
            (true, Err(e), _) => return Err(format!("gradient {i} alone: {e}")),
            (false, Ok(_), _) => return Err(format!("a history on input {i} is not an error")),
            _ => {}
        }
    }
    Ok(Outcome::Passed)
}
