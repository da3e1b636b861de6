//! Bad input to the command line: each mistake gives a message that names the file or value and says what to
//! do, exit code 1 or 2, and leaves what was there before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Stage, idx, stderr, stdout, succeeded};
use std::process::Output;

/// Fails unless the program ended with `code` and its message has all of `parts`.
fn failed(output: &Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}\n{}", stdout(output));
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn rewrite(stage: &Stage, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = stage.path("data").join(file);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, change(bytes)).unwrap();
}

#[test]
fn a_missing_data_file_is_named() {
    let stage = Stage::new();
    std::fs::remove_file(stage.path("data").join("train-labels-idx1-ubyte")).unwrap();
    failed(&stage.pretrain("run", &[]), 1, &["train-labels-idx1-ubyte"]);
    assert!(!stage.path("run").exists(), "nothing is left half-made");
    failed(&stage.run(&["pretrain", "simclr", "--data", "mnist:nowhere"]), 1, &["nowhere"]);
}

#[test]
fn a_truncated_data_file_is_named() {
    let stage = Stage::new();
    rewrite(&stage, "train-images-idx3-ubyte", |b| b[..b.len() - 7].to_vec());
    failed(&stage.pretrain("run", &[]), 1, &["train-images-idx3-ubyte", "13824", "13817"]);
}

#[test]
fn a_wrong_magic_number_is_named() {
    let stage = Stage::new();
    rewrite(&stage, "train-images-idx3-ubyte", |mut b| {
        b[2] = 9;
        b
    });
    failed(&stage.pretrain("run", &[]), 1, &["train-images-idx3-ubyte", "magic"]);
}

#[test]
fn labels_that_do_not_match_images_are_named() {
    let stage = Stage::new();
    rewrite(&stage, "train-labels-idx1-ubyte", |_| idx(&[95], &[0; 95]));
    failed(&stage.pretrain("run", &[]), 1, &["95", "96"]);
}

#[test]
fn unknown_names_list_what_there_is() {
    let stage = Stage::new();
    let data = stage.data();
    failed(&stage.run(&["pretrain", "simclrr", "--data", &data]), 2, &["simclrr", "simclr"]);
    failed(&stage.run(&["pretrain", "simclr", "--data", "imagenet"]), 2, &["imagenet", "fashion-mnist"]);
    failed(&stage.pretrain("run", &["--arch", "resnet19"]), 2, &["resnet19", "resnet18"]);
    failed(&stage.pretrain("run", &["--device", "tpu"]), 2, &["tpu", "cpu"]);
    failed(&stage.pretrain("run", &["--set", "training.batchh=3"]), 2, &["batchh"]);
    failed(&stage.pretrain("run", &["--set", "settings.temperatur=3"]), 2, &["temperatur"]);
    failed(&stage.pretrain("run", &["--set", "settings.temperature=-1"]), 2, &["temperature"]);
    failed(&stage.run(&["pretrain"]), 2, &["METHOD"]);
    assert!(!stage.path("run").exists());
}

#[test]
fn a_batch_larger_than_the_data_is_refused() {
    let stage = Stage::new();
    failed(&stage.pretrain("run", &["--set", "training.batch=97"]), 1, &["97", "96", "batch"]);
}

#[test]
fn an_unwritable_folder_is_named() {
    let stage = Stage::new();
    std::fs::write(stage.path("file"), "not a folder").unwrap();
    failed(&stage.pretrain("file/run", &["--epochs", "1"]), 1, &["file/run"]);
}

#[test]
fn a_run_is_not_overwritten() {
    let stage = Stage::new();
    succeeded(&stage.pretrain("run", &["--steps", "1", "--no-table"]));
    failed(&stage.pretrain("run", &["--steps", "1"]), 2, &["run", "--resume"]);
    let other = stage.pretrain("run", &["--resume", "--steps", "2"]);
    failed(&other, 2, &["steps: 1 there, 2 now"]);
    failed(&stage.pretrain("fresh", &["--resume"]), 1, &["fresh/config.toml"]);
}

/// The learning rate is absurd: the loss is soon not a number. The checkpoint of the steps before stays good.
#[test]
fn a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint() {
    let stage = Stage::new();
    succeeded(&stage.pretrain("good", &["--steps", "3", "--no-table"]));
    let wild =
        ["--epochs", "40", "--set", "training.learning_rate=1e38", "--set", "training.warmup_epochs=0"];
    let every = ["--set", "monitor.checkpoint_epochs=1", "--no-table"];
    failed(
        &stage.pretrain("wild", &[&wild[..], &every[..]].concat()),
        1,
        &["step", "learning_rate", "checkpoint"],
    );
    assert!(!stage.path("wild").join("encoder.safetensors").exists());
    let data = stage.data();
    succeeded(&stage.run(&["knn", "good", "--data", &data]));
}

