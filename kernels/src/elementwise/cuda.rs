//! Launches of `elementwise.cu`, `fused.cu` and `swiglu.cu`.

use super::fused::Factors;
use crate::cuda::{THREADS, Typed, address_mut, typed_kernels};
use crate::divisor::Divisor;
use crate::reduce;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

typed_kernels! {
    family: "elementwise", file: "elementwise.cu", options: [];
    SCALE = "elementwise_scale";
    RELU = "elementwise_relu";
    GELU = "elementwise_gelu";
    TANH = "elementwise_tanh";
    LN = "elementwise_ln";
    ADD = "elementwise_add";
    SUB = "elementwise_sub";
    MUL = "elementwise_mul";
    ADD_SCALED = "elementwise_add_scaled";
    RELU_BWD = "elementwise_relu_bwd";
    GELU_BWD = "elementwise_gelu_bwd";
    TANH_BWD = "elementwise_tanh_bwd";
    BLEND = "elementwise_blend";
    ADD_BIAS = "elementwise_add_bias";
}

pub(crate) mod fused {
    crate::cuda::typed_kernels! {
        family: "elementwise", file: "fused.cu", options: [];
        BIAS_GELU = "elementwise_bias_gelu";
        BIAS_RELU = "elementwise_bias_relu";
        RESIDUAL_SCALE = "elementwise_residual_scale";
        RESIDUAL_SCALE_BWD = "elementwise_residual_scale_bwd";
    }
}

pub(crate) mod gated {
    crate::cuda::typed_kernels! {
        family: "elementwise", file: "swiglu.cu", options: [];
        SWIGLU = "elementwise_swiglu";
        SWIGLU_BWD = "elementwise_swiglu_bwd";
    }
}

/// Blocks for `n` elements of `size` bytes, a pack of 16 bytes a thread.
fn blocks(n: usize, size: usize) -> usize {
    n.div_ceil(16 / size).div_ceil(THREADS)
}

/// Whether all tensors start at a multiple of 16 bytes, as the kernels take it.
fn aligned(tensors: &[&Tensor]) -> u32 {
    u32::from(tensors.iter().all(|t| t.is_aligned(16)))
}

/// out = f(x), with the number `s` where the kernel has one.
#[track_caller]
pub fn unary(name: &'static str, kernel: &'static Typed, x: &Tensor, s: f32) -> Result<Tensor> {
    let mut out = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let aligned = aligned(&[x]);
    Launch::new(kernel.of(name, x.dtype())?, x.device())?
        .read(x)?
        .write(&mut out)?
        .value(x.len() as u64)
        .value(s)
        .value(aligned)
        .grid(blocks(x.len(), x.dtype().size()))
        .block(THREADS)
        .run()?;
    Ok(out)
}

/// out = f(a, b), with the number `s` where the kernel has one.
#[track_caller]
pub fn binary(name: &'static str, kernel: &'static Typed, a: &Tensor, b: &Tensor, s: f32) -> Result<Tensor> {
    let mut out = Tensor::empty(a.shape(), a.dtype(), a.device())?;
    let aligned = aligned(&[a, b]);
    Launch::new(kernel.of(name, a.dtype())?, a.device())?
        .read(a)?
        .read(b)?
        .write(&mut out)?
        .value(a.len() as u64)
        .value(s)
        .value(aligned)
        .grid(blocks(a.len(), a.dtype().size()))
        .block(THREADS)
        .run()?;
    Ok(out)
}

/// a += b.
#[track_caller]
pub fn add_assign(a: &mut Tensor, b: &Tensor) -> Result<()> {
    let (n, size, device) = (a.len(), a.dtype().size(), a.device());
    // The copy that a write makes where the storage is shared comes first, so that the kernel reads what it writes.
    let launch = Launch::new(ADD.of("add_assign", a.dtype())?, device)?;
    let target = a.make_unique()?;
    let aligned = aligned(&[target, b]);
    launch
        .read(target)?
        .read(b)?
        .write(target)?
        .value(n as u64)
        .value(0f32)
        .value(aligned)
        .grid(blocks(n, size))
        .block(THREADS)
        .run()
}

