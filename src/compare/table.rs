//! The results of a comparison as rows: for the terminal, for `compare.md`, for the page.

use super::methods::{Floors, Found, Outcome};
use super::recommend::Recommendation;
use super::supervised::Reached;
use super::{Plan, half_width};
use crate::output;
use serde::Serialize;

/// All that came of a comparison: `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// What was compared.
    pub plan: Plan,
    /// Training and test images.
    pub images: [usize; 2],
    /// Images with labels where they are few.
    pub labelled: usize,
    /// Every method's outcome, in the order of the list.
    pub methods: Vec<Outcome>,
    /// Floors of each kind of encoder.
    pub floors: Vec<(Kind, Floors)>,
    /// From scratch with few labels and with all, of each kind of encoder.
    pub scratch: Vec<(Kind, [Reached; 2])>,
    /// The recommended encoder, fine-tuned with few labels and with all.
    pub tuned: Option<(String, [Reached; 2])>,
    /// What to do; none where no method could be trained.
    pub recommendation: Option<Recommendation>,
}

/// A kind of encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// The architecture.
    pub arch: String,
    /// See [`Found::key`].
    pub key: String,
    /// The methods that train it.
    pub methods: Vec<String>,
}

/// A row: what it is of, and its accuracies in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In words.
    pub name: String,
    /// The encoder.
    pub arch: String,
    /// Linear probe with all labels.
    pub linear: Option<f64>,
    /// Nearest neighbours.
    pub knn: Option<f64>,
    /// Linear probe with few labels, and its deviation.
    pub few: Option<(f64, f64)>,
    /// The whole network trained with few labels.
    pub tuned_few: Option<f64>,
    /// The whole network trained with all labels.
    pub tuned_all: Option<f64>,
    /// What it took to train, without labels or, from scratch, with all.
    pub seconds: Option<f64>,
    /// Whether it is what is recommended.
    pub best: bool,
    /// Whether it learnt nothing without labels.
    pub floor: bool,
}

