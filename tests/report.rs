//! `pretext report`: a page about any run of any method, whatever is missing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "report/browser.rs"]
mod browser;
mod common;
#[path = "report/structure.rs"]
mod structure;

use common::methods::{command, pretrain};
use common::{Stage, stderr, stdout, succeeded, write_mnist};
use objectives::METHODS;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use structure::{check, unescape};

/// Measurements and pictures at the end, of few images.
const MEASURED: [&str; 4] = ["--set", "monitor.every_epochs=1", "--set", "monitor.knn_samples=40"];

/// The page about these runs.
fn report(stage: &Stage, runs: &[&str], more: &[&str]) -> String {
    let args = [&["report"], runs, &["--out", "page.html", "--points", "30"], more].concat();
    succeeded(&stage.run(&args));
    std::fs::read_to_string(stage.path("page.html")).unwrap()
}

/// What is said in the place of parts that are not there.
fn missing(page: &str) -> Vec<String> {
    let parts = page.split("<p class=\"missing\">").skip(1);
    parts.map(|part| unescape(part.split("</p>").next().unwrap())).collect()
}

/// The content of the first element that begins with `start`.
fn content<'a>(page: &'a str, start: &str, end: &str) -> &'a str {
    let at = page.find(start).unwrap_or_else(|| panic!("{start} is not there")) + start.len();
    page[at..].split(end).next().unwrap()
}

/// A page for each method, and one for all, used in a browser if there is one.
#[test]
fn every_method_has_a_page_and_all_have_one_together() {
    let stage = Stage::new();
    let names: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
    for method in &names {
        succeeded(&pretrain(&stage, method, method, &[&["--steps", "2"], &MEASURED[..]].concat()));
        let page = report(&stage, &[method], &["--no-table"]);
        let tags = check(&page);
        let count = |name: &str, class: &str| {
            tags.iter().filter(|t| t.name == name && t.get("class") == Some(class)).count()
        };
        let vit = ["mae", "dinov2"].contains(method);
        let pixels = ["mae", "colorization", "inpainting"].contains(method);
        for (part, there) in
            [("maps-0", true), ("neighbours-0", true), ("views-0", true), ("filters-0", true)]
                .into_iter()
                .chain([("attention-0", vit), ("predictions-0", pixels)])
        {
            let article = content(&page, &format!("<article id=\"{part}\">"), "</article>");
            assert_eq!(article.contains("class=\"missing\""), !there, "{method}: {part}: {article:.300}");
            assert_eq!(article.contains("<img") || article.contains("<use"), there, "{method}: {part}");
        }
        for chart in ["loss", "rate", "gradient_norm", "knn", "std", "rank"] {
            let id = match chart {
                "loss" => format!("chart-{method}-loss"),
                _ => format!("chart-all-{}", chart.replace('_', "-")),
            };
            assert!(tags.iter().any(|t| t.get("id") == Some(&id)), "{method}: {id}");
        }
        assert!(count("figure", "map") == 2 && count("figure", "chart") >= 6, "{method}");
        assert!(
            missing(&page).contains(&"Not recorded for these weights, and not computed (--no-table).".into())
        );
        let method = objectives::find(method).unwrap();
        assert!(page.contains(&structure_text(method.reference)) && page.contains("2, all taken"));
        assert!(page.len() < 1_000_000, "{}: {} bytes", method.name, page.len());
    }
    let page = report(&stage, &names, &["--no-table"]);
    check(&page);
    use_in_browser(&stage, &page, METHODS.len());
}

/// Text as the page has it.
fn structure_text(text: &str) -> String {
    pretext::report::html::escape(text)
}

/// The page in Chromium: no complaint, nothing refused, drawings answer a pointer and keys, nothing is wider than a phone.
fn use_in_browser(stage: &Stage, page: &str, runs: usize) {
    let Some(browser) = browser::find() else {
        // Past the test harness, which hides what a passing test prints.
        let text = "no Chromium found (PRETEXT_CHROMIUM, PATH): the report in a browser is not checked\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return;
    };
    let file = stage.path("used.html");
    std::fs::write(
        &file,
        page.trim_end().strip_suffix("</body></html>").unwrap().to_string() + browser::PROBE,
    )
    .unwrap();
    let seen = browser::open(&browser, &file, &stage.path(""));
    assert!(seen.console.is_empty(), "{:#?}", seen.console);
    let found: Value =
        serde_json::from_str(&unescape(content(&seen.document, "<output id=\"probe\">", "</output>")))
            .unwrap();
    let charts = page.matches("data-lines=").count();
    assert!(
        charts > 10 && found["readouts"] == charts && found["keys"] == charts,
        "{charts} charts: {found}"
    );
    assert!(found["maps"] == 2 * runs && found["thumbnails"] == 2 * runs, "{found}");
    assert_eq!(found["wide"], serde_json::json!([]), "{found}");
    assert_eq!(found["images"], page.matches("<img").count(), "{found}");
    // A page that misbehaves is told from one that does not.
    let bad = page.replace(
        "\"use strict\";",
        "\"use strict\"; console.log('x'); new Image().src = 'http://example.org/x.png';",
    );
    std::fs::write(&file, bad).unwrap();
    let seen = browser::open(&browser, &file, &stage.path(""));
    assert!(seen.console.iter().any(|line| line.contains("Content Security Policy")), "{:#?}", seen.console);
}

