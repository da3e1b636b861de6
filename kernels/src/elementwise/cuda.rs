//! Launches of `elementwise.cu`.

use crate::cuda::{THREADS, Typed, typed_kernels};
use engine::cuda::Launch;
use engine::{Result, Tensor};

typed_kernels! {
    family: "elementwise", file: "elementwise.cu", options: [];
    SCALE = "elementwise_scale";
    RELU = "elementwise_relu";
    GELU = "elementwise_gelu";
    ADD = "elementwise_add";
    SUB = "elementwise_sub";
    MUL = "elementwise_mul";
    ADD_SCALED = "elementwise_add_scaled";
    RELU_BWD = "elementwise_relu_bwd";
    GELU_BWD = "elementwise_gelu_bwd";
    BLEND = "elementwise_blend";
    ADD_BIAS = "elementwise_add_bias";
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
        .grid(blocks(x.len(), x.dtype().size()))
        .block(THREADS)
        .run()?;
    Ok(out)
}
