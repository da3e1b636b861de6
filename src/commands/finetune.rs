//! `pretext finetune`: train a pre-trained encoder with labels, beside the same encoder from scratch.

use super::load_encoder;
use crate::cli::Finetune;
use crate::config::{self, Overrides};
use crate::evaluate::leak::{self, Duplicates};
use crate::finetune::labels::{self, Labels};
use crate::finetune::plan::{Plan, Start};
use crate::finetune::{self, Job, NAME};
use crate::output::Output;
use crate::train::run::RunFolder;
use crate::train::{self, Machine};
use data::Splits;
use engine::{Error, ErrorKind, Result};
use std::path::PathBuf;
use toml::Value;

/// Runs the command.
pub fn run(args: &Finetune, output: &Output) -> Result<()> {
    let device = crate::device::choose(&args.device)?;
    let usage = |text: String| Err(Error::new(ErrorKind::Usage, NAME, text));
    let mut trained = load_encoder(&args.encoder)?;
    let splits = super::open(&args.data, output)?;
    leak::check(&splits, Duplicates::allowed(args.allow_duplicates), output)?;
    let splits = Splits { train: trained.sees(&splits.train)?, test: trained.sees(&splits.test)?, ..splits };
    labels::require_labelled(&splits)?;
    let overrides = overrides(args);
    let stored: Option<Plan> = match &args.out {
        Some(out) if args.resume => Some(config::read(&RunFolder::at(out).config_path())?),
        _ => None,
    };
    let kind: Labels = match (&args.labels, &stored) {
        (Some(text), _) => text.parse()?,
        (None, Some(stored)) => stored.labels.parse()?,
        (None, None) => Labels::All,
    };
    let labelled = labels::choose(&splits.train, kind, 1)?.len();
    let profile = train::profile(splits.train.as_ref())?;
    let mut base = Plan::new(&mut trained, &args.encoder, &args.data.spec(), &profile, kind, labelled)?;
    base.data_dir = args.data.data_dir.clone();
    let (plan, folder) = match (stored, &args.out) {
        (Some(stored), Some(out)) => {
            let mut wanted = config::apply(&stored, &overrides)?;
            (wanted.weights, wanted.data, wanted.labels) = (base.weights, base.data, base.labels);
            wanted.data_dir = base.data_dir.or(wanted.data_dir);
            let differences = config::differences(&stored, &wanted);
            if !differences.is_empty() {
                return usage(format!(
                    "{} was started otherwise: {}. Leave these out, or start anew with another --out",
                    out.display(),
                    differences.join("; ")
                ));
            }
            (stored, RunFolder::at(out))
        }
        _ => {
            let plan = config::apply(&base, &overrides)?;
            let name: String =
                args.data.spec().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
            let out = args
                .out
                .clone()
                .unwrap_or_else(|| RunFolder::unused(&PathBuf::from("runs").join(format!("{NAME}-{name}"))));
            if plan.seeds == 0 {
                return usage("seeds must be at least 1".into());
            }
            // What is wrong is told before anything is written.
            for start in [Start::Trained, Start::Scratch] {
                plan.training(start)?;
                finetune::network(&plan, &mut trained, &splits, start, plan.seed)?;
            }
            let folder = RunFolder::create(&out, &plan)?;
            (plan, folder)
        }
    };
    let method = trained.origin.clone();
    output.say(&format!(
        "{NAME} of {} ({method}) on {}, labels {} ({labelled} images), batch {}, in {}",
        args.encoder.display(),
        plan.data,
        plan.labels,
        plan.training.batch,
        folder.path().display()
    ));
    let machine = Machine { device, workers: args.workers, graph: args.graph, stop_after: args.stop_after };
    let mut job = Job {
        plan: &plan,
        trained: &mut trained,
        splits: &splits,
        folder: folder.path(),
        resume: args.resume,
    };
    let found = finetune::run(&mut job, machine, output)?;
    finetune::show(output, &plan, &method, labelled, splits.test.len(), &found);
    Ok(())
}

fn overrides(args: &Finetune) -> Overrides {
    let mut flags = Vec::new();
    let mut integer = |key, value: Option<i64>| flags.extend(value.map(|v| (key, Value::Integer(v))));
    integer("training.epochs", args.epochs);
    integer("steps", args.steps);
    integer("training.batch", args.batch);
    integer("seed", args.seed);
    integer("seeds", args.seeds);
    Overrides { file: args.config.clone(), set: args.set.clone(), flags }
}
