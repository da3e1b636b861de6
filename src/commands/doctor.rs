//! `pretext doctor`: what this machine has.

use super::list;
use crate::cli::Doctor;
use crate::output::Output;
use engine::cuda::{Driver, Nvrtc, cache::Cache, driver};
use engine::{Error, ErrorKind, Result};
use serde_json::json;

/// Runs the command.
pub fn run(args: &Doctor, output: &Output) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let vectors = match kernels::simd::level() {
        kernels::simd::Level::Avx512 => "AVX-512",
        kernels::simd::Level::Avx2 => "AVX2 with fused multiply-add",
        kernels::simd::Level::Baseline => "the target's baseline",
    };
    let say = |name: &str, value: String| {
        output.event(&json!({"event": "doctor", "name": name, "value": value}));
        output.result(&format!("{name:<18} {value}"));
    };
    say("version", env!("CARGO_PKG_VERSION").into());
    say("device cpu", format!("{threads} threads, vectors: {vectors}"));
    if args.device == "emulated" {
        let folder = emulator::library::folder()
            .map_err(|e| Error::new(ErrorKind::Device, "emulated device", e.to_string()))?;
        driver::select(Driver::Emulated(folder.clone()))?;
        say("cuda driver", format!("emulated, {}", folder.join("libcuda.so").display()));
        devices(&say, driver::probe()?);
    } else {
        match driver::probe() {
            Ok(found) => {
                let emulated = found.iter().any(|device| device.emulated);
                say("cuda driver", if emulated { "found, emulated" } else { "found" }.into());
                devices(&say, found);
            }
            Err(error) => say("cuda driver", error.message().into()),
        }
    }
    say("nvrtc", nvrtc());
    let cache = Cache::of_environment();
    say(
        "kernel cache",
        cache.map_or("nowhere: HOME is not set".into(), |c| c.folder().display().to_string()),
    );
    say("emulated device", emulated().into());
    list::datasets(output)
}

/// A line a device.
fn devices(say: &impl Fn(&str, String), devices: Vec<driver::DeviceInfo>) {
    if devices.is_empty() {
        say("device cuda", "the driver finds none".into());
    }
    for (i, device) in devices.iter().enumerate() {
        say(&format!("device cuda:{i}"), device.to_string());
    }
}

fn nvrtc() -> String {
    match Nvrtc::find() {
        Ok(nvrtc) => format!("{}.{}, {}", nvrtc.version().0, nvrtc.version().1, nvrtc.path().display()),
        Err(error) => error.message().into(),
    }
}

fn emulated() -> &'static str {
    if emulator::library::is_embedded() {
        "always available, inside this program: pretext emulate -- PROGRAM, pretext doctor --device emulated"
    } else {
        "needs Linux with the GNU C library, on x86-64 or aarch64"
    }
}
