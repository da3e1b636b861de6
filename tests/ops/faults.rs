//! Faults planted around real operations, and which check must find each.

use autograd::case::Case;
use autograd::op::{Backward, Saver};
use autograd::ops::Entry;
use autograd::{Op, Spec};
use engine::{DType, Device, Result, Tensor};
use kernels::{copy, elementwise};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A mistake in an operation.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The first gradient is 1% too large.
    ScaledGradient,
    /// A square gradient is transposed.
    WrongAxis,
    /// Only the first slice of the incoming gradient is summed.
    MissingAccumulation,
    /// The second of two inputs that share storage gets no gradient.
    SharedInputOnce,
    /// The incoming gradient is cut at 1.
    NotLinear,
    /// One inferred size is too large by one.
    WrongInferredShape,
    /// Results are 1e-5 too large.
    InexactForward,
    /// The first result grows by two units in the last place each time.
    Nondeterministic,
    /// The result depends on the number of threads.
    ThreadDependent,
    /// Results are kept for ever.
    Leaking,
    /// Inputs are read in storage order.
    IgnoresStrides,
    /// The last element of the result is not written.
    Unwritten,
    /// The gradient is doubled when it is not the only one asked for.
    ForgetsNeeds,
}

/// A fault, where it is planted, and the checks that must find it.
pub struct Plant {
    pub fault: Fault,
    pub operation: &'static str,
    pub found_by: &'static [&'static str],
}

/// Every plant; each check is in at least one.
pub const PLANTS: &[Plant] = &[
    plant(Fault::ScaledGradient, "linear", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::ScaledGradient, "batch_norm", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::ScaledGradient, "ntxent", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::WrongAxis, "matmul", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::WrongAxis, "permute", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::MissingAccumulation, "expand", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::MissingAccumulation, "gather_rows", &["vector_jacobian_product", "full_jacobian"]),
    plant(Fault::SharedInputOnce, "mul", &["used_twice"]),
    plant(Fault::NotLinear, "relu", &["vector_jacobian_product"]),
    plant(Fault::WrongInferredShape, "conv2d", &["inferred_equals_actual"]),
    plant(Fault::InexactForward, "softmax_xent", &["values_equal_the_reference"]),
    plant(Fault::Nondeterministic, "gelu", &["repeated_runs_are_bit_equal"]),
    plant(Fault::ThreadDependent, "sum", &["repeated_runs_are_bit_equal"]),
    plant(Fault::Leaking, "layer_norm", &["live_bytes_stay_constant"]),
    plant(Fault::IgnoresStrides, "max_pool2d", &["strided_and_offset_inputs"]),
    plant(Fault::Unwritten, "cat", &["every_element_written_and_none_outside"]),
    plant(Fault::ForgetsNeeds, "sub", &["each_gradient_alone"]),
];

const fn plant(fault: Fault, operation: &'static str, found_by: &'static [&'static str]) -> Plant {
    Plant { fault, operation, found_by }
}

/// The operation's cases with the fault in it.
pub fn planted(fault: &Fault, operation: &Entry) -> Vec<Case> {
    let wrap = |case: Case| {
        let broken = Broken {
            op: case.op.clone(),
            fault: *fault,
            shared: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            kept: Mutex::new(Vec::new()),
        };
        Case { op: Arc::new(broken), ..case }
    };
    (operation.cases)().into_iter().map(wrap).collect()
}

struct Broken {
    op: Arc<dyn Op>,
    fault: Fault,
    shared: AtomicBool,
    calls: AtomicU32,
    kept: Mutex<Vec<Tensor>>,
}

fn storage_order(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F32 => Tensor::from_slice(&x.storage_slice::<f32>()?[..x.len()], x.shape()),
        _ => copy::contiguous(x),
    }
}

fn scaled(x: &Tensor, factor: f32) -> Result<Tensor> {
    elementwise::scale(&copy::contiguous(x)?, factor)
}

impl Op for Broken {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn inputs(&self) -> &'static [&'static str] {
        self.op.inputs()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let mut outputs = self.op.infer(inputs)?;
        if let Fault::WrongInferredShape = self.fault {
            outputs[0].shape[0] += 1;
        }
        Ok(outputs)
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut outputs = match self.fault {
            Fault::IgnoresStrides => {
                let wrong = inputs.iter().map(|x| storage_order(x)).collect::<Result<Vec<_>>>()?;
                self.op.forward(&wrong.iter().collect::<Vec<_>>(), save)?
            }
            _ => self.op.forward(inputs, save)?,
        };
        let last = outputs[0].len().saturating_sub(1);
        match self.fault {
            Fault::SharedInputOnce => {
                let shared = inputs.len() > 1 && inputs[0].shares_storage(inputs[1]);
                self.shared.store(shared, Ordering::Relaxed);
            }
            Fault::InexactForward => outputs[0] = scaled(&outputs[0], 1.0 + 1e-5)?,
            Fault::Nondeterministic => {
                outputs[0] = scaled(&outputs[0], 1.0 + calls as f32 * 2.0 * f32::EPSILON)?;
            }
            Fault::ThreadDependent => {
                let threads = rayon::current_num_threads() as f32;
                outputs[0] = scaled(&outputs[0], 1.0 + threads * f32::EPSILON)?;
            }
            Fault::Leaking => self.kept.lock().expect("no panic inside").extend(outputs.iter().cloned()),
            Fault::Unwritten => {
                let mut y = Tensor::empty(outputs[0].shape(), DType::F32, Device::Cpu)?;
                y.as_mut_slice::<f32>()?[..last].copy_from_slice(&outputs[0].to_vec::<f32>()?[..last]);
                outputs[0] = y;
            }
            _ => {}
        }
        Ok(outputs)
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut incoming = at.gradients.to_vec();
        if let Some(dy) = &incoming[0] {
            let mut values = dy.to_vec::<f32>()?;
            match self.fault {
                Fault::MissingAccumulation if dy.rank() > 0 => {
                    let slice = dy.len() / dy.shape()[0];
                    values[slice..].fill(0.0);
                }
                Fault::NotLinear => values.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0)),
                _ => {}
            }
            incoming[0] = Some(Tensor::from_slice(&values, dy.shape())?);
        }
        let mut gradients = self.op.backward(&Backward { gradients: &incoming, ..*at })?;
        let several = at.needs.iter().filter(|n| **n).count() > 1;
        match (self.fault, &mut gradients[..]) {
            (Fault::ScaledGradient, [Some(g), ..]) => *g = scaled(g, 1.01)?,
            (Fault::ForgetsNeeds, [Some(g), ..]) if several => *g = scaled(g, 2.0)?,
            (Fault::WrongAxis, [Some(g), ..]) if g.rank() == 2 && g.shape()[0] == g.shape()[1] => {
                *g = g.transpose(0, 1)?;
            }
            (Fault::SharedInputOnce, [_, Some(g)]) if self.shared.load(Ordering::Relaxed) => {
                *g = Tensor::zeros(g.shape(), DType::F32, Device::Cpu)?;
            }
            _ => {}
        }
        Ok(gradients)
    }

    fn has_gradient(&self, input: usize) -> bool {
        self.op.has_gradient(input)
    }

    fn is_differentiable(&self, output: usize) -> bool {
        self.op.is_differentiable(output)
    }
}
