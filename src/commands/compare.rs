//! `pretext compare`: which method for this data; or what one encoder saves over several tasks.

use super::load_encoder;
use crate::cli::Compare;
use crate::compare::methods::{self, Floors, Found, Outcome, Setting};
use crate::compare::recommend::{self, Evidence};
use crate::compare::supervised::{self, Reached};
use crate::compare::table::{Kind, Results};
use crate::compare::tasks::{self, Amortised, Task, TasksPlan};
use crate::compare::{Budget, Plan, measure, page, settle, write_json};
use crate::evaluate::features::{self, Trained};
use crate::evaluate::leak::{self, Duplicates};
use crate::finetune::labels::{self, Labels};
use crate::finetune::plan::Start;
use crate::output::Output;
use crate::train::cost::Cost;
use crate::train::run::RunFolder;
use crate::train::{Machine, interrupt};
use data::Splits;
use engine::files::write_atomically;
use engine::{Error, ErrorKind, Result};
use objectives::{METHODS, Method};
use serde_json::json;
use std::path::{Path, PathBuf};

fn usage(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, "compare", text)
}

/// Runs the command.
pub fn run(args: &Compare, output: &Output) -> Result<()> {
    let device = crate::device::choose(&args.device)?;
    let machine = Machine { device, workers: args.workers, graph: false, stop_after: None };
    match (&args.tasks, &args.encoder) {
        (Some(tasks), Some(encoder)) => amortise(args, tasks, encoder, machine, output),
        (Some(_), None) => Err(usage("--tasks needs the encoder that is used for them: --encoder RUN")),
        (None, _) => which(args, machine, output),
    }
}

/// What the command line says of the budget; none where it says nothing.
fn budget(args: &Compare) -> Result<Option<Budget>> {
    match (args.budget, args.steps) {
        (None, None) => Ok(None),
        (_, Some(0)) => Err(usage("--steps must be at least 1")),
        (_, Some(steps)) => Ok(Some(Budget::Steps(steps))),
        (Some(minutes), None) if minutes > 0.0 && minutes.is_finite() => Ok(Some(Budget::Minutes(minutes))),
        (Some(minutes), None) => {
            Err(usage(format!("--budget is a number of minutes above 0, not {minutes}")))
        }
    }
}

/// The methods that the list names, in its order; all of them for `all`.
fn chosen(list: &[String]) -> Result<Vec<&'static Method>> {
    if list == ["all"] {
        return Ok(METHODS.iter().collect());
    }
    let methods = list.iter().map(|name| objectives::find(name)).collect::<Result<Vec<_>>>()?;
    match (1..methods.len()).find(|&i| methods[..i].iter().any(|m| m.name == methods[i].name)) {
        None => Ok(methods),
        Some(i) => Err(usage(format!("{} is named twice", methods[i].name))),
    }
}

fn default_folder(kind: &str, name: &str) -> PathBuf {
    let name: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    PathBuf::from("runs").join(format!("{kind}-{name}"))
}

/// Which method for this data.
fn which(args: &Compare, machine: Machine, output: &Output) -> Result<()> {
    let data = args.data.as_ref().ok_or_else(|| usage("name the images with --data SPEC"))?;
    let budget = budget(args)?.unwrap_or(Budget::Minutes(2.0));
    let methods = chosen(&args.methods)?;
    let few: Labels = args.labels.parse()?;
    if few == Labels::All {
        return Err(usage(
            "--labels names the few labels of the comparison, such as 1% or 10/class, not all",
        ));
    }
    let splits = super::open(data, output)?;
    leak::check(&splits, Duplicates::allowed(args.allow_duplicates), output)?;
    labels::require_labelled(&splits)?;
    let plan = Plan {
        data: data.spec(),
        data_dir: data.data_dir.clone(),
        budget,
        labels: few.to_string(),
        seed: args.seed,
        set: args.set.clone(),
    };
    let chosen = measure::choices(&splits, few, plan.seed)?;
    let folder = args.out.clone().unwrap_or_else(|| default_folder("compare", &plan.data));
    settle(&plan, &folder)?;
    let labelled = chosen.first().map_or(0, Vec::len);
    output.say(&format!(
        "{} methods on {}, {} each, in {}; a comparison that is stopped goes on with the same command",
        methods.len(),
        plan.data,
        budget.describe(),
        folder.display()
    ));
    let setting = Setting { plan: &plan, folder: &folder, splits: &splits, chosen, machine };
    let mut outcomes = Vec::new();
    for method in methods {
        let outcome = methods::run(&setting, method, output)?;
        match &outcome {
            Outcome::Found(found) => {
                output.event(&json!({"event": "compared", "method": found.method, "arch": found.arch, "cost": found.cost,
                    "scores": found.scores}));
                output.say(&format!(
                    "{}: linear probe {:.2}, kNN {:.2}, labels {few} {:.2}",
                    found.method, found.scores.linear, found.scores.knn, found.scores.few
                ));
            }
            Outcome::Failed { method, reason } => {
                output.event(&json!({"event": "left_out", "method": method, "reason": reason}));
            }
        }
        outcomes.push(outcome);
        if interrupt::asked() {
            let text = "stopped; everything is saved: the same command goes on";
            return Err(Error::new(ErrorKind::Interrupted, "compare", text));
        }
    }
    let results = finish(&setting, outcomes, few, labelled, output)?;
    write_json(&folder.join("compare.json"), &results)?;
    for (name, text) in [("compare.md", results.markdown()), ("compare.html", page::page(&results))] {
        write_atomically(&folder.join(name), |out| out.write_all(text.as_bytes()))?;
    }
    output.event(
        &json!({"event": "recommendation", "recommendation": results.recommendation, "folder": folder}),
    );
    output.result(&results.text());
    output.say(&format!("{0}/compare.html, {0}/compare.md, {0}/compare.json", folder.display()));
    Ok(())
}

