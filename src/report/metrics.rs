//! `metrics.jsonl` of a run, as series of figures.

use engine::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// A figure over the steps of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the metrics, such as `loss`.
    pub name: String,
    /// Whether it is measured between epochs, and not at every step.
    pub measured: bool,
    /// Step and value. A value that is no finite number is left out.
    pub points: Vec<(u64, f64)>,
}

/// All that a run's metrics say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// In the order in which names first appear.
    pub series: Vec<Series>,
    /// The last step that is recorded, 0 if none is.
    pub last_step: u64,
    /// Warnings of the run: step and text.
    pub warnings: Vec<(u64, String)>,
    /// Dimensions of the embeddings that spread and rank are of.
    pub dim: Option<u64>,
}

impl Metrics {
    /// Reads the file; nothing in it if there is none. An error names a line that is not JSON, unless it is the last, which a
    /// run that still writes may not have finished.
    pub fn read(path: &Path) -> Result<Metrics> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io("read metrics", path, e)),
        };
        let mut metrics = Metrics::default();
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            match serde_json::from_str::<Value>(line) {
                Ok(event) => metrics.add(&event),
                Err(_) if i + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(e) => return Err(Error::format("read metrics", path, format!("line {}: {e}", i + 1))),
            }
        }
        Ok(metrics)
    }

    fn add(&mut self, event: &Value) {
        let Some(step) = event["step"].as_u64() else { return };
        let measured = match event["event"].as_str() {
            Some("step") => false,
            Some("health") => true,
            Some("warning") => {
                let text = event["message"].as_str().unwrap_or_default().to_string();
                return self.warnings.push((step, text));
            }
            _ => return,
        };
        self.last_step = self.last_step.max(step);
        if measured {
            self.dim = event["dim"].as_u64().or(self.dim);
        }
        for (name, value) in event.as_object().into_iter().flatten() {
            if matches!(name.as_str(), "event" | "step" | "epoch" | "dim") {
                continue;
            }
            let series = match self.series.iter().position(|s| s.name == *name && s.measured == measured) {
                Some(i) => &mut self.series[i],
                None => {
                    self.series.push(Series { name: name.clone(), measured, points: Vec::new() });
                    let last = self.series.len() - 1;
                    &mut self.series[last]
                }
            };
            series.points.extend(value.as_f64().map(|v| (step, v)));
        }
    }

    /// The figure called `name`, if it has a value.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|s| s.name == name && !s.points.is_empty())
    }

    /// The last value of the figure called `name`.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.series(name)?.points.last().map(|p| p.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_series_and_gaps_stay_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(Metrics::read(&path).unwrap(), Metrics::default());
        std::fs::write(
            &path,
            "{\"event\":\"step\",\"step\":1,\"epoch\":0,\"loss\":2.5}\n\
             {\"event\":\"step\",\"step\":2,\"epoch\":0,\"loss\":null,\"extra\":1}\n\
             {\"event\":\"health\",\"step\":2,\"epoch\":1,\"std\":0.1,\"dim\":64}\n\
             {\"event\":\"warning\",\"step\":2,\"message\":\"<b>\"}\n\
             {\"event\":\"st",
        )
        .unwrap();
        let found = Metrics::read(&path).unwrap();
        assert_eq!(found.series("loss").unwrap().points, [(1, 2.5)]);
        assert_eq!(
            (found.last("extra"), found.last("std"), found.last("rank")),
            (Some(1.0), Some(0.1), None)
        );
        assert!(found.series("std").unwrap().measured && !found.series("loss").unwrap().measured);
        assert_eq!((found.last_step, found.dim), (2, Some(64)));
        assert_eq!(found.warnings, [(2, "<b>".to_string())]);
        std::fs::write(&path, "{}\nno\n{}\n").unwrap();
        assert!(Metrics::read(&path).unwrap_err().message().contains("line 2"));
    }
}
