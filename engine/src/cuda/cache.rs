//! Compiled kernels on disk, so that only the first process compiles.
//!
//! The folder is `$PRETEXT_CACHE_DIR`, else `$XDG_CACHE_HOME/pretext/kernels`, else `~/.cache/pretext/kernels`. A file's
//! name is `KEY.COMPILER`: KEY is the SHA-256 of everything that the code depends on except the compiler (source,
//! headers, options with the defines, architecture), COMPILER is NVRTC's version and size. So a process with NVRTC takes
//! only what that NVRTC made, and one without takes what any has made.
//!
//! A file begins with the SHA-256 of its name's KEY and of what follows. What does not fit, because a disk was full, a
//! write was cut short or a file was copied, counts as missing, is compiled again and replaced. Files are written
//! beside their place and renamed into it: processes that compile the same at once do the work twice and harm nothing.
//! Nothing is ever deleted; the folder may be, at any time. Where it cannot be written, kernels are compiled in every
//! process, and stderr says so once.

use super::Module;
use super::nvrtc::{Code, Compiled, Nvrtc};
use crate::files::write_atomically;
use crate::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// What a file begins with; the number grows when the format changes.
const MAGIC: &[u8] = b"pretext kernel 1\n";
/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// What the code of a module depends on, except the compiler, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a module's code for an architecture under the compiler's options.
    pub fn new(module: &Module, arch: &str, options: &[String]) -> Key {
        let mut hash = Sha256::new();
        // Each text with its length in front, so that no two lists of texts are the same bytes.
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        add(arch);
        add(module.file);
        add(module.source);
        for (name, text) in module.headers {
            add(name);
            add(text);
        }
        add("options");
        options.iter().for_each(|option| add(option));
        Key(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Of this key's file with that content.
    fn digest(&self, content: &[u8]) -> [u8; DIGEST] {
        Sha256::new().chain_update(self.0.as_bytes()).chain_update(content).finalize().into()
    }
}

/// A compiler's part of a file's name: `12.9-5f1c3a8`. NVRTC tells no patch release; the library's size tells one from
/// another.
pub fn compiler(nvrtc: &Nvrtc) -> String {
    let (major, minor) = nvrtc.version();
    let size = fs::metadata(nvrtc.path()).map_or(0, |file| file.len());
    format!("{major}.{minor}-{size:x}")
}

/// A folder of compiled kernels.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

/// What was asked for, as environment variables: `of` gives one that is set and not empty.
fn folder(of: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let usual = |base: PathBuf| base.join("pretext/kernels");
    of("PRETEXT_CACHE_DIR")
        .or_else(|| of("XDG_CACHE_HOME").map(usual))
        .or_else(|| of("HOME").map(|home| usual(home.join(".cache"))))
}

impl Cache {
    /// The cache of this process's environment; none where not even a home folder is known.
    pub fn of_environment() -> Option<Cache> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        folder(variable).map(Cache)
    }

    /// The cache in a folder, which need not exist.
    pub fn at(folder: &Path) -> Cache {
        Cache(folder.to_path_buf())
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The file of a key and a compiler.
    pub fn path(&self, key: &Key, compiler: &str) -> PathBuf {
        self.0.join(format!("{}.{compiler}", key.0))
    }

    /// What this compiler made of the key's source, if it is here undamaged.
    pub fn load(&self, key: &Key, compiler: &str) -> Option<Compiled> {
        decode(key, &fs::read(self.path(key, compiler)).ok()?)
    }

    /// What any compiler made of the key's source, if it is here undamaged.
    pub fn load_any(&self, key: &Key) -> Option<Compiled> {
        let files = fs::read_dir(&self.0).ok()?.flatten();
        let mut names: Vec<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with(&format!("{}.", key.0)) && !name.ends_with(".tmp"));
        names.sort();
        names.iter().rev().find_map(|name| decode(key, &fs::read(self.0.join(name)).ok()?))
    }

    /// Keeps what a compiler made.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or written.
    pub fn store(&self, key: &Key, compiler: &str, compiled: &Compiled) -> Result<()> {
        fs::create_dir_all(&self.0).map_err(|e| Error::io("keep compiled kernels", &self.0, e))?;
        write_atomically(&self.path(key, compiler), |out| out.write_all(&encode(key, compiled)))
    }
}

/// Keeps what a compiler made if there is a place for it; says on stderr, once a process, if there is none.
pub(super) fn keep(cache: Option<&Cache>, key: &Key, compiler: &str, compiled: &Compiled) {
    static WARNED: Once = Once::new();
    let stored = match cache {
        Some(cache) => cache.store(key, compiler, compiled),
        None => Err(Error::new(ErrorKind::Io, "keep compiled kernels", "HOME is not set")),
    };
    if let Err(error) = stored {
        WARNED.call_once(|| {
            eprintln!(
                "warning: compiled kernels are not kept, so that every start compiles them anew: {error}; name a \
                 folder that can be written: PRETEXT_CACHE_DIR"
            );
        });
    }
}

