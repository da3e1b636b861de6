//! `pretext emulate`: programs on cudarc alone (`tests/emulate/`) run on the emulated device, unchanged, and learn
//! from it what they do wrong. And that nobody gets the emulated driver who has not asked for it.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{stderr, stdout, succeeded};
use engine::ErrorKind;
use engine::cuda::nvrtc::{Code, testing::nvrtc_for_tests};
use engine::cuda::{Driver, driver};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `pretext` with these arguments, in an environment without settings of the device.
fn pretext(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretext"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PRETEXT_EMULATED_") {
            command.env_remove(name);
        }
    }
    command
}

/// `pretext emulate OPTIONS -- PROGRAM ARGS`.
fn emulate(options: &[&str], program: &[&str]) -> Output {
    pretext(&[&["emulate"], options, &["--"], program].concat()).output().unwrap()
}

/// The example that holds the programs; cargo builds it beside the tests.
fn programs() -> String {
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let path = profile.join("examples").join("cuda_programs");
    assert!(path.exists(), "{} is not built: cargo build --release --examples", path.display());
    path.into_os_string().into_string().unwrap()
}

/// Runs one of the programs.
fn run(program: &str) -> Output {
    emulate(&[], &[&programs(), program])
}

/// Runs one of the programs that call NVRTC, which they look for by the name `libnvrtc.so`.
fn run_with_nvrtc(program: &str) -> Output {
    let library = std::fs::canonicalize(nvrtc_for_tests().path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&library, folder.path().join("libnvrtc.so")).unwrap();
    // NVRTC looks for its built-in functions by name.
    let path = std::env::join_paths([folder.path(), library.parent().unwrap()]).unwrap();
    pretext(&["emulate", "--", &programs(), program]).env("LD_LIBRARY_PATH", path).output().unwrap()
}

/// The line of `kernels.cu` that holds `text`.
fn line_of(text: &str) -> usize {
    include_str!("emulate/kernels.cu").lines().position(|line| line.contains(text)).unwrap() + 1
}

#[test]
fn a_program_with_ptx_inside_adds_vectors() {
    let output = run("vector-add-ptx");
    let text = stdout(succeeded(&output));
    assert!(text.contains("added 10007 elements on ") && text.to_lowercase().contains("emulated"), "{text}");
}

#[test]
fn a_program_that_compiles_its_kernel_adds_vectors() {
    assert!(stdout(succeeded(&run_with_nvrtc("vector-add-nvrtc"))).contains("added 10007 elements"));
}

/// What the programs carry is what NVRTC makes of `kernels.cu`.
#[test]
fn the_programs_ptx_is_up_to_date() {
    let nvrtc = nvrtc_for_tests();
    if nvrtc.version() != (12, 9) {
        println!("skipped: NVRTC {:?} writes other PTX than 12.9", nvrtc.version());
        return;
    }
    let compiled =
        nvrtc.compile(include_str!("emulate/kernels.cu"), "kernels.cu", "compute_80", &[]).unwrap();
    assert_eq!(compiled.code, Code::Ptx(include_str!("emulate/kernels.ptx").to_string()));
}

#[test]
fn two_threads_and_two_streams_wait_by_events() {
    for streams in ["lazy", "eager"] {
        let output = emulate(&["--streams", streams], &[&programs(), "streams"]);
        assert!(stdout(succeeded(&output)).contains("awaited by another"), "{streams}");
    }
}

#[test]
fn a_graph_is_captured_and_replayed() {
    assert!(stdout(succeeded(&run("graph"))).contains("replayed 5 times"));
}

#[test]
fn an_access_out_of_bounds_is_the_drivers_error_and_names_the_line() {
    let output = run_with_nvrtc("out-of-bounds");
    let text = stdout(succeeded(&output));
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["launch: ok", "synchronize: CUDA_ERROR_ILLEGAL_ADDRESS", "afterwards: CUDA_ERROR_ILLEGAL_ADDRESS"]
    );
    let said = stderr(&output);
    let line = format!("kernels.cu:{}", line_of("sum[i] = a[i] + b[i];"));
    for part in [&line, "out of bounds", "vector_add", "block (0,0,0) thread (1000,0,0)"] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
}

#[test]
fn wrong_launches_are_refused_and_harm_nothing() {
    let output = run("wrong-launches");
    let text = stdout(succeeded(&output));
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "no blocks: CUDA_ERROR_INVALID_VALUE",
            "no threads: CUDA_ERROR_INVALID_VALUE",
            "2048 threads: CUDA_ERROR_INVALID_VALUE",
            "65 layers of threads: CUDA_ERROR_INVALID_VALUE",
            "65536 rows of blocks: CUDA_ERROR_INVALID_VALUE",
            "300 KiB of shared memory: CUDA_ERROR_INVALID_VALUE",
            "a good launch: ok",
            "after it: [3.0, 2.0, 1.0, 0.0]",
            "unknown kernel: CUDA_ERROR_NOT_FOUND",
            "broken module: CUDA_ERROR_INVALID_PTX",
            "no such device: CUDA_ERROR_INVALID_DEVICE",
        ]
    );
}

