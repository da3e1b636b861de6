//! Two-dimensional convolution (cross-correlation, as everywhere in deep learning) and its two gradients.
//!
//! Images are NHWC, weights `[O, R, S, C / G]` (out, kernel height, kernel width, in), of G groups: output channels of a
//! group see its input channels alone. With `P x Q` output pixels each of the three passes costs `2 N P Q O R S C / G`
//! operations ([`flops`]) and must move at least `N H W C + O R S C / G + N P Q O` elements ([`bytes`]). No pass builds an im2col
//! matrix.

pub mod cases;
pub(crate) mod check;
pub mod cpu;
pub(crate) mod cuda;
pub(crate) mod depthwise;
#[cfg(test)]
mod device_tests;
pub(crate) mod fold;
#[cfg(test)]
mod fold_tests;
pub(crate) mod mma;
#[cfg(test)]
mod mma_tests;
mod normalised;
#[cfg(test)]
mod normalised_tests;
pub mod reference;
#[cfg(test)]
mod sums_tests;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

pub use normalised::{forward_of_map, takes_map, weight_gradient_of_map};

use crate::cuda::require_float;
use crate::norm::TileSums;
use engine::{DType, Device, Error, Result, Tensor, device, memory};

/// Stride, zero padding and dilation, the same in both directions, and groups of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Input pixels from one output pixel to the next; at least 1.
    pub stride: usize,
    /// Rows and columns of zeros around the image.
    pub padding: usize,
    /// Input pixels from one kernel element to the next; at least 1. Above 1 the stride must be 1.
    pub dilation: usize,
    /// Parts of the channels, input and output alike, that have nothing to do with each other; at least 1.
    pub groups: usize,
}

impl Geometry {
    /// Without dilation, all channels in one group.
    pub const fn new(stride: usize, padding: usize) -> Geometry {
        Geometry { stride, padding, dilation: 1, groups: 1 }
    }

    /// The same in so many groups.
    pub const fn in_groups(self, groups: usize) -> Geometry {
        Geometry { groups, ..self }
    }

    /// Pixels that `size` kernel elements reach over.
    pub fn reach(&self, size: usize) -> usize {
        self.dilation * size.saturating_sub(1) + size.min(1)
    }
}

/// All sizes of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Images.
    pub n: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Input channels.
    pub c: usize,
    /// Kernel height.
    pub r: usize,
    /// Kernel width.
    pub s: usize,
    /// Output channels.
    pub o: usize,
    /// Output height.
    pub p: usize,
    /// Output width.
    pub q: usize,
    /// Input pixels from one output pixel to the next.
    pub stride: usize,
    /// Rows and columns of zeros around the image.
    pub padding: usize,
    /// Input pixels from one kernel element to the next.
    pub dilation: usize,
    /// Groups of channels.
    pub groups: usize,
}

impl Sizes {
    /// Checks that `[N, H, W, C]`, `[O, R, S, C / groups]` and `geometry` fit together.
    #[track_caller]
    pub fn new(operation: &str, input: &[usize], weight: &[usize], geometry: Geometry) -> Result<Sizes> {
        let wrong = |rule: &str| {
            Error::shape(operation, rule).with("input", input).with("weight", weight).with("g", geometry)
        };
        let (&[n, h, w, c], &[o, r, s, inner]) = (input, weight) else {
            return Err(wrong("the input must be [N, H, W, C] and the weight [O, R, S, C / groups]"));
        };
        let Geometry { stride, padding, dilation, groups } = geometry;
        if groups == 0 || !c.is_multiple_of(groups) || !o.is_multiple_of(groups) {
            return Err(wrong("groups must be at least 1 and divide both input and output channels"));
        }
        if groups > 1 && inner != c / groups {
            return Err(wrong("the weight must have as many input channels as a group of the input"));
        }
        if groups == 1 && inner != c {
            return Err(wrong("input and weight must have equally many input channels"));
        }
        if stride == 0 {
            return Err(wrong("the stride must be at least 1"));
        }
        if dilation == 0 || (dilation > 1 && stride > 1) {
            return Err(wrong("the dilation must be at least 1, and 1 where the stride is above 1"));
        }
        let [height, width] = [h + 2 * padding, w + 2 * padding];
        let [down, right] = [geometry.reach(r), geometry.reach(s)];
        if r == 0 || s == 0 || height < down || width < right {
            return Err(wrong("the kernel must have at least one element and fit into the padded image"));
        }
        // One element has no neighbour.
        let dilation = if r.max(s) == 1 { 1 } else { dilation };
        let (p, q) = ((height - down) / stride + 1, (width - right) / stride + 1);
        Ok(Sizes { n, h, w, c, r, s, o, p, q, stride, padding, dilation, groups })
    }

    /// Whether every output pixel meets just the input pixel at its place.
    pub(crate) fn is_product(&self) -> bool {
        (self.r, self.s, self.stride, self.padding, self.groups) == (1, 1, 1, 0, 1)
    }

    /// Whether each group has one input channel, of several.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.c == self.groups
    }

    /// Input channels of a group.
    pub(crate) fn inner(&self) -> usize {
        self.c / self.groups
    }

    /// Output channels of a group.
    pub(crate) fn outer(&self) -> usize {
        self.o / self.groups
    }

    /// `[N, H, W, C]`.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.h, self.w, self.c]
    }

    /// `[O, R, S, C / groups]`.
    pub fn weight(&self) -> [usize; 4] {
        [self.o, self.r, self.s, self.inner()]
    }

    /// `[N, P, Q, O]`.
    pub fn output(&self) -> [usize; 4] {
        [self.n, self.p, self.q, self.o]
    }
}

