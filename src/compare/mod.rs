//! Which method suits some data: every method is trained for the same time, evaluated alike and set beside floors, and one
//! recommendation is made of the numbers.
//!
//! The folder of a comparison holds `compare.toml`, a run's folder with `result.json` for each method, `floors-KEY.json` and
//! `scratch-KEY` for each kind of encoder, `finetune-METHOD`, and in the end `compare.json`, `compare.md`, `compare.html`. Each result is
//! written when it is known, so that a comparison that was stopped or killed goes on where it was when it is asked for again.

pub mod budget;
pub mod measure;
pub mod methods;
pub mod page;
pub mod recommend;
pub mod supervised;
pub mod table;
pub mod tasks;

use crate::config;
use crate::train::run::RunFolder;
use engine::files::write_atomically;
use engine::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What every method gets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// So many minutes: the number of steps follows from the time that a step takes.
    Minutes(f64),
    /// So many steps.
    Steps(u64),
}

/// What determines the results of a comparison: `compare.toml`. Methods can be added later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The data, as `pretext datasets` explains.
    pub data: String,
    /// Where it lies, if not where its source expects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// What every method gets.
    pub budget: Budget,
    /// The few labels: see [`crate::finetune::labels::Labels`].
    pub labels: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Settings of every method that differ from its recipe, as `--set` takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
}

/// Makes a folder for what `plan` describes, or finds it as it was left. A usage error if it holds something else.
pub fn settle<T: Serialize + DeserializeOwned>(plan: &T, folder: &Path) -> Result<()> {
    let usage = |text: String| Err(Error::new(ErrorKind::Usage, "compare", text));
    let path = folder.join("compare.toml");
    if path.exists() {
        let there: toml::Table = config::read(&path)?;
        let differences = config::differences(&there, &config::table(plan)?);
        return match differences.is_empty() {
            true => Ok(()),
            false => usage(format!(
                "{} was started otherwise: {}. Leave these out, or choose another --out",
                folder.display(),
                differences.join("; ")
            )),
        };
    }
    if RunFolder::at(folder).config_path().exists() {
        return usage(format!("{} holds a run: choose another --out", folder.display()));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
    config::write(&path, plan)
}

/// The JSON that a file holds; none where there is no file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::format("read results", path, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read results", path, e)),
    }
}

/// Writes a file of JSON, whole or not at all.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::format("write results", path, e))?;
    write_atomically(path, |out| writeln!(out, "{text}"))
}

/// What a file of JSON holds; where there is none, it is made and written.
fn once<T: Serialize + DeserializeOwned>(path: &Path, make: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(found) = read_json(path)? {
        return Ok(found);
    }
    let made = make()?;
    write_json(path, &made)?;
    Ok(made)
}

/// An accuracy's share of a test set's size that chance moves it by, either way, 95 times in 100: percent points.
pub fn half_width(percent: f64, tested: usize) -> f64 {
    let p = (percent / 100.0).clamp(0.0, 1.0);
    196.0 * (p * (1.0 - p) / tested.max(1) as f64).sqrt()
}

/// The same of the difference of two accuracies on test sets of this size, taken as independent.
pub fn half_width_of_difference(a: f64, b: f64, tested: usize) -> f64 {
    half_width(a, tested).hypot(half_width(b, tested))
}
