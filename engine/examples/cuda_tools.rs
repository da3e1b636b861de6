//! Installs the NVRTC and the disassembler that `kernels.lock` is of under cargo's target folder, where they are not there
//! yet, and prints what a shell must set so that `pretext` finds them: `eval "$(cuda_tools)"`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match engine::cuda::nvrtc::testing::pinned_tools() {
        Ok((libraries, programs)) => {
            println!("export PRETEXT_CUDA_LIB_DIR='{}'", libraries.display());
            println!("export PATH='{}':\"$PATH\"", programs.display());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
