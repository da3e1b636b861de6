//! What the CUDA sides of all families share: how a family declares its kernels, and the files that they include.

use engine::cuda::{Kernel, graph};
use engine::{DType, Device, Error, ErrorKind, Result, Tensor};

/// The files under `kernels/common`, and what the files of one family share, by the names that `#include` uses.
pub(crate) const HEADERS: &[(&str, &str)] = &[
    ("common/divisor.cuh", include_str!("../common/divisor.cuh")),
    ("attention/attend.cuh", include_str!("attention/attend.cuh")),
    ("attention/fragments.cuh", include_str!("attention/fragments.cuh")),
    ("attention/gradients.cuh", include_str!("attention/gradients.cuh")),
    ("attention/problem.cuh", include_str!("attention/problem.cuh")),
    ("attention/tile.cuh", include_str!("attention/tile.cuh")),
    ("augment/blur.cuh", include_str!("augment/blur.cuh")),
    ("augment/color.cuh", include_str!("augment/color.cuh")),
    ("augment/resample.cuh", include_str!("augment/resample.cuh")),
    ("augment/stage.cuh", include_str!("augment/stage.cuh")),
    ("common/columns.cuh", include_str!("../common/columns.cuh")),
    ("common/cp_async.cuh", include_str!("../common/cp_async.cuh")),
    ("common/element.cuh", include_str!("../common/element.cuh")),
    ("common/few.cuh", include_str!("../common/few.cuh")),
    ("common/mma.cuh", include_str!("../common/mma.cuh")),
    ("common/mma_result.cuh", include_str!("../common/mma_result.cuh")),
    ("common/mma_statistics.cuh", include_str!("../common/mma_statistics.cuh")),
    ("common/normalise.cuh", include_str!("../common/normalise.cuh")),
    ("common/normalise_packs.cuh", include_str!("../common/normalise_packs.cuh")),
    ("common/mma_loop.cuh", include_str!("../common/mma_loop.cuh")),
    ("common/mma_tile.cuh", include_str!("../common/mma_tile.cuh")),
    ("common/number.cuh", include_str!("../common/number.cuh")),
    ("common/math.cuh", include_str!("../common/math.cuh")),
    ("common/philox.cuh", include_str!("../common/philox.cuh")),
    ("common/parts.cuh", include_str!("../common/parts.cuh")),
    ("common/reduce.cuh", include_str!("../common/reduce.cuh")),
    ("common/sliced_tile.cuh", include_str!("../common/sliced_tile.cuh")),
    ("common/tf32_again.cuh", include_str!("../common/tf32_again.cuh")),
    ("common/tf32_tile.cuh", include_str!("../common/tf32_tile.cuh")),
    ("common/tile.cuh", include_str!("../common/tile.cuh")),
    ("common/tensor_map.cuh", include_str!("../common/tensor_map.cuh")),
    ("common/tensor_list.cuh", include_str!("../common/tensor_list.cuh")),
    ("common/vector_tiles.cuh", include_str!("../common/vector_tiles.cuh")),
    ("common/wgmma.cuh", include_str!("../common/wgmma.cuh")),
    ("common/wgmma_boxes.cuh", include_str!("../common/wgmma_boxes.cuh")),
    ("common/wgmma_loop.cuh", include_str!("../common/wgmma_loop.cuh")),
    ("common/step_numbers.cuh", include_str!("../common/step_numbers.cuh")),
    ("conv2d/class_operands.cuh", include_str!("conv2d/class_operands.cuh")),
    ("conv2d/convolution.cuh", include_str!("conv2d/convolution.cuh")),
    ("conv2d/pixels.cuh", include_str!("conv2d/pixels.cuh")),
    ("conv2d/places.cuh", include_str!("conv2d/places.cuh")),
    ("conv2d/residue.cuh", include_str!("conv2d/residue.cuh")),
    ("conv2d/windows.cuh", include_str!("conv2d/windows.cuh")),
    ("distill/row.cuh", include_str!("distill/row.cuh")),
    ("distill/scaling.cuh", include_str!("distill/scaling.cuh")),
    ("distill/sums.cuh", include_str!("distill/sums.cuh")),
    ("distill/targets.cuh", include_str!("distill/targets.cuh")),
    ("matmul/product.cuh", include_str!("matmul/product.cuh")),
    ("matmul/product_result.cuh", include_str!("matmul/product_result.cuh")),
    ("ntxent/problem.cuh", include_str!("ntxent/problem.cuh")),
    ("ntxent/stream.cuh", include_str!("ntxent/stream.cuh")),
    ("ntxent/tile.cuh", include_str!("ntxent/tile.cuh")),
];

/// One computation in every element type that has a kernel.
pub struct Typed {
    /// For f32 tensors.
    pub f32: Kernel,
    /// For bf16 tensors, with float32 arithmetic.
    pub bf16: Kernel,
}

