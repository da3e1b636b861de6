//! What tests of the CUDA side share: kernels of their own, and processes of their own, since a process chooses its driver
//! and reads its environment once.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use engine::cuda::nvrtc::testing::nvrtc_for_tests;
use engine::cuda::{Driver, Kernel, Launch, Module, driver};
use engine::{DType, Device, Result, Tensor};
use std::env;
use std::path::Path;
use std::process::{Command, Output};

/// The text of the tests' kernels.
pub const SOURCE: &str = include_str!("kernels.cu");
/// What messages call it.
pub const FILE: &str = "tests/cuda/kernels.cu";

static MODULE: Module = Module::new("test", FILE, SOURCE, &[], &[], &[]);
static FILL: Kernel = Kernel::new(&MODULE, "test_fill");
static SCALE: Kernel = Kernel::new(&MODULE, "test_scale");
/// The same source, but other code as far as caches and drivers know.
static OTHER_MODULE: Module = Module::new("test", FILE, SOURCE, &[], &["OTHER"], &[]);
static OTHER_FILL: Kernel = Kernel::new(&OTHER_MODULE, "test_fill");

/// The module of [`fill`] and [`scale`].
pub fn module() -> &'static Module {
    &MODULE
}

/// Tells a process that it is a part of a test.
const PART: &str = "PRETEXT_TEST_PART";

/// Whether this process is the part of a test that [`process`] runs.
pub fn is_part() -> bool {
    env::var_os(PART).is_some()
}

/// The test called `name` of this program in a process of its own, where [`is_part`] holds; it keeps compiled kernels in
/// `cache` and finds NVRTC. Nothing else of the project is set in its environment.
pub fn process(name: &str, cache: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PRETEXT_")) {
        command.env_remove(variable);
    }
    let library = std::fs::canonicalize(nvrtc_for_tests().path()).unwrap();
    command.env(PART, "1").env("PRETEXT_CACHE_DIR", cache);
    command.env("PRETEXT_CUDA_LIB_DIR", library.parent().unwrap());
    command
}

/// Runs what [`process`] gave and sees that it was the one test, and passed.
pub fn passed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
    output
}

/// The emulated device.
pub fn emulated() -> Device {
    driver::select(Driver::Emulated(emulator::library::folder().unwrap())).unwrap();
    Device::Cuda(0)
}

fn launch(kernel: &'static Kernel, x: &mut Tensor, n: usize, value: f32) -> Result<()> {
    let device = x.device();
    Launch::new(kernel, device)?.write(x)?.value(n as u64).value(value).grid(n.div_ceil(128)).block(128).run()
}

/// Sets the first `n` elements, whatever room `x` has.
pub fn fill(x: &mut Tensor, n: usize, value: f32) -> Result<()> {
    launch(&FILL, x, n, value)
}

/// Multiplies all elements.
pub fn scale(x: &mut Tensor, value: f32) -> Result<()> {
    let n = x.len();
    launch(&SCALE, x, n, value)
}

/// Fills and reads back: that a kernel is compiled or found, loaded, launched, and right.
pub fn fill_works(device: Device) {
    let mut x = Tensor::empty(&[100], DType::F32, device).unwrap();
    fill(&mut x, 100, 3.0).unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), [3.0; 100]);
}

/// As [`fill_works`] with another module.
pub fn other_fill_works(device: Device) {
    let mut x = Tensor::empty(&[100], DType::F32, device).unwrap();
    launch(&OTHER_FILL, &mut x, 100, 4.0).unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), [4.0; 100]);
}

/// A shared library of this source in `folder`, for programs that look for a library by its name.
pub fn library(folder: &Path, name: &str, source: &str) {
    let file = folder.join("library.rs");
    std::fs::write(&file, source).unwrap();
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "library", "-o"]);
    let output = rustc.arg(folder.join(name)).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
