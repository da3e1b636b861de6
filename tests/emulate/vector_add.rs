//! Adds two vectors on the device.

use crate::{Outcome, expect, module_from_ptx, module_from_source};
use cudarc::driver::{CudaContext, CudaModule, LaunchConfig, PushKernelArg};
use std::sync::Arc;

/// With the kernel's PTX in the program.
pub fn from_ptx() -> Outcome {
    let context = CudaContext::new(0)?;
    let module = module_from_ptx(&context)?;
    add(&context, &module)
}

/// With the kernel compiled by NVRTC at run time.
pub fn from_source() -> Outcome {
    let context = CudaContext::new(0)?;
    let module = module_from_source(&context)?;
    add(&context, &module)
}

fn add(context: &Arc<CudaContext>, module: &Arc<CudaModule>) -> Outcome {
    let stream = context.default_stream();
    let kernel = module.load_function("vector_add")?;
    // Not a multiple of a block's 1024 threads.
    let n = 10_007;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * (i % 13) as f32).collect();
    let (a_device, b_device) = (stream.clone_htod(&a)?, stream.clone_htod(&b)?);
    let mut sum = stream.alloc_zeros::<f32>(n)?;
    let count = i32::try_from(n)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&a_device).arg(&b_device).arg(&mut sum).arg(&count);
    // SAFETY: the arguments are the kernel's, and all buffers hold `n` elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(u32::try_from(n)?)) }?;
    expect(&stream.clone_dtoh(&sum)?, |i| a[i] + b[i])?;
    println!("added {n} elements on {}", context.name()?);
    Ok(())
}
