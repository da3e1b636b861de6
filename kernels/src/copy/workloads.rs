//! What is profiled and timed: a transposition, images to another order, attention heads, rows by index, types.

use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::registry::{Run, Workload};

fn view(device: Device, dtype: DType, shape: &[usize], order: &[usize]) -> Result<Run> {
    let x = on_device(&Array::random(shape, 1, 1.0), dtype, device)?.permute(order)?;
    Ok(Box::new(move || contiguous(&x).map(drop)))
}

/// Some of 1,024 rows of 256, in another order.
fn rows(device: Device, dtype: DType, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Run> {
    let x = on_device(&Array::random(&[1024, 256], 1, 1.0), dtype, device)?;
    let index: Vec<i32> = (0..1024).map(|i| i * 389 % 1024).collect();
    let index = Tensor::from_slice(&index, &[1024])?.to_device(device)?;
    Ok(Box::new(move || f(&x, &index).map(drop)))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "contiguous 512x512 transposed",
            prepare: |device, dtype| view(device, dtype, &[512, 512], &[1, 0]),
        },
        Workload {
            label: "contiguous 4x3x128x128 to NHWC",
            prepare: |device, dtype| view(device, dtype, &[4, 3, 128, 128], &[0, 2, 3, 1]),
        },
        Workload {
            label: "contiguous heads 4x128x6x64",
            prepare: |device, dtype| view(device, dtype, &[4, 128, 6, 64], &[0, 2, 1, 3]),
        },
        Workload {
            label: "cat 2 of 64x16x256",
            prepare: |device, dtype| {
                let x = on_device(&Array::random(&[64, 16, 256], 1, 1.0), dtype, device)?;
                Ok(Box::new(move || cat(&[&x, &x], 1).map(drop)))
            },
        },
        Workload { label: "gather_rows 1024x256", prepare: |device, dtype| rows(device, dtype, gather_rows) },
        Workload {
            label: "windows 8x8 of 1152 in 128x28x28",
            prepare: |device, dtype| {
                let x = on_device(&Array::random(&[128, 28, 28], 1, 1.0), dtype, device)?;
                let at = super::windows::places([128, 28, 28], [8, 8], 1152);
                let at = Tensor::from_slice(&at, &[1152, 3])?.to_device(device)?;
                Ok(Box::new(move || windows(&x, &at, [8, 8]).map(drop)))
            },
        },
        Workload {
            label: "put_rows 1024x256",
            prepare: |device, dtype| {
                let mut queue = Tensor::zeros(&[2048, 256], dtype, device)?;
                let x = on_device(&Array::random(&[1024, 256], 1, 1.0), dtype, device)?;
                let index: Vec<i32> = (512..1536).collect();
                let index = Tensor::from_slice(&index, &[1024])?.to_device(device)?;
                Ok(Box::new(move || put_rows(&mut queue, &index, &x)))
            },
        },
        Workload {
            label: "scatter_add_rows 1024x256",
            prepare: |device, dtype| rows(device, dtype, |x, index| scatter_add_rows(x, index, 1024)),
        },
        Workload {
            label: "scatter_add_rows 4096x256, 3 of 4 to one row",
            prepare: |device, dtype| {
                let x = on_device(&Array::random(&[4096, 256], 1, 1.0), dtype, device)?;
                let index: Vec<i32> = (0..4096).map(|i| if i % 4 > 0 { 1024 } else { i / 4 }).collect();
                let index = Tensor::from_slice(&index, &[4096])?.to_device(device)?;
                Ok(Box::new(move || scatter_add_rows(&x, &index, 1025).map(drop)))
            },
        },
        Workload {
            label: "cast 512x512",
            prepare: |device, dtype| {
                let x = on_device(&Array::random(&[512, 512], 1, 1.0), dtype, device)?;
                let to = if dtype == DType::F32 { DType::BF16 } else { DType::F32 };
                Ok(Box::new(move || cast(&x, to).map(drop)))
            },
        },
    ]
}
