//! `pretext kernels`: what it lists, shows, checks, locks and measures.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{stderr, stdout, succeeded};
use engine::cuda::nvrtc::testing::pinned_tools;
use kernels::registry::FAMILIES;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// `pretext kernels` with these arguments; it finds the pinned compiler, and the disassembler if `disassembler`.
fn command(args: &[&str], disassembler: bool) -> Command {
    let (libraries, programs) = pinned_tools().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretext"));
    command.arg("kernels").args(args).env("PRETEXT_CUDA_LIB_DIR", libraries);
    match disassembler {
        true => command.env("PATH", programs),
        false => command.env("PATH", "/nonexistent"),
    };
    for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        command.env_remove(name);
    }
    command.env("HOME", env!("CARGO_TARGET_TMPDIR")).env("PRETEXT_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn run(args: &[&str]) -> Output {
    command(args, true).output().unwrap()
}

fn failed(output: &Output, code: i32, parts: &[&str]) {
    let said = stdout(output) + &stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "'{part}' is not in: {said}"));
}

fn events(output: &Output) -> Vec<Value> {
    stdout(succeeded(output)).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_kernel_is_listed() {
    let entries: Vec<&str> = FAMILIES.iter().flat_map(|f| f.kernels()).map(|kernel| kernel.entry).collect();
    let text = stdout(succeeded(&run(&["list"])));
    assert_eq!(text.lines().count(), entries.len());
    let listed = events(&run(&["list", "--json"]));
    assert_eq!(listed.iter().map(|event| event["entry"].as_str().unwrap()).collect::<Vec<_>>(), entries);
    assert_eq!((&listed[0]["family"], &listed[0]["arch_min"]), (&"elementwise".into(), &80.into()));
}

#[test]
fn a_kernel_is_shown_in_its_forms() {
    let text = stdout(succeeded(&run(&["show", "elementwise_relu_f32", "--arch", "80"])));
    for part in [
        "#include \"common/element.cuh\"",
        ".entry elementwise_relu_f32(",
        " registers, 0 bytes spilled",
        "LDG.E.128",
    ] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert!(!text.contains(".entry elementwise_add_f32("), "only the kernel that was asked for");
    let without = command(&["show", "elementwise_relu_f32"], false).output().unwrap();
    assert!(
        stdout(succeeded(&without)).contains("ptx of") && stderr(&without).contains("nvidia-cuda-nvdisasm")
    );
    let without = command(&["show", "elementwise_relu_f32", "--part", "sass"], false).output().unwrap();
    failed(&without, 1, &["pip install nvidia-cuda-nvdisasm"]);
    failed(
        &run(&["show", "elementwise_relu"]),
        2,
        &["there are elementwise_relu_f32, elementwise_relu_bf16"],
    );
}

#[test]
fn a_family_is_checked() {
    let checked = events(&run(&["check", "elementwise", "--device", "emulated", "--json"]));
    assert!(checked[0]["cases"].as_u64().unwrap() > 5 && checked[0]["error"].is_null(), "{checked:?}");
    failed(&run(&["check", "elementwize"]), 2, &["elementwise"]);
    failed(&run(&["check", "--device", "cpu"]), 2, &["CUDA kernels run on"]);
}

/// Three tensors of 512 x 512 elements go through device memory, and nothing else.
#[test]
fn costs_stand_beside_what_must_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.md");
    let args = ["profile", "elementwise_add_f32", "--json", "--table", file.to_str().unwrap()];
    let launches = events(&run(&args));
    let [add] = &launches[..] else { panic!("{launches:?}") };
    assert_eq!((&add["bytes"], &add["milliseconds"]), (&(3 << 20).into(), &Value::Null));
    assert_eq!(add["counters"]["unique_bytes_read"], 2 << 20);
    assert_eq!(add["counters"]["unique_bytes_written"], 1 << 20);
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("| add 512x512 f32 | elementwise_add_f32 | 3145728 | 1.000 | 1.000 |"), "{page}");
    failed(&run(&["profile", "nothing"]), 2, &["neither a family nor"]);
}

