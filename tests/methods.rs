//! Every method from the command line on the CPU: it trains, its signals are there, and stopping changes nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::methods::pretrain;
use common::{Stage, stderr, stdout, succeeded};
use objectives::METHODS;
use serde_json::Value;
use std::path::Path;

/// Everything that a run leaves, as comparable values.
fn result(folder: &Path) -> (Vec<(String, Vec<u32>)>, String) {
    let mut tensors = Vec::new();
    for file in ["checkpoint.safetensors", "encoder.safetensors"] {
        let contents = engine::safetensors::load(&folder.join(file)).unwrap();
        for (name, tensor) in contents.tensors {
            let bits = tensor.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect();
            tensors.push((format!("{file} {name}"), bits));
        }
    }
    (tensors, std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap())
}

/// Targets, queues, centres, schedules, masks and dropped branches: all go on where they were, whoever makes the batches.
#[test]
fn every_method_resumes_in_the_bits_of_an_uninterrupted_run() {
    for method in METHODS.iter().map(|m| m.name) {
        let stage = Stage::new();
        // Fourteen steps of eight images: an epoch has twelve.
        let run = ["--steps", "14"];
        succeeded(&pretrain(&stage, method, "whole", &run));
        let whole = result(&stage.path("whole"));
        for stop in ["4", "12"] {
            let out = format!("part{stop}");
            let more = [&run[..], &["--stop-after", stop, "--workers", "2"]].concat();
            let stopped = pretrain(&stage, method, &out, &more);
            assert!(stderr(&stopped).contains("--resume"), "{method}: {}", stderr(&stopped));
            succeeded(&pretrain(&stage, method, &out, &[&run[..], &["--resume", "--workers", "0"]].concat()));
            let part = result(&stage.path(&out));
            assert_eq!(whole.1, part.1, "{method} stopped after {stop}: metrics.jsonl");
            assert_eq!(whole.0.len(), part.0.len(), "{method}");
            for (a, b) in whole.0.iter().zip(&part.0) {
                assert!(a == b, "{method} stopped after {stop}: {} differs", a.0);
            }
        }
        let steps: Vec<Value> = whole.1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let losses: Vec<f64> =
            steps.iter().filter(|s| s["event"] == "step").map(|s| s["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 14, "{method}");
        assert!(losses.iter().all(|l| l.is_finite()) && losses.iter().any(|l| *l != losses[0]), "{method}");
        let other = pretrain(&stage, method, "other", &[&run[..], &["--seed", "2"]].concat());
        succeeded(&other);
        assert_ne!(whole.0, result(&stage.path("other")).0, "{method}: another seed is another run");
    }
}

/// What each method watches beside the loss.
#[test]
fn every_method_shows_its_own_signals() {
    let expected: &[(&str, &[&str])] = &[
        ("relative-position", &["accuracy"]),
        ("rotation", &["accuracy"]),
        ("jigsaw", &["accuracy", "hamming_minimum", "hamming_mean"]),
        ("simclr", &["positive_similarity", "negatives"]),
        ("moco-v1", &["positive_similarity", "queue_age"]),
        ("moco-v2", &["positive_similarity", "queue_age"]),
        ("moco-v3", &["positive_similarity"]),
        ("byol", &["positive_similarity"]),
        ("mae", &["zero_prediction"]),
        ("dino", &["teacher_entropy", "divergence", "teacher_concentration", "center_norm"]),
        ("dinov2", &["dino", "ibot", "koleo", "teacher_entropy", "patch_entropy", "center_norm"]),
    ];
    assert_eq!(expected.len(), METHODS.len());
    for (method, signals) in expected {
        let stage = Stage::new();
        let measured =
            ["--steps", "12", "--set", "monitor.every_epochs=1", "--set", "monitor.knn_samples=40"];
        succeeded(&pretrain(&stage, method, "run", &measured));
        let text = std::fs::read_to_string(stage.path("run").join("metrics.jsonl")).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = events.iter().rfind(|e| e["event"] == "step").unwrap();
        for signal in *signals {
            assert!(last[*signal].as_f64().is_some_and(f64::is_finite), "{method}: {signal} in {last}");
        }
        let health = events.iter().find(|e| e["event"] == "health").unwrap();
        for figure in ["std", "rank", "knn"] {
            assert!(health[figure].as_f64().is_some_and(f64::is_finite), "{method}: {figure} in {health}");
        }
    }
}

/// A teacher that is left alone ends in one prototype; the run says so in words.
#[test]
fn a_collapse_is_said_in_words() {
    let stage = Stage::new();
    let collapse =
        ["--steps", "24", "--set", "settings.centering=none", "--set", "training.learning_rate=0.5"];
    let shown =
        [&collapse[..], &["--set", "monitor.every_epochs=1", "--set", "settings.momentum=0.5"]].concat();
    let output = pretrain(&stage, "dino", "run", &shown);
    let said = stdout(succeeded(&output)) + &stderr(&output);
    let metrics = std::fs::read_to_string(stage.path("run").join("metrics.jsonl")).unwrap();
    assert!(said.contains("one-hot collapse") && metrics.contains("\"warning\""), "{said}\n{metrics}");
}

/// A method around an encoder that it cannot use says what to do.
#[test]
fn encoders_that_do_not_suit_a_method_are_refused() {
    let stage = Stage::new();
    for method in ["mae", "dinov2"] {
        let args = ["pretrain", method, "--data", &stage.data(), "--arch", "resnet-small", "--out", "x"];
        let output = stage.run(&args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("vit-micro"), "{}", stderr(&output));
    }
}
