//! Every method on a CUDA device (the emulated one, so that this runs everywhere): the CPU's losses, a graph's bits, resuming.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::methods::{command, draws_go_on, sample};
use common::{Stage, stderr, succeeded};
use engine::cuda::nvrtc::testing::nvrtc_for_tests;
use engine::{DType, Device, Tensor};
use kernels::array::Array;
use objectives::METHODS;
use objectives::classify::accuracy;
use objectives::jigsaw::order;
use objectives::permutations::Permutations;
use objectives::rotation::rotations;
use serde_json::Value;

/// Both sum in f32 in different orders. What that does to the weights adds up over ten steps.
const TOLERANCE: f64 = 2e-4;
/// bf16 keeps 8 bits; the first loss is a mean over many of its values.
const LOW: f64 = 1e-2;

fn run(stage: &Stage, method: &str, out: &str, more: &[&str]) -> std::process::Output {
    let mut command = command(stage, method, sample(method).0, out, more);
    // The program looks for the compiler of kernels where the tests found or put it.
    command.env("PRETEXT_CUDA_LIB_DIR", nvrtc_for_tests().path().parent().unwrap());
    command.output().unwrap()
}

fn ten(stage: &Stage, method: &str, out: &str, more: &[&str]) -> std::process::Output {
    run(stage, method, out, &[&["--steps", "10"], more].concat())
}

/// What a run leaves: its steps' losses, all metrics, and the bits of the checkpoint's tensors.
type Left = (Vec<f64>, String, Vec<(String, Vec<u32>)>);

fn left(stage: &Stage, out: &str) -> Left {
    let text = std::fs::read_to_string(stage.path(out).join("metrics.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let losses = events.filter(|e| e["event"] == "step").map(|e| e["loss"].as_f64().unwrap()).collect();
    let contents = engine::safetensors::load(&stage.path(out).join("checkpoint.safetensors")).unwrap();
    let bits = |x: engine::Tensor| x.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect();
    (losses, text, contents.tensors.into_iter().map(|(name, x)| (name, bits(x))).collect())
}

#[test]
fn every_method_has_the_losses_of_the_cpu_a_graph_its_bits_and_resuming_too() {
    for method in METHODS.iter().map(|m| m.name) {
        let stage = Stage::new();
        succeeded(&ten(&stage, method, "cpu", &[]));
        succeeded(&ten(&stage, method, "eager", &["--device", "emulated"]));
        let (cpu, eager) = (left(&stage, "cpu"), left(&stage, "eager"));
        assert_eq!((cpu.0.len(), eager.0.len()), (10, 10), "{method}");
        for (step, (a, b)) in cpu.0.iter().zip(&eager.0).enumerate() {
            let close = (a - b).abs() <= TOLERANCE * a.abs().max(1.0);
            assert!(close, "{method}: loss of step {}: {a} and {b}", step + 1);
        }
        // Stopped in the middle, eager, and taken up again as a graph.
        let stopped = ten(&stage, method, "parts", &["--device", "emulated", "--stop-after", "4"]);
        assert!(stderr(&stopped).contains("--resume"), "{method}: {}", stderr(&stopped));
        succeeded(&ten(&stage, method, "parts", &["--device", "emulated", "--graph", "--resume"]));
        let parts = left(&stage, "parts");
        assert_eq!(eager.1, parts.1, "{method}: metrics");
        assert_eq!(eager.2.len(), parts.2.len(), "{method}");
        for (a, b) in eager.2.iter().zip(&parts.2) {
            assert!(a == b, "{method}: {} differs between an eager and a resumed, captured run", a.0);
        }
    }
}

#[test]
fn every_method_starts_with_the_same_loss_in_bf16() {
    for method in METHODS.iter().map(|m| m.name) {
        let stage = Stage::new();
        succeeded(&run(&stage, method, "cpu", &["--steps", "2"]));
        let low = ["--device", "emulated", "--set", "training.precision=bf16", "--steps", "2"];
        succeeded(&run(&stage, method, "low", &low));
        let (a, b) = (left(&stage, "cpu").0[0], left(&stage, "low").0[0]);
        assert!((a - b).abs() <= LOW * a.abs(), "{method}: {a} in f32, {b} in bf16");
    }
}

/// What tasks do to pixels is moving them: the same bits on every device, in every type.
#[test]
fn tasks_move_the_same_pixels() {
    let device = kernels::testing::device();
    for (side, channels) in [(12, 1), (9, 3)] {
        let x = Array::<f32>::random(&[5, side, side, channels], 3, 1.0).to_tensor().unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let x = kernels::copy::cast(&x, dtype).unwrap();
            let there = rotations(&x.to_device(device).unwrap()).unwrap().to_device(Device::Cpu).unwrap();
            let wide = |x: &Tensor| kernels::copy::cast(x, DType::F32).unwrap();
            kernels::compare::check_equal("rotations", &wide(&there), &wide(&rotations(&x).unwrap()))
                .unwrap();
        }
    }
    let planes = Array::<f32>::random(&[6, 18, 18], 4, 1.0).to_tensor().unwrap();
    let at: Vec<i32> = (0..40).flat_map(|i| [i % 6, i % 15, i * 7 % 15]).collect();
    let at = Tensor::from_slice(&at, &[40, 3]).unwrap();
    let windows = |x: &Tensor, at: &Tensor| kernels::copy::windows(x, at, [4, 4]).unwrap();
    let there = windows(&planes.to_device(device).unwrap(), &at.to_device(device).unwrap());
    let there = there.to_device(Device::Cpu).unwrap();
    kernels::compare::check_equal("tiles", &there, &windows(&planes, &at)).unwrap();
    let set = Permutations::of(30, 1).unwrap();
    let table: Vec<f32> = set.rows.iter().flatten().map(|&tile| f32::from(tile)).collect();
    let table = Tensor::from_slice(&table, &[30, 9]).unwrap();
    let chosen = Tensor::from_slice(&(0..12).map(|i| i * 7 % 30).collect::<Vec<i32>>(), &[12]).unwrap();
    let rows = order(&table.to_device(device).unwrap(), &chosen.to_device(device).unwrap(), 3).unwrap();
    let here = order(&table, &chosen, 3).unwrap().to_vec::<i32>().unwrap();
    assert_eq!(rows.to_device(Device::Cpu).unwrap().to_vec::<i32>().unwrap(), here);
    let logits = Array::<f32>::random(&[200, 7], 1, 1.0).to_tensor().unwrap();
    let labels = Tensor::from_slice(&(0..200).map(|i| i % 7).collect::<Vec<i32>>(), &[200]).unwrap();
    let here = accuracy(&logits, &labels).unwrap().item().unwrap();
    let there = accuracy(&logits.to_device(device).unwrap(), &labels.to_device(device).unwrap()).unwrap();
    assert_eq!(there.to_device(Device::Cpu).unwrap().item().unwrap(), here);
}

#[test]
fn draws_on_the_device_are_of_the_step_of_the_run() {
    draws_go_on(&Stage::new(), kernels::testing::device());
}
