//! What is profiled and timed: the head size of ViT-S to ViT-L at their number of tokens, and MAE's decoder.

use super::cases::Case;
use super::*;
use crate::check::on_device;
use crate::registry::{Run, Workload};

const VIT: Case = Case::new(1, 197, 2, 64);
const MAE_DECODER: Case = Case::new(1, 197, 2, 32);

fn run_forward(case: Case, device: Device, dtype: DType) -> Result<Run> {
    let qkv = on_device(&case.qkv(), dtype, device)?;
    Ok(Box::new(move || forward(&qkv, Scores::default()).map(drop)))
}

fn run_backward(case: Case, device: Device, dtype: DType) -> Result<Run> {
    let qkv = on_device(&case.qkv(), dtype, device)?;
    let dout = on_device(&case.dout(), dtype, device)?;
    let (out, lse) = forward(&qkv, Scores::default())?;
    Ok(Box::new(move || {
        let of = Forward { qkv: &qkv, scores: Scores::default(), out: &out, lse: &lse };
        backward(&dout, of).map(drop)
    }))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload {
            label: "attention 1x197x3x2x64",
            prepare: |device, dtype| run_forward(VIT, device, dtype),
        },
        Workload {
            label: "attention_backward 1x197x3x2x64",
            prepare: |device, dtype| run_backward(VIT, device, dtype),
        },
        Workload {
            label: "attention 1x197x3x2x32",
            prepare: |device, dtype| run_forward(MAE_DECODER, device, dtype),
        },
        Workload {
            label: "attention_backward 1x197x3x2x32",
            prepare: |device, dtype| run_backward(MAE_DECODER, device, dtype),
        },
    ]
}
