//! NVRTC compiles, and says what is wrong with what it cannot compile.

use super::testing::nvrtc_for_tests;
use super::{Code, Nvrtc};
use crate::ErrorKind;
use std::path::Path;

const KERNEL: &str = r#"
extern "C" __global__ void scale(float *x, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= factor;
}
"#;

#[test]
fn ptx_has_the_entry_and_its_lines() {
    let options = ["-lineinfo".to_string()];
    let compiled = nvrtc_for_tests().compile(KERNEL, "kernels/scale.cu", "compute_90", &options).unwrap();
    let Code::Ptx(text) = compiled.code else { panic!("not PTX") };
    for part in [".target sm_90", ".entry scale(", ".loc", "kernels/scale.cu"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains('\0'));
}

#[test]
fn machine_code_is_an_elf_file_and_the_log_is_kept() {
    let options = ["--ptxas-options=-v".to_string()];
    let compiled = nvrtc_for_tests().compile(KERNEL, "scale.cu", "sm_90a", &options).unwrap();
    let Code::Cubin(bytes) = compiled.code else { panic!("not machine code") };
    assert!(bytes.starts_with(b"\x7fELF"));
    assert!(compiled.log.contains("registers"), "{}", compiled.log);
}

#[test]
fn warnings_are_in_the_log_of_a_success() {
    let source = "extern \"C\" __global__ void k(int *x) {\n    int unused;\n    *x = 1;\n}\n";
    let compiled = nvrtc_for_tests().compile(source, "warn.cu", "compute_80", &[]).unwrap();
    assert!(compiled.log.contains("warn.cu(2): warning"), "{}", compiled.log);
}

#[test]
fn a_mistake_is_named_with_file_and_line() {
    let wrong = KERNEL.replace("*= factor", "*= factr");
    let error = nvrtc_for_tests().compile(&wrong, "kernels/scale.cu", "sm_80", &[]).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(text.contains("kernels/scale.cu(4): error") && text.contains("factr"), "{text}");
}

#[test]
fn wrong_arguments_are_named() {
    let nvrtc = nvrtc_for_tests();
    let said = |source: &str, arch: &str, option: &str| {
        nvrtc.compile(source, "a.cu", arch, &[option.to_string()]).unwrap_err().to_string()
    };
    assert!(said(KERNEL, "90", "-lineinfo").contains("compute_NN"));
    assert!(said(KERNEL, "sm_1", "-lineinfo").contains("sm_1"));
    assert!(said(KERNEL, "sm_90", "--no-such-option").contains("no-such-option"));
    assert!(said("\0", "sm_90", "-lineinfo").contains("source has a zero byte"));
}

#[test]
fn many_threads_compile_at_once() {
    let nvrtc = nvrtc_for_tests();
    let first = nvrtc.compile(KERNEL, "scale.cu", "compute_80", &[]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(nvrtc.compile(KERNEL, "scale.cu", "compute_80", &[]).unwrap(), first);
            });
        }
    });
}

#[test]
fn it_is_found_once_and_knows_its_version() {
    let nvrtc = nvrtc_for_tests();
    assert!((12..=13).contains(&nvrtc.version().0), "{:?}", nvrtc.version());
    let (release, (major, minor)) = (nvrtc.release().unwrap(), nvrtc.version());
    let patch = release.strip_prefix(&format!("{major}.{minor}.")).unwrap();
    assert!(patch.parse::<u32>().is_ok(), "{release}");
    assert!(nvrtc.path().is_file(), "{}", nvrtc.path().display());
    assert!(std::ptr::eq(nvrtc, Nvrtc::find().unwrap()));
}

#[test]
fn another_library_is_refused() {
    let error = Nvrtc::load(Path::new("libc.so.6")).unwrap_err();
    assert!(error.message().contains("nvrtcVersion"), "{error}");
}
