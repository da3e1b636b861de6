//! Sums of a tensor's columns that the kernel which computed it left behind, and the launch that merges them.

use super::columns::{FINISH, Plan, finish_block};
use crate::cuda::kernels;
use crate::divisor::side;
use engine::cuda::Launch;
use engine::{DType, Device, Error, Result, Tensor};

kernels! {
    family: "norm", file: "batch_merge.cu", options: ["--define-macro=ELEMENT_BF16"];
    MERGE = "norm_batch_merge";
}

/// Tiles that a block merges: four for each of its threads.
const TILES_EACH: usize = 4 * FINISH;

/// For every tile of successive rows of a tensor [rows, C] of bf16, the sum of each column over them and the sum of squares
/// about its mean, in float32. [`crate::conv2d::forward_with_sums`] makes it; [`super::batch_statistics`] takes it.
#[derive(Debug, Clone)]
pub struct TileSums {
    /// [tiles, 2, C].
    pub(crate) sums: Tensor,
    rows: usize,
    /// Rows of a tile; the last may have fewer.
    tile: usize,
}

impl TileSums {
    /// Room for the sums of `rows` rows, of which there are some, and `channels` columns, a multiple of 8.
    #[track_caller]
    pub(crate) fn new(rows: usize, channels: usize, tile: usize, device: Device) -> Result<TileSums> {
        let sums = Tensor::empty(&[rows.div_ceil(tile), 2, channels], DType::F32, device)?;
        Ok(TileSums { sums, rows, tile })
    }

    /// An error unless they are of `x` [rows, channels].
    #[track_caller]
    pub(super) fn require(&self, name: &str, x: &Tensor, rows: usize, channels: usize) -> Result<()> {
        x.require_dtype(name, "x", DType::BF16)?;
        if (self.rows, self.sums.shape()[2]) == (rows, channels) {
            return Ok(());
        }
        let error = Error::shape(name, "the sums must be of x: give those that came with it");
        Err(error.with("x", [rows, channels]).with("sums", [self.rows, self.sums.shape()[2]]))
    }

    /// Mean and squares of runs of tiles, as `norm_batch_finish` takes them.
    #[track_caller]
    pub(super) fn merge(&self) -> Result<(Plan, Tensor)> {
        let (name, device) = ("batch_norm", self.sums.device());
        let (tiles, channels) = (self.sums.shape()[0], self.sums.shape()[2]);
        let plan = Plan::merging(self.rows, channels, DType::BF16, TILES_EACH * self.tile);
        let mut partials = plan.partials(DType::BF16, device)?;
        Launch::new(&MERGE, device)?
            .read(&self.sums)?
            .write(&mut partials)?
            .value(plan.columns)
            .value(side(name, self.tile)?)
            .value(side(name, tiles)?)
            .value(side(name, TILES_EACH)?)
            .grid3([channels.div_ceil(FINISH), plan.blocks, 1])
            .block3(finish_block(tiles.min(TILES_EACH)))
            .flops(4.0 * self.sums.len() as f64)
            .run()?;
        Ok((plan, partials))
    }
}
