//! What is profiled and timed: one product of each tile, sums in parts, what is done beside products, and the ladder.

use super::cuda::Sizes;
use super::mma::{Beside, product_by};
use super::mma_tile::MmaTile;
use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};
use engine::ErrorKind;

fn operand(seed: u64, shape: [usize; 2], device: Device, dtype: DType) -> Result<Tensor> {
    on_device(&Array::random(&shape, seed, 1.0), dtype, device)
}

fn product(
    device: Device,
    dtype: DType,
    [m, n, k]: [usize; 3],
    transpose_a: bool,
    transpose_b: bool,
) -> Result<Run> {
    let a = operand(1, if transpose_a { [k, m] } else { [m, k] }, device, dtype)?;
    let b = operand(2, if transpose_b { [n, k] } else { [k, n] }, device, dtype)?;
    Ok(Box::new(move || matmul(&a, &b, transpose_a, transpose_b).map(drop)))
}

fn only_bf16(dtype: DType) -> Result<()> {
    match dtype {
        DType::BF16 => Ok(()),
        _ => Err(Error::dtype("workload", "tensor cores take bf16")),
    }
}

fn only_f32(dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 => Ok(()),
        _ => Err(Error::dtype("workload", "what is rounded to tf32 is f32")),
    }
}

/// A product in tf32.
fn in_tf32(device: Device, dtype: DType, transpose_a: bool, transpose_b: bool, tile: MmaTile) -> Result<Run> {
    only_f32(dtype)?;
    let (m, n, k) = (512, 512, 256);
    let a = operand(1, if transpose_a { [k, m] } else { [m, k] }, device, dtype)?;
    let b = operand(2, if transpose_b { [n, k] } else { [k, n] }, device, dtype)?;
    let mut out = Tensor::empty(&[m, n], dtype, device)?;
    let z = Sizes { batch: 1, m, n, k, transpose_a, transpose_b };
    Ok(Box::new(move || product_by("matmul", tile, z, &a, &b, None, &mut out, Beside::Nothing)))
}

/// `A Bᵀ` by one step of the ladder.
fn step(device: Device, dtype: DType, number: usize) -> Result<Run> {
    only_bf16(dtype)?;
    let (a, b) = (operand(1, [512, 256], device, dtype)?, operand(2, [512, 256], device, dtype)?);
    let mut out = Tensor::empty(&[512, 512], dtype, device)?;
    Ok(Box::new(move || ladder::product(number, &a, &b, &mut out)))
}