#[test]
fn options_reach_the_device_and_the_library_path_is_extended() {
    let options = ["--seed", "7", "--schedules", "all", "--copies", "late", "--checks", "off"];
    let more = ["--streams", "eager", "--arch", "90", "--memory", "512", "--mma", "ampere", "--workers", "2"];
    let output = pretext(&[&["emulate"], &options[..], &more, &["--", "env"]].concat())
        .env("LD_LIBRARY_PATH", "/somewhere")
        .output()
        .unwrap();
    let text = stdout(succeeded(&output));
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap();
    let wanted = [
        ("SEED", "7"),
        ("SCHEDULES", "all"),
        ("COPIES", "late"),
        ("CHECKS", "off"),
        ("STREAMS", "eager"),
        ("ARCH", "90"),
        ("MEMORY", "512"),
        ("MMA", "ampere"),
        ("WORKERS", "2"),
    ];
    wanted.iter().for_each(|(name, is)| assert_eq!(value(&format!("PRETEXT_EMULATED_{name}")), *is));
    let (folder, rest) = value("LD_LIBRARY_PATH").split_once(':').unwrap();
    assert_eq!((Path::new(folder), rest), (&*emulator::library::folder().unwrap(), "/somewhere"));
    let plain = emulate(&[], &["env"]);
    assert!(!stdout(&plain).contains("PRETEXT_EMULATED_"), "what is not given is left to the device");
}

#[test]
fn exit_code_and_signal_are_the_programs() {
    assert_eq!(emulate(&[], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(emulate(&[], &["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    assert_eq!(stdout(&emulate(&[], &["echo", "--seed", "-x"])), "--seed -x\n");
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let failed = |output: Output, code: i32, parts: &[&str]| {
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "'{part}' is not in: {said}"));
    };
    failed(pretext(&["emulate"]).output().unwrap(), 2, &["PROGRAM"]);
    failed(pretext(&["emulate", "--seed", "1", "--"]).output().unwrap(), 2, &["PROGRAM"]);
    failed(emulate(&["--seed", "one"], &["true"]), 2, &["--seed", "one"]);
    failed(emulate(&["--arch", "70"], &["true"]), 2, &["70", "80", "90"]);
    failed(emulate(&[], &["no-such-program"]), 1, &["no-such-program", "PATH"]);
    failed(emulate(&[], &["./no/such/program"]), 1, &["./no/such/program"]);
    failed(emulate(&[], &["/"]), 1, &["/", "cannot be run"]);
}

/// A program that is linked with the driver asks the loader for `libcuda.so.1`. So does `LD_PRELOAD`, and the loader
/// says on stderr if it finds none.
#[test]
fn a_linked_program_finds_the_driver_by_its_usual_name() {
    let output = emulate(&[], &["env", "LD_PRELOAD=libcuda.so.1", "true"]);
    assert_eq!(stderr(succeeded(&output)), "");
}

/// One process, one driver: the emulated one is what cudarc then finds, and there is no way back.
#[test]
fn a_process_selects_its_driver_once() {
    let folder = emulator::library::folder().unwrap();
    driver::select(Driver::Emulated(folder.clone())).unwrap();
    let devices = driver::probe().unwrap();
    assert!(!devices.is_empty() && devices.iter().all(|d| d.emulated && d.memory > 0), "{devices:?}");
    driver::select(Driver::Emulated(folder)).unwrap();
    let error = driver::select(Driver::System).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains("start another process"), "{error}");
}

#[test]
fn doctor_shows_the_driver_that_is_asked_for() {
    let emulated = stdout(succeeded(&pretext(&["doctor", "--device", "emulated"]).output().unwrap()));
    assert!(emulated.contains("device cuda:0") && emulated.contains("not hardware"), "{emulated}");
    assert!(emulated.contains("nvrtc") && emulated.contains("emulated device"), "{emulated}");
    let plain = stdout(succeeded(&pretext(&["doctor"]).output().unwrap()));
    assert!(plain.contains("cuda driver") && !plain.contains("not hardware"), "{plain}");
    let inside = emulate(&[], &[env!("CARGO_BIN_EXE_pretext"), "doctor"]);
    assert!(stdout(succeeded(&inside)).contains("not hardware"), "{}", stdout(&inside));
    let other = pretext(&["doctor", "--device", "tpu"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
}

/// Cargo puts these folders on the library path of what it runs: a libcuda there would be found by every program.
#[test]
fn no_driver_lies_in_the_target_folder() {
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder)
            .map(|list| list.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    let target = profile.parent().unwrap();
    let mut folders = vec![target.to_path_buf()];
    for folder in entries(target) {
        folders.extend([folder.join("deps"), folder.join("examples"), folder.clone()]);
        folders.extend(entries(&folder.join("build")).into_iter().map(|build| build.join("out")));
    }
    let is_driver = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libcuda") && name.contains(".so")
    };
    let files: Vec<PathBuf> = folders.iter().flat_map(|folder| entries(folder)).collect();
    assert!(files.iter().any(|path| path.ends_with("driver.so")), "the embedded library was not looked at");
    let drivers: Vec<&PathBuf> = files.iter().filter(|path| is_driver(path)).collect();
    assert!(drivers.is_empty(), "{drivers:?}");
}