/// Magic, digest, kind, length of the code, code, log.
fn encode(key: &Key, compiled: &Compiled) -> Vec<u8> {
    let (kind, code) = match &compiled.code {
        Code::Ptx(text) => (b'p', text.as_bytes()),
        Code::Cubin(bytes) => (b'c', bytes.as_slice()),
    };
    let mut content = vec![kind];
    content.extend_from_slice(&(code.len() as u64).to_le_bytes());
    content.extend_from_slice(code);
    content.extend_from_slice(compiled.log.as_bytes());
    [MAGIC, &key.digest(&content), &content].concat()
}

fn decode(key: &Key, file: &[u8]) -> Option<Compiled> {
    let (digest, content) = file.strip_prefix(MAGIC)?.split_at_checked(DIGEST)?;
    if digest != key.digest(content) {
        return None;
    }
    let (kind, rest) = content.split_first()?;
    let (length, rest) = rest.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (code, log) = rest.split_at_checked(length)?;
    let code = match kind {
        b'p' => Code::Ptx(String::from_utf8(code.to_vec()).ok()?),
        b'c' => Code::Cubin(code.to_vec()),
        _ => return None,
    };
    Some(Compiled { code, log: String::from_utf8(log.to_vec()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(source: &'static str, headers: &'static [(&'static str, &'static str)]) -> Module {
        Module::new("test", "test.cu", source, headers, &[], &[])
    }

    fn compiled(code: &[u8]) -> Compiled {
        Compiled { code: Code::Cubin(code.to_vec()), log: "a log, é".into() }
    }

    #[test]
    fn everything_that_code_depends_on_is_in_the_key() {
        let none: &[String] = &[];
        let define = ["--define-macro=A".to_string()];
        let base = Key::new(&module("source", &[("a", "b")]), "sm_90", none);
        assert_eq!(base, Key::new(&module("source", &[("a", "b")]), "sm_90", none));
        for other in [
            Key::new(&module("source ", &[("a", "b")]), "sm_90", none),
            Key::new(&module("source", &[("a", "c")]), "sm_90", none),
            Key::new(&module("source", &[("ab", "")]), "sm_90", none),
            Key::new(&module("source", &[]), "sm_90", none),
            Key::new(&module("source", &[("a", "b")]), "sm_80", none),
            Key::new(&module("source", &[("a", "b")]), "sm_90", &define),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn what_is_kept_comes_back_for_its_compiler_or_for_any() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("not/there/yet"));
        let key = Key::new(&module("source", &[]), "sm_90", &[]);
        assert_eq!((cache.load(&key, "12.9-1"), cache.load_any(&key)), (None, None));
        let ptx = Compiled { code: Code::Ptx(".version 8.8".into()), log: String::new() };
        for content in [compiled(b"\x7fELF"), compiled(b""), ptx] {
            cache.store(&key, "12.9-1", &content).unwrap();
            assert_eq!(cache.load(&key, "12.9-1"), Some(content.clone()));
            assert_eq!(cache.load_any(&key), Some(content));
        }
        assert_eq!(cache.load(&key, "13.0-1"), None);
        cache.store(&key, "13.0-1", &compiled(b"newer")).unwrap();
        assert_eq!(cache.load_any(&key), Some(compiled(b"newer")));
    }

    /// Any byte that changes, any cut, and another key's file.
    #[test]
    fn damage_is_noticed() {
        let key = Key::new(&module("source", &[]), "sm_90", &[]);
        let good = encode(&key, &compiled(b"code"));
        assert_eq!(decode(&key, &good), Some(compiled(b"code")));
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_eq!(decode(&key, &bad), None, "byte {i}");
            assert_eq!(decode(&key, &good[..i]), None, "cut at {i}");
        }
        assert_eq!(decode(&Key::new(&module("other", &[]), "sm_90", &[]), &good), None);
    }

    #[test]
    fn the_folder_is_the_first_that_is_named() {
        let with = |set: &[&str]| {
            folder(|name| set.contains(&name).then(|| PathBuf::from(format!("/{name}"))))
                .map(|path| path.display().to_string())
        };
        assert_eq!(with(&["PRETEXT_CACHE_DIR", "HOME"]).as_deref(), Some("/PRETEXT_CACHE_DIR"));
        assert_eq!(with(&["XDG_CACHE_HOME", "HOME"]).as_deref(), Some("/XDG_CACHE_HOME/pretext/kernels"));
        assert_eq!(with(&["HOME"]).as_deref(), Some("/HOME/.cache/pretext/kernels"));
        assert_eq!(with(&[]), None);
    }
}
