//! Training with labels in a comparison: from scratch, and from the encoder that is recommended.

use super::methods::Setting;
use super::{Budget, budget, measure, once};
use crate::evaluate::features::Trained;
use crate::finetune::labels::Labels;
use crate::finetune::plan::{Plan, Start};
use crate::finetune::{self, Job, labels};
use crate::output::Output;
use crate::train::cost::Cost;
use crate::train::run::RunFolder;
use crate::{config, train};
use data::Splits;
use engine::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What training with labels reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Test top-1 in percent, after the last step.
    pub top1: f64,
    /// What it cost.
    pub cost: Option<Cost>,
}

/// Test accuracy of an encoder that is trained with `labels` from `start` on, in `folder`, for the whole budget, or for as long as
/// the recipe says if that is shorter and `labels` are few. A result that is there is not made again.
pub fn reach(
    setting: &Setting,
    trained: &mut Trained,
    labels: Labels,
    start: Start,
    folder: &Path,
    output: &Output,
) -> Result<Reached> {
    let plan = setting.plan;
    once(&folder.join("result.json"), || {
        let splits = Splits {
            train: trained.sees(&setting.splits.train)?,
            test: trained.sees(&setting.splits.test)?,
            notes: Vec::new(),
        };
        let part = labels::choose(&splits.train, labels, plan.seed)?;
        let path = RunFolder::at(folder).config_path();
        let stored = if path.exists() { Some(config::read::<Plan>(&path)?) } else { None };
        let wanted = match stored {
            Some(stored) => stored,
            None => {
                let profile = train::profile(splits.train.as_ref())?;
                let mut wanted = Plan::new(trained, folder, &plan.data, &profile, labels, part.len())?;
                wanted.data_dir = plan.data_dir.clone();
                wanted.seed = plan.seed;
                wanted.checkpoint_epochs = 1;
                let steps_per_epoch = part.len() / wanted.training.batch.max(1);
                let recipe = (steps_per_epoch * wanted.training.epochs) as u64;
                let config = wanted.config(start, plan.seed)?;
                let fit = budget::steps(
                    plan.budget,
                    &config,
                    &part,
                    true,
                    setting.machine,
                    &folder.with_extension("steps"),
                    || Ok(Box::new(finetune::network(&wanted, trained, &splits, start, plan.seed)?)),
                )?;
                let shortened = labels != Labels::All && matches!(plan.budget, Budget::Minutes(_));
                wanted.steps = Some(if shortened { fit.min(recipe.max(1)) } else { fit });
                RunFolder::create(folder, &wanted)?;
                wanted
            }
        };
        output.say(&format!(
            "{}, labels {labels}: {} steps of {}",
            if start == Start::Trained { "fine-tuning" } else { "from scratch" },
            wanted.steps.unwrap_or(0),
            wanted.training.batch
        ));
        let mut job = Job { plan: &wanted, trained, splits: &splits, folder, resume: true };
        let top1 = finetune::single(&mut job, start, plan.seed, setting.machine, output)?;
        engine::memory::trim();
        let run = folder.join(format!("{}-{}", start.name(), plan.seed));
        let cost = Cost::read(&RunFolder::at(&run).cost_path())?;
        Ok(Reached { top1: measure::percent(top1), cost })
    })
    .map_err(|e| match e.kind() {
        // Fine-tuning's own advice names another command.
        ErrorKind::Interrupted => {
            let text = "stopped; everything is saved: the same command goes on";
            Error::new(ErrorKind::Interrupted, "compare", text)
        }
        _ => e,
    })
}
