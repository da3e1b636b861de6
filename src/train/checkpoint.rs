//! Checkpoints: networks, optimiser and where the run stands, in one file that is replaced atomically.

use autograd::module;
use autograd::optim::Optimizer;
use engine::safetensors::{self, Contents};
use engine::{Error, Result};
use objectives::Objective;
use std::path::Path;

const FORMAT: &str = "1";
const NETWORKS: &str = "networks.";
const OPTIMISER: &str = "optimiser.";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Optimiser steps taken. Epoch, data cursor, learning rate and all random counters follow from it.
    pub step: u64,
    /// Bytes of `metrics.jsonl` that belong to these steps.
    pub metrics: u64,
}

/// Writes everything that a run needs to go on.
pub fn save(
    path: &Path,
    objective: &mut dyn Objective,
    optimizer: &Optimizer,
    position: Position,
) -> Result<()> {
    let mut contents = Contents::default();
    module::save(objective.networks(), NETWORKS, &mut contents)?;
    optimizer.save(OPTIMISER, &mut contents)?;
    let mut note = |key: &str, value: String| contents.metadata.insert(key.into(), value);
    note("format", FORMAT.into());
    note("method", objective.name().into());
    note("step", position.step.to_string());
    note("metrics", position.metrics.to_string());
    safetensors::save(path, &contents)
}

/// Restores what [`save`] wrote.
pub fn load(path: &Path, objective: &mut dyn Objective, optimizer: &mut Optimizer) -> Result<Position> {
    let (mut contents, position) = read(path, objective.name())?;
    optimizer.load(objective.networks(), OPTIMISER, &contents, position.step)?;
    contents.tensors.retain(|name, _| name.starts_with(NETWORKS));
    module::load(objective.networks(), NETWORKS, &contents, &[])
        .map_err(|e| Error::format("load checkpoint", path, e.message()))?;
    Ok(position)
}

/// Restores the networks alone, for evaluation.
pub fn load_networks(path: &Path, objective: &mut dyn Objective) -> Result<Position> {
    let (contents, position) = read(path, objective.name())?;
    module::load(objective.networks(), NETWORKS, &contents, &[])
        .map_err(|e| Error::format("load checkpoint", path, e.message()))?;
    Ok(position)
}

/// The steps of the checkpoint at `path`; 0 where there is none.
pub fn steps(path: &Path) -> Result<u64> {
    if !path.exists() {
        return Ok(0);
    }
    let contents = safetensors::load(path)?;
    let step = contents.metadata.get("step").and_then(|text| text.parse().ok());
    step.ok_or_else(|| Error::format("load checkpoint", path, "has no valid 'step'"))
}

fn read(path: &Path, method: &str) -> Result<(Contents, Position)> {
    let contents = safetensors::load(path)?;
    let note = |key: &str| contents.metadata.get(key).map(String::as_str).unwrap_or_default();
    if note("format") != FORMAT {
        return Err(Error::format("load checkpoint", path, "is not a checkpoint of this program's format 1"));
    }
    if note("method") != method {
        let text = format!("is a checkpoint of '{}', not of '{method}'", note("method"));
        return Err(Error::format("load checkpoint", path, text));
    }
    let number = |key: &str| {
        note(key).parse().map_err(|_| Error::format("load checkpoint", path, format!("has no valid '{key}'")))
    };
    let position = Position { step: number("step")?, metrics: number("metrics")? };
    Ok((contents, position))
}
