//! Accuracies of a run's encoder and of its floors, kept in the run's folder as `results.json`.
//!
//! They are of one encoder, whose fingerprint stands in the file: a run that went on since then is evaluated again.

use crate::evaluate::features::{self, Trained};
use crate::evaluate::floors::{self, Probes, Row};
use crate::evaluate::{knn, probe};
use crate::train::run::RunFolder;
use data::Splits;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// What [`Results::read`] finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The data, as `--data` names it.
    pub data: String,
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
    /// The encoder that was evaluated: [`features::checksum`], hexadecimal.
    pub encoder: String,
    /// How the linear probe is trained, in words.
    pub linear_protocol: String,
    /// How neighbours vote, in words.
    pub knn_protocol: String,
    /// The trained encoder and its floors.
    pub rows: Vec<Accuracy>,
}

/// Test top-1 in percent of one kind of features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// `trained`, `random`, `random-unset` or `pixels`, as [`Row::features`].
    pub features: String,
    /// Values in a feature vector.
    pub dim: usize,
    /// Linear probe.
    pub linear: Option<f32>,
    /// k nearest neighbours.
    pub knn: Option<f32>,
}

/// The probes of the table that pre-training ends with.
pub fn probes() -> Probes {
    Probes { block: None, linear: Some(probe::Settings::default()), knn: Some(knn::Settings::default()) }
}

fn fingerprint(trained: &mut Trained) -> Result<String> {
    Ok(format!("{:016x}", features::checksum(trained.encoder.as_mut())?))
}

impl Results {
    /// Evaluates an encoder and its floors with [`probes`]: what is kept, and the rows themselves.
    pub fn evaluate(
        trained: &mut Trained,
        seed: u64,
        data: &str,
        splits: &Splits,
    ) -> Result<(Results, Vec<Row>)> {
        let probes = probes();
        let rows = floors::evaluate(trained, seed, splits, &probes)?;
        let accuracy = |row: &Row| Accuracy {
            features: row.features.into(),
            dim: row.dim,
            linear: row.linear.as_ref().map(|found| found.top1),
            knn: row.knn,
        };
        let linear = probes.linear.unwrap_or_default();
        let knn = probes.knn.unwrap_or_default();
        let results = Results {
            data: data.into(),
            train: splits.train.len(),
            test: splits.test.len(),
            encoder: fingerprint(trained)?,
            linear_protocol: format!(
                "protocol `{}`; its learning rate is chosen on a held-out tenth of the training images",
                linear.protocol
            ),
            knn_protocol: format!(
                "cosine similarity, k = {}, votes weigh exp(similarity / {})",
                knn.k, knn.temperature
            ),
            rows: rows.iter().map(accuracy).collect(),
        };
        Ok((results, rows))
    }

    /// Writes `results.json`.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        let path = folder.results_path();
        let text =
            serde_json::to_string_pretty(self).map_err(|e| Error::format("write results", &path, e))?;
        engine::files::write_atomically(&path, |out| writeln!(out, "{text}"))
    }

    /// What the folder holds of this encoder on this data; `None` if it was never evaluated, or another state of it.
    pub fn read(folder: &RunFolder, trained: &mut Trained, data: &str) -> Result<Option<Results>> {
        let path = folder.results_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read results", &path, e)),
        };
        let results: Results =
            serde_json::from_str(&text).map_err(|e| Error::format("read results", &path, e))?;
        Ok((results.encoder == fingerprint(trained)? && results.data == data).then_some(results))
    }

    /// The row of these features.
    pub fn row(&self, features: &str) -> Option<&Accuracy> {
        self.rows.iter().find(|row| row.features == features)
    }
}
