//! Launches of `random.cu`. The tensors are f32, or i32 for words, and empty so far.

use super::cpu::Stream;
use crate::cuda::{THREADS, kernels};
use engine::cuda::{Kernel, Launch};
use engine::{Result, Tensor};

kernels! {
    family: "random", file: "random.cu", options: [];
    WORDS = "random_words";
    UNIFORM = "random_uniform";
    NORMAL = "random_normal";
    TRUNCATED_NORMAL = "random_truncated_normal";
}

/// `Stream` of `common/philox.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct DeviceStream {
    seed: u64,
    index: u64,
    purpose: u32,
    unused: u32,
}

const _: () = assert!(size_of::<DeviceStream>() == 24);

/// A launch for `out`, `per_thread` elements a thread, with all arguments but the distribution's.
#[track_caller]
fn launch(kernel: &'static Kernel, out: &mut Tensor, stream: Stream, per_thread: usize) -> Result<Launch> {
    let Stream { seed, purpose, index } = stream;
    let n = out.len();
    Ok(Launch::new(kernel, out.device())?
        .write(out)?
        .value(n as u64)
        .value(DeviceStream { seed, index, purpose, unused: 0 })
        .grid(n.div_ceil(per_thread).div_ceil(THREADS))
        .block(THREADS))
}

/// The stream's words.
#[track_caller]
pub fn words(out: &mut Tensor, stream: Stream) -> Result<()> {
    launch(&WORDS, out, stream, 4)?.run()
}

/// Uniform in [low, high).
#[track_caller]
pub fn uniform(out: &mut Tensor, low: f32, high: f32, stream: Stream) -> Result<()> {
    launch(&UNIFORM, out, stream, 4)?.value(low).value(high - low).run()
}

/// Normal values in pairs.
#[track_caller]
pub fn normal(out: &mut Tensor, mean: f32, std: f32, stream: Stream) -> Result<()> {
    launch(&NORMAL, out, stream, 4)?.value(mean).value(std).run()
}

/// Normal values within the bound.
#[track_caller]
pub fn truncated_normal(out: &mut Tensor, std: f32, bound: f32, stream: Stream) -> Result<()> {
    launch(&TRUNCATED_NORMAL, out, stream, 1)?.value(std).value(bound).run()
}
