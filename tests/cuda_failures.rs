//! What can go wrong around kernels, one after another: the cache of compiled kernels, the compiler, the driver, memory, a
//! kernel itself. Each time the program goes on, or says what is wrong and what to do.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod cuda;

use common::{stderr, stdout, succeeded};
use cuda::{emulated, fill, fill_works, is_part, other_fill_works, passed, process};
use engine::cuda::cache::{Cache, compiler};
use engine::cuda::nvrtc::{Code, Compiled, testing::nvrtc_for_tests};
use engine::cuda::{Driver, Nvrtc, compile, driver, memory};
use engine::memory::operation;
use engine::{DType, Device, ErrorKind, Tensor};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files in a folder that are no remains of writing.
fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn kernels_are_compiled_once_and_a_damaged_file_is_replaced() {
    if is_part() {
        return fill_works(emulated());
    }
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output =
            process("kernels_are_compiled_once_and_a_damaged_file_is_replaced", folder.path()).output();
        let output = output.unwrap();
        assert_eq!(stderr(succeeded(&output)), "");
        let [file] = &files(folder.path())[..] else { panic!("{:?}", files(folder.path())) };
        (file.clone(), fs::metadata(file).unwrap().ino(), fs::read(file).unwrap())
    };
    let (file, first, content) = run();
    assert_eq!(run().1, first, "the file is used, not written again");
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 1;
    for damaged in [&flipped[..], &content[..content.len() / 2], b""] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(run().2, content);
    }
}

/// The digest fits, but the driver does not take the code.
#[test]
fn what_the_driver_refuses_from_the_cache_is_compiled_anew() {
    if is_part() {
        return fill_works(emulated());
    }
    let folder = tempfile::tempdir().unwrap();
    let (cache, key) = (Cache::at(folder.path()), compile::key(cuda::module(), "compute_90"));
    let compiler = compiler(nvrtc_for_tests());
    for code in [Code::Ptx("this is no PTX".into()), Code::Cubin(b"\x7fELF of another device".to_vec())] {
        cache.store(&key, &compiler, &Compiled { code, log: String::new() }).unwrap();
        let name = "what_the_driver_refuses_from_the_cache_is_compiled_anew";
        passed(&mut process(name, folder.path()));
        let Code::Ptx(text) = cache.load(&key, &compiler).unwrap().code else { panic!("not PTX") };
        assert!(text.contains(".entry test_fill"));
    }
}

