//! Compiles this crate's source a second time, as the shared library that stands in for the CUDA driver, and leaves
//! it in `OUT_DIR` for `library.rs` to embed. One program then carries its own driver.
//!
//! The library is made by one direct call of `rustc`: the crate has no dependencies, and a cargo target would leave a
//! `libcuda.so` in the target folder, which cargo puts on the library path of everything it runs.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

/// How many pieces the compiler may work on at once. More are faster to build on many cores and slower to run.
const CODEGEN_UNITS: u32 = 4;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-check-cfg=cfg(driver_library)");
    let library = Path::new(&env::var("OUT_DIR")?).join("driver.so");
    if supported()? {
        compile(&library)?;
    } else {
        fs::write(&library, [])?;
    }
    println!("cargo::rustc-env=EMULATED_DRIVER_DIGEST={:032x}", fnv1a(&fs::read(&library)?));
    Ok(())
}

/// Whether the target can load a shared library that was made here: Linux with the GNU C library.
fn supported() -> Result<bool, env::VarError> {
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}"));
    let machine = target("ARCH")?;
    Ok(target("OS")? == "linux" && target("ENV")? == "gnu" && (machine == "x86_64" || machine == "aarch64"))
}

/// Calls the compiler with cargo's linker and flags. Its errors are this script's; its warnings become cargo's.
fn compile(library: &Path) -> Result<(), Box<dyn Error>> {
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo did not say which compiler to use")?);
    let all = |arguments: &'static str| arguments.split_whitespace();
    rustc.args(all("src/lib.rs --crate-name cuda_emulated --crate-type cdylib --edition 2024"));
    rustc.args(all("--cfg driver_library --check-cfg cfg(driver_library,test) --cap-lints warn"));
    rustc.args(["--check-cfg", "cfg(feature, values(\"inside\"))"]);
    rustc.args(all("-C opt-level=3 -C strip=debuginfo -C")).arg(format!("codegen-units={CODEGEN_UNITS}"));
    // The name that the loader matches when a program asks for `libcuda.so`. The library starts threads, so it must
    // stay loaded when a program closes it.
    rustc.args(all("-C link-arg=-Wl,-soname,libcuda.so -C link-arg=-Wl,-z,nodelete"));
    rustc.arg("-o").arg(library);
    let target = env::var("TARGET")?;
    if target != env::var("HOST")? {
        rustc.args(["--target", &target]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("linker=");
        argument.push(linker);
        rustc.arg("-C").arg(argument);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));

    let output = rustc.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "the emulated driver's library does not compile ({}):\n{messages}",
            output.status
        )
        .into());
    }
    messages.lines().for_each(|line| println!("cargo::warning={line}"));
    Ok(())
}

/// The 128-bit FNV-1a hash: it tells builds apart; whoever reads a library back compares its bytes.
fn fnv1a(bytes: &[u8]) -> u128 {
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b_u128;
    bytes.iter().fold(start, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(prime))
}
