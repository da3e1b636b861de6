//! Launches of `l2.cu`.

use super::layer_cuda::{WARP_ROW, packed};
use crate::cuda::typed_kernels;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

typed_kernels! {
    family: "norm", file: "l2.cu", options: ["--device-as-default-execution-space"];
    FWD_WARP = "norm_l2_fwd_warp";
    FWD_BLOCK = "norm_l2_fwd_block";
    BWD_WARP = "norm_l2_bwd_warp";
    BWD_BLOCK = "norm_l2_bwd_block";
}

/// Warps of a block that takes a row each, and of one that takes one row.
const ROWS: usize = 4;
const WARPS: usize = 8;

/// The arguments behind the tensors, and the launch.
#[track_caller]
fn run(launch: Launch, rows: usize, width: usize, eps: f32, packed: u32) -> Result<()> {
    let launch = match width <= WARP_ROW {
        true => launch.value(rows as u64).grid(rows.div_ceil(ROWS)).block(32 * ROWS),
        false => launch.grid(rows).block(32 * WARPS),
    };
    launch.value(width as u32).value(eps).value(packed).flops(4.0 * (rows * width) as f64).run()
}

/// y [rows, width] and norm [rows] of x.
#[track_caller]
pub fn forward(
    name: &'static str,
    x: &Tensor,
    rows: usize,
    width: usize,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    let mut y = Tensor::empty(x.shape(), x.dtype(), x.device())?;
    let mut norm = Tensor::empty(&[rows], DType::F32, x.device())?;
    let kernel = if width <= WARP_ROW { &FWD_WARP } else { &FWD_BLOCK };
    let launch =
        Launch::new(kernel.of(name, x.dtype())?, x.device())?.read(x)?.write(&mut y)?.write(&mut norm)?;
    run(launch, rows, width, eps, packed(width, x.dtype(), [Some(x)]))?;
    Ok((y, norm))
}

/// dx from dy, y [rows, width] and norm [rows].
#[track_caller]
pub fn backward(
    name: &'static str,
    (dy, y, norm): (&Tensor, &Tensor, &Tensor),
    width: usize,
    eps: f32,
) -> Result<Tensor> {
    let mut dx = Tensor::empty(y.shape(), y.dtype(), y.device())?;
    let kernel = if width <= WARP_ROW { &BWD_WARP } else { &BWD_BLOCK };
    let launch = Launch::new(kernel.of(name, y.dtype())?, y.device())?
        .read(dy)?
        .read(y)?
        .read(norm)?
        .write(&mut dx)?;
    run(launch, norm.len(), width, eps, packed(width, y.dtype(), [Some(dy), Some(y)]))?;
    Ok(dx)
}