/// Floating-point operations of one pass; multiplications by padding are counted.
pub fn flops(sizes: &Sizes) -> f64 {
    2.0 * (sizes.n * sizes.p * sizes.q) as f64 * (sizes.o * sizes.r * sizes.s * sizes.inner()) as f64
}

/// Bytes that one pass must read and write.
pub fn bytes(sizes: &Sizes, dtype: DType) -> f64 {
    let product = |shape: [usize; 4]| shape.iter().product::<usize>() as f64;
    dtype.size() as f64 * (product(sizes.input()) + product(sizes.weight()) + product(sizes.output()))
}

/// Shape `[N, P, Q, O]` of the convolution of an `[N, H, W, C]` image with `[O, R, S, C / groups]` weights.
#[track_caller]
pub fn output_shape(input: &[usize], weight: &[usize], g: Geometry) -> Result<[usize; 4]> {
    Ok(Sizes::new("conv2d", input, weight, g)?.output())
}

/// Convolution: x `[N, H, W, C]`, weight `[O, R, S, C / groups]`, result `[N, P, Q, O]`.
///
/// f32; on CUDA devices bf16 too, with sums in float32 that are rounded once. Errors if shapes or types do not fit, or an
/// argument is not contiguous.
#[track_caller]
pub fn forward(x: &Tensor, weight: &Tensor, g: Geometry) -> Result<Tensor> {
    let _op = memory::operation("conv2d");
    let (sizes, mut y) = result(x, weight, g)?;
    match x.device() {
        Device::Cuda(_) => cuda::forward(&sizes, x, weight, &mut y)?,
        Device::Cpu => cpu::forward(&sizes, x.as_slice()?, weight.as_slice()?, y.as_mut_slice()?)?,
    }
    Ok(y)
}

/// [`forward`], with sums of the result's channels for [`crate::norm::batch_statistics`] where the kernel that computes it
/// leaves them: on CUDA devices, of bf16 on tensor cores. The result has the bits of [`forward`].
#[track_caller]
pub fn forward_with_sums(x: &Tensor, weight: &Tensor, g: Geometry) -> Result<(Tensor, Option<TileSums>)> {
    let Device::Cuda(_) = x.device() else {
        return Ok((forward(x, weight, g)?, None));
    };
    let _op = memory::operation("conv2d");
    let (sizes, mut y) = result(x, weight, g)?;
    let sums = cuda::forward_with_sums(&sizes, x, weight, &mut y)?;
    Ok((y, sums))
}

/// Sizes and room for the result of [`forward`], whose arguments are checked.
#[track_caller]
fn result(x: &Tensor, weight: &Tensor, g: Geometry) -> Result<(Sizes, Tensor)> {
    let device = device::common("conv2d", &["x", "weight"], &[x, weight])?;
    let sizes = Sizes::new("conv2d", x.shape(), weight.shape(), g)?;
    require_float("conv2d", "x", x)?;
    weight.require_dtype("conv2d", "weight", x.dtype())?;
    let y = Tensor::empty(&sizes.output(), x.dtype(), device)?;
    Ok((sizes, y))
}

/// Gradient with respect to the input: dy `[N, P, Q, O]`, weight `[O, R, S, C / groups]`, result `input_shape`.
///
/// f32; on CUDA devices bf16 too, with sums in float32 that are rounded once. Errors if shapes or types do not fit, or an
/// argument is not contiguous.
#[track_caller]
pub fn input_gradient(dy: &Tensor, weight: &Tensor, input_shape: &[usize], g: Geometry) -> Result<Tensor> {
    let _op = memory::operation("conv2d_dgrad");
    let device = device::common("conv2d_dgrad", &["dy", "weight"], &[dy, weight])?;
    let sizes = Sizes::new("conv2d_dgrad", input_shape, weight.shape(), g)?;
    require_float("conv2d_dgrad", "dy", dy)?;
    weight.require_dtype("conv2d_dgrad", "weight", dy.dtype())?;
    dy.require_shape("conv2d_dgrad", "dy", &sizes.output())?;
    let mut dx = Tensor::empty(input_shape, dy.dtype(), device)?;
    match device {
        Device::Cuda(_) => cuda::input_gradient(&sizes, dy, weight, &mut dx)?,
        Device::Cpu => cpu::input_gradient(&sizes, dy.as_slice()?, weight.as_slice()?, dx.as_mut_slice()?)?,
    }
    Ok(dx)
}

/// Gradient with respect to the weights: x `[N, H, W, C]`, dy `[N, P, Q, O]`, result `weight_shape`.
///
/// f32; on CUDA devices bf16 too, with sums in float32 that are rounded once. Errors if shapes or types do not fit, or an
/// argument is not contiguous.
#[track_caller]
pub fn weight_gradient(x: &Tensor, dy: &Tensor, weight_shape: &[usize], g: Geometry) -> Result<Tensor> {
    let _op = memory::operation("conv2d_wgrad");
    let device = device::common("conv2d_wgrad", &["x", "dy"], &[x, dy])?;
    let sizes = Sizes::new("conv2d_wgrad", x.shape(), weight_shape, g)?;
    require_float("conv2d_wgrad", "x", x)?;
    dy.require_dtype("conv2d_wgrad", "dy", x.dtype())?;
    dy.require_shape("conv2d_wgrad", "dy", &sizes.output())?;
    let mut dw = Tensor::empty(weight_shape, x.dtype(), device)?;
    match device {
        Device::Cuda(_) => cuda::weight_gradient(&sizes, x, dy, &mut dw)?,
        Device::Cpu => cpu::weight_gradient(&sizes, x.as_slice()?, dy.as_slice()?, dw.as_mut_slice()?)?,
    }
    Ok(dw)
}
