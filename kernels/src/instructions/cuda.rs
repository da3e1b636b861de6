//! Launches of `instructions.cu`.

use super::Vector;
use crate::cuda::THREADS;
use engine::cuda::{Kernel, Launch};
use engine::{DType, Device, Error, Result, Tensor};

crate::cuda::kernels! {
    family: "instructions", file: "instructions.cu", options: [];
    MMA_BF16 = "instructions_mma_bf16";
    MMA_TF32 = "instructions_mma_tf32";
    LDMATRIX = "instructions_ldmatrix";
    LDMATRIX_TRANS = "instructions_ldmatrix_trans";
    EX2 = "instructions_ex2";
    EX2_FTZ = "instructions_ex2_ftz";
    LG2 = "instructions_lg2";
    RCP = "instructions_rcp";
    RSQRT = "instructions_rsqrt";
    SQRT = "instructions_sqrt";
    SIN = "instructions_sin";
    COS = "instructions_cos";
    TANH = "instructions_tanh";
    CVT_BF16X2 = "instructions_cvt_bf16x2";
    CVT_TF32 = "instructions_cvt_tf32";
    EXPF = "instructions_expf";
    LOGF = "instructions_logf";
    TANHF = "instructions_tanhf";
    ERFF = "instructions_erff";
    CBRTF = "instructions_cbrtf";
    SINF = "instructions_sinf";
    COSF = "instructions_cosf";
}

/// The words that `device`, a CUDA device, gives for a vector.
#[track_caller]
pub fn run(vector: &Vector, device: Device) -> Result<Vec<u32>> {
    let entry = format!("instructions_{}", vector.name);
    let kernel: &'static Kernel = KERNELS
        .iter()
        .copied()
        .find(|kernel| kernel.entry == entry)
        .ok_or_else(|| Error::value("instructions", format!("there is no kernel for {}", vector.name)))?;
    let mut operands = Vec::new();
    for (_, shape, words) in &vector.operands {
        operands.push(Tensor::from_slice(bytemuck::cast_slice::<u32, i32>(words), shape)?.to_device(device)?);
    }
    let mut out = Tensor::empty(&vector.result, DType::I32, device)?;
    let mut launch = Launch::new(kernel, device)?;
    for operand in &operands {
        launch = launch.read(operand)?;
    }
    launch = launch.write(&mut out)?;
    match &vector.operands[..] {
        // A function of one number: a thread each.
        [(_, _, words)] => {
            launch.value(words.len() as u32).grid(words.len().div_ceil(THREADS)).block(THREADS).run()?;
        }
        // A warp for each product; one for matrices.
        [_, _, _] => launch.grid(vector.result[0]).block(32).run()?,
        _ => launch.grid(1).block(32).run()?,
    }
    Ok(out.to_device(Device::Cpu)?.to_vec::<i32>()?.into_iter().map(|word| word as u32).collect())
}
