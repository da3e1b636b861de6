//! A computation that is timed: how its inputs are made, what it launches, and what it must move and compute.

use engine::random::Purpose;
use engine::{DType, Device, Philox, Result, Tensor};
use kernels::{copy, random};

/// Tensors with their names, in a fixed order.
pub(crate) type Tensors = Vec<(String, Tensor)>;

/// Bytes that must move to and from device memory, each tensor read or written as often as the best algorithm must, and
/// floating-point operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    pub bytes: f64,
    pub flops: f64,
}

/// See the module.
pub(crate) trait Computation: Send {
    /// What it reads: random values, and what an earlier pass saves for it.
    fn inputs(&self, source: &mut Source) -> Result<Tensors>;

    /// Launches it once and gives what it makes.
    fn run(&self, inputs: &mut Tensors) -> Result<Tensors>;

    /// For elements of `size` bytes.
    fn work(&self, size: usize) -> Work;

    /// Beginnings of the names of inputs that are written in place, which are its results.
    fn in_place(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Names tensors.
pub(crate) fn named<const N: usize>(all: [(&str, Tensor); N]) -> Tensors {
    all.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect()
}

/// Makes inputs: the same values for the same seed on every device.
pub(crate) struct Source {
    pub device: Device,
    pub dtype: DType,
    pub seed: u64,
    /// Tensors made so far, for each has a stream of its own.
    pub made: u64,
}

impl Source {
    /// Uniform in [-1, 1), in f32.
    pub fn uniform_f32(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.made += 1;
        random::uniform(shape, -1.0, 1.0, self.seed, Purpose::Test, self.made, self.device)
    }

    /// Uniform in [-1, 1), rounded to the case's type.
    pub fn uniform(&mut self, shape: &[usize]) -> Result<Tensor> {
        copy::cast(&self.uniform_f32(shape)?, self.dtype)
    }

    /// Uniform in 0 .. classes, i32.
    pub fn labels(&mut self, count: usize, classes: usize) -> Result<Tensor> {
        self.made += 1;
        let mut numbers = Philox::new(self.seed, Purpose::Test, self.made);
        let labels: Vec<i32> = (0..count).map(|_| numbers.below(classes) as i32).collect();
        self.integers(&labels)
    }

    /// These numbers, i32.
    pub fn integers(&self, values: &[i32]) -> Result<Tensor> {
        Tensor::from_slice(values, &[values.len()])?.to_device(self.device)
    }

    /// Zeros in f32.
    pub fn zeros_f32(&self, shape: &[usize]) -> Result<Tensor> {
        Tensor::zeros(shape, DType::F32, self.device)
    }
}