/// a := keep a + factor b.
#[track_caller]
pub fn blend_assign(a: &mut Tensor, keep: f32, b: &Tensor, factor: f32) -> Result<()> {
    let (n, size, device) = (a.len(), a.dtype().size(), a.device());
    let launch = Launch::new(BLEND.of("blend_assign", a.dtype())?, device)?;
    address_mut("blend_assign", "a", a)?;
    let target = a.make_unique()?;
    let aligned = aligned(&[target, b]);
    launch
        .write(target)?
        .read(b)?
        .value(n as u64)
        .value(keep)
        .value(factor)
        .value(aligned)
        .bytes(3 * n * size)
        .grid(blocks(n, size))
        .block(THREADS)
        .run()
}

/// x + bias for every row.
#[track_caller]
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let aligned = aligned(&[x]);
    Launch::new(ADD_BIAS.of("add_bias", x.dtype())?, x.device())?
        .read(x)?
        .read(bias)?
        .write(&mut out)?
        .value(x.len() as u64)
        .value(bias.len() as u64)
        .value(aligned)
        .value(u32::from(bias.is_aligned(16)))
        .grid(blocks(x.len(), x.dtype().size()))
        .block(THREADS)
        .run()?;
    Ok(out)
}

/// Whether rows of `width` elements can be read in packs of 16 bytes from all tensors.
fn vector(width: usize, tensors: &[&Tensor]) -> u32 {
    u32::from(width.is_multiple_of(16 / tensors[0].dtype().size()) && aligned(tensors) == 1)
}

/// Elements of a thread beside a scale, `FEW` of `fused.cu`.
const FEW: usize = 4;

/// How a kernel reads rows, as `common/element.cuh` has it.
const BY_ELEMENT: u32 = 0;
const BY_PACK: u32 = 1;
const BY_SPLIT_PACK: u32 = 2;

/// Whether rows of `width` elements can be read from all tensors [`FEW`] at once.
fn by_few(width: usize, tensors: &[&Tensor]) -> bool {
    width.is_multiple_of(FEW) && tensors.iter().all(|t| t.is_aligned(FEW * t.dtype().size()))
}

/// gelu(x + bias), and x + bias.
#[track_caller]
pub fn bias_gelu(x: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    let name = "bias_gelu";
    let mut y = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let mut pre = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    Launch::new(fused::BIAS_GELU.of(name, x.dtype())?, x.device())?
        .read(x)?
        .read(bias)?
        .write(&mut y)?
        .write(&mut pre)?
        .value(x.len() as u64)
        .value(Divisor::new(name, bias.len())?)
        .value(vector(bias.len(), &[x, bias]))
        .grid(blocks(x.len(), x.dtype().size()))
        .block(THREADS)
        .run()?;
    Ok((y, pre))
}

/// relu(x + bias).
#[track_caller]
pub fn bias_relu(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let name = "bias_relu";
    let mut y = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    Launch::new(fused::BIAS_RELU.of(name, x.dtype())?, x.device())?
        .read(x)?
        .read(bias)?
        .write(&mut y)?
        .write_optional(None)?
        .value(x.len() as u64)
        .value(Divisor::new(name, bias.len())?)
        .value(vector(bias.len(), &[x, bias]))
        .grid(blocks(x.len(), x.dtype().size()))
        .block(THREADS)
        .run()?;
    Ok(y)
}

/// x + scale keep branch, without x if there is none.
#[track_caller]
pub(super) fn residual_scale(x: Option<&Tensor>, branch: &Tensor, factors: Factors<'_>) -> Result<Tensor> {
    let name = "residual_scale";
    let Factors { scale, keep, width, rows } = factors;
    let (n, dtype) = (branch.len(), branch.dtype());
    let mut out = Tensor::empty(branch.shape(), dtype, branch.device())?;
    let tensors: Vec<&Tensor> = [Some(branch), x, scale].into_iter().flatten().collect();
    Launch::new(fused::RESIDUAL_SCALE.of(name, dtype)?, branch.device())?
        .read_optional(x)?
        .read(branch)?
        .read_optional(scale)?
        .read_optional(keep)?
        .write(&mut out)?
        .value(n as u64)
        .value(Divisor::new(name, width)?)
        .value(Divisor::new(name, rows)?)
        .value(u32::from(by_few(width, &tensors)))
        .grid(n.div_ceil(FEW).div_ceil(THREADS))
        .block(THREADS)
        .run()?;
    Ok(out)
}

