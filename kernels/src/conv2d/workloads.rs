//! What is profiled and timed: the three passes of a network's 3x3 convolution, with stride 1 and 2, and a stem.

use super::mma::{Pass, run_by};
use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::matmul::mma_tile::MmaTile;
use crate::registry::{Run, Workload};
use engine::ErrorKind;

/// 64 channels to 64 at stride 1; 32 to 64 at stride 2; a stem of three channels; 3x3 in four groups; depthwise 3x3 and 7x7.
const SIZES: [([usize; 4], [usize; 4], Geometry); 6] = [
    ([2, 16, 16, 64], [64, 3, 3, 64], Geometry::new(1, 1)),
    ([2, 32, 32, 32], [64, 3, 3, 32], Geometry::new(2, 1)),
    ([2, 32, 32, 3], [64, 7, 7, 3], Geometry::new(2, 3)),
    ([2, 16, 16, 256], [256, 3, 3, 64], Geometry::new(1, 1).in_groups(4)),
    ([2, 16, 16, 256], [256, 3, 3, 1], Geometry::new(1, 1).in_groups(256)),
    ([2, 14, 14, 256], [256, 7, 7, 1], Geometry::new(1, 3).in_groups(256)),
];

/// Pass 0, 1 or 2 (forward, input gradient, weight gradient) of a size.
fn pass(device: Device, dtype: DType, size: usize, pass: usize) -> Result<Run> {
    let (input, weight, g) = SIZES[size];
    let put = |shape: &[usize], seed| on_device(&Array::random(shape, seed, 1.0), dtype, device);
    let (x, w) = (put(&input, 1)?, put(&weight, 2)?);
    let dy = put(&output_shape(&input, &weight, g)?, 3)?;
    Ok(Box::new(move || {
        match pass {
            0 => forward(&x, &w, g)?,
            1 => input_gradient(&dy, &w, &input, g)?,
            _ => weight_gradient(&x, &dy, &weight, g)?,
        };
        Ok(())
    }))
}

/// The middle of a residual block: a convolution of 64 channels to 64 that normalises what it reads, and statistics from
/// the sums beside it (pass 0), and its weight's gradient (pass 1); or one pixel to one pixel, 64 to 256, with sums (pass 2).
fn normalised(device: Device, dtype: DType, pass: usize) -> Result<Run> {
    let (input, weight, g) = match pass {
        2 => ([2, 16, 16, 64], [256, 1, 1, 64], Geometry::new(1, 0)),
        _ => SIZES[0],
    };
    let put = |shape: &[usize], seed| on_device(&Array::random(shape, seed, 1.0), dtype, device);
    let (x, w) = (put(&input, 1)?, put(&weight, 2)?);
    let dy = put(&output_shape(&input, &weight, g)?, 3)?;
    let map = crate::norm::batch_statistics(&x, None, None, None, 1e-5)?.map;
    Ok(Box::new(move || match pass {
        0 => {
            let (y, sums) = forward_of_map(&x, &map, &w, g)?;
            crate::norm::batch_statistics(&y, sums.as_ref(), None, None, 1e-5).map(drop)
        }
        1 => weight_gradient_of_map(&x, &map, &dy, &weight, g).map(drop),
        _ => forward_with_sums(&x, &w, g).map(drop),
    }))
}

