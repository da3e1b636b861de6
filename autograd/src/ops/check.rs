//! What many operations ask of their inputs, with one wording.

use crate::{Op, Spec};
use engine::{DType, Error, Result, Tensor};
use kernels::copy::contiguous;

/// An error unless there are `count` inputs.
#[track_caller]
pub(super) fn arity(op: &dyn Op, inputs: &[Spec], count: usize) -> Result<()> {
    match inputs.len() == count {
        true => Ok(()),
        false => Err(Error::value(
            op.name(),
            format!("takes {count} inputs {:?}, got {}", op.inputs(), inputs.len()),
        )),
    }
}

/// An error unless there are `count` inputs, all f32 or all bf16.
#[track_caller]
pub(super) fn floats(op: &dyn Op, inputs: &[Spec], count: usize) -> Result<()> {
    arity(op, inputs, count)?;
    for (i, input) in inputs.iter().enumerate() {
        float(op, i, input)?;
        element_type(op, i, input, inputs[0].dtype)?;
    }
    Ok(())
}

/// An error unless input `i` is f32 or bf16.
#[track_caller]
pub(super) fn float(op: &dyn Op, i: usize, input: &Spec) -> Result<()> {
    match input.dtype {
        DType::F32 | DType::BF16 => Ok(()),
        DType::I32 | DType::U8 => {
            Err(Error::dtype(op.name(), format!("{} must be f32 or bf16", name(op, i)))
                .with(name(op, i), input))
        }
    }
}

/// An error unless input `i` has elements of type `dtype`.
#[track_caller]
pub(super) fn element_type(op: &dyn Op, i: usize, input: &Spec, dtype: DType) -> Result<()> {
    match input.dtype == dtype {
        true => Ok(()),
        false => {
            Err(Error::dtype(op.name(), format!("{} must be {dtype}", name(op, i))).with(name(op, i), input))
        }
    }
}

/// An error unless input `i` has shape `shape`; `rule` says what that shape is.
#[track_caller]
pub(super) fn shape(op: &dyn Op, i: usize, input: &Spec, shape: &[usize], rule: &str) -> Result<()> {
    match input.shape == shape {
        true => Ok(()),
        false => {
            let text = format!("{} must be {rule}, here {shape:?}", name(op, i));
            Err(Error::shape(op.name(), text).with(name(op, i), input))
        }
    }
}

/// An error about the inputs' shapes that shows them all.
#[track_caller]
pub(super) fn wrong_shapes(op: &dyn Op, inputs: &[Spec], rule: impl Into<String>) -> Error {
    let error = Error::shape(op.name(), rule);
    inputs.iter().enumerate().fold(error, |e, (i, input)| e.with(name(op, i), input))
}

fn name(op: &dyn Op, i: usize) -> &'static str {
    let names = op.inputs();
    names.get(i).or(names.last()).copied().unwrap_or("input")
}

/// `x` under another shape: a view where the strides allow it, else a copy.
#[track_caller]
pub(super) fn reshaped(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    match x.layout().reshape(shape)? {
        Some(_) => x.reshape(shape),
        None => contiguous(x)?.reshape(shape),
    }
}

/// `shape` without the dimensions `dims`; an error unless these are different dimensions of it.
#[track_caller]
pub(super) fn without(op: &dyn Op, input: &Spec, dims: &[usize]) -> Result<Vec<usize>> {
    let valid = dims.iter().enumerate().all(|(i, d)| *d < input.shape.len() && !dims[..i].contains(d));
    if !valid {
        return Err(Error::shape(op.name(), "dims must be different dimensions of x")
            .with("x", input)
            .with("dims", dims));
    }
    Ok(input.shape.iter().enumerate().filter(|(d, _)| !dims.contains(d)).map(|(_, &n)| n).collect())
}

/// The gradient of a sum over `dims`: `dy` repeated to `shape`, without copying.
pub(super) fn spread(dy: &Tensor, shape: &[usize], dims: &[usize]) -> Result<Tensor> {
    let kept: Vec<usize> = (0..shape.len()).map(|d| if dims.contains(&d) { 1 } else { shape[d] }).collect();
    reshaped(dy, &kept)?.expand(shape)
}
