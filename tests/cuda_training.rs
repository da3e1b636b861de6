//! Training on a CUDA device from the command line: the emulated one, so that this runs everywhere.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Stage, stderr, succeeded};
use engine::cuda::nvrtc::testing::nvrtc_for_tests;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// A small network on small views of real images, at a learning rate at which rounding does not grow from step to step.
const SETTINGS: &[&str] = &[
    "arch.width=4",
    "settings.view.size=12",
    "settings.temperature=0.5",
    "training.learning_rate=0.06",
    "monitor.every_epochs=0",
];

/// Runs `pretext pretrain simclr --data sample` for 20 steps.
fn pretrain(stage: &Stage, out: &str, more: &[&str]) -> Output {
    let steps = ["--steps", "20", "--batch", "8", "--arch", "resnet10-cifar", "--no-table"];
    let mut args = vec!["pretrain", "simclr", "--data", "sample", "--out", out];
    args.extend(steps);
    SETTINGS.iter().for_each(|setting| args.extend(["--set", setting]));
    args.extend(more);
    let mut command = stage.command(&args);
    // The program looks for the compiler of kernels where the tests found or put it.
    command.env("PRETEXT_CUDA_LIB_DIR", nvrtc_for_tests().path().parent().unwrap());
    command.output().unwrap()
}

/// The events of a run's steps.
fn steps(stage: &Stage, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(stage.path(run).join("metrics.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == "step").collect()
}

fn losses(stage: &Stage, run: &str) -> Vec<f64> {
    steps(stage, run).iter().map(|step| step["loss"].as_f64().unwrap()).collect()
}

/// Everything that a run leaves, bit for bit.
fn result(folder: &Path) -> (Vec<(String, Vec<f32>)>, String) {
    let contents = engine::safetensors::load(&folder.join("checkpoint.safetensors")).unwrap();
    let tensors = contents.tensors.into_iter().map(|(name, x)| (name, x.to_vec::<f32>().unwrap()));
    (tensors.collect(), std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap())
}

fn same(stage: &Stage, a: &str, b: &str) {
    let (x, y) = (result(&stage.path(a)), result(&stage.path(b)));
    assert_eq!(x.1, y.1, "metrics of {a} and {b}");
    assert_eq!(x.0.len(), y.0.len());
    for ((name, x), (_, y)) in x.0.iter().zip(&y.0) {
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(x) == bits(y), "{name} differs between {a} and {b}");
    }
}

/// The losses of every step are the CPU's: both sum in f32 in different orders, which is worth 1e-6 of a loss or so here, and
/// what that does to the weights adds up over 20 steps.
#[test]
fn twenty_steps_have_the_losses_of_the_cpu_and_a_graph_their_bits() {
    const TOLERANCE: f64 = 1e-4;
    let stage = Stage::new();
    succeeded(&pretrain(&stage, "cpu", &[]));
    succeeded(&pretrain(&stage, "eager", &["--device", "emulated"]));
    let (cpu, eager) = (losses(&stage, "cpu"), losses(&stage, "eager"));
    assert_eq!((cpu.len(), eager.len()), (20, 20));
    for (step, (a, b)) in cpu.iter().zip(&eager).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * a.abs(), "loss of step {}: {a} and {b}", step + 1);
    }
    assert!(cpu.iter().any(|loss| (loss - cpu[0]).abs() > 0.01 * cpu[0]), "the loss moves: {cpu:?}");

    succeeded(&pretrain(&stage, "graph", &["--device", "emulated", "--graph"]));
    same(&stage, "eager", "graph");

    // Stopped in the middle, eager, and taken up again as a graph.
    let stopped = pretrain(&stage, "parts", &["--device", "emulated", "--stop-after", "7"]);
    assert!(stderr(&stopped).contains("--resume"), "{}", stderr(&stopped));
    succeeded(&pretrain(&stage, "parts", &["--device", "emulated", "--graph", "--resume"]));
    same(&stage, "eager", "parts");
}

/// bf16 rounds every activation to 8 bits. Over 16 rows and narrow layers that is a per cent of a gradient and more: the
/// first losses are the CPU's to a per cent, the later ones follow.
#[test]
fn bf16_trains_near_the_cpu() {
    let stage = Stage::new();
    let bf16 = ["--set", "training.precision=bf16"];
    succeeded(&pretrain(&stage, "cpu", &[]));
    succeeded(&pretrain(&stage, "bf16", &[&bf16[..], &["--device", "emulated", "--graph"]].concat()));
    let (cpu, bf16_losses) = (losses(&stage, "cpu"), losses(&stage, "bf16"));
    for (step, (a, b)) in cpu.iter().zip(&bf16_losses).enumerate() {
        let tolerance = if step < 5 { 0.01 } else { 0.2 };
        assert!(a != b && (a - b).abs() <= tolerance * a.abs(), "loss of step {}: {a} and {b}", step + 1);
    }
    let refused = pretrain(&stage, "refused", &bf16);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("the CPU trains in f32 alone"), "{}", stderr(&refused));
}

/// tf32 rounds what products take to 11 bits, and nothing else.
#[test]
fn tf32_trains_nearer_the_cpu() {
    let stage = Stage::new();
    let tf32 = ["--set", "training.precision=tf32"];
    let (few, on) = (["--stop-after", "4"], ["--device", "emulated", "--profile"]);
    pretrain(&stage, "cpu", &few);
    let output = pretrain(&stage, "tf32", &[&tf32[..], &few, &on].concat());
    let shown = common::stdout(&output);
    assert!(shown.contains("_tf32"), "no product is one of tf32:\n{shown}\n{}", stderr(&output));
    let (cpu, rounded) = (losses(&stage, "cpu"), losses(&stage, "tf32"));
    assert_eq!((cpu.len(), rounded.len()), (4, 4));
    for (step, (a, b)) in cpu.iter().zip(&rounded).enumerate() {
        assert!(a != b && (a - b).abs() <= 2e-3 * a.abs(), "loss of step {}: {a} and {b}", step + 1);
    }
    assert_eq!(pretrain(&stage, "refused", &tf32).status.code(), Some(2));
}

/// What each kernel cost, and a trace, at the end of a run.
#[test]
fn a_run_shows_what_its_kernels_cost() {
    let stage = Stage::new();
    let few = ["--device", "emulated", "--profile", "--trace", "trace.json", "--stop-after", "2"];
    let output = pretrain(&stage, "profiled", &few);
    let shown = common::stdout(&output);
    for kernel in ["augment_views_grey_f32", "conv2d_fwd", "norm_batch_apply_f32", "ntxent_fwd", "optim_sgd"]
    {
        assert!(shown.contains(kernel), "{kernel} is not in:\n{shown}\n{}", stderr(&output));
    }
    let trace = std::fs::read_to_string(stage.path("trace.json")).unwrap();
    let events: Vec<Value> = serde_json::from_str(&trace).unwrap();
    assert!(events.iter().any(|event| event["name"] == "optim_sgd_f32" || event["name"] == "optim_sgd"));
}

#[test]
fn what_a_device_cannot_do_is_said() {
    let stage = Stage::new();
    let said = |more: &[&str], code: i32| {
        let output = pretrain(&stage, "wrong", more);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(said(&["--graph"], 2).contains("--device cuda, or emulated"));
    assert!(said(&["--device", "gpu"], 2).contains("there are cpu, cuda, cuda:N and emulated"));
    assert!(said(&["--device", "cuda:99"], 1).contains("there is no device 99"));
}
