//! Every family that has CUDA kernels: its kernels, its checks and its workloads. The build check, the lock file, the
//! profiles and the benchmarks walk this list.

use engine::cuda::Kernel;
use engine::{DType, Device, Result};

/// One family.
pub struct Family {
    /// Its name, which is its folder's.
    pub name: &'static str,
    /// Its kernels, every element type and variant.
    pub kernels: &'static [&'static [&'static Kernel]],
    /// Runs all its cases on a CUDA device and gives their number. The error names the case.
    pub check: fn(Device) -> Result<usize>,
    /// What is profiled and timed.
    pub workloads: fn() -> Vec<Workload>,
}

/// A computation of a family at a typical size.
pub struct Workload {
    /// The launcher and its sizes: `add 4096x768`.
    pub label: &'static str,
    /// Makes the inputs on a CUDA device in an element type (f32 or bf16), and gives what launches the computation
    /// once. Sizes are small enough to be emulated in about a second, and large enough that ragged ends do not count.
    pub prepare: fn(Device, DType) -> Result<Run>,
}

/// See [`Workload::prepare`].
pub type Run = Box<dyn FnMut() -> Result<()>>;

macro_rules! families {
    ($($name:ident: [$($kernels:expr),*]),* $(,)?) => {
        /// All families, in the order to read them.
        pub static FAMILIES: &[Family] = &[$(Family {
            name: stringify!($name),
            kernels: &[$($kernels),*],
            check: crate::$name::check::check,
            workloads: crate::$name::workloads::workloads,
        }),*];
    };
}

families! {
    elementwise: [
        crate::elementwise::cuda::KERNELS,
        crate::elementwise::cuda::fused::KERNELS,
        crate::elementwise::cuda::gated::KERNELS
    ],
    reduce: [crate::reduce::cuda::sums::KERNELS, crate::reduce::cuda::argmax::KERNELS],
    copy: [
        crate::copy::strided_cuda::view::KERNELS,
        crate::copy::cuda::gather::KERNELS,
        crate::copy::window_kernels::KERNELS,
        crate::copy::cuda::scatter::KERNELS,
        crate::copy::cuda::cast::KERNELS
    ],
    pool: [crate::pool::cuda::KERNELS],
    random: [crate::random::cuda::KERNELS],
    softmax_xent: [crate::softmax_xent::cuda::KERNELS],
    norm: [
        crate::norm::batch_cuda::KERNELS,
        crate::norm::batch_merge::KERNELS,
        crate::norm::batch_backward_cuda::KERNELS,
        crate::norm::layer_cuda::KERNELS,
        crate::norm::layer_backward_cuda::KERNELS,
        crate::norm::l2_cuda::KERNELS
    ],
    matmul: [
        crate::matmul::cuda::large::KERNELS,
        crate::matmul::cuda::tall::KERNELS,
        crate::matmul::cuda::wide::KERNELS,
        crate::matmul::cuda::small::KERNELS,
        crate::matmul::cuda::KERNELS,
        crate::matmul::mma::KERNELS[0],
        crate::matmul::mma::KERNELS[1],
        crate::matmul::mma::KERNELS[2],
        crate::matmul::mma::KERNELS[3],
        crate::matmul::mma::KERNELS[4],
        crate::matmul::mma::KERNELS[5],
        crate::matmul::mma::KERNELS[6],
        crate::matmul::mma::KERNELS[7],
        crate::matmul::tf32::KERNELS[0],
        crate::matmul::tf32::KERNELS[1],
        crate::matmul::tf32::KERNELS[2],
        crate::matmul::ladder::KERNELS[0],
        crate::matmul::ladder::KERNELS[1],
        crate::matmul::ladder::KERNELS[2],
        crate::matmul::ladder::KERNELS[3]
    ],
    conv2d: [
        crate::conv2d::cuda::large::KERNELS,
        crate::conv2d::cuda::tall::KERNELS,
        crate::conv2d::cuda::wide::KERNELS,
        crate::conv2d::cuda::small::KERNELS,
        crate::conv2d::fold::kernels::KERNELS,
        crate::conv2d::depthwise::KERNELS,
        crate::conv2d::mma::KERNELS[0],
        crate::conv2d::mma::KERNELS[1],
        crate::conv2d::mma::KERNELS[2],
        crate::conv2d::mma::KERNELS[3],
        crate::conv2d::mma::KERNELS[4],
        crate::conv2d::mma::KERNELS[5]
    ],
    attention: [
        crate::attention::cuda::KERNELS,
        crate::attention::tensor_core::d32::KERNELS[0],
        crate::attention::tensor_core::d32::KERNELS[1],
        crate::attention::tensor_core::d32::KERNELS[2],
        crate::attention::tensor_core::d64::KERNELS[0],
        crate::attention::tensor_core::d64::KERNELS[1],
        crate::attention::tensor_core::d64::KERNELS[2],
        crate::attention::tensor_core::d128::KERNELS[0],
        crate::attention::tensor_core::d128::KERNELS[1],
        crate::attention::tensor_core::d128::KERNELS[2]
    ],
    ntxent: [
        crate::ntxent::cuda::forward::KERNELS,
        crate::ntxent::cuda::backward::KERNELS,
        crate::ntxent::tensor_core::d128::KERNELS,
        crate::ntxent::tensor_core::d256::KERNELS
    ],
    distill: [
        crate::distill::cuda::softmax::KERNELS,
        crate::distill::cuda::sinkhorn::KERNELS,
        crate::distill::cuda::scaling::KERNELS,
        crate::distill::cuda::koleo::KERNELS,
        crate::distill::xent_cuda::teacher_rows::KERNELS,
        crate::distill::xent_cuda::xent::KERNELS,
        crate::distill::xent_cuda::xent_rows::KERNELS
    ],
    optim: [crate::optim::cuda::KERNELS, crate::optim::norms_cuda::KERNELS, crate::optim::cuda::scalars::KERNELS],
    augment: [crate::augment::cuda::KERNELS],
    color: [crate::color::cuda::KERNELS],
    instructions: [crate::instructions::cuda::KERNELS],
}

impl Family {
    /// Its kernels one after another.
    pub fn kernels(&self) -> impl Iterator<Item = &'static Kernel> {
        self.kernels.iter().flat_map(|list| list.iter().copied())
    }
}
