//! `pretext doctor`: what this machine has.

use super::list;
use crate::output::Output;
use engine::Result;
use serde_json::json;

/// Runs the command.
pub fn run(output: &Output) -> Result<()> {
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
    say("devices", "this build computes on the CPU alone".into());
    list::datasets(output)
}
