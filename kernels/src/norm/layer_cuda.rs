//! Launches of `layer.cu`.

use super::columns::aligned;
use crate::cuda::typed_kernels;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

typed_kernels! {
    family: "norm", file: "layer.cu", options: ["--device-as-default-execution-space"];
    WARP = "norm_layer_fwd_warp";
    BLOCK = "norm_layer_fwd_block";
}

/// Elements of a row that a warp holds in registers at most, as `common/parts.cuh` has it.
pub const WARP_ROW: usize = 1024;
/// Warps of a block that takes a row each, and of one that takes one row.
const ROWS: usize = 4;
const WARPS: usize = 8;

/// Whether rows may be read in packs of 16 bytes: all tensors start at a multiple of that, and so do rows.
pub fn packed<'a>(width: usize, dtype: DType, tensors: impl IntoIterator<Item = Option<&'a Tensor>>) -> u32 {
    u32::from(width.is_multiple_of(16 / dtype.size()) && aligned(tensors))
}

/// What [`forward`] gives: x + branch where there is a branch, y, mean, rstd.
pub type Forward = (Option<Tensor>, Tensor, Tensor, Tensor);

/// Normalises the rows of x, or of x + branch.
#[track_caller]
pub fn forward(
    name: &'static str,
    x: &Tensor,
    branch: Option<&Tensor>,
    (weight, bias): (Option<&Tensor>, Option<&Tensor>),
    width: usize,
    eps: f32,
) -> Result<Forward> {
    let (dtype, device) = (x.dtype(), x.device());
    let (rows, leading) = (x.len() / width, &x.shape()[..x.rank() - 1]);
    let mut sum = match branch {
        Some(_) => Some(Tensor::empty(x.shape(), dtype, device)?),
        None => None,
    };
    let mut y = Tensor::empty(x.shape(), dtype, device)?;
    let mut mean = Tensor::empty(leading, DType::F32, device)?;
    let mut rstd = Tensor::empty(leading, DType::F32, device)?;
    let narrow = width <= WARP_ROW;
    let kernel = if narrow { &WARP } else { &BLOCK };
    let mut launch = Launch::new(kernel.of(name, dtype)?, device)?
        .read(x)?
        .read_optional(branch)?
        .read_optional(weight)?
        .read_optional(bias)?
        .write_optional(sum.as_mut())?
        .write(&mut y)?
        .write(&mut mean)?
        .write(&mut rstd)?
        .flops(8.0 * x.len() as f64);
    launch = match narrow {
        true => launch.value(rows as u64).grid(rows.div_ceil(ROWS)).block(32 * ROWS),
        false => launch.grid(rows).block(32 * WARPS),
    };
    launch
        .value(width as u32)
        .value(eps)
        .value(packed(width, dtype, [Some(x), branch, weight, bias]))
        .run()?;
    Ok((sum, y, mean, rstd))
}
