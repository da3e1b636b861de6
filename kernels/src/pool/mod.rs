//! Pooling of NHWC images: maximum over windows, and the average over a whole image.
//!
//! All four functions are bound by memory: [`max_forward`] reads its input once and writes value and index of
//! each window, [`max_backward`] reads those and writes the input's gradient; the averages read one side and
//! write the other.

pub mod cases;
pub mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

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
/// contiguous f32 tensor.
#[track_caller]
pub fn max_forward(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<(Tensor, Tensor)> {
    let _op = memory::operation("max_pool");
    let sizes = Sizes::new(x.shape(), kernel, stride, padding)?;
    x.require_dtype("max_pool", "x", DType::F32)?;
    let shape = [sizes.n, sizes.p, sizes.q, sizes.c];
    let mut y = Tensor::empty(&shape, DType::F32, x.device())?;
    let mut index = Tensor::empty(&shape, DType::I32, x.device())?;
    match x.device() {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::max_forward(&sizes, x.as_slice()?, y.as_mut_slice()?, index.as_mut_slice()?),
    }
    Ok((y, index))
}

/// Gradient of [`max_forward`]: dy and index `[N, P, Q, C]`, result `input_shape` `[N, H, W, C]`.
///
/// Each window's gradient goes to its maximum; overlapping windows add in order. Errors if shapes do not
/// fit, an argument is not contiguous, or an index is outside the image.
#[track_caller]
pub fn max_backward(dy: &Tensor, index: &Tensor, input_shape: &[usize]) -> Result<Tensor> {
    let _op = memory::operation("max_pool_bwd");
    let device = device::common("max_pool_bwd", &["dy", "index"], &[dy, index])?;
    dy.require_dtype("max_pool_bwd", "dy", DType::F32)?;
    index.require_dtype("max_pool_bwd", "index", DType::I32)?;
    index.require_shape("max_pool_bwd", "index", dy.shape())?;
    let (&[n, h, w, c], &[batch, p, q, channels]) = (input_shape, dy.shape()) else {
        return Err(Error::shape("max_pool_bwd", "dy and the input must have rank 4")
            .argument("dy", dy)
            .with("input", input_shape));
    };
    if (batch, channels) != (n, c) {
        return Err(Error::shape("max_pool_bwd", "dy and the input must have equal batch and channels")
            .argument("dy", dy)
            .with("input", input_shape));
    }
    let mut dx = Tensor::empty(input_shape, DType::F32, device)?;
    match device {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => {
            cpu::max_backward(h * w, p * q, c, dy.as_slice()?, index.as_slice()?, dx.as_mut_slice()?)?;
        }
    }
    Ok(dx)
}

/// Average over all pixels: x `[N, H, W, C]` -> `[N, C]`.
///
/// Errors if x has no pixels, or is not a contiguous f32 tensor of rank 4.
#[track_caller]
pub fn global_average_forward(x: &Tensor) -> Result<Tensor> {
    let _op = memory::operation("global_average_pool");
    x.require_dtype("global_average_pool", "x", DType::F32)?;
    let (n, pixels, c) = match *x.shape() {
        [n, h, w, c] if h * w > 0 => (n, h * w, c),
        _ => {
            let rule = "x must be [N, H, W, C] with at least one pixel";
            return Err(Error::shape("global_average_pool", rule).argument("x", x));
        }
    };
    let mut y = Tensor::empty(&[n, c], DType::F32, x.device())?;
    match x.device() {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::global_average_forward(pixels, c, x.as_slice()?, y.as_mut_slice()?),
    }
    Ok(y)
}

/// Gradient of [`global_average_forward`]: dy `[N, C]`, result `input_shape` `[N, H, W, C]`.
///
/// Errors if shapes do not fit, or dy is not a contiguous f32 tensor.
#[track_caller]
pub fn global_average_backward(dy: &Tensor, input_shape: &[usize]) -> Result<Tensor> {
    let _op = memory::operation("global_average_pool_bwd");
    dy.require_dtype("global_average_pool_bwd", "dy", DType::F32)?;
    let &[n, h, w, c] = input_shape else {
        return Err(Error::shape("global_average_pool_bwd", "the input must be [N, H, W, C]")
            .with("input", input_shape));
    };
    dy.require_shape("global_average_pool_bwd", "dy", &[n, c])?;
    let mut dx = Tensor::empty(input_shape, DType::F32, dy.device())?;
    match dy.device() {
        Device::Cuda(_) => return Err(crate::cuda::missing()),
        Device::Cpu => cpu::global_average_backward(h * w, c, dy.as_slice()?, dx.as_mut_slice()?),
    }
    Ok(dx)
}
