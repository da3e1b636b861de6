//! Pooling of NHWC images: maximum over windows, and the average over a whole image.
//!
//! All four functions are bound by memory: [`max_forward`] reads its input once and writes value and index of
//! each window, [`max_backward`] reads those and writes the input's gradient; the averages read one side and
//! write the other.

pub mod cases;
pub(crate) mod check;
pub mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use crate::cuda::require_float;
use engine::{DType, Device, Error, Result, Tensor, device, memory};

/// All sizes of one pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Images.
    pub n: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Height and width of a window.
    pub kernel: usize,
    /// Input pixels from one window to the next.
    pub stride: usize,
    /// Rows and columns around the image that a window may reach over; they never hold the maximum.
    pub padding: usize,
    /// Output height.
    pub p: usize,
    /// Output width.
    pub q: usize,
}

impl Sizes {
    /// Checks an `[N, H, W, C]` input against a square window. As in PyTorch the padding is at most half the
    /// kernel, so that every window holds at least one pixel.
    #[track_caller]
    pub fn new(input: &[usize], kernel: usize, stride: usize, padding: usize) -> Result<Sizes> {
        let wrong = |rule: &str| {
            Error::shape("max_pool", rule)
                .with("input", input)
                .with("kernel", kernel)
                .with("stride", stride)
                .with("padding", padding)
        };
        let &[n, h, w, c] = input else {
            return Err(wrong("the input must be [N, H, W, C]"));
        };
        if kernel == 0 || stride == 0 || 2 * padding > kernel {
            return Err(wrong("kernel and stride must be at least 1, padding at most half the kernel"));
        }
        if h + 2 * padding < kernel || w + 2 * padding < kernel || h == 0 || w == 0 {
            return Err(wrong("the window must fit into the padded image"));
        }
        if h * w > i32::MAX as usize {
            return Err(wrong("an image can have at most 2^31 - 1 pixels, for indices are i32"));
        }
        let (p, q) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
        Ok(Sizes { n, h, w, c, kernel, stride, padding, p, q })
    }
}

/// Maximum over windows: x `[N, H, W, C]` -> (y, index), both `[N, P, Q, C]`.
///
/// `index` (i32) is the position in `H*W` of the maximum, the first one on ties; NaN counts as the largest
/// value and the last NaN is kept, both as in PyTorch. Errors if the window does not fit, or x is not a
/// contiguous tensor of f32 (on CUDA devices bf16 too; y has x's type).
#[track_caller]
pub fn max_forward(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<(Tensor, Tensor)> {
    let _op = memory::operation("max_pool");
    let sizes = Sizes::new(x.shape(), kernel, stride, padding)?;
    require_float("max_pool", "x", x)?;
    let shape = [sizes.n, sizes.p, sizes.q, sizes.c];
    let mut y = Tensor::empty(&shape, x.dtype(), x.device())?;
    let mut index = Tensor::empty(&shape, DType::I32, x.device())?;
    match x.device() {
        Device::Cuda(_) => cuda::max_forward(&sizes, x, &mut y, &mut index)?,
        Device::Cpu => cpu::max_forward(&sizes, x.as_slice()?, y.as_mut_slice()?, index.as_mut_slice()?),
    }
    Ok((y, index))
}

/// Gradient of [`max_forward`] with the same kernel, stride and padding: dy and index `[N, P, Q, C]`, result
/// `input_shape` `[N, H, W, C]`. f32 (on CUDA devices bf16 too, added in f32).
///
/// Each window's gradient goes to its maximum; overlapping windows add in order. Errors if shapes do not fit, or an
/// argument is not contiguous. An index outside the image is an error on the CPU; on CUDA devices, where a pixel looks at the
/// windows that cover it, an index that is no pixel of its window is left out.
#[track_caller]
pub fn max_backward(
    dy: &Tensor,
    index: &Tensor,
    input_shape: &[usize],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let name = "max_pool_bwd";
    let _op = memory::operation(name);
    let device = device::common(name, &["dy", "index"], &[dy, index])?;
    require_float(name, "dy", dy)?;
    index.require_dtype(name, "index", DType::I32)?;
    let z = Sizes::new(input_shape, kernel, stride, padding)?;
    dy.require_shape(name, "dy", &[z.n, z.p, z.q, z.c])?;
    index.require_shape(name, "index", dy.shape())?;
    let mut dx = Tensor::empty(input_shape, dy.dtype(), device)?;
    match device {
        Device::Cuda(_) => cuda::max_backward(&z, dy, index, &mut dx)?,
        Device::Cpu => {
            cpu::max_backward(
                z.h * z.w,
                z.p * z.q,
                z.c,
                dy.as_slice()?,
                index.as_slice()?,
                dx.as_mut_slice()?,
            )?;
        }
    }
    Ok(dx)
}

/// Average over all pixels: x `[N, H, W, C]` -> `[N, C]`.
///
/// Errors if x has no pixels, or is not a contiguous tensor of rank 4 of f32 (on CUDA devices bf16 too, added in f32).
#[track_caller]
pub fn global_average_forward(x: &Tensor) -> Result<Tensor> {
    let _op = memory::operation("global_average_pool");
    require_float("global_average_pool", "x", x)?;
    let (n, pixels, c) = match *x.shape() {
        [n, h, w, c] if h * w > 0 => (n, h * w, c),
        _ => {
            let rule = "x must be [N, H, W, C] with at least one pixel";
            return Err(Error::shape("global_average_pool", rule).argument("x", x));
        }
    };
    match x.device() {
        Device::Cuda(_) => cuda::global_average_forward(x, [n, pixels, c]),
        Device::Cpu => {
            let mut y = Tensor::empty(&[n, c], DType::F32, Device::Cpu)?;
            cpu::global_average_forward(pixels, c, x.as_slice()?, y.as_mut_slice()?);
            Ok(y)
        }
    }
}

/// Gradient of [`global_average_forward`]: dy `[N, C]`, result `input_shape` `[N, H, W, C]`.
///
/// Errors if shapes do not fit, or dy is not a contiguous tensor of f32 (on CUDA devices bf16 too).
#[track_caller]
pub fn global_average_backward(dy: &Tensor, input_shape: &[usize]) -> Result<Tensor> {
    let _op = memory::operation("global_average_pool_bwd");
    require_float("global_average_pool_bwd", "dy", dy)?;
    let &[n, h, w, c] = input_shape else {
        return Err(Error::shape("global_average_pool_bwd", "the input must be [N, H, W, C]")
            .with("input", input_shape));
    };
    dy.require_shape("global_average_pool_bwd", "dy", &[n, c])?;
    let mut dx = Tensor::empty(input_shape, dy.dtype(), dy.device())?;
    match dy.device() {
        Device::Cuda(_) => cuda::global_average_backward(dy, &mut dx)?,
        Device::Cpu => cpu::global_average_backward(h * w, c, dy.as_slice()?, dx.as_mut_slice()?),
    }
    Ok(dx)
}
