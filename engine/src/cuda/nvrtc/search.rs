//! Where NVRTC may lie.

use super::Nvrtc;
use crate::{Error, ErrorKind, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The names that the loader is asked for, newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// The first NVRTC that loads. Folders in `more` come last.
pub(super) fn find(more: &[PathBuf]) -> Result<Nvrtc> {
    let mut looked = Vec::new();
    let chosen = env::var_os("PRETEXT_CUDA_LIB_DIR").map(PathBuf::from);
    if let Some(found) = chosen.and_then(|folder| in_folder(&folder, &mut looked)) {
        return Ok(found);
    }
    if let Some(found) = NAMES.iter().find_map(|name| Nvrtc::load(Path::new(name)).ok()) {
        return Ok(found);
    }
    looked.push(format!("where the loader looks for {}", NAMES.join(", ")));
    let folders = usual_folders().into_iter().chain(more.iter().cloned());
    if let Some(found) = folders.into_iter().find_map(|folder| in_folder(&folder, &mut looked)) {
        return Ok(found);
    }
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

/// Where toolkits and wheels put it: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda*`, and the packages of the active
/// Python environment, of the `python3` that a shell would run, of the user and of the machine.
fn usual_folders() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let path = |name: &str| variable(name).map(PathBuf::from);
    let mut folders = Vec::new();
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(path) {
        folders.push(home.join("lib64"));
    }
    for toolkit in entries(Path::new("/usr/local"), "cuda") {
        folders.push(toolkit.join("lib64"));
    }
    let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path).collect();
    let programs = variable("PATH").map(|list| env::split_paths(&list).collect()).unwrap_or_else(Vec::new);
    let python = programs.iter().find(|folder| folder.join("python3").exists());
    prefixes.extend(python.and_then(|folder| folder.parent()).map(Path::to_path_buf));
    prefixes.extend(path("HOME").map(|home| home.join(".local")));
    prefixes.push(PathBuf::from("/usr/local"));
    for python in prefixes.iter().flat_map(|prefix| entries(&prefix.join("lib"), "python3")) {
        folders.extend(
            ["site-packages", "dist-packages"].iter().flat_map(|name| in_packages(&python.join(name))),
        );
    }
    folders
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
    fn wheels_are_found_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib", "nvidia/empty", "other/lib"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let found = in_packages(folder.path());
        let wanted = ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"].map(|name| folder.path().join(name));
        assert_eq!(found, wanted);
    }
}