#[test]
fn the_cache_may_be_deleted_at_any_time() {
    if is_part() {
        let device = emulated();
        fill_works(device);
        fs::remove_dir_all(std::env::var_os("PRETEXT_CACHE_DIR").unwrap()).unwrap();
        return other_fill_works(device);
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("made/when/needed");
    assert_eq!(stderr(&passed(&mut process("the_cache_may_be_deleted_at_any_time", &cache))), "");
    assert_eq!(files(&cache).len(), 1, "only the second module is there");
}

#[test]
fn a_cache_that_cannot_be_written_is_said_once() {
    if is_part() {
        let device = emulated();
        fill_works(device);
        return other_fill_works(device);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let mut places = vec![file.join("inside a file"), PathBuf::from("/proc/pretext")];
    // A superuser may write there all the same.
    if fs::write(closed.join("probe"), "").is_err() {
        places.push(closed);
    }
    for cache in places {
        let said = stderr(&passed(&mut process("a_cache_that_cannot_be_written_is_said_once", &cache)));
        assert_eq!(said.matches("warning: compiled kernels are not kept").count(), 1, "{said}");
        assert!(said.contains("PRETEXT_CACHE_DIR"), "{said}");
    }
}

#[test]
fn many_processes_compile_at_once() {
    if is_part() {
        let device = emulated();
        fill_works(device);
        return other_fill_works(device);
    }
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = process("many_processes_compile_at_once", folder.path());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let all = [start(), start(), start()];
    for output in all.map(|child| child.wait_with_output().unwrap()) {
        assert_eq!(stderr(succeeded(&output)), "");
    }
    let cache = Cache::at(folder.path());
    assert_eq!(files(folder.path()).len(), 2, "two modules and no remains");
    assert!(cache.load_any(&compile::key(cuda::module(), "compute_90")).is_some());
}

/// Without the compiler what was compiled still runs; what was not is an error that says how to get it.
#[test]
fn without_the_compiler_the_cache_serves() {
    if is_part() {
        if Nvrtc::find().is_ok() {
            return println!("NVRTC is found all the same");
        }
        let device = emulated();
        fill_works(device);
        let error = std::panic::catch_unwind(|| other_fill_works(device)).unwrap_err();
        let said = error.downcast_ref::<String>().unwrap();
        for part in ["pip install nvidia-cuda-nvrtc", "PRETEXT_CUDA_LIB_DIR", cuda::FILE] {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
        return fill_works(device);
    }
    let folder = tempfile::tempdir().unwrap();
    let compiled = compile::compile(cuda::module(), "compute_90").or_else(|_| {
        nvrtc_for_tests();
        compile::compile(cuda::module(), "compute_90")
    });
    let key = compile::key(cuda::module(), "compute_90");
    Cache::at(folder.path()).store(&key, "11.8-of another machine", &compiled.unwrap()).unwrap();
    let mut command = process("without_the_compiler_the_cache_serves", folder.path());
    for name in ["PRETEXT_CUDA_LIB_DIR", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PATH"] {
        command.env_remove(name);
    }
    let said = stdout(&passed(command.env("HOME", folder.path())));
    if said.contains("all the same") {
        println!("skipped: this machine has NVRTC where every program finds it");
    }
}

#[test]
fn a_driver_without_devices_is_no_device() {
    if is_part() {
        let error = driver::select(Driver::System).and_then(|()| driver::probe());
        assert_eq!(error.unwrap(), []);
        let error = engine::cuda::context(0).err().unwrap();
        return assert!(error.message().contains("finds no device"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let source = "/// CUDA_ERROR_NO_DEVICE\n\
        #[unsafe(no_mangle)] pub extern \"C\" fn cuInit(_: u32) -> i32 { 100 }\n";
    cuda::library(folder.path(), "libcuda.so", source);
    let mut command = process("a_driver_without_devices_is_no_device", folder.path());
    passed(command.env("LD_LIBRARY_PATH", folder.path()));
}

#[test]
fn no_driver_is_an_error_that_names_the_emulated_device() {
    if is_part() {
        return match driver::select(Driver::System) {
            Ok(()) => println!("this machine has a driver"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Device);
                assert!(error.message().contains("libcuda.so.1"), "{error}");
                assert!(error.message().contains("emulated device"), "{error}");
                assert!(Tensor::empty(&[1], DType::F32, Device::Cuda(0)).is_err());
                // The choice is still open.
                fill_works(emulated());
            }
        };
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "no_driver_is_an_error_that_names_the_emulated_device";
    if stdout(&passed(&mut process(name, folder.path()))).contains("has a driver") {
        println!("skipped: this machine has a driver");
    }
}

/// 64 MiB: what is cached is given back before anything fails; then it is an error that tells who holds what, and work
/// goes on.
#[test]
fn memory_runs_out_in_the_middle_of_work() {
    const MIB: usize = 1 << 20;
    if is_part() {
        let device = emulated();
        let floats = |name: &'static str, mib: usize| {
            let _named = operation(name);
            Tensor::empty(&[mib * MIB / 4], DType::F32, device)
        };
        let mut weights = floats("weights", 20).unwrap();
        let activations = floats("activations", 16).unwrap();
        fill(&mut weights, 1000, 1.0).unwrap();
        drop(floats("gone", 20).unwrap());
        assert_eq!(memory::stats(0).unwrap().cached, 20 * MIB);
        let large = floats("large", 24).unwrap();
        assert_eq!(memory::stats(0).unwrap().cached, 0, "cached blocks were given back");
        let error = floats("too large", 40).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Memory);
        for part in [
            "41943040 bytes",
            "60 MiB in all",
            "large 24 MiB, weights 20 MiB, activations 16 MiB",
            "smaller batch",
        ] {
            assert!(error.message().contains(part), "'{part}' is not in: {error}");
        }
        assert!(!error.message().contains("gone"), "{error}");
        fill(&mut weights, 1000, 2.0).unwrap();
        drop((large, activations));
        floats("too large", 40).unwrap();
        return assert_eq!(weights.narrow(0, 999, 1).unwrap().to_vec::<f32>().unwrap(), [2.0]);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = process("memory_runs_out_in_the_middle_of_work", folder.path());
    passed(command.env("PRETEXT_EMULATED_MEMORY", "64"));
}

#[test]
fn a_fault_in_a_kernel_names_the_kernel_and_the_line() {
    if is_part() {
        let device = emulated();
        let mut x = Tensor::empty(&[100], DType::F32, device).unwrap();
        fill(&mut x, 100_000, 1.0).unwrap();
        let error = engine::cuda::context(0).unwrap().synchronize().unwrap_err();
        let line = cuda::SOURCE.lines().position(|line| line.contains("x[i] = value;")).unwrap() + 1;
        for part in ["test_fill", &format!("{}:{line}", cuda::FILE), "out of bounds", "ILLEGAL_ADDRESS"] {
            assert!(error.message().contains(part), "'{part}' is not in: {error}");
        }
        return assert!(x.to_vec::<f32>().is_err(), "the device cannot be used any more");
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_fault_in_a_kernel_names_the_kernel_and_the_line";
    passed(&mut process(name, folder.path()));
}