/// Accuracies are those that pre-training showed, and are not computed again until the weights are others.
#[test]
fn accuracies_are_recorded_once_and_belong_to_their_weights() {
    let stage = Stage::new();
    let out = stage.pretrain("run", &["--steps", "6", "--json"]);
    let events: Vec<Value> =
        stdout(succeeded(&out)).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded = std::fs::read_to_string(stage.path("run/results.json")).unwrap();
    let said = stage.run(&["report", "run", "--points", "0"]);
    assert!(!stderr(succeeded(&said)).contains("accuracies"), "{}", stderr(&said));
    let page = std::fs::read_to_string(stage.path("run/report.html")).unwrap();
    check(&page);
    let table = content(&page, "<article id=\"results-0\">", "</article>");
    let results: Vec<&Value> = events.iter().filter(|e| e["event"] == "result").collect();
    assert_eq!(results.len(), 8);
    for result in results {
        let cell = format!("<td>{:.2}</td>", result["top1"].as_f64().unwrap());
        assert!(table.contains(&cell), "{result}: {table}");
    }
    assert!(missing(&page).contains(&"Left out (--points 0).".to_string()));
    // Without the file the same is computed, and kept.
    std::fs::remove_file(stage.path("run/results.json")).unwrap();
    let said = stage.run(&["report", "run", "--points", "0"]);
    assert!(stderr(succeeded(&said)).contains("accuracies, which are not recorded"), "{}", stderr(&said));
    assert_eq!(std::fs::read_to_string(stage.path("run/results.json")).unwrap(), recorded);
    // Another run's results are not this run's.
    succeeded(&stage.pretrain("other", &["--steps", "6", "--seed", "2"]));
    let other = std::fs::read_to_string(stage.path("other/results.json")).unwrap();
    std::fs::write(stage.path("run/results.json"), &other).unwrap();
    let page = report(&stage, &["run"], &["--no-table"]);
    assert!(
        missing(&page).contains(&"Not recorded for these weights, and not computed (--no-table).".into())
    );
    report(&stage, &["run"], &[]);
    assert_eq!(std::fs::read_to_string(stage.path("run/results.json")).unwrap(), recorded);
}

/// A run that was stopped, one that never began, one whose data is gone, one whose pictures alone are left.
#[test]
fn what_is_not_there_is_said() {
    let stage = Stage::new();
    let stopped = pretrain(
        &stage,
        "mae",
        "stopped",
        &[&["--steps", "30", "--stop-after", "13"], &MEASURED[..]].concat(),
    );
    assert!(stderr(&stopped).contains("--resume"));
    let page = report(&stage, &["stopped"], &[]);
    check(&page);
    assert!(page.contains("13 of 30 are recorded: the run was stopped"), "{page:.3000}");
    assert!(
        page.contains("checkpoint.safetensors, step 13")
            && !stage.path("stopped/encoder.safetensors").exists()
    );
    // The picture of the epoch's end, and one of the checkpoint after it.
    assert!(
        page.contains("after step 12") && page.contains("after step 13") && page.contains("leaked means")
    );
    let cost = std::fs::read_to_string(stage.path("stopped/cost.json")).unwrap();
    let cost: Value = serde_json::from_str(&cost).unwrap();
    assert_eq!(cost["steps"], 13);

    std::fs::remove_file(stage.path("stopped/checkpoint.safetensors")).unwrap();
    std::fs::remove_file(stage.path("stopped/cost.json")).unwrap();
    let page = report(&stage, &["stopped"], &[]);
    check(&page);
    assert!(
        page.contains("after step 12")
            && !page.contains("after step 13")
            && page.contains("<dd>not recorded</dd>")
    );
    assert!(missing(&page).iter().any(|m| m.contains("The weights cannot be read") && m.contains("neither")));

    std::fs::create_dir(stage.path("never")).unwrap();
    std::fs::copy(stage.path("stopped/config.toml"), stage.path("never/config.toml")).unwrap();
    let page = report(&stage, &["never"], &[]);
    check(&page);
    let said = missing(&page);
    assert!(said.iter().any(|m| m.contains("No step is recorded")), "{said:?}");
    assert!(said.iter().any(|m| m.contains("no checkpoint, and no picture")), "{said:?}");
    assert!(
        page.contains("0 of 30 are recorded") && page.contains("<article id=\"views-0\"><p class=\"note\">")
    );

    succeeded(&pretrain(&stage, "simclr", "gone", &["--steps", "2"]));
    std::fs::rename(stage.path("data"), stage.path("elsewhere")).unwrap();
    let page = report(&stage, &["gone", "stopped"], &[]);
    check(&page);
    let said = missing(&page);
    assert!(said.iter().filter(|m| m.contains("The data cannot be opened")).count() >= 8, "{said:?}");
    assert!(page.contains("chart-simclr-loss") && page.contains("chart-mae-loss"));
    assert!(page.contains("after step 12"), "pictures that the run left need no data");

    std::fs::create_dir(stage.path("empty")).unwrap();
    for wrong in ["empty", "nowhere"] {
        let out = stage.run(&["report", wrong]);
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(stderr(&out).contains("holds no config.toml: name folders of"), "{}", stderr(&out));
    }
    assert_eq!(stage.run(&["report"]).status.code(), Some(2));
    std::fs::write(stage.path("gone/metrics.jsonl"), "no\n{}\n").unwrap();
    let out = stage.run(&["report", "gone"]);
    assert!(out.status.code() == Some(1) && stderr(&out).contains("line 1"), "{}", stderr(&out));
}

