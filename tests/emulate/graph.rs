//! Captures launches and a copy in a graph and replays it.

use crate::{Outcome, expect, module_from_ptx};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode, CUstreamCaptureStatus};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};

const N: usize = 2_048;
const REPLAYS: usize = 5;

/// Runs the program.
pub fn run() -> Outcome {
    let context = CudaContext::new(0)?;
    // SAFETY: everything below is on one stream, which keeps its order itself. Tracking would wait in the capture.
    unsafe { context.disable_event_tracking() };
    let module = module_from_ptx(&context)?;
    let scale_add = module.load_function("scale_add")?;
    let reverse = module.load_function("reverse_blocks")?;
    let stream = context.new_stream()?;
    let start: Vec<f32> = (0..N).map(|i| i as f32).collect();
    let mut x = stream.clone_htod(&start)?;
    let mut copy = stream.alloc_zeros::<f32>(N)?;
    let (one, two, n) = (1f32, 2f32, i32::try_from(N)?);

    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let capturing = stream.capture_status()?;
    let mut launch = stream.launch_builder(&scale_add);
    launch.arg(&mut x).arg(&one).arg(&two).arg(&n);
    // SAFETY: the arguments are the kernel's, and the buffer holds N elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(N as u32)) }?;
    let block = 256;
    let config = LaunchConfig {
        grid_dim: (N as u32 / block, 1, 1),
        block_dim: (block, 1, 1),
        shared_mem_bytes: block * size_of::<f32>() as u32,
    };
    let mut launch = stream.launch_builder(&reverse);
    launch.arg(&mut x);
    // SAFETY: the blocks' threads are as many as the buffer's elements, and shared memory as large as a block.
    unsafe { launch.launch(config) }?;
    stream.memcpy_dtod(&x, &mut copy)?;
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.ok_or("the capture gave no graph")?;
    if capturing != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE {
        return Err(format!("while capturing, the stream says {capturing:?}").into());
    }
    expect(&stream.clone_dtoh(&x)?, |i| i as f32)
        .map_err(|e| format!("a capture must not run anything: {e}"))?;

    for _ in 0..REPLAYS {
        graph.launch()?;
    }
    // An odd number of reversals is one reversal.
    let block = block as usize;
    let wanted = |i: usize| ((i / block) * block + block - 1 - i % block) as f32 + 2.0 * REPLAYS as f32;
    expect(&stream.clone_dtoh(&x)?, wanted)?;
    expect(&stream.clone_dtoh(&copy)?, wanted)?;
    println!("replayed {REPLAYS} times");
    Ok(())
}
