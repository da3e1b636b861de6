//! Where NVRTC may lie.

use super::Nvrtc;
use crate::{Error, ErrorKind, Result};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The names that the loader is asked for, newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// The first NVRTC that loads. Folders in `more` come last.
pub(super) fn find(more: &[PathBuf]) -> Result<Nvrtc> {
    let mut looked = Vec::new();
    let chosen = variable("PRETEXT_CUDA_LIB_DIR").map(PathBuf::from);
    if let Some(found) = chosen.and_then(|folder| in_folder(&folder, &mut looked)) {
        return Ok(found);
    }
    if let Some(found) = NAMES.iter().find_map(|name| Nvrtc::load(Path::new(name)).ok()) {
        return Ok(found);
    }
    looked.push(format!("where the loader looks for {}", NAMES.join(", ")));
    let prefixes = python_prefixes();
    let wheels = prefixes.iter().flat_map(|prefix| wheels(prefix));
    let folders: Vec<PathBuf> = toolkits().into_iter().chain(wheels).chain(more.iter().cloned()).collect();
    if let Some(found) = folders.into_iter().find_map(|folder| in_folder(&folder, &mut looked)) {
        return Ok(found);
    }
    let prefixes: Vec<String> = prefixes.iter().map(|prefix| prefix.display().to_string()).collect();
    looked.push("lib64 of CUDA_HOME, CUDA_PATH and /usr/local/cuda*".to_string());
    looked.push(format!("nvidia/*/lib of the Python packages in {}", prefixes.join(", ")));
    Err(Error::new(
        ErrorKind::Device,
        "find NVRTC",
        format!(
            "the compiler of CUDA kernels is not here. To get it: pip install nvidia-cuda-nvrtc-cu12, or install the \
             CUDA toolkit; to name its folder: PRETEXT_CUDA_LIB_DIR. It was looked for in: {}",
            looked.join("; ")
        ),
    ))
}

/// Where any of CUDA's libraries may lie: the folder that is named, those of toolkits and of wheels.
pub(super) fn folders() -> Vec<PathBuf> {
    let named = variable("PRETEXT_CUDA_LIB_DIR").map(PathBuf::from);
    let wheels = python_prefixes().into_iter().flat_map(|prefix| wheels(&prefix));
    named.into_iter().chain(toolkits()).chain(wheels).collect()
}

/// The NVRTC in `folder`; notes in `looked` why it is not used.
fn in_folder(folder: &Path, looked: &mut Vec<String>) -> Option<Nvrtc> {
    let candidates = NAMES.map(|name| folder.join(name));
    let mut reasons = Vec::new();
    for path in candidates.iter().filter(|path| path.exists()) {
        match Nvrtc::load(path) {
            Ok(found) => return Some(found),
            Err(error) => reasons.push(error.message().to_string()),
        }
    }
    looked.push(if reasons.is_empty() { folder.display().to_string() } else { reasons.join("; ") });
    None
}

/// Where toolkits put it: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda*`.
fn toolkits() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).map(PathBuf::from);
    named.chain(entries(Path::new("/usr/local"), "cuda")).map(|home| home.join("lib64")).collect()
}

/// Where Python may be installed: the active environment, the place of the `python3` that a shell would run, the
/// user's own packages, the machine's.
fn python_prefixes() -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from).collect();
    let programs: Vec<PathBuf> =
        variable("PATH").map(|list| env::split_paths(&list).collect()).unwrap_or_default();
    if let Some(prefix) =
        programs.iter().find(|dir| dir.join("python3").exists()).and_then(|dir| dir.parent())
    {
        prefixes.push(prefix.to_path_buf());
        // pyenv's is a script that chooses among these.
        prefixes.extend(entries(&prefix.join("versions"), "3"));
    }
    prefixes.extend(variable("HOME").map(|home| PathBuf::from(home).join(".local")));
    prefixes.push(PathBuf::from("/usr/local"));
    prefixes.dedup();
    prefixes
}

/// The folders of libraries of NVIDIA's wheels in a Python installation.
fn wheels(prefix: &Path) -> Vec<PathBuf> {
    let pythons = entries(&prefix.join("lib"), "python3").into_iter();
    let packages =
        pythons.flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)));
    packages.flat_map(|packages| in_packages(&packages)).collect()
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The folders of libraries that NVIDIA's wheels make in a folder of Python packages.
pub(super) fn in_packages(packages: &Path) -> Vec<PathBuf> {
    let folders = entries(&packages.join("nvidia"), "").into_iter().map(|package| package.join("lib"));
    folders.filter(|folder| folder.is_dir()).collect()
}

/// What lies in `folder` with a name that starts with `prefix`, in the names' reverse order: new versions first.
fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths.filter(named).collect();
    paths.sort();
    paths.reverse();
    paths
}

/// Loads the built-in functions that lie beside the library. NVRTC opens them by name alone, which fails where its
/// folder is not on the library path; loaded already, they are found.
pub(super) fn load_builtins(nvrtc: &Path) {
    let Some(folder) = nvrtc.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
    for path in entries(folder, "libnvrtc-builtins.so.") {
        // SAFETY: the library holds data; it has no initialisers of its own.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            std::mem::forget(library);
        }
    }
}

/// The file of the library that was loaded as `path`, which may be a name that the loader looked up.
pub(super) fn loaded_path(path: &Path) -> PathBuf {
    if path.components().count() > 1 {
        return path.to_path_buf();
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let files = maps.lines().filter_map(|line| line.find('/').and_then(|start| line.get(start..)));
    let found = files
        .map(Path::new)
        .find(|file| file.file_name().is_some_and(|name| is_nvrtc(&name.to_string_lossy())));
    found.unwrap_or(path).to_path_buf()
}

/// Whether a file's name is NVRTC's, with any version.
fn is_nvrtc(name: &str) -> bool {
    name == "libnvrtc.so" || name.starts_with("libnvrtc.so.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_says_where_it_looked_and_what_was_wrong_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut looked = Vec::new();
        assert!(in_folder(folder.path(), &mut looked).is_none());
        assert_eq!(looked, [folder.path().display().to_string()]);
        fs::write(folder.path().join("libnvrtc.so.12"), "not a library").unwrap();
        assert!(in_folder(folder.path(), &mut looked).is_none());
        assert!(looked[1].contains("libnvrtc.so.12"), "{looked:?}");
    }

    #[test]
    fn wheels_are_found_in_a_python_installation() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("lib/python3.13/site-packages");
        for name in ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib", "nvidia/empty", "other/lib"] {
            fs::create_dir_all(packages.join(name)).unwrap();
        }
        let wanted = ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"].map(|name| packages.join(name));
        assert_eq!(wheels(folder.path()), wanted);
    }
}
