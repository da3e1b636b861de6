//! Mistakes, and the driver's answers to them, one a line.

use crate::{Outcome, code, module_from_ptx, module_from_source};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// A kernel is told that its buffers hold more than they do.
pub fn out_of_bounds() -> Outcome {
    let context = CudaContext::new(0)?;
    let module = module_from_source(&context)?;
    let kernel = module.load_function("vector_add")?;
    let stream = context.default_stream();
    let a = stream.clone_htod(&vec![1f32; 1000])?;
    let mut sum = stream.alloc_zeros::<f32>(1000)?;
    let too_many = 1001i32;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&a).arg(&a).arg(&mut sum).arg(&too_many);
    // SAFETY: not upheld: the last thread reads and writes past the buffers' ends. That is what is tested.
    let launched = unsafe { launch.launch(LaunchConfig::for_num_elems(1001)) };
    println!("launch: {}", code(launched));
    println!("synchronize: {}", code(stream.synchronize()));
    println!("afterwards: {}", code(stream.alloc_zeros::<f32>(1)));
    Ok(())
}

/// Launches that ask for what the device does not have, and modules that cannot be loaded.
pub fn wrong_launches() -> Outcome {
    let context = CudaContext::new(0)?;
    let module = module_from_ptx(&context)?;
    let kernel = module.load_function("reverse_blocks")?;
    let stream = context.default_stream();
    let mut x = stream.clone_htod(&[0f32, 1.0, 2.0, 3.0])?;
    let mut answer = |what: &str, grid: (u32, u32, u32), block: (u32, u32, u32), shared: u32| {
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&mut x);
        let config = LaunchConfig { grid_dim: grid, block_dim: block, shared_mem_bytes: shared };
        // SAFETY: the argument is the kernel's; launches that the driver accepts touch four elements.
        println!("{what}: {}", code(unsafe { launch.launch(config) }));
    };
    answer("no blocks", (0, 1, 1), (4, 1, 1), 16);
    answer("no threads", (1, 1, 1), (4, 0, 1), 16);
    answer("2048 threads", (1, 1, 1), (2048, 1, 1), 16);
    answer("65 layers of threads", (1, 1, 1), (1, 1, 65), 16);
    answer("65536 rows of blocks", (1, 65536, 1), (4, 1, 1), 16);
    answer("300 KiB of shared memory", (1, 1, 1), (4, 1, 1), 300 << 10);
    answer("a good launch", (1, 1, 1), (4, 1, 1), 16);
    println!("after it: {:?}", stream.clone_dtoh(&x)?);
    println!("unknown kernel: {}", code(module.load_function("no_such_kernel")));
    println!(
        "broken module: {}",
        code(context.load_module(Ptx::from_src(".version 8.0\n.target sm_80\n.bogus")))
    );
    println!("no such device: {}", code(CudaContext::new(1000)));
    Ok(())
}
