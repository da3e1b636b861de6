//! Launches of `layer_backward.cu`.

use super::columns::{FINISH, Plan, aligned, finish_block};
use super::layer_cuda::{WARP_ROW, packed};
use crate::cuda::typed_kernels;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

typed_kernels! {
    family: "norm", file: "layer_backward.cu", options: ["--device-as-default-execution-space"];
    WARP = "norm_layer_bwd_warp";
    FINISH_WARP = "norm_layer_bwd_finish";
    BLOCK = "norm_layer_bwd_block";
    COLUMNS = "norm_layer_bwd_columns";
    FINISH_WIDE = "norm_layer_bwd_wide_finish";
}

/// Warps of a block with a row each, and of one that has one row.
const WARPS: usize = 4;
const WIDE_WARPS: usize = 8;
/// Rows that a warp takes at least, where there are enough, and blocks at most: each block leaves partial sums.
const LEAST: usize = 4;
const BLOCKS: usize = 512;

/// What the gradients are made of; all but `weight` and `dsum` as the forward pass had or gave them.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub dy: &'a Tensor,
    pub x: &'a Tensor,
    pub mean: &'a Tensor,
    pub rstd: &'a Tensor,
    pub weight: Option<&'a Tensor>,
    pub dsum: Option<&'a Tensor>,
}

/// (dx, dweight, dbias).
#[track_caller]
pub fn backward(name: &'static str, inputs: Inputs, width: usize) -> Result<(Tensor, Tensor, Tensor)> {
    let (dtype, device) = (inputs.x.dtype(), inputs.x.device());
    let mut dx = Tensor::empty(inputs.x.shape(), dtype, device)?;
    let mut dweight = Tensor::empty(&[width], DType::F32, device)?;
    let mut dbias = Tensor::empty(&[width], DType::F32, device)?;
    match width <= WARP_ROW {
        true => narrow(name, inputs, width, [&mut dx, &mut dweight, &mut dbias])?,
        false => wide(name, inputs, width, [&mut dx, &mut dweight, &mut dbias])?,
    }
    Ok((dx, dweight, dbias))
}

#[track_caller]
fn narrow(
    name: &'static str,
    Inputs { dy, x, mean, rstd, weight, dsum }: Inputs,
    width: usize,
    [dx, dweight, dbias]: [&mut Tensor; 3],
) -> Result<()> {
    let (dtype, device, rows) = (x.dtype(), x.device(), x.len() / width);
    let blocks = rows.div_ceil(WARPS * LEAST).min(BLOCKS);
    let mut partials = Tensor::empty(&[blocks, 2, width], DType::F32, device)?;
    Launch::new(WARP.of(name, dtype)?, device)?
        .read(dy)?
        .read(x)?
        .read(mean)?
        .read(rstd)?
        .read_optional(weight)?
        .read_optional(dsum)?
        .write(dx)?
        .write(&mut partials)?
        .value(rows as u64)
        .value(width as u32)
        .value(packed(width, dtype, [Some(dy), Some(x), weight, dsum]))
        .grid(blocks)
        .block(32 * WARPS)
        .flops(14.0 * x.len() as f64)
        .run()?;
    Launch::new(FINISH_WARP.of(name, dtype)?, device)?
        .read(&partials)?
        .write(dweight)?
        .write(dbias)?
        .value(blocks as u64)
        .value(width as u32)
        .grid3([width.div_ceil(FINISH), 2, 1])
        .block3(finish_block(blocks))
        .run()
}

#[track_caller]
fn wide(
    name: &'static str,
    Inputs { dy, x, mean, rstd, weight, dsum }: Inputs,
    width: usize,
    [dx, dweight, dbias]: [&mut Tensor; 3],
) -> Result<()> {
    let (dtype, device, rows) = (x.dtype(), x.device(), x.len() / width);
    Launch::new(BLOCK.of(name, dtype)?, device)?
        .read(dy)?
        .read(x)?
        .read(mean)?
        .read(rstd)?
        .read_optional(weight)?
        .read_optional(dsum)?
        .write(dx)?
        .value(width as u32)
        .value(packed(width, dtype, [Some(dy), Some(x), weight, dsum]))
        .grid(rows)
        .block(32 * WIDE_WARPS)
        .flops(12.0 * x.len() as f64)
        .run()?;
    let plan = Plan::sums(rows, width, dtype);
    let mut partials = plan.partials(dtype, device)?;
    Launch::new(COLUMNS.of(name, dtype)?, device)?
        .read(dy)?
        .read(x)?
        .read(mean)?
        .read(rstd)?
        .write(&mut partials)?
        .value(plan.columns)
        .value(u32::from(aligned([Some(dy), Some(x)])))
        .grid3(plan.grid())
        .block3(plan.block())
        .flops(5.0 * x.len() as f64)
        .run()?;
    Launch::new(FINISH_WIDE.of(name, dtype)?, device)?
        .read(&partials)?
        .write(dweight)?
        .write(dbias)?
        .value(plan.columns)
        .value(plan.blocks as u64)
        .grid(width.div_ceil(FINISH))
        .block3(finish_block(plan.blocks))
        .run()
}
