//! What is told of each step: its figures by name, and whether training can go on.

use engine::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::Path;

/// A step that was taken, as metrics and `--json` show it.
#[derive(Debug, Clone)]
pub struct StepEvent {
    /// The step: 1 for the first.
    pub step: u64,
    /// `{"event": "step", "step": .., "epoch": .., "loss": ..}` and the other figures.
    pub json: Value,
    figures: Vec<(&'static str, f32)>,
}

impl StepEvent {
    /// The event of step number `step`, counted from 1, in `epoch`.
    pub fn new(step: u64, epoch: u64, figures: Vec<(&'static str, f32)>) -> StepEvent {
        let mut json = json!({"event": "step", "step": step, "epoch": epoch});
        for (name, value) in &figures {
            json[*name] = json!(value);
        }
        StepEvent { step, json, figures }
    }

    /// The figure called `name`, such as `loss`.
    pub fn figure(&self, name: &str) -> Option<f32> {
        self.figures.iter().find(|f| f.0 == name).map(|f| f.1)
    }

    /// An error if the loss or the norm of the gradients is not finite, that says what is kept and what to try.
    pub fn require_finite(&self, checkpoint: &Path) -> Result<()> {
        let watched = [("loss", "loss"), ("gradient_norm", "norm of the gradients")];
        for (name, what) in watched {
            if let Some((_, value)) = self.figures.iter().find(|f| f.0 == name && !f.1.is_finite()) {
                return Err(not_finite(what, *value, self.step, checkpoint));
            }
        }
        Ok(())
    }
}

fn not_finite(what: &str, value: f32, step: u64, checkpoint: &Path) -> Error {
    let kept = match checkpoint.exists() {
        true => format!("The last good checkpoint, {}, is kept", checkpoint.display()),
        false => "No checkpoint was written yet".into(),
    };
    Error::new(
        ErrorKind::Value,
        "training",
        format!(
            "the {what} is {value} at step {step}. {kept}. A lower training.learning_rate, a longer \
             training.warmup_epochs or training.clip=1 usually cures this"
        ),
    )
}
