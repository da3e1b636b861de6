//! Comparing methods, and tasks of one encoder: every number beside its floors, the same after any kill, a page that stands alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Stage, stderr, stdout, succeeded};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// A comparison of a second or two: two methods that can be trained on grey images, and one that cannot.
const ARGS: &[&str] = &[
    "--methods",
    "simclr,colorization,rotation",
    "--steps",
    "3",
    "--labels",
    "5/class",
    "--set",
    "training.batch=16",
    "--set",
    "arch.name=resnet-small",
    "--set",
    "arch.width=4",
];

fn compare(stage: &Stage, out: &str, more: &[&str]) -> std::process::Output {
    let data = stage.data();
    stage.run(&[&["compare", "--data", &data, "--out", out], ARGS, more].concat())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Results without what depends on time.
fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("cost");
            map.values_mut().for_each(|v| *v = timeless(v.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| *v = timeless(v.take())),
        _ => {}
    }
    value
}

#[test]
fn a_comparison_has_floors_a_recommendation_and_a_page() {
    let stage = Stage::new();
    let out = compare(&stage, "c", &[]);
    let text = stdout(succeeded(&out));
    for part in [
        "simclr",
        "rotation",
        "encoder at random",
        "raw pixels",
        "from scratch",
        "Recommendation: ",
        "When not: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("colorization is left out") && text.contains("grey"), "{text}");
    let found = json(&stage.path("c/compare.json"));
    let methods: Vec<&Value> = found["methods"].as_array().unwrap().iter().map(|m| &m["found"]).collect();
    let methods: Vec<&Value> = methods.into_iter().filter(|m| m.is_object()).collect();
    assert_eq!(methods.len(), 2);
    let held_out = |m: &Value| m["scores"]["few_held_out"].as_f64().unwrap();
    let best = methods.iter().max_by(|a, b| held_out(a).total_cmp(&held_out(b))).unwrap();
    assert_eq!(found["recommendation"]["method"], best["method"]);
    assert_eq!((found["floors"].as_array().unwrap().len(), found["labelled"].as_u64()), (2, Some(10)));
    assert!(methods.iter().all(|m| m["cost"]["steps"] == 3 && m["cost"]["seconds"].as_f64().unwrap() > 0.0));
    let page = std::fs::read_to_string(stage.path("c/compare.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for outside in ["http:", "https:", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page needs nothing else, but has {outside}");
    }
    assert!(page.matches("<svg").count() == 2 && page.contains("class=\"bar best\""));
    let markdown = std::fs::read_to_string(stage.path("c/compare.md")).unwrap();
    assert!(markdown.contains("| simclr |") && markdown.contains("**Why.**"), "{markdown}");

    // Asked again: nothing is trained. With a method more, that one alone. With another budget: an error.
    let when = |file: &str| std::fs::metadata(stage.path(file)).unwrap().modified().unwrap();
    let before = when("c/simclr/checkpoint.safetensors");
    let again = compare(&stage, "c", &["--json"]);
    let lines = stdout(succeeded(&again));
    assert!(
        !lines.contains("\"event\":\"step\"") && lines.contains("\"event\":\"recommendation\""),
        "{lines}"
    );
    assert_eq!(before, when("c/simclr/checkpoint.safetensors"));
    let data = stage.data();
    let other = stage.run(&["compare", "--data", &data, "--out", "c", "--steps", "4", "--methods", "simclr"]);
    assert!(
        other.status.code() == Some(2) && stderr(&other).contains("started otherwise"),
        "{}",
        stderr(&other)
    );
}

/// Killed at many moments, a comparison comes to the results of one that was left alone. The moments are parts of what that one
/// took, so that they come in time on any machine.
#[test]
fn a_killed_comparison_goes_on() {
    let stage = Stage::new();
    let started = Instant::now();
    succeeded(&compare(&stage, "whole", &[]));
    let took = started.elapsed();
    let data = stage.data();
    let args = [&["compare", "--data", &data, "--out", "killed"], ARGS].concat();
    let mut kills = 0;
    for moment in 0..8 {
        let mut child = stage
            .command(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(took.mul_f64(0.04 + 0.05 * f64::from(moment)));
        // The one child that was started here, by its handle: SIGKILL.
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
    }
    assert!(kills >= 3, "the moments are too late to kill anything");
    succeeded(&stage.run(&args));
    let results = |out: &str| timeless(json(&stage.path(out).join("compare.json")));
    assert_eq!(results("whole"), results("killed"));
}

/// A number of minutes becomes a number of steps, once, and it is kept.
#[test]
fn a_time_becomes_steps_that_are_kept() {
    let stage = Stage::new();
    let data = stage.data();
    let mut args =
        vec!["compare", "--data", &data, "--out", "b", "--methods", "rotation", "--budget", "0.02"];
    args.extend(["--labels", "5/class", "--set", "training.batch=16", "--set", "arch.name=resnet-small"]);
    args.extend(["--set", "arch.width=4"]);
    succeeded(&stage.run(&args));
    let steps = |run: &str| -> u64 {
        let text = std::fs::read_to_string(stage.path("b").join(run).join("config.toml")).unwrap();
        text.parse::<toml::Table>().unwrap()["steps"].as_integer().unwrap() as u64
    };
    let kept = steps("rotation");
    let found = json(&stage.path("b/rotation/result.json"));
    assert_eq!(found["found"]["cost"]["steps"].as_u64(), Some(kept));
    assert!(kept >= 1);
    let metrics = std::fs::read_to_string(stage.path("b/rotation/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|l| l.contains("\"event\":\"step\"")).count() as u64, kept);
    std::fs::remove_file(stage.path("b/rotation/result.json")).unwrap();
    succeeded(&stage.run(&args));
    assert_eq!(steps("rotation"), kept, "a run that goes on keeps its length");
    let left = std::fs::read_dir(stage.path("b")).unwrap().flatten();
    let left: Vec<_> =
        left.map(|e| e.file_name().into_string().unwrap()).filter(|n| n.ends_with("steps")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_encoder_serves_several_tasks() {
    let stage = Stage::new();
    succeeded(&stage.pretrain("run", &["--steps", "6", "--no-table"]));
    let data = stage.data();
    let tasks = format!("{data}@5/class,{data}");
    let args = ["compare", "--tasks", &tasks, "--encoder", "run", "--out", "t", "--steps", "4"];
    let text = stdout(succeeded(&stage.run(&args)));
    assert!(text.contains("Pre-training (simclr) took") && text.contains("from scratch"), "{text}");
    let found = json(&stage.path("t/tasks.json"));
    assert_eq!(found["pretraining"]["steps"], 6);
    let tasks = found["tasks"].as_array().unwrap();
    assert_eq!((tasks[0]["images"][0].as_u64(), tasks[1]["images"][0].as_u64()), (Some(10), Some(96)));
    for task in tasks {
        for way in ["probe", "finetune", "scratch"] {
            assert!(task[way]["seconds"].as_f64().unwrap() > 0.0 && task[way]["top1"].is_number(), "{task}");
        }
    }
    let again = stage.run(&[&args[..], &["--json"]].concat());
    assert!(!stdout(succeeded(&again)).contains("\"event\":\"step\""));
    let out = stage.run(&["compare", "--tasks", "sample"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("--encoder"), "{}", stderr(&out));
}

#[test]
fn mistakes_are_usage_errors() {
    let stage = Stage::new();
    let data = stage.data();
    for (args, word) in [
        (&["--methods", "simclr,simclr"][..], "twice"),
        (&["--methods", "simclr,nosuch"], "nosuch"),
        (&["--labels", "all"], "few labels"),
        (&["--budget", "0"], "above 0"),
        (&["--steps", "0"], "at least 1"),
        (&["--budget", "1", "--steps", "3"], "--steps"),
        (&["--labels", "1000/class"], "1000 images"),
    ] {
        let out = stage.run(&[&["compare", "--data", &data, "--out", "m"], args].concat());
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", stderr(&out));
        assert!(stderr(&out).contains(word), "{args:?}: {}", stderr(&out));
        assert!(!stage.path("m").exists(), "{args:?} wrote something");
    }
    let out = stage.run(&["compare"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("--data"), "{}", stderr(&out));
}
