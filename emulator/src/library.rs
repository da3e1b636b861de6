//! Hands out the driver as a shared library: it lies in the program as bytes, and is written to a private folder when
//! a program asks for it.
//!
//! The folder holds `libcuda.so` and `libcuda.so.1`. On the library path of a process it replaces the real driver
//! there, which is why it is in nobody's search path unless somebody puts it there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The library's bytes; none where it cannot be built for the target (see `build.rs`).
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/driver.so"));

/// Folders of other builds are removed when nobody has asked for them this long.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the folders' names begin with; the library's digest follows.
const PREFIX: &str = "emulated-driver-";

/// Whether this build carries the library: it does on Linux with the GNU C library, on x86-64 and aarch64.
pub const fn is_embedded() -> bool {
    !LIBRARY.is_empty()
}

/// Writes `libcuda.so`, and `libcuda.so.1` as a link to it, into the folder `dir`, which must exist.
///
/// What is there and right is left alone; the rest is written beside and renamed, so that any number of processes may
/// do this at once, and none loads half a library.
pub fn write(dir: &Path) -> io::Result<()> {
    if !is_embedded() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the emulated CUDA driver needs Linux with the GNU C library, on x86-64 or aarch64",
        ));
    }
    let library = dir.join("libcuda.so");
    if !fs::read(&library).is_ok_and(|bytes| bytes == LIBRARY) {
        put(&library, |path| fs::write(path, LIBRARY))?;
    }
    let link = dir.join("libcuda.so.1");
    if !fs::read_link(&link).is_ok_and(|target| target == Path::new("libcuda.so")) {
        put(&link, |path| system::link(Path::new("libcuda.so"), path))?;
    }
    Ok(())
}

/// The folder with the library in it, ready to be put on a library path.
///
/// It is in the user's cache folder or, where that cannot be used, in the folder for temporary files; it is named
/// after the library's content, belongs to the user and is closed to everyone else.
pub fn folder() -> io::Result<PathBuf> {
    let mut reasons = Vec::new();
    for base in bases() {
        let dir = base.join(format!("{PREFIX}{}", env!("EMULATED_DRIVER_DIGEST")));
        match private(&dir).and_then(|()| write(&dir)) {
            Ok(()) => {
                tidy(&base, &dir);
                return Ok(dir);
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
            Err(error) => reasons.push(format!("{}: {error}", dir.display())),
        }
    }
    Err(io::Error::other(format!(
        "the emulated CUDA driver cannot be written anywhere: {}",
        reasons.join("; ")
    )))
}

/// The path of the library itself, which is in [`folder`].
pub fn path() -> io::Result<PathBuf> {
    Ok(folder()?.join("libcuda.so"))
}

/// Where folders may be made, best first.
fn bases() -> Vec<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let temporary = std::env::temp_dir().join(format!("pretext-{}", system::user()));
    cache.map(|cache| cache.join("pretext")).into_iter().chain([temporary]).collect()
}

/// Makes the folder, or sees that the one that is there is a folder of this user that nobody else may enter: a
/// library that somebody else can write must not be loaded.
fn private(dir: &Path) -> io::Result<()> {
    system::make_private(DirBuilder::new().recursive(true), dir)?;
    let metadata = fs::symlink_metadata(dir)?;
    if metadata.is_dir() && system::is_private(&metadata) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not this user's private folder (mode 700)"))
}

/// Lets `make` create a file beside `path` and moves it there.
fn put(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    make(&temporary).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Marks `used` as used today, and removes the folders of builds that nobody has asked for in a long time. A program
/// that still runs on one of them keeps what it has loaded. Nothing depends on this, so errors are not reported.
fn tidy(base: &Path, used: &Path) {
    let now = SystemTime::now();
    let age = |dir: &Path| {
        let modified = fs::metadata(dir.join("libcuda.so")).and_then(|m| m.modified()).ok()?;
        now.duration_since(modified).ok()
    };
    if age(used).is_none_or(|age| age < Duration::from_secs(24 * 3600)) {
        return;
    }
    if let Ok(file) = File::options().append(true).open(used.join("libcuda.so")) {
        let _ = file.set_modified(now);
    }
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && path != used && age(&path).is_some_and(|age| age > KEEP) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Links, users and permissions.
#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, Metadata};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    use std::path::Path;

    // SAFETY: the C library's function takes nothing, returns the user's number and cannot fail.
    unsafe extern "C" {
        safe fn geteuid() -> u32;
    }

    pub fn user() -> u32 {
        geteuid()
    }

    pub fn link(target: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    pub fn make_private(builder: &mut DirBuilder, dir: &Path) -> io::Result<()> {
        builder.mode(0o700).create(dir)
    }

    pub fn is_private(metadata: &Metadata) -> bool {
        metadata.uid() == user() && metadata.mode() & 0o077 == 0
    }
}

/// Elsewhere there is no library to hand out, so that none of this is reached.
#[cfg(not(unix))]
mod system {
    use std::fs::{DirBuilder, Metadata};
    use std::io;
    use std::path::Path;

    pub fn user() -> u32 {
        0
    }

    pub fn link(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn make_private(_: &mut DirBuilder, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn is_private(_: &Metadata) -> bool {
        false
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// An empty folder for one test.
    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("library-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn many_threads_write_one_whole_library() {
        let dir = scratch("many");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    write(&dir).unwrap();
                    assert_eq!(fs::read(dir.join("libcuda.so")).unwrap(), LIBRARY);
                    assert_eq!(fs::read(dir.join("libcuda.so.1")).unwrap(), LIBRARY);
                });
            }
        });
        assert_eq!(files(&dir), ["libcuda.so", "libcuda.so.1"]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_damaged_library_is_replaced_and_a_good_one_is_not() {
        let dir = scratch("damaged");
        write(&dir).unwrap();
        let file = dir.join("libcuda.so");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = inode(&file);
        write(&dir).unwrap();
        assert_eq!(inode(&file), first, "a good library is left alone");
        let mut bytes = LIBRARY.to_vec();
        bytes[LIBRARY.len() / 2] ^= 1;
        fs::write(&file, bytes).unwrap();
        fs::remove_file(dir.join("libcuda.so.1")).unwrap();
        fs::write(dir.join("libcuda.so.1"), "not a link").unwrap();
        write(&dir).unwrap();
        assert_eq!(fs::read(dir.join("libcuda.so.1")).unwrap(), LIBRARY);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_folder_is_private() {
        let dir = folder().unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(path().unwrap(), dir.join("libcuda.so"));
        let open = scratch("open");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(private(&open).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let link = scratch("target").with_extension("link");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert_eq!(private(&link).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&open).unwrap();
        fs::remove_dir_all(link.with_extension("")).unwrap();
    }

    #[test]
    fn old_builds_are_removed_once_a_day() {
        let base = scratch("tidy");
        let aged = |name: &str, days: u64| {
            let dir = base.join(name);
            fs::create_dir(&dir).unwrap();
            let file = File::create(dir.join("libcuda.so")).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
            dir
        };
        aged("emulated-driver-old", 40);
        aged("emulated-driver-recent", 20);
        aged("something-else", 40);
        let used = aged("emulated-driver-used", 2);
        tidy(&base, &used);
        assert_eq!(files(&base), ["emulated-driver-recent", "emulated-driver-used", "something-else"]);
        aged("emulated-driver-old", 40);
        tidy(&base, &used);
        assert_eq!(files(&base).len(), 4, "used today: nothing is looked at");
        fs::remove_dir_all(&base).unwrap();
    }
}