impl Typed {
    /// The kernel for tensors of this type; an error if there is none.
    #[track_caller]
    pub fn of(&'static self, operation: &str, dtype: DType) -> Result<&'static Kernel> {
        match dtype {
            DType::F32 => Ok(&self.f32),
            DType::BF16 => Ok(&self.bf16),
            DType::I32 | DType::U8 => {
                Err(Error::dtype(operation, "CUDA kernels take f32 or bf16").with("dtype", dtype))
            }
        }
    }
}

/// Declares the kernels of a `.cu` file that is compiled once for each element type: a [`Typed`] static for each name, and
/// `KERNELS`, the list that [`crate::registry`] holds.
///
/// ```ignore
/// typed_kernels! {
///     family: "elementwise", file: "elementwise.cu", options: [];
///     ADD = "elementwise_add";            // elementwise_add_f32 and elementwise_add_bf16
///     BIG = "elementwise_big", shared 65536;  // up to 64 KiB of dynamic shared memory
/// }
/// ```
macro_rules! typed_kernels {
    (family: $family:literal, file: $file:literal, options: [$($option:literal),*];
     $($name:ident = $entry:literal $(, shared $shared:expr)?;)*) => {
        static MODULE_F32: engine::cuda::Module = engine::cuda::Module::new(
            $family, concat!("kernels/src/", $family, "/", $file), include_str!($file), $crate::cuda::HEADERS,
            &["ELEMENT_F32"], &[$($option),*],
        );
        static MODULE_BF16: engine::cuda::Module = engine::cuda::Module::new(
            $family, concat!("kernels/src/", $family, "/", $file), include_str!($file), $crate::cuda::HEADERS,
            &["ELEMENT_BF16"], &[$($option),*],
        );
        $(pub(super) static $name: $crate::cuda::Typed = $crate::cuda::Typed {
            f32: engine::cuda::Kernel::new(&MODULE_F32, concat!($entry, "_f32"))$(.with_dynamic_shared($shared))?,
            bf16: engine::cuda::Kernel::new(&MODULE_BF16, concat!($entry, "_bf16"))$(.with_dynamic_shared($shared))?,
        };)*
        /// Every kernel of this file.
        pub(crate) static KERNELS: &[&engine::cuda::Kernel] = &[$(&$name.f32, &$name.bf16),*];
    };
}
pub(crate) use typed_kernels;

/// Declares the kernels of a `.cu` file that is compiled once: a [`Kernel`] static for each name, and `KERNELS`.
macro_rules! kernels {
    (family: $family:literal, file: $file:literal, options: [$($option:literal),*];
     $($name:ident = $entry:literal $(, shared $shared:expr)?;)*) => {
        static MODULE: engine::cuda::Module = engine::cuda::Module::new(
            $family, concat!("kernels/src/", $family, "/", $file), include_str!($file), $crate::cuda::HEADERS,
            &[], &[$($option),*],
        );
        $(pub(super) static $name: engine::cuda::Kernel =
            engine::cuda::Kernel::new(&MODULE, $entry)$(.with_dynamic_shared($shared))?;)*
        /// Every kernel of this file.
        pub(crate) static KERNELS: &[&engine::cuda::Kernel] = &[$(&$name),*];
    };
}
pub(crate) use kernels;

/// Threads of a block where nothing speaks for another number.
pub(crate) const THREADS: usize = 256;

/// How a kernel reads what is made of `whole` packs or not, at addresses that are `aligned` to 16 bytes or not: a constant
/// of `common/element.cuh`. The order of sums depends on `whole` alone.
pub(crate) fn access(whole: bool, aligned: bool) -> u32 {
    match (whole, aligned) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => 2,
    }
}

/// An error unless the element type is one that a device computes in: f32 everywhere, bf16 on CUDA devices too.
#[track_caller]
pub(crate) fn require_float(operation: &str, name: &str, tensor: &Tensor) -> Result<()> {
    match (tensor.device(), tensor.dtype()) {
        (_, DType::F32) | (Device::Cuda(_), DType::BF16) => Ok(()),
        (Device::Cpu, DType::BF16) => {
            Err(Error::dtype(operation, format!("{name} must be f32: the CPU computes in f32 alone"))
                .argument(name, tensor))
        }
        (_, DType::I32 | DType::U8) => {
            Err(Error::dtype(operation, format!("{name} must be f32 or bf16")).argument(name, tensor))
        }
    }
}

/// Where a tensor's elements are, for writing. While a graph is captured a tensor that shares its storage is an error:
/// the graph would write to a copy.
#[track_caller]
pub(crate) fn address_mut(operation: &str, name: &str, tensor: &mut Tensor) -> Result<u64> {
    let before = tensor.device_address(operation)?;
    let address = tensor.device_address_mut(operation)?;
    if address != before && graph::capturing(tensor.device()) {
        let text = format!("{name} shares its storage: a captured step would write to a copy of it");
        return Err(Error::new(ErrorKind::Graph, operation, text).argument(name, tensor));
    }
    Ok(address)
}