/// Floors, training with labels, and the recommendation.
fn finish(
    setting: &Setting,
    methods: Vec<Outcome>,
    few: Labels,
    labelled: usize,
    output: &Output,
) -> Result<Results> {
    let images = [setting.splits.train.len(), setting.splits.test.len()];
    let mut results = Results {
        plan: setting.plan.clone(),
        images,
        labelled,
        methods,
        floors: Vec::new(),
        scratch: Vec::new(),
        tuned: None,
        recommendation: None,
    };
    let found: Vec<Found> = results.found().cloned().collect();
    let mut kinds: Vec<(Kind, &Found)> = Vec::new();
    for one in &found {
        match kinds.iter_mut().find(|(kind, _)| kind.key == one.key) {
            Some((kind, _)) => kind.methods.push(one.method.clone()),
            None => {
                let methods = vec![one.method.clone()];
                kinds.push((Kind { arch: one.arch.clone(), key: one.key.clone(), methods }, one));
            }
        }
    }
    let both = |trained: &mut Trained, start: Start, name: &str| -> Result<[Reached; 2]> {
        let reach = |labels: Labels, part: &str, trained: &mut Trained| {
            let folder = setting.folder.join(format!("{name}-{part}"));
            supervised::reach(setting, trained, labels, start, &folder, output)
        };
        Ok([reach(few, "few", trained)?, reach(Labels::All, "all", trained)?])
    };
    for (kind, one) in &kinds {
        results.floors.push((kind.clone(), methods::floors(setting, one)?));
        let mut trained = methods::encoder(setting, one)?;
        let scratch = both(&mut trained, Start::Scratch, &format!("scratch-{}", kind.key))?;
        results.scratch.push((kind.clone(), scratch));
    }
    let Some(best) = recommend::best(&found) else { return Ok(results) };
    let mut trained = methods::encoder(setting, best)?;
    let tuned = both(&mut trained, Start::Trained, &format!("finetune-{}", best.method))?;
    results.tuned = Some((best.method.clone(), tuned));
    let of_kind =
        |kinds: &[(Kind, [Reached; 2])]| kinds.iter().find(|(kind, _)| kind.key == best.key).map(|k| k.1);
    let floors: Option<Floors> =
        results.floors.iter().find(|(kind, _)| kind.key == best.key).map(|(_, floors)| *floors);
    if let (Some(floors), Some(scratch)) = (floors, of_kind(&results.scratch)) {
        results.recommendation = recommend::recommend(&Evidence {
            images,
            few: (&setting.plan.labels, labelled),
            budget: &setting.plan.budget.describe(),
            methods: &found,
            floors,
            tuned,
            scratch,
        });
    }
    Ok(results)
}

/// What one encoder saves over several tasks.
fn amortise(
    args: &Compare,
    list: &[String],
    encoder: &Path,
    machine: Machine,
    output: &Output,
) -> Result<()> {
    let tasks = list.iter().map(|text| text.parse()).collect::<Result<Vec<Task>>>()?;
    let mut trained = load_encoder(encoder)?;
    let folder = args.out.clone().unwrap_or_else(|| default_folder("tasks", &trained.origin));
    let weights = format!("{:016x}", features::checksum(trained.encoder.as_mut())?);
    let plan = TasksPlan { weights, budget: budget(args)?, seed: args.seed };
    settle(&plan, &folder)?;
    let duplicates = Duplicates::allowed(args.allow_duplicates);
    let setting = tasks::Setting { folder: &folder, plan: &plan, machine, duplicates };
    let mut amortised = Amortised {
        method: trained.origin.clone(),
        pretraining: Cost::read(&RunFolder::at(encoder).cost_path())?,
        tasks: Vec::new(),
    };
    for task in &tasks {
        let splits: Splits = data::open(&task.data, None)?;
        splits.notes.iter().for_each(|note| output.say(note));
        let found = tasks::transfer(&setting, task, &mut trained, &splits, output)?;
        output.event(&json!({"event": "task", "result": found}));
        amortised.tasks.push(found);
    }
    write_json(&folder.join("tasks.json"), &amortised)?;
    output.event(&json!({"event": "amortisation", "pretraining": amortised.pretraining,
        "paid_back_after": amortised.paid_back_after(), "folder": folder}));
    output.result(&amortised.text());
    Ok(())
}
