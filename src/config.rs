//! The resolved configuration of a run: defaults of the method, then a TOML file, then `--set`, then flags.

use engine::{Error, ErrorKind, Result};
use models::Arch;
use objectives::{DataProfile, Defaults, Method, Training};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Everything that determines a run's results. Saved as `config.toml` in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The method, as `pretext methods` lists it.
    pub method: String,
    /// The data, as `pretext datasets` explains.
    pub data: String,
    /// Where the data lies, if not where its source expects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// The encoder.
    pub arch: Arch,
    /// Optimiser, schedule and batch.
    pub training: Training,
    /// Steps to take instead of `training.epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// What is measured and saved on the way.
    pub monitor: Monitor,
    /// The method's own settings.
    pub settings: Table,
}

/// What is measured and saved on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Epochs between measurements of online kNN and collapse signals; 0 for none.
    pub every_epochs: usize,
    /// Labelled training samples for the online kNN; four fifths are the bank, one fifth asks.
    pub knn_samples: usize,
    /// Epochs between checkpoints.
    pub checkpoint_epochs: usize,
}

/// What the command line adds to the defaults.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// `key=value` pairs, keys dotted.
    pub set: Vec<String>,
    /// Values from flags, keys dotted.
    pub flags: Vec<(&'static str, Value)>,
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, "configuration", message)
}

/// The method's defaults for this data.
pub fn defaults(method: &Method, data: &str, profile: &DataProfile) -> Result<Config> {
    let Defaults { arch, training, settings } = method.defaults(profile)?;
    let epochs = training.epochs;
    Ok(Config {
        method: method.name.into(),
        data: data.into(),
        data_dir: None,
        seed: 1,
        arch,
        training,
        steps: None,
        monitor: Monitor {
            every_epochs: (epochs / 5).max(1),
            knn_samples: 2500,
            checkpoint_epochs: (epochs / 20).max(1),
        },
        settings,
    })
}

/// `base` changed by a file, `--set` and flags, in this order. It has its architecture in a section `arch`.
///
/// Where these name another architecture, nothing else of `base`'s is kept: its width or patches are not the new one's.
pub fn apply<T: Serialize + DeserializeOwned>(base: &T, overrides: &Overrides) -> Result<T> {
    let mut changes = Table::new();
    if let Some(path) = &overrides.file {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read configuration", path, e))?;
        changes =
            text.parse().map_err(|e| Error::format("read configuration", path, format!("not TOML: {e}")))?;
    }
    let mut pairs = Vec::new();
    for pair in &overrides.set {
        let (key, text) = pair.split_once('=').ok_or_else(|| {
            usage(format!("--set takes key=value, not '{pair}' (for example training.batch=64)"))
        })?;
        pairs.push((key.trim(), parse(text.trim())));
    }
    pairs.extend(overrides.flags.iter().map(|(key, value)| (*key, value.clone())));
    let mut result = table(base)?;
    let name = |table: &Table| Some(table.get("arch")?.get("name")?.as_str()?.to_string());
    let set = pairs.iter().rev().find(|(key, _)| *key == "arch.name").and_then(|(_, value)| value.as_str());
    let given = set.map(String::from).or_else(|| name(&changes));
    if given.is_some() && given != name(&result) {
        result.insert("arch".into(), Value::Table(table(&Arch::named(given.unwrap_or_default()))?));
    }
    merge(&mut result, changes);
    for (key, value) in pairs {
        put(&mut result, key, value)?;
    }
    from_table(result)
}

/// What holds the settings of `table`. An error names a key that it does not have, misses, or that is of another type.
pub fn from_table<T: DeserializeOwned>(table: Table) -> Result<T> {
    table.try_into().map_err(|e: toml::de::Error| usage(e.to_string().trim().to_string()))
}

/// Settings as a table.
pub fn table<T: Serialize>(settings: &T) -> Result<Table> {
    Table::try_from(settings).map_err(|e| usage(format!("settings cannot be written as TOML: {e}")))
}

/// A TOML value, or the text itself where it is none.
fn parse(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.into()))
}

