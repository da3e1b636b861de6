//! A run's folder: `config.toml`, `metrics.jsonl`, `checkpoint.safetensors`, `encoder.safetensors`, `results.json`, `cost.json`.

use crate::config;
use engine::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder at `path`, as it is.
    pub fn at(path: &Path) -> RunFolder {
        RunFolder { path: path.into() }
    }

    /// Makes an empty folder with the configuration. An error if it holds a run already.
    pub fn create<T: Serialize>(path: &Path, config: &T) -> Result<RunFolder> {
        let folder = RunFolder::at(path);
        if folder.config_path().exists() {
            return Err(Error::new(
                ErrorKind::Usage,
                "start run",
                format!(
                    "{} holds a run already: add --resume to go on with it, or choose another --out",
                    path.display()
                ),
            ));
        }
        std::fs::create_dir_all(path).map_err(|e| Error::io("make the run's folder", path, e))?;
        config::write(&folder.config_path(), config)?;
        Ok(folder)
    }

    /// The first of `base`, `base-2`, `base-3`, ... that is not there yet.
    pub fn unused(base: &Path) -> PathBuf {
        let numbered = |i: usize| match i {
            1 => base.to_path_buf(),
            _ => {
                let mut name = base.as_os_str().to_os_string();
                name.push(format!("-{i}"));
                PathBuf::from(name)
            }
        };
        (1..).map(numbered).find(|p| !p.exists()).unwrap_or_else(|| base.to_path_buf())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `metrics.jsonl`.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `checkpoint.safetensors`.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// `cost.json`.
    pub fn cost_path(&self) -> PathBuf {
        self.path.join("cost.json")
    }

    /// `encoder.safetensors`.
    pub fn encoder_path(&self) -> PathBuf {
        self.path.join("encoder.safetensors")
    }

    /// `results.json`.
    pub fn results_path(&self) -> PathBuf {
        self.path.join("results.json")
    }
}

/// `metrics.jsonl`: one JSON object a line. It holds nothing that depends on time or machine load, so that
/// a resumed run writes the same bytes as an uninterrupted one.
pub struct Metrics {
    file: File,
    path: PathBuf,
    length: u64,
    pending: Vec<u8>,
}

impl Metrics {
    /// Opens the file and cuts it to `length` bytes, what it had when the checkpoint was written.
    pub fn open(path: &Path, length: u64) -> Result<Metrics> {
        let fail = |e| Error::io("open metrics", path, e);
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(fail)?;
        let there = file.metadata().map_err(fail)?.len();
        if there < length {
            return Err(Error::format(
                "open metrics",
                path,
                format!("has {there} bytes where the checkpoint knows of {length}: it was changed by hand"),
            ));
        }
        file.set_len(length).map_err(fail)?;
        let mut metrics = Metrics { file, path: path.into(), length, pending: Vec::new() };
        metrics.file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(metrics)
    }

    /// Adds a line. It reaches the file at the next [`Metrics::flush`].
    pub fn push(&mut self, event: &Value) {
        self.pending.extend_from_slice(event.to_string().as_bytes());
        self.pending.push(b'\n');
    }

    /// Writes what was added and gives the file's length.
    pub fn flush(&mut self) -> Result<u64> {
        self.file.write_all(&self.pending).map_err(|e| Error::io("write metrics", &self.path, e))?;
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_cut_to_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut m = Metrics::open(&path, 0).unwrap();
        m.push(&serde_json::json!({"step": 1}));
        let length = m.flush().unwrap();
        m.push(&serde_json::json!({"step": 2}));
        m.flush().unwrap();
        let mut m = Metrics::open(&path, length).unwrap();
        m.push(&serde_json::json!({"step": 3}));
        m.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":3}\n");
        assert!(Metrics::open(&path, 1000).is_err());
    }

    #[test]
    fn a_folder_with_a_run_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("a");
        assert_eq!(RunFolder::unused(&base), base);
        std::fs::create_dir(&base).unwrap();
        assert!(RunFolder::unused(&base).ends_with("a-2"));
        std::fs::write(base.join("config.toml"), "x").unwrap();
        let profile = objectives::DataProfile { height: 28, width: 28, channels: 1, len: 100 };
        let config = config::defaults(objectives::find("simclr").unwrap(), "sample", &profile).unwrap();
        let error = RunFolder::create(&base, &config).unwrap_err();
        assert!(error.message().contains("--resume"), "{error}");
    }
}
