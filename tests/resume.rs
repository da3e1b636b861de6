//! Stopping and going on: an interrupted run ends in the bits of an uninterrupted one, whatever the threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Stage, stderr, succeeded};
use std::path::Path;
use std::time::{Duration, Instant};

const STEPS: usize = 13;

/// Two and a bit epochs of 6 steps, measured and saved on the way.
const RUN: &[&str] = &[
    "--steps",
    "13",
    "--no-table",
    "--set",
    "monitor.every_epochs=1",
    "--set",
    "monitor.checkpoint_epochs=1",
];

/// Everything that a run leaves, as comparable values.
fn result(folder: &Path) -> (Vec<(String, Vec<u8>)>, String) {
    let mut tensors = Vec::new();
    for file in ["checkpoint.safetensors", "encoder.safetensors"] {
        let contents = engine::safetensors::load(&folder.join(file)).unwrap();
        for (name, tensor) in contents.tensors {
            let values = tensor.to_vec::<f32>().unwrap();
            tensors.push((format!("{file} {name}"), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
        }
    }
    (tensors, std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap())
}

fn same(a: &Path, b: &Path, what: &str) {
    let (a, b) = (result(a), result(b));
    assert_eq!(a.1, b.1, "{what}: metrics.jsonl");
    assert_eq!(a.0.len(), b.0.len());
    for (x, y) in a.0.iter().zip(&b.0) {
        assert!(x == y, "{what}: {} differs", x.0);
    }
    assert!(a.1.contains("\"knn\"") && a.1.lines().count() > STEPS, "{}", a.1);
}

fn stopped(output: &std::process::Output) {
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(output).contains("--resume"), "{}", stderr(output));
}

#[test]
fn stopping_after_any_step_changes_nothing() {
    let stage = Stage::new();
    succeeded(&stage.pretrain("whole", RUN));
    for step in 1..STEPS {
        let out = format!("part{step}");
        stopped(&stage.pretrain(&out, &[RUN, &["--stop-after", &step.to_string()]].concat()));
        succeeded(&stage.pretrain(&out, &[RUN, &["--resume"]].concat()));
        same(&stage.path("whole"), &stage.path(&out), &format!("stopped after step {step}"));
    }
    // A finished run that is resumed stays as it is.
    succeeded(&stage.pretrain("whole", &[RUN, &["--resume"]].concat()));
    same(&stage.path("part1"), &stage.path("whole"), "resumed when complete");
}

#[test]
fn threads_and_workers_change_nothing() {
    let stage = Stage::new();
    succeeded(&stage.pretrain("a", &[RUN, &["--threads", "1", "--workers", "0"]].concat()));
    for (threads, workers) in [("2", "0"), ("2", "1"), ("3", "3"), ("1", "2")] {
        let out = format!("b{threads}{workers}");
        succeeded(&stage.pretrain(&out, &[RUN, &["--threads", threads, "--workers", workers]].concat()));
        same(&stage.path("a"), &stage.path(&out), &format!("{threads} threads, {workers} workers"));
    }
    succeeded(&stage.pretrain("c", &[RUN, &["--seed", "2"]].concat()));
    assert_ne!(result(&stage.path("a")), result(&stage.path("c")), "another seed is another run");
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ctrl-C saves and says how to go on; a killed run goes on from its last checkpoint.
#[cfg(unix)]
#[test]
fn signals_lose_nothing() {
    let long = &["--steps", "60", "--no-table", "--set", "monitor.every_epochs=1"];
    let stage = Stage::new();
    succeeded(&stage.pretrain("whole", long));
    for (signal, out) in [("-INT", "interrupted"), ("-TERM", "terminated"), ("-KILL", "killed")] {
        let data = stage.data();
        let mut args = vec!["pretrain", "simclr", "--data", &data, "--out", out, "--batch", "16"];
        args.extend([
            "--arch",
            "resnet-small",
            "--set",
            "arch.width=4",
            "--set",
            "settings.projector_hidden=16",
        ]);
        args.extend(long);
        let child = stage.command(&args).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_for(&stage.path(out).join("checkpoint.safetensors"));
        let id = child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
        let ended = child.wait_with_output().unwrap();
        if signal != "-KILL" && !ended.status.success() {
            stopped(&ended);
        }
        succeeded(&stage.pretrain(out, &[&long[..], &["--resume"]].concat()));
        same(&stage.path("whole"), &stage.path(out), out);
        let left: Vec<_> =
            std::fs::read_dir(stage.path(out)).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.len() <= 5, "{left:?}");
    }
}
