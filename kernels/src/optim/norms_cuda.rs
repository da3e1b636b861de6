//! Launches of `norms.cu` for norms and clipping.

use super::clip::Sets;
use super::cuda::{PARTIAL, launch};
use super::table::{CHUNK, Entry, Table};
use crate::cuda::{THREADS, kernels};
use engine::cuda::{self, Launch};
use engine::{DType, Device, Result, Tensor};

kernels! {
    family: "optim", file: "norms.cu", options: ["--fmad=false"];
    SQUARES = "optim_squares";
    NORMS = "optim_norms";
    LARS_SQUARES = "optim_lars_squares";
}

/// Tensors whose norm is one, as norms.cu has it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Set {
    first_chunk: u32,
    chunks: u32,
    first: u32,
    count: u32,
}

/// Norm of all gradients together.
#[track_caller]
pub(super) fn global_norm(operation: &str, ordinal: usize, gradients: &[&Tensor]) -> Result<Tensor> {
    let device = Device::Cuda(ordinal);
    let (partials, chunks) = squares(operation, device, gradients.iter().copied())?;
    let mut norm = Tensor::empty(&[1], DType::F32, device)?;
    let all = [Set { first_chunk: 0, chunks, first: 0, count: 0 }];
    let all = cuda::constant(cuda::context(ordinal)?, bytemuck::cast_slice(&all))?;
    Launch::new(&NORMS, device)?
        .read(&partials)?
        .value(all.address())
        .value(0u64)
        .write(&mut norm)?
        .value(0u64)
        .value(0f32)
        .grid(1)
        .block(THREADS)
        .bytes(partials.len() + all.len() + 4)
        .run()?;
    Ok(norm)
}

/// Norm of all gradients together, and what each gradient is multiplied by so that the norm of its set is at most `limit`.
#[track_caller]
pub(super) fn clip_scales(
    operation: &str,
    ordinal: usize,
    gradients: &[&Tensor],
    sets: &Sets,
    limit: f32,
) -> Result<(Tensor, Tensor)> {
    let device = Device::Cuda(ordinal);
    let (partials, chunks) = squares(operation, device, sets.order.iter().map(|&i| gradients[i]))?;
    let mut norm = Tensor::empty(&[1], DType::F32, device)?;
    let mut scales = Tensor::empty(&[gradients.len()], DType::F32, device)?;
    let mut list = Vec::with_capacity(1 + sets.counts.len());
    let (mut first, mut first_chunk) = (0, 0);
    for &count in &sets.counts {
        let of_set = sets.order[first..first + count].iter().map(|&i| gradients[i].len().div_ceil(CHUNK));
        let chunks = of_set.sum::<usize>() as u32;
        list.push(Set { first_chunk, chunks, first: first as u32, count: count as u32 });
        first += count;
        first_chunk += chunks;
    }
    // The first set's norm is that of all.
    if list.len() > 1 {
        list.insert(0, Set { first_chunk: 0, chunks, first: 0, count: 0 });
    }
    let order: Vec<u32> = sets.order.iter().map(|&i| i as u32).collect();
    let context = cuda::context(ordinal)?;
    let sets = cuda::constant(context, bytemuck::cast_slice(&list))?;
    let order = cuda::constant(context, bytemuck::cast_slice(&order))?;
    Launch::new(&NORMS, device)?
        .read(&partials)?
        .value(sets.address())
        .value(order.address())
        .write(&mut norm)?
        .write(&mut scales)?
        .value(limit)
        .grid(list.len())
        .block(THREADS)
        .bytes(partials.len() + sets.len() + order.len() + 4 + 4 * scales.len())
        .run()?;
    Ok((norm, scales))
}

/// Sums of the squares of the tensors' chunks, and the number of these.
#[track_caller]
fn squares<'a>(
    operation: &str,
    device: Device,
    gradients: impl Iterator<Item = &'a Tensor>,
) -> Result<(Tensor, u32)> {
    let (mut bytes, mut elements, mut entries) = (0, 0, Vec::new());
    for gradient in gradients {
        bytes += gradient.len() * gradient.dtype().size();
        elements += gradient.len();
        entries.push(Entry::of_gradient(operation, gradient)?);
    }
    let table = Table::new(operation, device, entries)?;
    let mut partials = Tensor::empty(&[table.chunk_count, PARTIAL], DType::U8, device)?;
    launch(&SQUARES, device, &table)?
        .write(&mut partials)?
        .bytes(bytes + table.bytes() + partials.len())
        .flops(2.0 * elements as f64)
        .run()?;
    Ok((partials, table.chunk_count as u32))
}