#[test]
fn the_lock_holds_until_something_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernels.lock");
    let lock = |more: &[&str], disassembler: bool| {
        let args = [&["lock", "elementwise", "--file", file.to_str().unwrap()], more].concat();
        command(&args, disassembler).output().unwrap()
    };
    failed(&lock(&["--check"], true), 1, &["kernels.lock", "No such file"]);
    succeeded(&lock(&[], true));
    let text = std::fs::read_to_string(&file).unwrap();
    let entries = FAMILIES.iter().find(|family| family.name == "elementwise").unwrap().kernels().count();
    assert_eq!(text.lines().filter(|line| line.contains(" registers=")).count(), 2 * entries);
    // What is of another family is left alone.
    let text = text + "zother_fwd_f32 sm_80 registers=1\n";
    std::fs::write(&file, &text).unwrap();
    succeeded(&lock(&[], true));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    succeeded(&lock(&["--check"], true));
    // Instructions are left out where there is no disassembler; the rest is compared.
    let without = lock(&["--check"], false);
    assert!(stderr(succeeded(&without)).contains("instructions are left out"), "{}", stderr(&without));

    let changed = |from: &str, to: &str, disassembler: bool| {
        let at = text.find("elementwise_add_f32 sm_90 ").unwrap();
        std::fs::write(&file, text[..at].to_string() + &text[at..].replacen(from, to, 1)).unwrap();
        lock(&["--check"], disassembler)
    };
    for disassembler in [true, false] {
        let spilled = changed("spill_stores=0", "spill_stores=8", disassembler);
        failed(&spilled, 1, &["elementwise_add_f32 sm_90: spill_stores 8 -> 0", "1 of "]);
    }
    failed(&changed("global128=3", "global128=2", true), 1, &["elementwise_add_f32 sm_90: global128 2 -> 3"]);
    succeeded(&changed("global128=3", "global128=2", false));
    failed(
        &changed("elementwise_add_f32 sm_90", "elementwise_gone_f32 sm_90", true),
        1,
        &["new: registers", "elementwise_gone_f32 sm_90: gone"],
    );
    std::fs::write(&file, text.replacen("nvrtc 12.9.86", "nvrtc 12.8.93", 1)).unwrap();
    failed(&lock(&["--check"], true), 1, &["12.8.93", "12.9.86"]);
}

/// The repository's own file was written with the pinned tools, and names every kernel: CI compares the rest.
#[test]
fn the_repository_has_a_lock() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels.lock");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("\nnvrtc 12.9.86\nnvdisasm 13.5.37\n"), "another compiler or disassembler");
    for (family, kernel) in FAMILIES.iter().flat_map(|f| f.kernels().map(move |kernel| (f.name, kernel))) {
        assert!(kernel.entry.starts_with(&format!("{family}_")), "{} is in {family}", kernel.entry);
        assert!(text.contains(&format!("\n{} sm_90 ", kernel.entry)), "{} is missing", kernel.entry);
    }
}

/// What is recorded is found again; one wrong word is an error that names the instruction, and so is a missing one.
#[test]
fn recorded_instructions_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorded.safetensors");
    let name = file.to_str().unwrap();
    succeeded(&run(&["record", "--device", "emulated", "--out", name]));
    let events = events(&run(&["record", "--device", "emulated", "--replay", name, "--json"]));
    assert_eq!(events.len(), kernels::instructions::vectors().len());
    assert!(events.iter().all(|event| event["error"].is_null()), "{events:?}");

    let mut contents = engine::safetensors::load(&file).unwrap();
    let result = contents.get("mma_bf16/result").unwrap().clone();
    let mut words = result.to_vec::<i32>().unwrap();
    words[5] ^= 1;
    contents.insert("mma_bf16/result", &engine::Tensor::from_slice(&words, result.shape()).unwrap()).unwrap();
    engine::safetensors::save(&file, &contents).unwrap();
    let said = ["mma_bf16: 1 of 8192 results differ, the first at 5", "not as recorded: mma_bf16"];
    failed(&run(&["record", "--device", "emulated", "--replay", name]), 1, &said);
    contents.tensors.remove("tanh/result");
    engine::safetensors::save(&file, &contents).unwrap();
    failed(&run(&["record", "--device", "emulated", "--replay", name]), 1, &["no tensor 'tanh/result'"]);
}

/// The emulated device does what hardware did, for every recording that there is of hardware.
#[test]
fn the_emulated_device_is_as_recorded_hardware() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator/golden");
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|e| e == "safetensors")) {
        let output = run(&["record", "--device", "emulated", "--replay", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}: {}{}", file.display(), stdout(&output), stderr(&output));
    }
}

/// A page that says less is found to be worse than.
#[test]
fn a_scorecard_is_written_and_compared_with() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scorecard.md");
    let _ = std::fs::remove_file(&file);
    let path = file.to_str().unwrap();
    let written = run(&["scorecard", "random", "--file", path]);
    assert!(stdout(succeeded(&written)).contains("occupancy"));
    let text = std::fs::read_to_string(&file).unwrap();
    let row = text.lines().find(|line| line.starts_with("| ") && line.contains("| random_")).unwrap();
    let check = ["scorecard", "random", "--check", "--file", path];
    assert!(stdout(succeeded(&run(&check))).contains("none worse"));
    let mut cells: Vec<&str> = row.split(" | ").collect();
    cells[2] = "1";
    std::fs::write(&file, text.replace(row, &cells.join(" | "))).unwrap();
    failed(&run(&check), 1, &["registers sm_80 1 -> ", "write it anew"]);
    std::fs::write(&file, text.replace(&format!("{row}\n"), "")).unwrap();
    failed(&run(&check), 1, &["is not in the file"]);
    failed(&command(&check, false).output().unwrap(), 1, &["nvidia-cuda-nvdisasm"]);
}