/// Puts what `from` holds in the place of what `into` holds, table by table.
pub fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(a)), Value::Table(b)) => merge(a, b),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn put(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let (mut at, mut rest) = (table, key);
    while let Some((head, tail)) = rest.split_once('.') {
        let there: Vec<String> = at.keys().cloned().collect();
        at = match at.get_mut(head) {
            Some(Value::Table(t)) => t,
            _ => {
                return Err(usage(format!(
                    "no section '{head}' in '{key}'; there are: {}",
                    there.join(", ")
                )));
            }
        };
        rest = tail;
    }
    // A whole number where the default is a fraction is meant as one.
    let value = match (at.get(rest), value) {
        (Some(Value::Float(_)), Value::Integer(i)) => Value::Float(i as f64),
        (_, value) => value,
    };
    at.insert(rest.into(), value);
    Ok(())
}

/// Keys whose values differ, dotted, with both values.
pub fn differences<T: Serialize>(a: &T, b: &T) -> Vec<String> {
    fn walk(prefix: &str, a: &Table, b: &Table, out: &mut Vec<String>) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            match (a.get(key), b.get(key)) {
                (Some(Value::Table(x)), Some(Value::Table(y))) => walk(&format!("{prefix}{key}."), x, y, out),
                (x, y) if x == y => {}
                (x, y) => {
                    let show = |v: Option<&Value>| v.map_or("unset".into(), |v| v.to_string());
                    out.push(format!("{prefix}{key}: {} there, {} now", show(x), show(y)));
                }
            }
        }
    }
    let mut out = Vec::new();
    if let (Ok(a), Ok(b)) = (Table::try_from(a), Table::try_from(b)) {
        walk("", &a, &b, &mut out);
    }
    out
}

/// Reads a run's `config.toml`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read configuration", path, e))?;
    toml::from_str(&text).map_err(|e| Error::format("read configuration", path, e.to_string().trim()))
}

/// Writes a run's `config.toml`.
pub fn write<T: Serialize>(path: &Path, config: &T) -> Result<()> {
    let text = toml::to_string(config).map_err(|e| Error::format("write configuration", path, e))?;
    engine::files::write_atomically(path, |out| out.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Config {
        let profile = DataProfile { height: 28, width: 28, channels: 1, len: 10_000 };
        defaults(objectives::find("simclr").unwrap(), "sample", &profile).unwrap()
    }

    #[test]
    fn later_sources_win_and_the_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "seed = 5\n[training]\nbatch = 32\n").unwrap();
        let overrides = Overrides {
            file: Some(file.clone()),
            set: vec!["training.batch=48".into(), "settings.temperature=1".into()],
            flags: vec![("training.epochs", Value::Integer(3))],
        };
        let config = apply(&base(), &overrides).unwrap();
        assert_eq!((config.seed, config.training.batch, config.training.epochs), (5, 48, 3));
        assert_eq!(config.settings["temperature"].as_float(), Some(1.0));
        write(&file, &config).unwrap();
        assert_eq!(read::<Config>(&file).unwrap(), config);
        let found = differences(&base(), &config).join("\n");
        assert!(found.contains("seed: 1 there, 5 now") && found.contains("training.batch"), "{found}");
        assert!(differences(&config, &config).is_empty());
    }

    #[test]
    fn another_architecture_does_not_keep_the_first_ones_width() {
        let with = |set: &[&str]| {
            let set = set.iter().map(|s| s.to_string()).collect();
            apply(&base(), &Overrides { set, ..Overrides::default() }).unwrap().arch
        };
        assert_eq!(base().arch.width, Some(12));
        assert_eq!(with(&["arch.name=vit-micro"]), Arch::named("vit-micro"));
        assert_eq!(with(&["arch.width=5", "arch.name=resnet18"]).width, Some(5));
        assert_eq!(with(&["arch.name=resnet10-cifar"]).width, Some(12));
        let flags = vec![("arch.name", Value::String("resnet18".into()))];
        let flagged = apply(&base(), &Overrides { flags, ..Overrides::default() }).unwrap();
        assert_eq!(flagged.arch, Arch::named("resnet18"));
    }

    #[test]
    fn unknown_keys_and_malformed_pairs_are_usage_errors() {
        for set in ["training.batchh=3", "nosuch.key=1", "training.batch", "training.batch=many"] {
            let overrides = Overrides { set: vec![set.into()], ..Overrides::default() };
            let error = apply(&base(), &overrides).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{set}: {error}");
        }
    }
}
