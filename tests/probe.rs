//! Probes by name, feature files and retrieval through the command line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Stage, stderr, stdout, succeeded};
use serde_json::Value;

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The `result` events of a command.
fn results(stage: &Stage, args: &[&str]) -> Vec<Value> {
    let out = stage.run(&[args, &["--json"]].concat());
    events(&stdout(succeeded(&out))).into_iter().filter(|e| e["event"] == "result").collect()
}

/// A ResNet and a ViT, hardly trained.
fn stage() -> Stage {
    let stage = Stage::new();
    succeeded(&stage.pretrain("resnet", &["--steps", "6", "--no-table"]));
    let data = stage.data();
    let mut args = vec!["pretrain", "mae", "--data", &data, "--out", "vit", "--steps", "3", "--no-table"];
    args.extend(["--batch", "16", "--set", "arch.name=vit-micro", "--set", "arch.patch=4"]);
    succeeded(&stage.run(&args));
    stage
}

#[test]
fn every_protocol_runs_on_every_encoder_and_on_its_feature_file() {
    let stage = stage();
    let data = stage.data();
    for (run, dims) in [("resnet", [16, 16, 16, 16, 28, 16]), ("vit", [0; 6])] {
        let file = format!("{run}.safetensors");
        succeeded(&stage.run(&["embed", run, "--data", &data, "--blocks", "4", "--out", &file]));
        for (protocol, dim) in ["sgd", "moco", "mae", "dino", "dinov2-sweep", "logreg"].iter().zip(dims) {
            let more: &[&str] = if *protocol == "logreg" { &[] } else { &["--epochs", "2"] };
            let args = [&["probe", run, "--data", &data, "--protocol", protocol], more].concat();
            let rows = results(&stage, &args);
            assert_eq!(rows.len(), if run == "resnet" { 4 } else { 3 }, "{run} {protocol}");
            let trained = &rows[0];
            assert!(trained["protocol"] == *protocol && trained["held_out"].is_number(), "{trained}");
            if dim > 0 {
                assert_eq!(trained["dim"], dim, "{protocol}");
            }
            // A file of the same features gives the same number, whatever the threads.
            for threads in ["1", "2", "5"] {
                let args = [&["probe", &file, "--protocol", protocol, "--json"], more].concat();
                let out = stage.command(&args).env("RAYON_NUM_THREADS", threads).output().unwrap();
                let found = events(&stdout(succeeded(&out)));
                let result = found.iter().find(|e| e["event"] == "result").unwrap();
                for key in ["top1", "chosen", "held_out", "dim", "method"] {
                    assert_eq!(result[key], trained[key], "{run} {protocol} {key} on {threads} threads");
                }
            }
        }
    }
    let out = stage.run(&["probe", "vit", "--data", &data, "--protocol", "dino", "--layer", "1"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("--layer"), "{}", stderr(&out));
    let out = stage.run(&["probe", "vit", "--data", &data, "--protocol", "best"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("dinov2-sweep"), "{}", stderr(&out));
    let out = stage.run(&["probe", "vit"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("--data"), "{}", stderr(&out));
}

/// Similarities to the last bit, and accuracies, at any number of threads.
#[test]
fn neighbours_do_not_depend_on_threads() {
    let stage = stage();
    let data = stage.data();
    succeeded(&stage.run(&["embed", "resnet", "--data", &data, "--out", "f.safetensors"]));
    let mut seen: Vec<(String, String)> = Vec::new();
    for threads in ["1", "2", "5"] {
        let run = |args: &[&str]| {
            let out = stage.command(args).env("RAYON_NUM_THREADS", threads).output().unwrap();
            stdout(succeeded(&out))
        };
        let found =
            run(&["retrieve", "resnet", "--data", &data, "--json", "--count", "40", "--out", "r.png"]);
        let knn = ["--center"].iter().chain(&[""]).map(|center| {
            let args = ["knn", "f.safetensors", "--json", "-k", "7", "--temperature", "0.1", center];
            run(&args[..if center.is_empty() { 7 } else { 8 }])
        });
        seen.push((found, knn.collect()));
    }
    assert!(seen[0] == seen[1] && seen[0] == seen[2]);
    assert!(seen[0].1.lines().count() == 2 && seen[0].0.contains("similarity"));
}

#[test]
fn retrieval_writes_a_picture_and_numbers() {
    let stage = stage();
    let data = stage.data();
    let args = ["retrieve", "resnet", "--data", &data, "-k", "3", "--images", "5,0", "--out", "near.png"];
    let text = stdout(succeeded(&stage.run(&args)));
    assert!(text.contains("precision at 3"), "{text}");
    let json: Value = serde_json::from_slice(&std::fs::read(stage.path("near.json")).unwrap()).unwrap();
    assert_eq!(
        (json["queries"][0]["test"].as_u64(), json["queries"][1]["test"].as_u64()),
        (Some(5), Some(0))
    );
    let near = json["queries"][0]["neighbours"].as_array().unwrap();
    let similarity: Vec<f64> = near.iter().map(|n| n["similarity"].as_f64().unwrap()).collect();
    assert!(near.len() == 3 && similarity.is_sorted_by(|a, b| a >= b) && similarity[0] <= 1.0 + 1e-6);
    let precision = json["precision"].as_f64().unwrap();
    // Two classes of blobs above and below the middle: even a hardly trained encoder tells them apart.
    assert!(precision > 0.6 && precision <= 1.0, "{precision}");
    assert_eq!(data::decode::read(&stage.path("near.png")).unwrap().width, 4 * (60 + 8) + 8);
    let out = stage.run(&["retrieve", "resnet", "--data", &data, "--images", "40"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("there are 40"), "{}", stderr(&out));
}

/// The same images for training and test are refused by every command that would report an accuracy.
#[test]
fn test_images_in_the_training_set_are_refused() {
    let stage = stage();
    let (pixels, labels) = common::images(60, 1);
    std::fs::create_dir(stage.path("same")).unwrap();
    for name in ["train", "t10k"] {
        let write = |kind: &str, bytes: Vec<u8>| {
            std::fs::write(stage.path("same").join(format!("{name}-{kind}-ubyte")), bytes).unwrap();
        };
        write("images-idx3", common::idx(&[60, 12, 12], &pixels));
        write("labels-idx1", common::idx(&[60], &labels));
    }
    let data = format!("mnist:{}", stage.path("same").display());
    for args in [
        &["probe", "resnet"][..],
        &["knn", "resnet"],
        &["retrieve", "resnet"],
        &["finetune", "resnet"],
        &["pretrain", "simclr"],
    ] {
        let out = stage.run(&[args, &["--data", &data]].concat());
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(stderr(&out).contains("60 of 60 test samples"), "{args:?}: {}", stderr(&out));
    }
    let out = stage.run(&["knn", "resnet", "--data", &data, "--allow-duplicates", "--json", "-k", "1"]);
    let found = events(&stdout(succeeded(&out)));
    assert!(found.iter().any(|e| e["event"] == "duplicates" && e["test_images_in_training"] == 60));
    assert_eq!(found.iter().find(|e| e["event"] == "result").unwrap()["top1"], 100.0, "remembered");
    succeeded(&stage.run(&["embed", "resnet", "--data", &data, "--out", "f.safetensors"]));
    let out = stage.run(&["knn", "f.safetensors"]);
    assert!(out.status.code() == Some(1) && stderr(&out).contains("--allow-duplicates"));
}

#[test]
fn feature_files_that_do_not_fit_are_errors() {
    let stage = stage();
    let data = stage.data();
    succeeded(&stage.run(&["embed", "resnet", "--data", &data, "--out", "f.safetensors"]));
    let whole = engine::safetensors::load(&stage.path("f.safetensors")).unwrap();
    let broken = |change: &dyn Fn(&mut engine::safetensors::Contents), word: &str| {
        let mut contents = whole.clone();
        change(&mut contents);
        engine::safetensors::save(&stage.path("b.safetensors"), &contents).unwrap();
        let out = stage.run(&["knn", "b.safetensors"]);
        assert_eq!(out.status.code(), Some(1), "{word}");
        assert!(stderr(&out).contains(word) && stderr(&out).contains("b.safetensors"), "{}", stderr(&out));
    };
    broken(&|c| drop(c.tensors.remove("test_labels")), "'test_labels'");
    broken(&|c| c.insert("train_labels", &whole.get("test_labels").unwrap().clone()).unwrap(), "40 labels");
    broken(&|c| c.insert("test", &whole.get("test_labels").unwrap().clone()).unwrap(), "'test' must be");
    let nan = engine::Tensor::full(&[40, 16], f32::NAN, engine::Device::Cpu).unwrap();
    broken(&|c| c.insert("test", &nan).unwrap(), "finite");
    let out = stage.run(&["knn", "f.safetensors", "--data", &data]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("holds features"), "{}", stderr(&out));
}
