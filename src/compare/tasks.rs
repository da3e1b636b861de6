//! Amortisation: one encoder for several tasks. What pre-training cost once, what each transfer costs, and what training from
//! scratch costs for each task.

use super::{Budget, budget, measure, once};
use crate::evaluate::features::{self, Trained};
use crate::evaluate::inputs::{Input, Source};
use crate::evaluate::{leak, probe};
use crate::finetune::labels::{self, Labels};
use crate::finetune::plan::{Plan, Start};
use crate::finetune::{self, Job};
use crate::output::Output;
use crate::train::cost::{Cost, Meter};
use crate::train::run::RunFolder;
use crate::train::{self, Machine};
use crate::{config, output};
use autograd::module;
use data::Splits;
use engine::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A downstream task, as the command line names it: `SPEC` or `SPEC@LABELS`.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The data.
    pub data: String,
    /// Its labels that are used.
    pub labels: Labels,
}

impl std::str::FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Task> {
        let (data, labels) = match text.rsplit_once('@') {
            Some((data, labels)) => (data, labels.parse()?),
            None => (text, Labels::All),
        };
        match data.is_empty() {
            false => Ok(Task { data: data.into(), labels }),
            true => Err(Error::new(ErrorKind::Usage, "--tasks", format!("'{text}' names no data"))),
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.labels {
            Labels::All => f.write_str(&self.data),
            labels => write!(f, "{}@{labels}", self.data),
        }
    }
}

/// One way to a task: what it reached on the test images, percent, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// Test top-1.
    pub top1: f64,
    /// Wall-clock seconds of training; of a probe, of features and training.
    pub seconds: f64,
    /// Energy, where the machine tells.
    pub joules: Option<f64>,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transferred {
    /// The task.
    pub task: String,
    /// Images with labels that were trained on, and test images.
    pub images: [usize; 2],
    /// A linear layer on the frozen encoder.
    pub probe: Way,
    /// The encoder, fine-tuned.
    pub finetune: Way,
    /// The same architecture from scratch, for as many steps.
    pub scratch: Way,
}

/// All tasks of an encoder: `tasks.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Amortised {
    /// The encoder's method.
    pub method: String,
    /// What pre-training cost; none where its run's folder does not tell.
    pub pretraining: Option<Cost>,
    /// Every task.
    pub tasks: Vec<Transferred>,
}

/// What determines the results for tasks: `compare.toml`. Tasks can be added later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksPlan {
    /// A fingerprint of the encoder's weights (64-bit FNV-1a, hexadecimal).
    pub weights: String,
    /// Each run's steps or time; the recipe's length if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Seed of everything random.
    pub seed: u64,
}

/// How tasks are trained.
pub struct Setting<'a> {
    /// The folder of all results.
    pub folder: &'a Path,
    /// What is the same for all.
    pub plan: &'a TasksPlan,
    /// Where to compute.
    pub machine: Machine,
    /// What to do about test images in the training set.
    pub duplicates: leak::Duplicates,
}

