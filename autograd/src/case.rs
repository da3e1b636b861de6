//! What an operation's checks run on: inputs and a reference in any precision.

use crate::dual::Dual;
use crate::op::Op;
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use std::sync::Arc;

/// An operation with a naive reference, generic in its precision. Integer inputs arrive as whole numbers.
pub trait Reference: Op {
    /// The outputs for these inputs.
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>>;
}

/// One input of a case.
#[derive(Debug, Clone)]
pub struct Input {
    /// Values, exact in f32.
    pub values: Array<f64>,
    /// Element type of the tensor: f32, or i32 for indices.
    pub dtype: DType,
    /// Whether its gradient is checked.
    pub differentiable: bool,
    /// Whether it stays f32 beside inputs in bf16, as weights of normalisations do.
    pub always_f32: bool,
}

impl Input {
    /// A differentiable f32 input.
    pub fn new(values: Array<f64>) -> Input {
        Input { values, dtype: DType::F32, differentiable: true, always_f32: false }
    }

    /// Normal values times `scale`.
    pub fn random(shape: &[usize], seed: u64, scale: f32) -> Input {
        Input::new(Array::random(shape, seed, scale))
    }

    /// An f32 input without a gradient.
    pub fn constant(values: Array<f64>) -> Input {
        Input { differentiable: false, ..Input::new(values) }
    }

    /// An i32 input.
    pub fn index(shape: &[usize], values: &[i32]) -> Input {
        let data = values.iter().map(|&v| f64::from(v)).collect();
        let values = Array::new(shape, data);
        Input { values, dtype: DType::I32, differentiable: false, always_f32: false }
    }

    /// The same input, which stays f32 beside inputs in bf16.
    pub fn in_f32(self) -> Input {
        Input { always_f32: true, ..self }
    }

    /// Its element type where floats are computed in `float`.
    pub fn dtype_in(&self, float: DType) -> DType {
        match self.dtype {
            DType::F32 if !self.always_f32 => float,
            own => own,
        }
    }

    /// Its values as that element type holds them.
    pub fn values_in(&self, float: DType) -> Array<f64> {
        self.values.rounded_to(self.dtype_in(float))
    }

    /// The input as a CPU tensor of that element type.
    pub fn tensor_in(&self, float: DType) -> Result<Tensor> {
        match self.dtype {
            DType::I32 => {
                let data: Vec<i32> = self.values.data.iter().map(|&v| v as i32).collect();
                Tensor::from_slice(&data, &self.values.shape)
            }
            _ => self.values.to_tensor_of(self.dtype_in(float)),
        }
    }
}

/// An array of `shape` with `f` of each index, in row-major order.
pub fn build<T: Real>(shape: &[usize], f: impl Fn(&[usize]) -> T) -> Array<T> {
    let mut index = vec![0; shape.len()];
    let mut data = Vec::new();
    for _ in 0..shape.iter().product() {
        data.push(f(&index));
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Array::new(shape, data)
}

type Function<T> = Box<dyn Fn(&[Array<T>]) -> Vec<Array<T>> + Send + Sync>;

/// An operation with settings, inputs and its reference in both precisions.
pub struct Case {
    /// What is special about it.
    pub label: String,
    /// The operation.
    pub op: Arc<dyn Op>,
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// The reference in f32: its error sets the tolerance.
    pub naive: Function<f32>,
    /// The reference in f64: the oracle.
    pub oracle: Function<f64>,
    /// The reference in f32 with its derivative in one direction: the naive gradient, whose error sets the
    /// gradients' tolerance.
    pub naive_dual: Function<Dual<f32>>,
    /// The reference in f64 with its derivative in one direction.
    pub oracle_dual: Function<Dual<f64>>,
    /// How many times the naive error is allowed for gradients: 2, or 3 where they sum over a batch.
    pub gradient_factor: f64,
    /// How often values between the operation's steps, which the references do not round, are rounded to its element type one
    /// after the other.
    pub roundings: usize,
}

impl Case {
    /// A case of an operation.
    pub fn new<O: Reference + Clone>(label: impl Into<String>, op: O, inputs: Vec<Input>) -> Case {
        let (a, b, c, d) = (op.clone(), op.clone(), op.clone(), op.clone());
        Case {
            label: label.into(),
            op: Arc::new(op),
            inputs,
            naive: Box::new(move |x| a.reference(x)),
            oracle: Box::new(move |x| b.reference(x)),
            naive_dual: Box::new(move |x| c.reference(x)),
            oracle_dual: Box::new(move |x| d.reference(x)),
            gradient_factor: 2.0,
            roundings: 0,
        }
    }
}
