//! A case's results on the device beside the CPU backend's for the same inputs.

use crate::computation::{Computation, Tensors};
use engine::{DType, Device, Error, Result, Tensor};
use kernels::array::Array;
use kernels::compare;
use kernels::copy;
use serde_json::{Value, json};

/// Runs the computation on the device and on the CPU, which computes in float32, and compares every result.
///
/// # Errors
///
/// A result is further away than [`allowed`]; the message names it.
pub(crate) fn against_cpu(computation: &dyn Computation, inputs: &Tensors) -> Result<Vec<Value>> {
    let mut on_cpu =
        inputs.iter().map(|(name, tensor)| Ok((name.clone(), on_cpu(tensor)?))).collect::<Result<_>>()?;
    let mut on_device =
        inputs.iter().map(|(name, tensor)| Ok((name.clone(), tensor.duplicate()?))).collect::<Result<_>>()?;
    let (mut found, mut expected) = (computation.run(&mut on_device)?, computation.run(&mut on_cpu)?);
    let written = |tensors: Tensors| {
        let is_result = |name: &str| computation.in_place().iter().any(|prefix| name.starts_with(prefix));
        tensors.into_iter().filter(move |(name, _)| is_result(name))
    };
    found.extend(written(on_device));
    expected.extend(written(on_cpu));
    if found.len() != expected.len() || found.is_empty() {
        return Err(Error::value("check", "device and CPU give different results, or none"));
    }
    let mut lines = Vec::new();
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        found.require_shape("check", name, expected.shape())?;
        let oracle = Array::<f64>::from_tensor(expected)?.data;
        let (error, at) = compare::error(&Array::<f64>::from_tensor(found)?.data, &oracle);
        let allowed = allowed(found.dtype());
        if error.is_nan() || error > allowed {
            let text = format!(
                "{name}: error {error:.3e} of the largest element at element {at}, allowed {allowed:.3e} beside the CPU"
            );
            return Err(Error::value("check", text));
        }
        lines.push(json!({"name": name, "error": error, "allowed": allowed}));
    }
    Ok(lines)
}

/// The same values on the CPU, which computes in float32.
fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.to_device(Device::Cpu)?;
    match tensor.dtype() {
        DType::BF16 => copy::cast(&tensor, DType::F32),
        _ => Ok(tensor),
    }
}

/// Largest error that two right answers may differ by, of the largest element. An f32 result, of bf16 inputs too: 64
/// roundings, for toy sizes sum at most a few hundred terms, in other orders. A bf16 result is rounded, and in a chain
/// what lies between two launches: two roundings.
fn allowed(result: DType) -> f64 {
    match result {
        DType::BF16 => 2.0 * 2f64.powi(-8),
        _ => 64.0 * 2f64.powi(-24),
    }
}
