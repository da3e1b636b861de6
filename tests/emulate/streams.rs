//! Two threads with a stream each: the second waits, on the device, for what the first computes.

use crate::{Outcome, expect, module_from_ptx};
use cudarc::driver::PushKernelArg;
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig,
};
use std::sync::{Arc, mpsc};

const N: usize = 5_000;
const STEPS: usize = 12;

/// Runs the program.
pub fn run() -> Outcome {
    let context = CudaContext::new(0)?;
    let module = module_from_ptx(&context)?;
    let (scale_add, vector_add) = (module.load_function("scale_add")?, module.load_function("vector_add")?);
    let (send, receive) = mpsc::channel::<(CudaSlice<f32>, CudaEvent)>();
    let (first, second) = (context.new_stream()?, context.new_stream()?);
    let started = first.record_event(Some(CU_EVENT_DEFAULT))?;

    std::thread::scope(|scope| -> Outcome {
        let producer = scope.spawn(move || -> Result<Arc<CudaStream>, DriverError> {
            let x = count_up(&first, &scale_add)?;
            let done = first.record_event(Some(CU_EVENT_DEFAULT))?;
            // A send fails only if the other thread has given up, which says why itself.
            let _ = send.send((x, done));
            Ok(first)
        });
        let mut y = second.clone_htod(&vec![0.25f32; N])?;
        let mut sum = second.alloc_zeros::<f32>(N)?;
        let (x, done) = receive.recv().map_err(|_| "the first thread has sent nothing")?;
        second.wait(&done)?;
        let n = i32::try_from(N)?;
        let mut launch = second.launch_builder(&vector_add);
        launch.arg(&x).arg(&mut y).arg(&mut sum).arg(&n);
        // SAFETY: the arguments are the kernel's, all buffers hold N elements, and `x` is complete after the wait.
        unsafe { launch.launch(LaunchConfig::for_num_elems(N as u32)) }?;
        expect(&second.clone_dtoh(&sum)?, |_| STEPS as f32 + 0.25)?;
        let first = producer.join().map_err(|_| "the first thread has panicked")??;
        first.synchronize()?;
        if !done.is_complete() || started.elapsed_ms(&done)? < 0.0 {
            return Err("an event before the end of a finished stream is not complete".into());
        }
        Ok(())
    })?;
    println!("{STEPS} steps on one stream, awaited by another");
    Ok(())
}

/// A vector of zeros, to which the stream adds 1 in each step.
fn count_up(stream: &Arc<CudaStream>, scale_add: &CudaFunction) -> Result<CudaSlice<f32>, DriverError> {
    let mut x = stream.alloc_zeros::<f32>(N)?;
    let (one, n) = (1f32, N as i32);
    for _ in 0..STEPS {
        let mut launch = stream.launch_builder(scale_add);
        launch.arg(&mut x).arg(&one).arg(&one).arg(&n);
        // SAFETY: the arguments are the kernel's, and the buffer holds N elements.
        unsafe { launch.launch(LaunchConfig::for_num_elems(N as u32)) }?;
    }
    Ok(x)
}