/// Pass 0, 1 or 2 of 3x3 convolutions of 128 channels by blocks of a warpgroups' tile, or of [`T128x128`](MmaTile::T128x128).
fn by_tile(device: Device, dtype: DType, tile: MmaTile, pass: Pass) -> Result<Run> {
    if dtype != DType::BF16 {
        return Err(Error::dtype("workload", "tensor cores take bf16"));
    }
    if !MmaTile::of(device).contains(&tile) {
        return Err(Error::new(ErrorKind::Device, "workload", "warpgroups multiply on Hopper alone"));
    }
    let (input, weight, g) = ([2, 16, 16, 128], [128, 3, 3, 128], Geometry::new(1, 1));
    let z = Sizes::new("conv2d", &input, &weight, g)?;
    let put = |shape: &[usize], seed| on_device(&Array::random(shape, seed, 1.0), dtype, device);
    let (x, w, dy) = (put(&input, 1)?, put(&weight, 2)?, put(&z.output(), 3)?);
    Ok(Box::new(move || {
        let (operands, shape) = match pass {
            Pass::Forward => ([&x, &w], z.output()),
            Pass::InputGradient => ([&dy, &w], z.input()),
            Pass::WeightGradient => ([&x, &dy], z.weight()),
        };
        let mut out = Tensor::empty(&shape, dtype, device)?;
        run_by("conv2d", tile, &z, pass, operands, &mut out)
    }))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { label: "conv2d 2x16x16, 64 to 64, 3x3", prepare: |d, t| pass(d, t, 0, 0) },
        Workload { label: "conv2d_dgrad 2x16x16, 64 to 64, 3x3", prepare: |d, t| pass(d, t, 0, 1) },
        Workload { label: "conv2d_wgrad 2x16x16, 64 to 64, 3x3", prepare: |d, t| pass(d, t, 0, 2) },
        Workload { label: "conv2d 2x32x32, 32 to 64, 3x3 stride 2", prepare: |d, t| pass(d, t, 1, 0) },
        Workload { label: "conv2d_dgrad 2x32x32, 32 to 64, 3x3 stride 2", prepare: |d, t| pass(d, t, 1, 1) },
        Workload { label: "conv2d_wgrad 2x32x32, 32 to 64, 3x3 stride 2", prepare: |d, t| pass(d, t, 1, 2) },
        Workload { label: "conv2d 2x32x32, 3 to 64, 7x7 stride 2", prepare: |d, t| pass(d, t, 2, 0) },
        Workload { label: "conv2d_wgrad 2x32x32, 3 to 64, 7x7 stride 2", prepare: |d, t| pass(d, t, 2, 2) },
        Workload {
            label: "conv2d of a map, then statistics 2x16x16, 64 to 64, 3x3",
            prepare: |d, t| normalised(d, t, 0),
        },
        Workload {
            label: "conv2d_wgrad of a map 2x16x16, 64 to 64, 3x3",
            prepare: |d, t| normalised(d, t, 1),
        },
        Workload { label: "conv2d with sums 2x16x16, 64 to 256, 1x1", prepare: |d, t| normalised(d, t, 2) },
        Workload { label: "conv2d 2x16x16, 256 in 4 groups, 3x3", prepare: |d, t| pass(d, t, 3, 0) },
        Workload { label: "conv2d_dgrad 2x16x16, 256 in 4 groups, 3x3", prepare: |d, t| pass(d, t, 3, 1) },
        Workload { label: "conv2d_wgrad 2x16x16, 256 in 4 groups, 3x3", prepare: |d, t| pass(d, t, 3, 2) },
        Workload {
            label: "conv2d 2x16x16, 128 to 128, 3x3, tile 128x128",
            prepare: |d, t| by_tile(d, t, MmaTile::T128x128, Pass::Forward),
        },
        Workload {
            label: "conv2d_dgrad 2x16x16, 128 to 128, 3x3, tile 128x128",
            prepare: |d, t| by_tile(d, t, MmaTile::T128x128, Pass::InputGradient),
        },
        Workload {
            label: "conv2d_wgrad 2x16x16, 128 to 128, 3x3, tile 128x128",
            prepare: |d, t| by_tile(d, t, MmaTile::T128x128, Pass::WeightGradient),
        },
        Workload {
            label: "conv2d 2x16x16, 128 to 128, 3x3, of warpgroups",
            prepare: |d, t| by_tile(d, t, MmaTile::W128x128, Pass::Forward),
        },
        Workload {
            label: "conv2d_dgrad 2x16x16, 128 to 128, 3x3, of warpgroups",
            prepare: |d, t| by_tile(d, t, MmaTile::W128x128, Pass::InputGradient),
        },
        Workload {
            label: "conv2d_wgrad 2x16x16, 128 to 128, 3x3, of warpgroups",
            prepare: |d, t| by_tile(d, t, MmaTile::W128x128, Pass::WeightGradient),
        },
        Workload { label: "conv2d 2x16x16, depthwise 256, 3x3", prepare: |d, t| pass(d, t, 4, 0) },
        Workload { label: "conv2d_dgrad 2x16x16, depthwise 256, 3x3", prepare: |d, t| pass(d, t, 4, 1) },
        Workload { label: "conv2d_wgrad 2x16x16, depthwise 256, 3x3", prepare: |d, t| pass(d, t, 4, 2) },
        Workload { label: "conv2d 2x14x14, depthwise 256, 7x7", prepare: |d, t| pass(d, t, 5, 0) },
        Workload { label: "conv2d_wgrad 2x14x14, depthwise 256, 7x7", prepare: |d, t| pass(d, t, 5, 2) },
    ]
}