/// `A Bᵀ` by blocks of a tile that larger products take.
fn tile(device: Device, dtype: DType, tile: MmaTile) -> Result<Run> {
    only_bf16(dtype)?;
    if !MmaTile::of(device).contains(&tile) {
        return Err(Error::new(ErrorKind::Device, "workload", "warpgroups multiply on Hopper alone"));
    }
    let (m, n, k) = (1024, 512, 256);
    let (a, b) = (operand(1, [m, k], device, dtype)?, operand(2, [n, k], device, dtype)?);
    let mut out = Tensor::empty(&[m, n], dtype, device)?;
    let z = Sizes { batch: 1, m, n, k, transpose_a: false, transpose_b: true };
    Ok(Box::new(move || product_by("matmul", tile, z, &a, &b, None, &mut out, Beside::Nothing)))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "tile 128x256 of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::T128x256),
        },
        Workload {
            label: "tile 128x128 of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::T128x128),
        },
        Workload {
            label: "tile 128x64 of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::T128x64),
        },
        Workload {
            label: "tile 64x128 of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::T64x128),
        },
        Workload {
            label: "tile 128x256 of warpgroups, of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::W128x256),
        },
        Workload {
            label: "tile 128x128 of warpgroups, of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::W128x128),
        },
        Workload {
            label: "tile 128x64 of warpgroups, of 1024x512x256, b transposed",
            prepare: |device, dtype| tile(device, dtype, MmaTile::W128x64),
        },
        Workload {
            label: "linear_gelu 4096x192 to 768",
            prepare: |device, dtype| {
                only_bf16(dtype)?;
                let x = operand(1, [4096, 192], device, dtype)?;
                let weight = operand(2, [768, 192], device, dtype)?;
                let bias = operand(3, [1, 768], device, dtype)?.reshape(&[768])?;
                Ok(Box::new(move || linear_gelu(&x, &weight, Some(&bias), true).map(drop)))
            },
        },
        Workload {
            label: "matmul_gelu_backward 4096x192 to 768",
            prepare: |device, dtype| {
                only_bf16(dtype)?;
                let dy = operand(1, [4096, 192], device, dtype)?;
                let weight = operand(2, [192, 768], device, dtype)?;
                let pre = operand(3, [4096, 768], device, dtype)?;
                Ok(Box::new(move || matmul_gelu_backward(&dy, &weight, &pre).map(drop)))
            },
        },
        Workload {
            label: "linear_residual 4096x768 to 192",
            prepare: |device, dtype| {
                only_bf16(dtype)?;
                let x = operand(1, [4096, 768], device, dtype)?;
                let weight = operand(2, [192, 768], device, dtype)?;
                let bias = operand(3, [1, 192], device, dtype)?.reshape(&[192])?;
                let before = operand(4, [4096, 192], device, dtype)?.reshape(&[16, 256, 192])?;
                let x = x.reshape(&[16, 256, 768])?;
                let scale = operand(5, [1, 192], device, DType::F32)?.reshape(&[192])?;
                let keep = operand(6, [1, 16], device, DType::F32)?.reshape(&[16])?;
                Ok(Box::new(move || {
                    let residual = Residual { x: &before, scale: Some(&scale), keep: Some(&keep) };
                    linear_residual(&x, &weight, Some(&bias), residual, true).map(drop)
                }))
            },
        },
        Workload {
            label: "matmul_relu_backward 4096x192 to 768",
            prepare: |device, dtype| {
                only_bf16(dtype)?;
                let dy = operand(1, [4096, 192], device, dtype)?;
                let weight = operand(2, [192, 768], device, dtype)?;
                let hidden = operand(3, [4096, 768], device, dtype)?;
                Ok(Box::new(move || matmul_relu_backward(&dy, &weight, &hidden).map(drop)))
            },
        },
        Workload {
            label: "matmul_accumulate 1536x1024 of 512",
            prepare: |device, dtype| {
                only_bf16(dtype)?;
                let (dy, x) =
                    (operand(1, [512, 1536], device, dtype)?, operand(2, [512, 1024], device, dtype)?);
                let mut sum = Tensor::zeros(&[1536, 1024], DType::F32, device)?;
                Ok(Box::new(move || matmul_accumulate(&dy, &x, [true, false], &mut sum)))
            },
        },
        Workload {
            label: "tf32, tile 128x128 of 512x512x256",
            prepare: |device, dtype| in_tf32(device, dtype, false, false, MmaTile::T128x128),
        },
        Workload {
            label: "tf32, tile 128x128 of 512x512x256, b transposed",
            prepare: |device, dtype| in_tf32(device, dtype, false, true, MmaTile::T128x128),
        },
        Workload {
            label: "tf32, tile 128x64 of 512x512x256, a transposed",
            prepare: |device, dtype| in_tf32(device, dtype, true, false, MmaTile::T128x64),
        },
        Workload {
            label: "tf32, tile 64x64 of 512x512x256, both transposed",
            prepare: |device, dtype| in_tf32(device, dtype, true, true, MmaTile::T64x64),
        },
        Workload {
            label: "weight_and_bias_gradient 768x192 of 4096",
            prepare: |device, dtype| {
                let dy = operand(1, [4096, 768], device, dtype)?;
                let x = operand(2, [4096, 192], device, dtype)?;
                Ok(Box::new(move || weight_and_bias_gradient(&dy, &x).map(drop)))
            },
        },
        Workload { label: "ladder 1, naive, 512x512x256", prepare: |device, dtype| step(device, dtype, 0) },
        Workload { label: "ladder 2, tiled, 512x512x256", prepare: |device, dtype| step(device, dtype, 1) },
        Workload { label: "ladder 3, mma, 512x512x256", prepare: |device, dtype| step(device, dtype, 2) },
        Workload {
            label: "ladder 4, ldmatrix, 512x512x256",
            prepare: |device, dtype| step(device, dtype, 3),
        },
        Workload {
            label: "ladder 5, multistage, 512x512x256",
            prepare: |device, dtype| step(device, dtype, 4),
        },
        Workload {
            label: "matmul 512x512x512",
            prepare: |device, dtype| product(device, dtype, [512, 512, 512], false, false),
        },
        Workload {
            label: "matmul 512x512x512, b transposed",
            prepare: |device, dtype| product(device, dtype, [512, 512, 512], false, true),
        },
        Workload {
            label: "matmul 4096x16x256",
            prepare: |device, dtype| product(device, dtype, [4096, 16, 256], false, true),
        },
        Workload {
            label: "matmul 128x128x8192, a transposed",
            prepare: |device, dtype| product(device, dtype, [128, 128, 8192], true, false),
        },
        Workload {
            label: "linear 1024x256 to 256",
            prepare: |device, dtype| {
                let x = operand(1, [1024, 256], device, dtype)?;
                let weight = operand(2, [256, 256], device, dtype)?;
                let bias = operand(3, [1, 256], device, dtype)?.reshape(&[256])?;
                Ok(Box::new(move || linear(&x, &weight, Some(&bias)).map(drop)))
            },
        },
    ]
}
