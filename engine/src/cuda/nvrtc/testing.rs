//! NVRTC, and the disassembler, for tests: fetched from PyPI where the machine has none, so that kernels are tested on every machine.

use super::{Nvrtc, search};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release of NVRTC that tests use and that `kernels.lock` is of.
pub const VERSION: &str = "12.9.86";
const NVRTC: Wheel = Wheel {
    folder: "nvrtc",
    package: "nvidia-cuda-nvrtc-cu12",
    version: VERSION,
    digests: [
        "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
        "096d4de6bda726415dfaf3198d4f5c522b8e70139c97feef5cd2ca6d4cd9cead",
    ],
};
/// The disassembler that `kernels.lock` is of.
const NVDISASM: Wheel = Wheel {
    folder: "nvdisasm",
    package: "nvidia-cuda-nvdisasm",
    version: "13.5.37",
    digests: [
        "d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca",
        "a3a8248074edb9fba63b74c38a5416b712a91ab09e70b8ab37186c3d293fc605",
    ],
};

/// A package on PyPI.
struct Wheel {
    /// What its folder under the target folder begins with.
    folder: &'static str,
    package: &'static str,
    version: &'static str,
    /// Of its files for Linux on x86-64 and on aarch64.
    digests: [&'static str; 2],
}

/// [`Nvrtc::find`] for tests: where the machine has none, installs PyPI's wheel under cargo's target folder first.
/// [`Nvrtc::find`] gives the same from then on.
///
/// # Panics
///
/// There is none, and it cannot be fetched: tests of kernels cannot go on.
#[allow(clippy::panic, reason = "this is for tests")]
pub fn nvrtc_for_tests() -> &'static Nvrtc {
    let found = Nvrtc::find().or_else(|error| match fetch(&NVRTC, &target_folder()) {
        Ok(installed) => Nvrtc::find_also(&search::in_packages(&installed)),
        Err(reason) => Err(crate::Error::new(error.kind(), "nvrtc for tests", format!("{reason}; {error}"))),
    });
    match found {
        Ok(nvrtc) => nvrtc,
        Err(error) => panic!("tests of kernels need NVRTC, which is not here and cannot be fetched: {error}"),
    }
}

/// The folder of the pinned NVRTC's library and of the pinned disassembler, installed under cargo's target folder where
/// they are not there yet, whatever else the machine has.
///
/// # Errors
///
/// They cannot be fetched.
pub fn pinned_tools() -> Result<(PathBuf, PathBuf), String> {
    let target = target_folder();
    let in_wheel = |wheel: &Wheel, inside: &str| {
        let packages = fetch(wheel, &target)?.join("nvidia");
        let mut inside_each =
            fs::read_dir(&packages).into_iter().flatten().flatten().map(|e| e.path().join(inside));
        let found = inside_each.find(|folder| folder.is_dir());
        found.ok_or_else(|| format!("{} has no folder {inside}", wheel.package))
    };
    Ok((in_wheel(&NVRTC, "lib")?, in_wheel(&NVDISASM, "bin")?))
}

/// Cargo's target folder: the one that the running test lies in, which cargo has marked with a tag.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let tagged = program.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").exists());
    let chosen = || std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    tagged.map(Path::to_path_buf).or_else(chosen).unwrap_or_else(|| PathBuf::from("target"))
}

/// The folder that a wheel is installed in, under `target`, unless it is there already. Test programs that run at once
/// wait for the first.
fn fetch(wheel: &Wheel, target: &Path) -> Result<PathBuf, String> {
    let Wheel { folder, package, version, .. } = wheel;
    let installed = target.join(format!("{folder}-{version}"));
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    fs::create_dir_all(target).map_err(say("the target folder"))?;
    let lock = File::create(target.join(".nvrtc-lock")).map_err(say("the lock in the target folder"))?;
    lock.lock().map_err(say("the lock in the target folder"))?;
    if !installed.exists() {
        let temporary = target.join(format!("{folder}-{version}.tmp"));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(say("a folder for the wheel"))?;
        eprintln!("fetching {package} {version} from PyPI into {}", installed.display());
        install(wheel, &temporary).inspect_err(|_| drop(fs::remove_dir_all(&temporary)))?;
        fs::rename(&temporary, &installed).map_err(say("a folder for the wheel"))?;
    }
    Ok(installed)
}

/// Installs the wheel into `folder`, refusing any file with another digest.
fn install(wheel: &Wheel, folder: &Path) -> Result<(), String> {
    let hashes: String = wheel.digests.iter().map(|digest| format!(" --hash=sha256:{digest}")).collect();
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, format!("{}=={}{hashes}\n", wheel.package, wheel.version))
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
