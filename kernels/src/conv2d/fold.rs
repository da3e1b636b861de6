//! Convolutions of few channels on tensor cores: the stride is folded into the channels (`fold.cu`), which leaves a
//! convolution of stride 1 without padding whose channels are whole packs.
//!
//! A stem of 7x7, stride 2, three channels becomes 4x4 of 16 channels; patches of 16x16 become one matrix product. The folded image
//! has `ceil(stride² C / 8) 8` channels, `P + ceil(R / stride) - 1` rows and alike columns, is written and read once
//! more, and lives as long as the launch. A kernel whose sides are not multiples of the stride gets zeros behind its last row and
//! column: an infinity or a NaN there, which the kernel itself would not meet, makes the result NaN.

use super::mma::{self, Pass};
use super::{Sizes, cuda};
use crate::divisor::{Divisor, side};
use engine::cuda::{Kernel, Launch};
use engine::{DType, Result, Tensor};

pub(crate) mod kernels {
    crate::cuda::kernels! {
        family: "conv2d", file: "fold.cu", options: [];
        IMAGE = "conv2d_fold_bf16";
        WEIGHT = "conv2d_fold_weight_bf16";
        UNFOLD = "conv2d_unfold_weight_bf16";
    }
}

/// `THREADS` of `fold.cu`.
const THREADS: usize = 128;
/// Elements that a block has in shared memory: `STAGED` of `fold.cu`.
const STAGED: usize = 8192;

/// What a block makes of a row of the folded image.
#[derive(Debug, Clone, Copy)]
struct Segment {
    pixels: usize,
    /// Whether the packs of x that it meets are copied to shared memory first.
    together: bool,
}

impl Segment {
    fn of(z: &Sizes, to: &Sizes, x: &Tensor) -> Segment {
        // With copies of x, whole groups of 64 elements and 14 elements more a row, that make packs of both ends whole.
        let [run, ends] = [z.stride * z.c, 64 + 14 * z.stride];
        let copied = STAGED.saturating_sub(ends) / (to.c + z.stride * run);
        let together = copied > 0 && x.is_aligned(16) && (z.w * z.c).is_multiple_of(8);
        let pixels = if together { copied } else { STAGED / to.c };
        Segment { pixels: pixels.clamp(1, 128).min(to.w), together }
    }

    /// Packs of a row of x that it meets, at most.
    fn row_packs(self, z: &Sizes) -> usize {
        (self.pixels * z.stride * z.c + 14) / 8
    }
}

/// `Fold` of `fold.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Fold {
    /// H, W, C, R, S, stride, padding.
    sizes: [u32; 7],
    pixels: u32,
    count: u32,
    together: u32,
    rows: Divisor,
    columns: Divisor,
    channels: Divisor,
    packs: Divisor,
    row_packs: Divisor,
    segments: Divisor,
    run: Divisor,
    element: Divisor,
    stride: Divisor,
    wide: Divisor,
    outer: Divisor,
}
const _: () = assert!(size_of::<Fold>() == 172);

/// The convolution that is left.
pub(crate) fn folded(z: &Sizes) -> Sizes {
    let (r, s) = (z.r.div_ceil(z.stride), z.s.div_ceil(z.stride));
    let c = (z.stride * z.stride * z.c).next_multiple_of(8);
    Sizes { h: z.p + r - 1, w: z.q + s - 1, c, r, s, stride: 1, padding: 0, ..*z }
}

/// Whether a pass, forward or the weight gradient, is computed so: bf16 whose channels are not whole packs, without
/// dilation, or groups, where what is left fits tensor cores.
pub(crate) fn applies(z: &Sizes, pass: Pass, tensors: [&Tensor; 2]) -> bool {
    let outputs = if pass == Pass::WeightGradient { 8 } else { 1 };
    let fits = |z: &Sizes| {
        let one = z.is_product() && z.o.is_multiple_of(8);
        (one || mma::fits(z, pass)) && z.n * z.h * z.w <= 1 << 30
    };
    tensors.iter().all(|tensor| tensor.dtype() == DType::BF16)
        && (pass != Pass::WeightGradient || tensors[1].is_aligned(16))
        && !z.c.is_multiple_of(8)
        && z.o.is_multiple_of(outputs)
        && (z.dilation, z.groups) == (1, 1)
        && z.n * z.c * z.o > 0
        && folded(z).c <= STAGED
        && fits(&folded(z))
}

