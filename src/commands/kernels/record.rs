//! `pretext kernels record`: what single instructions give on a device, kept in a file, and compared with another device's.
//!
//! Recorded on hardware and committed under `emulator/golden/`, a file is the emulated device's oracle: its tests replay it.

use super::cuda_device;
use crate::cli::KernelsRecord;
use crate::output::Output;
use engine::cuda::driver::DeviceInfo;
use engine::cuda::nvrtc::Nvrtc;
use engine::safetensors::{self, Contents};
use engine::{Device, Error, Result, Tensor};
use kernels::instructions::{self, Vector};
use serde_json::json;
use std::path::Path;

/// Runs the command.
pub fn run(args: &KernelsRecord, output: &Output) -> Result<()> {
    let (device, info) = cuda_device(args.device.as_deref())?;
    output.say(&format!("on {info}"));
    match &args.replay {
        Some(file) => replay(file, device, output),
        None => record(&args.out, device, info, output),
    }
}

fn tensor(words: &[u32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(bytemuck::cast_slice::<u32, i32>(words), shape)
}

fn words(contents: &Contents, name: &str) -> Result<Vec<u32>> {
    Ok(contents.get(name)?.to_vec::<i32>()?.into_iter().map(|word| word as u32).collect())
}

fn record(file: &Path, device: Device, info: &DeviceInfo, output: &Output) -> Result<()> {
    let mut contents = Contents::default();
    let vectors = instructions::vectors();
    for vector in &vectors {
        for (name, shape, words) in &vector.operands {
            contents.insert(format!("{}/{name}", vector.name), &tensor(words, shape)?)?;
        }
        let result = tensor(&instructions::run(vector, device)?, &vector.result)?;
        contents.insert(format!("{}/result", vector.name), &result)?;
    }
    contents.metadata.insert("device".into(), info.to_string());
    let (major, minor) = Nvrtc::find()?.version();
    contents.metadata.insert("nvrtc".into(), format!("{major}.{minor}"));
    safetensors::save(file, &contents)?;
    output.event(
        &json!({"event": "recorded", "file": file, "instructions": vectors.len(), "device": info.name}),
    );
    output.result(&format!("{} instructions recorded in {}", vectors.len(), file.display()));
    if info.emulated {
        output.say("an emulated device is no oracle: a recording for emulator/golden/ is made on hardware");
    }
    Ok(())
}

/// Runs what was recorded on this device, and fails if a result is another.
fn replay(file: &Path, device: Device, output: &Output) -> Result<()> {
    let contents = safetensors::load(file)?;
    let from = contents.metadata.get("device").map_or("an unnamed device", String::as_str);
    output.say(&format!("recorded on {from}"));
    let mut wrong = Vec::new();
    let vectors = instructions::vectors();
    for vector in &vectors {
        let found = recorded(vector, &contents)
            .and_then(|(vector, result)| vector.compare(&instructions::run(&vector, device)?, &result));
        let error = found.as_ref().err().map(|error| error.message().to_string());
        output.event(&json!({"event": "replayed", "instruction": vector.name, "error": error}));
        match found {
            Ok(()) => output.result(&format!("{:<16} as recorded", vector.name)),
            Err(error) => {
                output.result(&format!("{:<16} {}", vector.name, error.message()));
                wrong.push(vector.name);
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::value("kernels record", format!("not as recorded: {}", wrong.join(", ")))),
    }
}

/// A vector with the operands that were recorded, and their result.
fn recorded(vector: &Vector, contents: &Contents) -> Result<(Vector, Vec<u32>)> {
    let mut vector = vector.clone();
    for (name, shape, operand) in &mut vector.operands {
        let name = format!("{}/{name}", vector.name);
        *shape = contents.get(&name)?.shape().to_vec();
        *operand = words(contents, &name)?;
    }
    let name = format!("{}/result", vector.name);
    vector.result = contents.get(&name)?.shape().to_vec();
    Ok((vector, words(contents, &name)?))
}
