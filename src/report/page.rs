//! The page: its parts in order, those of several runs beside each other.

use super::chart::number;
use super::gather::{Gathered, Part};
use super::html::Html;
use super::results::{Accuracy, Results};
use super::{Sheets, curves, map};
use engine::Result;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// What the page itself may load: nothing but what is in it.
const POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The sections' ids and titles.
const SECTIONS: [(&str, &str); 10] = [
    ("summary", "Summary"),
    ("results", "Accuracies with floors"),
    ("curves", "Curves"),
    ("maps", "Maps of features"),
    ("neighbours", "Nearest neighbours"),
    ("views", "Augmented views"),
    ("predictions", "Predictions"),
    ("attention", "Attention"),
    ("filters", "First-layer filters"),
    ("configuration", "Configuration and commands"),
];

/// The whole page.
pub fn render(runs: &[Gathered], sheets: &Sheets) -> String {
    let mut h = Html::default();
    h.element("html", &[("lang", "en")], |h| {
        h.element("head", &[], |h| {
            h.void("meta", &[("charset", "utf-8")]);
            h.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            h.void("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            h.leaf("title", &[], &title(runs));
            h.verbatim("style", &style(sheets));
        });
        h.element("body", &[], |h| {
            map::define_marks(h);
            h.element("header", &[], |h| {
                h.leaf("h1", &[], &title(runs));
                h.element("nav", &[("aria-label", "sections")], |h| {
                    for (id, title) in SECTIONS {
                        h.leaf("a", &[("href", &format!("#{id}"))], title);
                    }
                });
            });
            h.element("main", &[], |h| SECTIONS.iter().for_each(|(id, title)| section(h, runs, id, title)));
            h.leaf("footer", &[], &format!("Written by pretext {}.", env!("CARGO_PKG_VERSION")));
            h.element("div", &[("id", "thumbnail"), ("hidden", "hidden")], |h| {
                h.leaf("div", &[("class", "sheet")], "");
                h.leaf("span", &[], "");
            });
            h.verbatim("script", SCRIPT);
        });
    });
    format!("<!doctype html>\n{}\n", h.finish())
}

fn title(runs: &[Gathered]) -> String {
    format!("Pre-training: {}", runs.iter().map(heading).collect::<Vec<_>>().join(", "))
}

/// A run's name, and its method where the name is another.
fn heading(run: &Gathered) -> String {
    match run.name == run.config.method {
        true => run.name.clone(),
        false => format!("{} ({})", run.name, run.config.method),
    }
}

/// The style, with the sheets of thumbnails.
fn style(sheets: &Sheets) -> String {
    let mut style = STYLE.to_string();
    for (i, sheet) in sheets.iter().enumerate() {
        let [height, width] = sheet.cell;
        style.push_str(&format!(
            ".sheet-{i}{{--w:{width};--h:{height};--columns:{};--rows:{};background-image:url(\"{}\")}}\n",
            sheet.columns, sheet.rows, sheet.address
        ));
    }
    style
}

fn section(h: &mut Html, runs: &[Gathered], id: &str, title: &str) {
    h.element("section", &[("id", id), ("aria-labelledby", &format!("{id}-title"))], |h| {
        h.leaf("h2", &[("id", &format!("{id}-title"))], title);
        match id {
            "summary" => compare(h, runs),
            "curves" => return curves::draw(h, runs),
            _ => {}
        }
        h.element("div", &[("class", if runs.len() > 1 { "side" } else { "single" })], |h| {
            for (i, run) in runs.iter().enumerate() {
                h.element("article", &[("id", &format!("{id}-{i}"))], |h| {
                    if runs.len() > 1 {
                        h.leaf("h3", &[], &heading(run));
                    }
                    part(h, run, id, i);
                });
            }
        });
    });
}

/// A part that is there, or why it is not.
fn or_missing<T>(h: &mut Html, part: &Part<T>, draw: impl FnOnce(&mut Html, &T)) {
    match part {
        Ok(found) => draw(h, found),
        Err(why) => h.missing(why),
    }
}

fn part(h: &mut Html, run: &Gathered, id: &str, i: usize) {
    let method = run.config.method.as_str();
    match id {
        "summary" => summary(h, run),
        "results" => or_missing(h, &run.results, |h, found| results(h, run, found)),
        "maps" => or_missing(h, &run.features, |h, found| match &found.maps {
            Some((maps, sheet)) => maps.draw(h, &found.space, &format!("map-{i}"), *sheet),
            None => h.missing("Left out (--points 0)."),
        }),
        "neighbours" => or_missing(h, &run.features, |h, found| found.gallery.draw(h, &found.space)),
        "views" => or_missing(h, &run.views, |h, views| views.draw(h, method)),
        "predictions" => or_missing(h, &run.predictions, |h, found| found.draw(h, method)),
        "attention" => or_missing(h, &run.attention, |h, found| found.draw(h, method)),
        "filters" => or_missing(h, &run.filters, |h, found| found.draw(h)),
        _ => configuration(h, run),
    }
}

fn percent(value: Option<f32>) -> String {
    value.map_or("-".into(), |v| format!("{v:.2}"))
}

/// One line a run.
fn compare(h: &mut Html, runs: &[Gathered]) {
    if runs.len() < 2 {
        return;
    }
    let row = |run: &Gathered| {
        let cell = |features: &str, of: fn(&Accuracy) -> Option<f32>| {
            percent(run.results.as_ref().ok().and_then(|r| r.row(features)).and_then(of))
        };
        vec![
            run.name.clone(),
            run.config.method.clone(),
            run.config.arch.name.clone(),
            run.metrics.last_step.to_string(),
            run.metrics.last("loss").map_or("-".into(), number),
            cell("trained", |a| a.linear),
            cell("trained", |a| a.knn),
            cell("random", |a| a.linear),
            cell("random", |a| a.knn),
            cell("pixels", |a| a.linear),
            cell("pixels", |a| a.knn),
        ]
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    h.table(
        "Test top-1 in percent: linear probe and kNN, of the trained encoder and its floors. Losses of different methods are not comparable.",
        &["run", "method", "encoder", "steps", "last loss", "linear", "kNN", "random: linear", "kNN", "pixels: linear", "kNN"],
        &rows,
    );
}

fn summary(h: &mut Html, run: &Gathered) {
    let config = &run.config;
    let mut facts: Vec<(&str, String)> = vec![
        ("Method", format!("{}: {}", config.method, run.method.summary)),
        ("Paper", run.method.reference.to_string()),
        (
            "Data",
            match &run.data {
                Ok(([train, test], [height, width, channels])) => format!(
                    "{}: {train} training images, {test} test images, {height} x {width} pixels, {}",
                    config.data,
                    if *channels == 1 { "grey" } else { "RGB" }
                ),
                Err(why) => format!("{}. {why}", config.data),
            },
        ),
        (
            "Encoder",
            format!(
                "{}{}",
                architecture(run),
                match &run.weights {
                    Ok(w) => format!("; {} parameters, {} features", w.parameters, w.dim),
                    Err(_) => String::new(),
                }
            ),
        ),
        ("Steps", steps(run)),
        (
            "Batch, optimiser",
            format!(
                "{} images; {}, peak rate {}",
                config.training.batch,
                format!("{:?}", config.training.optimiser).to_lowercase(),
                number(f64::from(config.training.peak_rate()))
            ),
        ),
        ("Time of training", time(run)),
        ("Loss", loss(run)),
        (
            "Weights shown here",
            match &run.weights {
                Ok(w) => w.file.clone(),
                Err(why) => why.clone(),
            },
        ),
        ("Seed", config.seed.to_string()),
    ];
    if let Ok(super::gather::Features { space, .. }) = &run.features {
        let (health, kind) = (space.health, if space.tested { "test" } else { "training" });
        let text = format!(
            "of {kind} images at length 1: effective rank {:.1} of {}, mean deviation of a dimension {}",
            health.rank,
            health.dim,
            number(f64::from(health.std))
        );
        facts.push(("Features", text));
    }
    h.element("dl", &[], |h| {
        for (name, text) in facts {
            h.leaf("dt", &[], name);
            h.leaf("dd", &[], &text);
        }
    });
    if !run.metrics.warnings.is_empty() {
        h.leaf("h4", &[], "Warnings of the run");
        h.element("ul", &[("class", "warnings")], |h| {
            for (step, text) in &run.metrics.warnings {
                h.leaf("li", &[], &format!("step {step}: {text}"));
            }
        });
    }
}

/// The architecture and what differs from it.
fn architecture(run: &Gathered) -> String {
    let fields = toml::Table::try_from(&run.config.arch).unwrap_or_default();
    let given = fields.iter().filter(|(key, _)| *key != "name");
    let given: Vec<String> = given.map(|(k, v)| format!("{} {v}", k.replace('_', " "))).collect();
    match given.is_empty() {
        true => run.config.arch.name.clone(),
        false => format!("{} ({})", run.config.arch.name, given.join(", ")),
    }
}

fn steps(run: &Gathered) -> String {
    let taken = run.metrics.last_step;
    match (&run.steps, run.is_complete()) {
        (Ok(all), Some(true)) => format!("{all}, all taken"),
        (Ok(all), _) => format!("{taken} of {all} are recorded: the run was stopped, or is still going on"),
        (Err(why), _) => format!("{taken} are recorded; how many were wanted is not known. {why}"),
    }
}

fn time(run: &Gathered) -> String {
    let cost = match &run.cost {
        Ok(Some(cost)) => cost,
        Ok(None) => return "not recorded".into(),
        Err(why) => return why.clone(),
    };
    let mut text = format!(
        "{:.1} s, measurements in between included ({} ms a step)",
        cost.seconds,
        number(1e3 * cost.seconds / cost.steps.max(1) as f64)
    );
    if let Some(joules) = cost.joules {
        text.push_str(&format!("; {} kJ of the processor, of all that ran on it", number(joules / 1e3)));
    }
    if cost.estimated {
        text.push_str(
            "; a part was lost when the process was killed, and is counted at the rate of the rest",
        );
    }
    text
}

fn loss(run: &Gathered) -> String {
    let Some(series) = run.metrics.series("loss") else { return "not recorded".into() };
    let recent = &series.points[series.points.len().saturating_sub(20)..];
    let mean = recent.iter().map(|p| p.1).sum::<f64>() / recent.len() as f64;
    let last = recent.last().map_or(f64::NAN, |p| p.1);
    format!("{} at the last step, {} in the mean of the last {}", number(last), number(mean), recent.len())
}

fn results(h: &mut Html, run: &Gathered, found: &Results) {
    let name = |features: &str| match features {
        "trained" => format!("trained encoder ({})", run.config.method),
        "random" => "same encoder at random".into(),
        "random-unset" => "same, batch norm unset".into(),
        "pixels" => "raw pixels".into(),
        other => other.to_string(),
    };
    let row = |a: &Accuracy| vec![name(&a.features), a.dim.to_string(), percent(a.linear), percent(a.knn)];
    let rows: Vec<Vec<String>> = found.rows.iter().map(row).collect();
    let caption = format!("Test top-1 in percent: {} training, {} test images", found.train, found.test);
    h.table(&caption, &["features", "dim", "linear probe", "kNN"], &rows);
    h.note(&format!("Linear probe: {}. kNN: {}.", found.linear_protocol, found.knn_protocol));
    h.note("A number without floors says nothing: the same encoder before training, and raw pixels, stand under the same probes.");
}

fn configuration(h: &mut Html, run: &Gathered) {
    let folder = quoted(&run.path.display().to_string());
    let data = data_arguments(run);
    let commands = [
        (
            "the same run again",
            format!(
                "pretext pretrain {} {data} --config {folder}/config.toml --out {folder}-again",
                run.config.method
            ),
        ),
        ("linear probe, with floors", format!("pretext probe {folder} {data}")),
        ("nearest neighbours, with floors", format!("pretext knn {folder} {data}")),
        ("fine-tuning with few labels", format!("pretext finetune {folder} {data} --labels 10/class")),
        ("features in a file", format!("pretext embed {folder} {data} --out features.safetensors")),
    ];
    h.note("From the folder in which the run was made:");
    h.element("dl", &[("class", "commands")], |h| {
        for (name, command) in commands {
            h.leaf("dt", &[], name);
            h.element("dd", &[], |h| h.leaf("code", &[], &command));
        }
    });
    h.element("details", &[], |h| {
        h.leaf("summary", &[], "config.toml");
        h.leaf("pre", &[("tabindex", "0")], &run.config_text);
    });
}

/// `--data` and what belongs to it, as a shell takes it.
fn data_arguments(run: &Gathered) -> String {
    let spec = &run.config.data;
    let end = spec.find(" --").unwrap_or(spec.len());
    let mut text = format!("--data {}{}", quoted(&spec[..end]), &spec[end..]);
    if let Some(folder) = &run.config.data_dir {
        text.push_str(&format!(" --data-dir {}", quoted(&folder.display().to_string())));
    }
    text
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Writes a page.
pub fn write(path: &std::path::Path, page: &str) -> Result<()> {
    engine::files::write_atomically(path, |out| out.write_all(page.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_where_they_must_be() {
        assert_eq!(quoted("runs/simclr-sample"), "runs/simclr-sample");
        assert_eq!(quoted("my photos"), "'my photos'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    /// Both stand between tags whose end they must not contain, and neither may name another place.
    #[test]
    fn style_and_script_stay_in_the_page() {
        for text in [STYLE, SCRIPT] {
            for word in [
                "</",
                "http:",
                "https:",
                "//cdn",
                "@import",
                "fetch(",
                "XMLHttpRequest",
                "import(",
                "WebSocket",
                "sendBeacon",
            ] {
                assert!(!text.contains(word), "{word}");
            }
        }
    }
}