impl Fold {
    #[track_caller]
    fn new(name: &str, z: &Sizes, to: &Sizes, segment: Segment, count: usize) -> Result<Fold> {
        let mut sizes = [0; 7];
        for (small, size) in sizes.iter_mut().zip([z.h, z.w, z.c, z.r, z.s, z.stride, z.padding]) {
            *small = side(name, size)?;
        }
        // A kernel is folded to its own rows and columns.
        Ok(Fold {
            sizes,
            pixels: side(name, segment.pixels)?,
            count: side(name, count)?,
            together: u32::from(segment.together),
            rows: Divisor::new(name, to.h)?,
            columns: Divisor::new(name, to.w)?,
            channels: Divisor::new(name, to.c)?,
            packs: Divisor::new(name, to.c / 8)?,
            row_packs: Divisor::new(name, segment.row_packs(z))?,
            segments: Divisor::new(name, to.w.div_ceil(segment.pixels))?,
            run: Divisor::new(name, z.stride * z.c)?,
            element: Divisor::new(name, z.c)?,
            stride: Divisor::new(name, z.stride)?,
            wide: Divisor::new(name, z.s)?,
            outer: Divisor::new(name, z.r)?,
        })
    }
}

/// The folded image [N, rows, columns, channels] of x.
#[track_caller]
fn image(name: &str, z: &Sizes, to: &Sizes, x: &Tensor) -> Result<Tensor> {
    let segment = Segment::of(z, to, x);
    let mut out = Tensor::empty(&to.input(), DType::BF16, x.device())?;
    let bytes = 2 * (x.len() + out.len());
    Launch::new(&kernels::IMAGE, x.device())?
        .read(x)?
        .write(&mut out)?
        .value(Fold::new(name, z, to, segment, 0)?)
        .grid(z.n * to.h * to.w.div_ceil(segment.pixels))
        .block(THREADS)
        .bytes(bytes)
        .run()?;
    Ok(out)
}

/// The weight folded, or a folded one's gradient unfolded.
#[track_caller]
fn weight(
    name: &str,
    kernel: &'static Kernel,
    z: &Sizes,
    to: &Sizes,
    from: &Tensor,
    out: &mut Tensor,
) -> Result<()> {
    let kernel_of = Sizes { h: to.r, w: to.s, ..*to };
    let whole = Segment { pixels: to.s, together: false };
    let (count, bytes) = (out.len(), 2 * (from.len() + out.len()));
    Launch::new(kernel, from.device())?
        .read(from)?
        .write(out)?
        .value(Fold::new(name, z, &kernel_of, whole, count)?)
        .grid(count.div_ceil(THREADS))
        .block(THREADS)
        .bytes(bytes)
        .run()
}

/// Whether folding leaves the weight as it lies in memory: patches that meet no others.
fn keeps_weight(z: &Sizes, to: &Sizes) -> bool {
    (z.r, z.s) == (z.stride, z.stride) && to.c == z.r * z.s * z.c
}

/// Gives what `convolve` makes of the folded sizes, x and w, where [`applies`] says so of the forward pass.
#[track_caller]
pub(crate) fn forward<T>(
    name: &str,
    z: &Sizes,
    x: &Tensor,
    w: &Tensor,
    convolve: impl FnOnce(&Sizes, &Tensor, &Tensor) -> Result<T>,
) -> Result<T> {
    let to = folded(z);
    let x = image(name, z, &to, x)?;
    if keeps_weight(z, &to) && w.is_aligned(16) {
        return convolve(&to, &x, w);
    }
    let mut folded = Tensor::empty(&to.weight(), DType::BF16, w.device())?;
    weight(name, &kernels::WEIGHT, z, &to, w, &mut folded)?;
    convolve(&to, &x, &folded)
}

/// dw from x and dy, where [`applies`] says so.
#[track_caller]
pub(crate) fn weight_gradient(name: &str, z: &Sizes, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()> {
    let to = folded(z);
    let x = image(name, z, &to, x)?;
    if keeps_weight(z, &to) {
        return cuda::weight_gradient(&to, &x, dy, dw);
    }
    let mut folded = Tensor::empty(&to.weight(), DType::BF16, dw.device())?;
    cuda::weight_gradient(&to, &x, dy, &mut folded)?;
    weight(name, &kernels::UNFOLD, z, &to, &folded, dw)
}