/// scale keep dy, and the sum over all rows of keep dy branch in f32.
#[track_caller]
pub(super) fn residual_scale_backward(
    dy: &Tensor,
    branch: &Tensor,
    scale: &Tensor,
    factors: Factors<'_>,
) -> Result<(Tensor, Tensor)> {
    let name = "residual_scale_backward";
    let Factors { keep, width, rows, .. } = factors;
    let (device, dtype) = (dy.device(), dy.dtype());
    let mut dbranch = Tensor::empty(dy.shape(), dtype, device)?;
    if dy.is_empty() {
        return Ok((dbranch, Tensor::zeros(&[width], DType::F32, device)?));
    }
    let total = dy.len() / width;
    // The division of work, and with it the order of sums, depends on sizes alone.
    let (parts, by) = match (width.is_multiple_of(FEW), by_few(width, &[dy, branch, scale])) {
        (false, _) => (width, BY_ELEMENT),
        (true, true) => (width / FEW, BY_PACK),
        (true, false) => (width / FEW, BY_SPLIT_PACK),
    };
    let lanes = parts.next_power_of_two().min(32);
    let tiles = parts.div_ceil(lanes);
    // As many pieces as fill a large device, of at least eight rows a lane.
    let at_once = 8 * 32 / lanes;
    let wanted = (512 / tiles).min(total / (8 * at_once)).max(1);
    let step = total.div_ceil(wanted);
    let pieces = total.div_ceil(step);
    let mut partial = Tensor::empty(&[pieces, width], DType::F32, device)?;
    Launch::new(fused::RESIDUAL_SCALE_BWD.of(name, dtype)?, device)?
        .read(dy)?
        .read(branch)?
        .read(scale)?
        .read_optional(keep)?
        .write(&mut dbranch)?
        .write(&mut partial)?
        .value(total as u64)
        .value(width as u64)
        .value(step as u64)
        .value(tiles as u32)
        .value(lanes.trailing_zeros())
        .value(Divisor::new(name, rows)?)
        .value(by)
        .grid(tiles * pieces)
        .block(THREADS)
        .flops(4.0 * dy.len() as f64)
        .run()?;
    let dscale = match pieces {
        1 => partial.reshape(&[width])?,
        _ => reduce::cuda::sum_middle(name, &partial, [1, pieces, width], 1.0, &[width], DType::F32)?,
    };
    Ok((dbranch, dscale))
}

/// silu(a) b for every row of x [.., 2 half].
#[track_caller]
pub fn swiglu(x: &Tensor, half: usize, y: &mut Tensor) -> Result<()> {
    let name = "swiglu";
    let (n, size) = (y.len(), x.dtype().size());
    Launch::new(gated::SWIGLU.of(name, x.dtype())?, x.device())?
        .read(x)?
        .write(y)?
        .value(n as u64)
        .value(Divisor::new(name, half)?)
        .value(vector(half, &[x]))
        .grid(blocks(n, size))
        .block(THREADS)
        .run()
}

/// The gradient of x [.., 2 half].
#[track_caller]
pub fn swiglu_backward(dy: &Tensor, x: &Tensor, half: usize, dx: &mut Tensor) -> Result<()> {
    let name = "swiglu_backward";
    let (n, size) = (dy.len(), x.dtype().size());
    Launch::new(gated::SWIGLU_BWD.of(name, x.dtype())?, x.device())?
        .read(dy)?
        .read(x)?
        .write(dx)?
        .value(n as u64)
        .value(Divisor::new(name, half)?)
        .value(vector(half, &[dy, x]))
        .grid(blocks(n, size))
        .block(THREADS)
        .run()
}
