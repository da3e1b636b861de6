//! NVRTC for tests: fetched from PyPI where the machine has none, so that kernels are tested on every machine.

use super::{Nvrtc, search};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release of NVRTC that tests use and that `kernels.lock` is of, with the digests of its files for Linux on x86-64 and on aarch64.
pub const VERSION: &str = "12.9.86";
const DIGESTS: [&str; 2] = [
    "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
    "096d4de6bda726415dfaf3198d4f5c522b8e70139c97feef5cd2ca6d4cd9cead",
];

/// [`Nvrtc::find`] for tests: where the machine has none, installs PyPI's wheel under cargo's target folder first.
/// [`Nvrtc::find`] gives the same from then on.
///
/// # Panics
///
/// There is none, and it cannot be fetched: tests of kernels cannot go on.
#[allow(clippy::panic, reason = "this is for tests")]
pub fn nvrtc_for_tests() -> &'static Nvrtc {
    let found = Nvrtc::find().or_else(|error| match fetch(&target_folder()) {
        Ok(folders) => Nvrtc::find_also(&folders),
        Err(reason) => Err(crate::Error::new(error.kind(), "nvrtc for tests", format!("{reason}; {error}"))),
    });
    match found {
        Ok(nvrtc) => nvrtc,
        Err(error) => panic!("tests of kernels need NVRTC, which is not here and cannot be fetched: {error}"),
    }
}

/// Cargo's target folder: the one that the running test lies in, which cargo has marked with a tag.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let tagged = program.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").exists());
    let chosen = || std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    tagged.map(Path::to_path_buf).or_else(chosen).unwrap_or_else(|| PathBuf::from("target"))
}

/// The folders of libraries in the wheel, which is installed under `target` unless it is there already. Test programs
/// that run at once wait for the first.
fn fetch(target: &Path) -> Result<Vec<PathBuf>, String> {
    let installed = target.join(format!("nvrtc-{VERSION}"));
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    fs::create_dir_all(target).map_err(say("the target folder"))?;
    let lock = File::create(target.join(".nvrtc-lock")).map_err(say("the lock in the target folder"))?;
    lock.lock().map_err(say("the lock in the target folder"))?;
    if !installed.exists() {
        let temporary = target.join(format!("nvrtc-{VERSION}.tmp"));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(say("a folder for NVRTC"))?;
        eprintln!("fetching nvidia-cuda-nvrtc-cu12 {VERSION} from PyPI into {}", installed.display());
        install(&temporary).inspect_err(|_| drop(fs::remove_dir_all(&temporary)))?;
        fs::rename(&temporary, &installed).map_err(say("a folder for NVRTC"))?;
    }
    Ok(search::in_packages(&installed))
}

/// Installs the wheel into `folder`, refusing any file with another digest.
fn install(folder: &Path) -> Result<(), String> {
    let hashes: String = DIGESTS.iter().map(|digest| format!(" --hash=sha256:{digest}")).collect();
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, format!("nvidia-cuda-nvrtc-cu12=={VERSION}{hashes}\n"))
        .map_err(|e| e.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
    pip.arg("--target").arg(folder).arg("--requirement").arg(&requirements);
    let output = pip.output().map_err(|e| format!("python3 cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().rfind(|line| line.starts_with("ERROR")).or(said.lines().last());
    Err(format!("pip: {}", reason.unwrap_or("failed without a word")))
}