/// Names of classes, folders and settings are text, and images without labels have a page too.
#[test]
fn names_are_escaped_and_labels_may_be_missing() {
    let stage = Stage::new();
    let hostile = "a<script>alert(1)<b onload='x'>&amp;\"";
    let write = |folder: &Path, n: usize, seed: u64| {
        std::fs::create_dir_all(folder).unwrap();
        for (i, image) in common::images(n, seed).0.chunks(144).enumerate() {
            data::write_png(&folder.join(format!("{i:02}.png")), [12, 12, 1], image).unwrap();
        }
    };
    for (split, n) in [("train", 24), ("test", 8)] {
        write(&stage.path("named").join(split).join(hostile), n, 1);
        write(&stage.path("named").join(split).join("plain"), n, 2);
    }
    write(&stage.path("unnamed"), 40, 3);
    let run = |data: &str, out: &str| {
        let data = format!("folder:{}", stage.path(data).display());
        succeeded(&command(&stage, "simclr", &data, out, &["--steps", "2"]).output().unwrap());
    };
    for i in 0..20 {
        write(&stage.path("single").join(format!("class{i}")), 1, 20 + i);
    }
    run("named", "<img src=x>&");
    run("unnamed", "unnamed-run");
    run("single", "single-run");
    let page = report(&stage, &["<img src=x>&", "unnamed-run", "single-run"], &[]);
    let tags = check(&page);
    assert!(tags.iter().all(|t| t.get("src").is_none_or(|src| src.starts_with("data:"))));
    assert!(page.contains(&structure_text(hostile)) && page.contains("&lt;img src=x&gt;&amp;"));
    let article =
        |part: &str, run: usize| content(&page, &format!("<article id=\"{part}-{run}\">"), "</article>");
    assert!(article("neighbours", 0).contains("right, %"));
    assert!(article("results", 1).contains("The data has no labels"), "{}", article("results", 1));
    let neighbours = article("neighbours", 1);
    assert!(neighbours.contains("There are no labels") && !neighbours.contains('\u{2717}'));
    assert!(article("maps", 1).contains("There are no labels"));
    // One image a class leaves none for the test: a fifth of the training images asks.
    let neighbours = article("neighbours", 2);
    assert!(
        neighbours.contains("Queries are training images that are left out of the bank"),
        "{neighbours:.500}"
    );
    assert!(neighbours.contains("the 5 of 16 training images"), "{neighbours:.500}");
    assert!(article("results", 2).contains("no labelled test images"), "{}", article("results", 2));
}

/// The command that the page prints makes the same run, to the bit.
#[test]
fn the_printed_command_repeats_the_run() {
    let stage = Stage::new();
    write_mnist(&stage.path("my data"), 40, 10);
    let data = format!("mnist:{}", stage.path("my data").display());
    succeeded(
        &common::methods::command(&stage, "byol", &data, "first run", &["--steps", "3"]).output().unwrap(),
    );
    let page = report(&stage, &["first run"], &["--no-table"]);
    let printed = unescape(content(&page, "<code>", "</code>"));
    assert!(printed.starts_with("pretext pretrain byol --data 'mnist:"), "{printed}");
    let program = Path::new(env!("CARGO_BIN_EXE_pretext")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_path_buf())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &printed]).current_dir(stage.path("")).env("PATH", path.unwrap());
    succeeded(&shell.output().unwrap());
    for file in ["metrics.jsonl", "config.toml"] {
        let read = |run: &str| std::fs::read_to_string(stage.path(run).join(file)).unwrap();
        assert_eq!(read("first run"), read("first run-again"), "{file}");
    }
    let weights = |run: &str| {
        let contents = engine::safetensors::load(&stage.path(run).join("encoder.safetensors")).unwrap();
        let bits =
            |t: &engine::Tensor| t.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        contents.tensors.iter().map(|(name, t)| (name.clone(), bits(t))).collect::<Vec<_>>()
    };
    assert!(weights("first run") == weights("first run-again"));
}
