//! `pretext classical` as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::process::Command;

fn classical(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pretext"))
        .args(["--json", "classical", "--data", "sample"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Every row has its three figures, the same at any number of threads; pixels give what they give elsewhere.
#[test]
fn rows_are_complete_and_the_same_at_any_number_of_threads() {
    let small = ["--components", "16", "--clusters", "10"];
    let (ok, one, said) = classical(&[&small[..], &["--threads", "1"]].concat());
    assert!(ok, "{said}");
    let (_, three, _) = classical(&[&small[..], &["--threads", "3"]].concat());
    assert_eq!(one, three);
    let events: Vec<Value> = one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for features in ["pixels", "pca", "pca-whitened", "kmeans"] {
        for (probe, least) in [("linear", 50.0), ("knn", 50.0), ("clusters", 30.0)] {
            let found = events.iter().find(|e| e["features"] == features && e["probe"] == probe);
            let top1 = found.unwrap_or_else(|| panic!("{features} {probe}"))["top1"].as_f64().unwrap();
            assert!(top1 > least && top1 <= 100.0, "{features} {probe}: {top1}");
        }
    }
    let pixels = events.iter().find(|e| e["features"] == "pixels" && e["probe"] == "knn").unwrap();
    assert_eq!(pixels["top1"], 81.25);
}

#[test]
fn wrong_numbers_are_said() {
    for (arguments, named) in
        [(["--components", "1000"], "components"), (["--clusters", "20000"], "clusters")]
    {
        let (ok, _, said) = classical(&arguments);
        assert!(!ok && said.contains(named), "{said}");
    }
}
