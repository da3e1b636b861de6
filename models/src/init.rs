//! Initial weights: a pure function of the seed and the parameter's name.
//!
//! The stream of random numbers of a parameter is chosen by a hash of its full name, so its values depend
//! neither on the order in which layers are made nor on what else the network has.

use engine::random::Purpose;
use engine::{DType, Device, Result, Tensor};
use kernels::random;

/// Makes initial values of the parameters under one prefix of names.
#[derive(Debug, Clone)]
pub struct Initializer {
    seed: u64,
    prefix: String,
}

impl Initializer {
    /// Values for `seed`, names without a prefix.
    pub fn new(seed: u64) -> Initializer {
        Initializer { seed, prefix: String::new() }
    }

    /// The same for names inside a child.
    pub fn child(&self, name: impl std::fmt::Display) -> Initializer {
        Initializer { seed: self.seed, prefix: format!("{}{name}.", self.prefix) }
    }

    /// The stream of the parameter `name`: FNV-1a (64 bits) of its full name.
    fn stream(&self, name: &str) -> u64 {
        let bytes = self.prefix.bytes().chain(name.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }

    /// A convolution kernel [out, kh, kw, in]: normal with variance 2 / (out kh kw) (He et al. 2015, eq. 14),
    /// as torchvision's ResNet.
    pub fn kaiming_normal_fan_out(&self, name: &str, shape: [usize; 4]) -> Result<Tensor> {
        let fan_out = shape[0] * shape[1] * shape[2];
        let std = (2.0 / fan_out as f64).sqrt() as f32;
        random::normal(&shape, 0.0, std, self.seed, Purpose::Initialise, self.stream(name), Device::Cpu)
    }

    /// Normal with mean 0 and this deviation.
    pub fn normal(&self, name: &str, shape: &[usize], std: f32) -> Result<Tensor> {
        random::normal(shape, 0.0, std, self.seed, Purpose::Initialise, self.stream(name), Device::Cpu)
    }

    /// Uniform with mean 0 and variance 2 / (inputs + outputs) (Glorot and Bengio 2010, eq. 16).
    pub fn xavier_uniform(
        &self,
        name: &str,
        shape: &[usize],
        inputs: usize,
        outputs: usize,
    ) -> Result<Tensor> {
        let bound = (6.0 / (inputs + outputs) as f64).sqrt() as f32;
        random::uniform(shape, -bound, bound, self.seed, Purpose::Initialise, self.stream(name), Device::Cpu)
    }

    /// Uniform within 1 / sqrt(`fan_in`) of zero: PyTorch's default for the weight and bias of a linear layer.
    pub fn uniform_fan_in(&self, name: &str, shape: &[usize], fan_in: usize) -> Result<Tensor> {
        let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
        random::uniform(shape, -bound, bound, self.seed, Purpose::Initialise, self.stream(name), Device::Cpu)
    }
}

/// `len` zeros.
pub(crate) fn zeros(len: usize) -> Result<Tensor> {
    Tensor::zeros(&[len], DType::F32, Device::Cpu)
}

/// `len` ones.
pub(crate) fn ones(len: usize) -> Result<Tensor> {
    Tensor::full(&[len], 1.0, Device::Cpu)
}