/// Transfers an encoder to a task in each way, and trains from scratch beside it. A result that is there is not made again.
pub fn transfer(
    setting: &Setting,
    task: &Task,
    encoder: &mut Trained,
    splits: &Splits,
    output: &Output,
) -> Result<Transferred> {
    let name: String = task.to_string().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let folder = setting.folder.join(&name);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("make the folder", &folder, e))?;
    leak::check(splits, setting.duplicates, output)?;
    let splits =
        Splits { train: encoder.sees(&splits.train)?, test: encoder.sees(&splits.test)?, notes: Vec::new() };
    labels::require_labelled(&splits)?;
    let part = labels::choose(&splits.train, task.labels, setting.plan.seed)?;
    let probe = once(&folder.join("probe.json"), || {
        let meter = Meter::start();
        module::to_device(encoder.encoder.as_mut(), setting.machine.device)?;
        let input = encoder.input.clone();
        let (train, _) = features::labelled(encoder.encoder.as_mut(), Source::Own, &input, &part)?;
        let whole = [Input { name: String::new(), columns: vec![0..train.dim] }];
        let settings = probe::Settings { seed: setting.plan.seed, ..probe::Settings::default() };
        let head = probe::fit(&train, &whole, &settings)?;
        let (seconds, joules) = meter.stop();
        let (test, _) = features::labelled(encoder.encoder.as_mut(), Source::Own, &input, &splits.test)?;
        module::to_device(encoder.encoder.as_mut(), engine::Device::Cpu)?;
        Ok(Way { top1: measure::percent(head.accuracy(&test)?), seconds, joules })
    })?;
    let plan = plan(setting, task, encoder, &splits, part.len(), &folder)?;
    let mut way = |start: Start| {
        once(&folder.join(format!("{}.json", start.name())), || {
            output.say(&format!(
                "{task}: {}",
                if start == Start::Trained { "fine-tuning" } else { "from scratch" }
            ));
            let mut job =
                Job { plan: &plan, trained: encoder, splits: &splits, folder: &folder, resume: true };
            let top1 = finetune::single(&mut job, start, setting.plan.seed, setting.machine, output)?;
            let run = folder.join(format!("{}-{}", start.name(), setting.plan.seed));
            let path = RunFolder::at(&run).cost_path();
            let cost = Cost::read(&path)?;
            let cost =
                cost.ok_or_else(|| Error::format("read cost", &path, "is not there: the run is not whole"))?;
            Ok(Way { top1: measure::percent(top1), seconds: cost.seconds, joules: cost.joules })
        })
    };
    let (finetune, scratch) = (way(Start::Trained)?, way(Start::Scratch)?);
    Ok(Transferred {
        task: task.to_string(),
        images: [part.len(), splits.test.len()],
        probe,
        finetune,
        scratch,
    })
}

/// How both starts are trained: for as many steps, which fit the budget.
fn plan(
    setting: &Setting,
    task: &Task,
    encoder: &mut Trained,
    splits: &Splits,
    labelled: usize,
    folder: &Path,
) -> Result<Plan> {
    let path = RunFolder::at(folder).config_path();
    if path.exists() {
        return config::read(&path);
    }
    let profile = train::profile(splits.train.as_ref())?;
    let mut plan = Plan::new(encoder, folder, &task.data, &profile, task.labels, labelled)?;
    plan.seed = setting.plan.seed;
    plan.checkpoint_epochs = 1;
    if let Some(given) = setting.plan.budget {
        let config = plan.config(Start::Trained, setting.plan.seed)?;
        let part = labels::choose(&splits.train, task.labels, setting.plan.seed)?;
        let short = folder.join("steps");
        let steps = budget::steps(given, &config, &part, true, setting.machine, &short, || {
            Ok(Box::new(finetune::network(&plan, encoder, splits, Start::Trained, setting.plan.seed)?))
        })?;
        plan.steps = Some(steps);
    }
    RunFolder::create(folder, &plan)?;
    Ok(plan)
}

/// Seconds, or what is known of energy.
fn energy(joules: Option<f64>) -> String {
    joules.map_or("unknown".into(), |j| format!("{j:.0}"))
}

impl Amortised {
    /// Sums over tasks of what a way costs: seconds, and joules if all are known.
    fn sum(&self, way: impl Fn(&Transferred) -> Way) -> (f64, Option<f64>) {
        let ways = || self.tasks.iter().map(&way);
        (ways().map(|w| w.seconds).sum(), ways().map(|w| w.joules).sum())
    }

    /// The tasks after which pre-training is paid back by probes, if each costs as much as these do on average: none where its
    /// cost is not known, or where a probe is no cheaper than training from scratch.
    pub fn paid_back_after(&self) -> Option<u64> {
        let n = self.tasks.len().max(1) as f64;
        let saved = (self.sum(|t| t.scratch).0 - self.sum(|t| t.probe).0) / n;
        let cost = self.pretraining?;
        (saved > 0.0).then(|| (cost.seconds / saved).ceil() as u64)
    }

