//! Which figures of the runs become charts: those of one kind together, a line a run.

use super::chart::{Chart, Line};
use super::gather::Gathered;
use super::html::Html;
use super::metrics::Series;

/// Figures that mean the same for every method. Others are compared within one method.
const SHARED: &[&str] = &["rate", "gradient_norm", "knn", "std", "rank"];

/// Figures that stand beside the one that must beat them: method, figure, its floor.
const FLOORS: &[(&str, &str, &str)] = &[
    ("mae", "loss", "zero_prediction"),
    ("colorization", "loss", "constant_loss"),
    ("inpainting", "hole_error", "mean_error"),
];

/// Writes all charts; a sentence where there is nothing to draw.
pub fn draw(h: &mut Html, runs: &[Gathered]) {
    let charts = charts(runs);
    if charts.is_empty() {
        return h.missing("No step is recorded in metrics.jsonl: there is nothing to draw.");
    }
    h.element("div", &[("class", "charts")], |h| charts.iter().for_each(|chart| chart.draw(h)));
    for run in runs.iter().filter(|run| run.metrics.series("knn").is_none()) {
        h.missing(&format!(
            "{}: no online kNN was measured (the data has no labels, monitor.every_epochs is 0, or the run ended before).",
            run.name
        ));
    }
}

/// A chart for each figure, in the order in which they appear: losses first, then what is shared, then the methods' own.
fn charts(runs: &[Gathered]) -> Vec<Chart> {
    let mut kinds: Vec<(usize, String, Option<&str>)> = Vec::new();
    for run in runs {
        for Series { name, .. } in run.metrics.series.iter().filter(|s| !s.points.is_empty()) {
            let floor = FLOORS.iter().any(|f| (f.0, f.2) == (run.config.method.as_str(), name.as_str()));
            let shared = SHARED.iter().position(|s| s == name);
            let method = if shared.is_some() { None } else { Some(run.config.method.as_str()) };
            let order = match (name.as_str(), shared) {
                ("loss", _) => 0,
                (_, Some(i)) => 1 + i,
                _ => 1 + SHARED.len(),
            };
            let kind = (order, name.clone(), method);
            if !floor && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds.sort_by_key(|kind| kind.0);
    kinds.into_iter().map(|(_, name, method)| chart(runs, &name, method)).collect()
}

fn chart(runs: &[Gathered], name: &str, method: Option<&str>) -> Chart {
    let mut lines = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        if method.is_some_and(|m| m != run.config.method) {
            continue;
        }
        let floor = FLOORS.iter().find(|f| (f.0, f.1) == (run.config.method.as_str(), name)).map(|f| f.2);
        let line = |name: String, style, figure| {
            let points = run.metrics.series(figure).map(|s| s.points.clone()).unwrap_or_default();
            Line { name, style, points }
        };
        lines.push(line(run.name.clone(), i % 8, name));
        lines.extend(floor.map(|f| line(format!("{}: {}", run.name, f.replace('_', " ")), 8, f)));
    }
    let (title, unit, note) = describe(name, method, runs);
    let id = format!(
        "chart-{}-{}",
        method.unwrap_or("all"),
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    );
    Chart { id, title, unit, note, lines }
}

/// Title, unit and note of a figure.
fn describe(name: &str, method: Option<&str>, runs: &[Gathered]) -> (String, String, String) {
    let own = |title: &str| match method {
        Some(method) if runs.iter().any(|r| r.config.method != method) => format!("{title} of {method}"),
        _ => title.to_string(),
    };
    let plain = name.replace('_', " ");
    let (title, unit, note) = match name {
        "loss" => (own("Loss"), loss_unit(method), ""),
        "rate" => ("Learning rate".into(), "of each step", ""),
        "gradient_norm" => ("Gradient norm".into(), "L2, all trained weights, before clipping", ""),
        "knn" => (
            "Online kNN".into(),
            "% right",
            "A fifth of some labelled training images ask the others. Test images are not looked at.",
        ),
        "std" => {
            let dims: Vec<u64> = runs.iter().filter_map(|r| r.metrics.dim).collect();
            let healthy: Vec<String> = dims
                .iter()
                .map(|d| format!("{} for {d} dimensions", super::chart::number(1.0 / (*d as f64).sqrt())))
                .collect();
            let mut healthy_once = healthy.clone();
            healthy_once.dedup();
            let note = format!(
                "Of unit-length embeddings that the loss compares. Healthy is about 1 / sqrt(dimensions): {}. 0 is a collapse.",
                healthy_once.join(", ")
            );
            return ("Spread of embeddings".into(), "mean deviation of a dimension".into(), note);
        }
        "rank" => (
            "Effective rank of embeddings".into(),
            "directions",
            "exp of the entropy of the singular values (RankMe). A low one is a dimensional collapse.",
        ),
        "accuracy" => (
            own("Accuracy in the pretext task"),
            "part of 1",
            "Not of features: a task may be solved by a shortcut.",
        ),
        "positive_similarity" => (own("Similarity of positive pairs"), "cosine", ""),
        "negatives" => (own("Negatives an anchor has"), "images", ""),
        "queue_age" => (own("Age of the queue's keys"), "steps", ""),
        "hole_psnr" => (own("Peak signal-to-noise ratio in holes"), "dB", ""),
        "hole_error" => (own("Error in holes"), "mean squared", ""),
        "teacher_entropy" | "patch_entropy" | "divergence" | "cross_entropy" | "dino" | "ibot" | "koleo" => {
            (own(&plain), "nats", "")
        }
        _ => (own(&plain), "as the method defines it", ""),
    };
    let mut letters = title.chars();
    let title: String = letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default();
    (title, unit.into(), note.into())
}

fn loss_unit(method: Option<&str>) -> &'static str {
    match method {
        Some("mae") => "mean squared error of removed patches",
        Some("byol") => "squared distance, both directions",
        Some("inpainting") => "weighted sum of errors",
        Some("dinov2") => "weighted sum, nats",
        _ => "nats",
    }
}
