//! Programs on cudarc alone, which know nothing of this project and of the device that they run on. `tests/emulate.rs`
//! runs them on the emulated one: `pretext emulate -- cuda_programs NAME`. On a machine with a GPU they run as they
//! are.

mod faults;
mod graph;
mod streams;
mod vector_add;

use cudarc::driver::{CudaContext, CudaModule, DriverError};
use cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

/// What each program gives.
type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let outcome = match name.as_str() {
        "vector-add-ptx" => vector_add::from_ptx(),
        "vector-add-nvrtc" => vector_add::from_source(),
        "streams" => streams::run(),
        "graph" => graph::run(),
        "out-of-bounds" => faults::out_of_bounds(),
        "wrong-launches" => faults::wrong_launches(),
        _ => Err(format!("there is no program '{name}'").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where `kernels.cu` lies, for messages.
const SOURCE_PATH: &str = "tests/emulate/kernels.cu";

/// The kernels as NVRTC 12.9 compiled them for compute capability 8.0; tests/emulate.rs sees that it is up to date.
const PTX: &str = include_str!("kernels.ptx");

/// The kernels from that PTX.
fn module_from_ptx(context: &Arc<CudaContext>) -> Result<Arc<CudaModule>, DriverError> {
    context.load_module(Ptx::from_src(PTX))
}

/// The kernels compiled now, with lines.
fn module_from_source(context: &Arc<CudaContext>) -> Result<Arc<CudaModule>, Box<dyn Error>> {
    let options = CompileOptions {
        arch: Some("compute_80"),
        name: Some(SOURCE_PATH.to_string()),
        options: vec!["-lineinfo".to_string()],
        ..CompileOptions::default()
    };
    let ptx = compile_ptx_with_opts(include_str!("kernels.cu"), options).map_err(|e| format!("{e:?}"))?;
    Ok(context.load_module(ptx)?)
}

/// The name of the driver's error, or "ok".
fn code<T>(result: Result<T, DriverError>) -> String {
    result.map_or_else(|DriverError(code)| format!("{code:?}"), |_| "ok".to_string())
}

/// Fails unless all elements are what they should be.
fn expect(values: &[f32], wanted: impl Fn(usize) -> f32) -> Outcome {
    match (0..values.len()).find(|&i| values[i] != wanted(i)) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} is {}, not {}", values[i], wanted(i)).into()),
    }
}