    /// Heads and cells of the table.
    pub fn table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let heads = vec![
            "task",
            "labelled",
            "probe",
            "seconds",
            "joules",
            "fine-tuned",
            "seconds",
            "joules",
            "scratch",
            "seconds",
            "joules",
        ];
        let cells =
            |way: &Way| [format!("{:.2}", way.top1), format!("{:.1}", way.seconds), energy(way.joules)];
        let rows = self.tasks.iter().map(|t| {
            let mut row = vec![t.task.clone(), t.images[0].to_string()];
            [t.probe, t.finetune, t.scratch].iter().for_each(|way| row.extend(cells(way)));
            row
        });
        (heads, rows.collect())
    }

    /// What follows from the table, in words.
    pub fn summary(&self) -> String {
        let (probes, finetunes, scratch) =
            (self.sum(|t| t.probe).0, self.sum(|t| t.finetune).0, self.sum(|t| t.scratch).0);
        let n = self.tasks.len();
        let once = match self.pretraining {
            None => "What pre-training cost is unknown: its folder has no cost.json.".into(),
            Some(cost) => format!(
                "Pre-training ({}) took {:.1} seconds{} and {} joules, once: {:.1} seconds a task for {n} tasks.",
                self.method,
                cost.seconds,
                if cost.estimated { " (estimated)" } else { "" },
                energy(cost.joules),
                cost.seconds / n.max(1) as f64
            ),
        };
        let back = match (self.pretraining, self.paid_back_after()) {
            (None, _) => String::new(),
            (_, Some(tasks)) => format!(
                " Against training from scratch, probes have paid for it after {tasks} task{}.",
                if tasks == 1 { "" } else { "s" }
            ),
            (_, None) => {
                " Probes do not pay it back: training from scratch is as quick on these tasks.".into()
            }
        };
        format!(
            "{once} All {n} tasks together: {probes:.1} seconds of probes, {finetunes:.1} of fine-tuning, {scratch:.1} from scratch.{back}"
        )
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let (heads, rows) = self.table();
        format!("\n{}\n\n{}", output::table(&heads, &rows), self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amortised(pretraining: Option<f64>, probe: f64, scratch: f64) -> Amortised {
        let way = |seconds, joules| Way { top1: 80.0, seconds, joules };
        let task = Transferred {
            task: "t".into(),
            images: [100, 50],
            probe: way(probe, Some(10.0)),
            finetune: way(20.0, None),
            scratch: way(scratch, Some(30.0)),
        };
        let cost = |seconds| Cost { steps: 1, seconds, joules: None, estimated: false };
        Amortised {
            method: "simclr".into(),
            pretraining: pretraining.map(cost),
            tasks: vec![task.clone(), task],
        }
    }

    #[test]
    fn pre_training_is_paid_back_by_what_probes_save() {
        // 100 seconds, 8 saved a task: 12.5 tasks.
        assert_eq!(amortised(Some(100.0), 2.0, 10.0).paid_back_after(), Some(13));
        assert_eq!(amortised(Some(100.0), 10.0, 10.0).paid_back_after(), None);
        assert_eq!(amortised(None, 2.0, 10.0).paid_back_after(), None);
        let text = amortised(Some(100.0), 2.0, 10.0).text();
        assert!(
            text.contains("after 13 tasks")
                && text.contains("unknown")
                && text.contains("50.0 seconds a task"),
            "{text}"
        );
        assert!(amortised(None, 2.0, 10.0).summary().contains("no cost.json"));
        assert_eq!(amortised(None, 2.0, 10.0).sum(|t| t.finetune), (40.0, None));
    }

    #[test]
    fn tasks_are_read() {
        let task: Task = "sample@10/class".parse().unwrap();
        assert_eq!((task.data.as_str(), task.labels), ("sample", Labels::PerClass(10)));
        assert_eq!("folder:a b --size 32@1%".parse::<Task>().unwrap().to_string(), "folder:a b --size 32@1%");
        assert_eq!("sample".parse::<Task>().unwrap().labels, Labels::All);
        assert!("@1%".parse::<Task>().is_err() && "sample@many".parse::<Task>().is_err());
    }
}