impl Results {
    /// Methods, best first, then floors.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.found().map(|found| self.of_method(found)).collect();
        rows.sort_by(|a, b| b.few.map(|f| f.0).unwrap_or(0.0).total_cmp(&a.few.map(|f| f.0).unwrap_or(0.0)));
        let several = self.floors.len() > 1;
        let named = |what: &str, kind: &Kind| match several {
            true => format!("{what} ({})", summary(&kind.methods)),
            false => what.into(),
        };
        let blank = |name: String, kind: &Kind| Row {
            name,
            arch: kind.arch.clone(),
            linear: None,
            knn: None,
            few: None,
            tuned_few: None,
            tuned_all: None,
            seconds: None,
            best: false,
            floor: true,
        };
        for (kind, floors) in &self.floors {
            let unset = floors.unset.map(|scores| ("at random, batch norm unset", scores));
            let both = [("encoder at random", floors.random), ("raw pixels", floors.pixels)];
            for (what, scores) in both.into_iter().chain(unset) {
                rows.push(Row {
                    linear: Some(scores.linear),
                    knn: Some(scores.knn),
                    few: Some((scores.few, scores.few_deviation)),
                    ..blank(named(what, kind), kind)
                });
            }
        }
        for (kind, [few, all]) in &self.scratch {
            rows.push(Row {
                tuned_few: Some(few.top1),
                tuned_all: Some(all.top1),
                seconds: all.cost.map(|cost| cost.seconds),
                ..blank(named("from scratch", kind), kind)
            });
        }
        rows
    }

    /// The methods that could be trained.
    pub fn found(&self) -> impl Iterator<Item = &Found> {
        self.methods.iter().filter_map(|outcome| match outcome {
            Outcome::Found(found) => Some(found),
            Outcome::Failed { .. } => None,
        })
    }

    /// Those that could not, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.methods.iter().filter_map(|outcome| match outcome {
            Outcome::Found(_) => None,
            Outcome::Failed { method, reason } => Some((method.as_str(), reason.as_str())),
        })
    }

    fn of_method(&self, found: &Found) -> Row {
        let tuned = self.tuned.as_ref().filter(|(method, _)| *method == found.method).map(|(_, tuned)| tuned);
        Row {
            name: found.method.clone(),
            arch: found.arch.clone(),
            linear: Some(found.scores.linear),
            knn: Some(found.scores.knn),
            few: Some((found.scores.few, found.scores.few_deviation)),
            tuned_few: tuned.map(|t| t[0].top1),
            tuned_all: tuned.map(|t| t[1].top1),
            seconds: Some(found.cost.seconds),
            best: self.recommendation.as_ref().is_some_and(|r| r.method == found.method),
            floor: false,
        }
    }

    /// Column heads of [`Results::cells`].
    pub fn heads(&self) -> [String; 8] {
        let few = &self.plan.labels;
        [
            "features".into(),
            "encoder".into(),
            "linear probe".into(),
            "kNN".into(),
            format!("probe, {few}"),
            format!("trained, {few}"),
            "trained, all".into(),
            "seconds".into(),
        ]
    }

    /// A row's cells as text.
    pub fn cells(row: &Row) -> Vec<String> {
        let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.2}"));
        vec![
            row.name.clone(),
            row.arch.clone(),
            percent(row.linear),
            percent(row.knn),
            row.few.map_or("-".into(), |(mean, deviation)| format!("{mean:.2} ± {deviation:.2}")),
            percent(row.tuned_few),
            percent(row.tuned_all),
            row.seconds.map_or("-".into(), |s| format!("{s:.0}")),
        ]
    }

    /// What stands above the table.
    pub fn title(&self) -> String {
        let [trained, tested] = self.images;
        format!(
            "{}: {} for each method. Test top-1 in percent ({trained} training, {tested} test images; 80 % is known to within ±{:.1}, 19 times in 20)",
            self.plan.data,
            self.plan.budget.describe(),
            half_width(80.0, tested)
        )
    }

    /// Notes below the table.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.failed().map(|(method, reason)| format!("{method} is left out: {reason}")).collect();
        if self.found().any(|found| found.cost.estimated) {
            notes.push("Some runs were killed in between: the time of what was lost is estimated.".into());
        }
        notes
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let heads = self.heads();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let lines: Vec<Vec<String>> = self.rows().iter().map(Results::cells).collect();
        let mut text = format!("\n{}\n\n{}\n", self.title(), output::table(&heads, &lines));
        for note in self.notes() {
            text.push_str(&format!("{note}\n"));
        }
        for (head, paragraph) in self.paragraphs() {
            text.push_str(&format!("\n{head}: {paragraph}\n"));
        }
        text
    }

    /// The recommendation, in parts.
    pub fn paragraphs(&self) -> Vec<(&'static str, &str)> {
        match &self.recommendation {
            None => vec![("Recommendation", "none: no method could be trained on this data")],
            Some(r) => vec![
                ("Recommendation", r.advice.as_str()),
                ("Why", r.why.as_str()),
                ("How sure", r.confidence.as_str()),
                ("When not", r.limits.as_str()),
            ],
        }
    }

    /// `compare.md`.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("# Which method for {}\n\n{}.\n\n", self.plan.data, self.title());
        text.push_str(&line(&self.heads()));
        text.push_str(&format!("|---|---|{}\n", "---:|".repeat(6)));
        self.rows().iter().for_each(|row| text.push_str(&line(&Results::cells(row))));
        for note in self.notes() {
            text.push_str(&format!("\n{note}\n"));
        }
        for (head, paragraph) in self.paragraphs() {
            text.push_str(&format!("\n**{head}.** {paragraph}\n"));
        }
        text
    }
}

/// Some names, and how many more.
fn summary(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}
