//! What is seen of launches on the emulated device: recordings, tables, traces, and NVTX ranges.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cuda;

use cuda::{emulated, fill, is_part, passed, process, scale};
use engine::cuda::graph::Graph;
use engine::cuda::profile::{self, report};
use engine::memory::operation;
use engine::{DType, Tensor};
use serde_json::Value;

/// Launches outside a recording are not in it; each has its own counters; those in a graph count at each replay.
#[test]
fn launches_are_recorded_with_their_counters() {
    if !is_part() {
        let folder = tempfile::tempdir().unwrap();
        let name = "launches_are_recorded_with_their_counters";
        passed(&mut process(name, folder.path()));
        return;
    }
    let device = emulated();
    let mut x = Tensor::empty(&[4096], DType::F32, device).unwrap();
    fill(&mut x, 4096, 1.0).unwrap();
    assert_eq!(profile::stop().unwrap(), [], "nothing was started");

    profile::start().unwrap();
    assert!(profile::start().unwrap_err().message().contains("stop it first"));
    {
        let _named = operation("halve");
        scale(&mut x, 0.5).unwrap();
    }
    fill(&mut x, 1024, 2.0).unwrap();
    scale(&mut x, 3.0).unwrap();
    let records = profile::stop().unwrap();
    scale(&mut x, 0.0).unwrap();

    let said: Vec<_> =
        records.iter().map(|r| (r.launch.kernel, r.launch.operation, r.launch.grid[0])).collect();
    assert_eq!(said, [("test_scale", "halve", 32), ("test_fill", "other", 8), ("test_scale", "other", 32)]);
    let moved: Vec<u64> = records.iter().map(|r| r.counters.unwrap().unique_bytes()).collect();
    assert_eq!(moved, [2 * 16384, 4096, 2 * 16384]);
    for record in &records {
        assert_eq!((record.milliseconds, record.start), (None, None), "the emulated device has no times");
        assert_eq!((record.launch.block, record.launch.bytes), ([128, 1, 1], 16384));
    }

    let info = engine::cuda::context(0).unwrap().info();
    let table = report::table(&records, info);
    let line = table.lines().nth(1).unwrap();
    assert_eq!(
        line.split_whitespace().take(4).collect::<Vec<_>>(),
        ["test_scale", "2", "32768", "2.000"],
        "{table}"
    );
    let mut trace = Vec::new();
    report::chrome_trace(&records, &mut trace).unwrap();
    let events: Vec<Value> = serde_json::from_slice(&trace).unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!((&events[0]["ph"], &events[0]["args"]["operation"]), (&"X".into(), &"halve".into()));
    assert_eq!(events[1]["args"]["unique_bytes_written"], 4096);

    let (mut graph, ()) = Graph::capture(device, || {
        scale(&mut x, 2.0)?;
        fill(&mut x, 1024, 2.0)
    })
    .unwrap();
    profile::start().unwrap();
    (0..3).for_each(|_| graph.launch().unwrap());
    fill(&mut x, 4096, 1.0).unwrap();
    let records = profile::stop().unwrap();
    let moved: Vec<_> =
        records.iter().map(|r| (r.launch.kernel, r.counters.unwrap().unique_bytes())).collect();
    let replay = [("test_scale", 2 * 16384), ("test_fill", 4096)];
    assert_eq!(moved, [&replay[..], &replay, &replay, &[("test_fill", 16384)]].concat());
}

/// A library with NVTX's name and functions, which writes down what it is told.
const NVTX: &str = r#"
use std::{ffi::{CStr, c_char}, io::Write};
fn note(text: &str) {
    let path = std::env::var("NOTES").unwrap();
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{text}").unwrap();
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn nvtxRangePushA(name: *const c_char) -> i32 {
    note(&format!("push {}", unsafe { CStr::from_ptr(name) }.to_string_lossy()));
    0
}
#[unsafe(no_mangle)] pub extern "C" fn nvtxRangePop() -> i32 { note("pop"); 0 }
"#;

#[test]
fn launches_and_operations_are_nvtx_ranges() {
    let name = "launches_and_operations_are_nvtx_ranges";
    if is_part() {
        let mut x = Tensor::empty(&[64], DType::F32, emulated()).unwrap();
        fill(&mut x, 64, 1.0).unwrap();
        let _outer = operation("outer");
        {
            let _inner = operation("inner");
            scale(&mut x, 2.0).unwrap();
        }
        return fill(&mut x, 64, 1.0).unwrap();
    }
    let wanted = "push test_fill,pop,push outer,push inner,push test_scale,pop,pop,push test_fill,pop,pop";
    for library in ["libnvToolsExt.so.1", "libnvtx3interop.so.1"] {
        let folder = tempfile::tempdir().unwrap();
        cuda::library(folder.path(), library, NVTX);
        let notes = folder.path().join("notes");
        let mut command = process(name, &folder.path().join("cache"));
        command.env("LD_LIBRARY_PATH", folder.path()).env("NOTES", &notes);
        passed(&mut command);
        let said = std::fs::read_to_string(&notes).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>().join(","), wanted, "{library}");
    }
}