#[test]
fn a_broken_checkpoint_or_encoder_is_named() {
    let stage = Stage::new();
    let data = stage.data();
    let stopped = stage.pretrain("run", &["--epochs", "2", "--stop-after", "3", "--no-table"]);
    failed(&stopped, 1, &["--resume"]);
    let checkpoint = stage.path("run").join("checkpoint.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    failed(&stage.pretrain("run", &["--epochs", "2", "--resume"]), 1, &["checkpoint.safetensors"]);
    failed(&stage.run(&["knn", "run", "--data", &data]), 1, &["checkpoint.safetensors"]);
    failed(&stage.run(&["probe", "nothing.safetensors", "--data", &data]), 1, &["nothing.safetensors"]);
    std::fs::create_dir(stage.path("empty")).unwrap();
    failed(&stage.run(&["probe", "empty", "--data", &data]), 1, &["empty", "checkpoint.safetensors"]);
}

/// An encoder for grey images is not fed with something else, and a file without our metadata is refused.
#[test]
fn an_encoder_that_does_not_fit_is_refused() {
    let stage = Stage::new();
    let data = stage.data();
    let mut contents = engine::safetensors::Contents::default();
    let zero = engine::Tensor::scalar(0.0).unwrap();
    contents.insert("x", &zero).unwrap();
    let path = stage.path("other.safetensors");
    engine::safetensors::save(&path, &contents).unwrap();
    failed(&stage.run(&["knn", "other.safetensors", "--data", &data]), 1, &["other.safetensors", "arch"]);
}

/// A disk that fills up while a checkpoint is written: the error names the file, the checkpoint before it
/// stays readable, and the run goes on once there is room.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_last_checkpoint() {
    let stage = Stage::new();
    let disk = stage.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).arg(&disk).output();
        status.is_ok_and(|o| o.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) {
        println!("skipped: only root may mount a small disk here");
        return;
    }
    let steps = ["--steps", "12", "--no-table"];
    let first = stage.pretrain("disk/run", &[&steps[..], &["--stop-after", "5"]].concat());
    let used = std::fs::metadata(disk.join("run/checkpoint.safetensors")).map(|m| m.len()).unwrap_or(0);
    // What is left is less than one more checkpoint.
    std::fs::write(disk.join("ballast"), vec![0u8; (2 << 20) - used as usize - used as usize / 2 - 40_000])
        .unwrap();
    let full = stage.pretrain("disk/run", &[&steps[..], &["--resume"]].concat());
    std::fs::remove_file(disk.join("ballast")).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(disk.join("run")).unwrap().flatten().map(|e| e.file_name()).collect();
    let resumed = stage.pretrain("disk/run", &[&steps[..], &["--resume"]].concat());
    let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
    failed(&first, 1, &["--resume"]);
    failed(&full, 1, &["checkpoint.safetensors", "space"]);
    assert!(left.iter().all(|f| !f.to_string_lossy().ends_with(".tmp")), "{left:?}");
    assert!(stderr(succeeded(&resumed)).contains("going on from step 5"), "{}", stderr(&resumed));
    assert!(unmounted.success());
}

/// Folders of images, as the command line takes them.
#[test]
fn folders_of_images_that_do_not_work_say_why() {
    let stage = Stage::new();
    let photo = include_bytes!("../data/sample/photos/sunset_by_Aitzol_Berasategi.jpg");
    for (i, class) in ["sea", "sky"].iter().enumerate() {
        std::fs::create_dir_all(stage.path("photos").join(class)).unwrap();
        for j in 0..6 {
            std::fs::write(stage.path("photos").join(class).join(format!("{j}.jpg")), photo).unwrap();
        }
        // One file of each class is cut short, at another place.
        let cut = &photo[..photo.len() / (i + 2)];
        std::fs::write(stage.path("photos").join(class).join("2.jpg"), cut).unwrap();
    }
    let small = ["--steps", "2", "--set", "training.batch=4", "--arch", "resnet-small/4", "--no-table"];
    let run = |data: &str, more: &[&str]| {
        stage.run(&[&["pretrain", "simclr", "--data", data, "--out", "run"], &small[..], more].concat())
    };
    failed(
        &run("folder:photos", &["--size", "16"]),
        1,
        &["photos/sea/2.jpg", "corrupt JPEG", "--skip-corrupt"],
    );
    failed(&run("folder:photos", &["--size", "0"]), 2, &["--size"]);
    failed(&run("folder:nowhere", &[]), 1, &["nowhere"]);
    failed(&run("sample", &["--size", "16"]), 2, &["'sample' takes no options", "--size 16"]);
    assert!(!stage.path("run").exists());
    let output = run("folder:photos", &["--size", "16", "--skip-corrupt"]);
    assert!((stdout(succeeded(&output)) + &stderr(&output)).contains("2 image files left out"));
    let config = std::fs::read_to_string(stage.path("run").join("config.toml")).unwrap();
    assert!(config.contains("folder:photos --size 16 --skip-corrupt"), "{config}");
    // All are copies of one photo: test images are training images.
    let knn = ["knn", "run", "--data", "folder:photos", "--size", "16", "--skip-corrupt"];
    failed(&stage.run(&knn), 1, &["2 of 2 test samples", "--allow-duplicates"]);
    succeeded(&stage.run(&[&knn[..], &["--allow-duplicates"]].concat()));
}
