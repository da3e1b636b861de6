//! Planted bugs: each changes a kernel that is right, or its launch, in one place, and must be reported as
//! what it is, at the line where it is.
//!
//! An edit replaces a text that occurs exactly once. The lines that the report may name are given by a
//! text in them or by the comment `BUG`: one line, or for races the lines of both accesses. Where a bug
//! lets more than one thing happen first (a missing barrier lets a read come before the write, or beside
//! it), the bug lists the kinds, and every order of execution must give one of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

#[path = "support/bugs/mod.rs"]
mod bugs;

use bugs::{Bug, bugs};
use emulator::exec::Options;
use emulator::report::{Kind, Report};
use std::collections::BTreeSet;
use support::{Case, cases_of};

/// What a bug must be reported as under these options.
fn reported(case: &Case, bug: &Bug, lines: &[u32], options: &Options) -> Result<(), String> {
    let order = format!("seed {:?}, late {}, workers {}", options.seed, options.late_copies, options.workers);
    let Some(report) = case.run(options).outcome.report else {
        return Err(format!("{order}: nothing reported, {:?} expected", bug.kinds));
    };
    if !bug.kinds.contains(&report.kind) {
        return Err(format!("{order}: {:?} expected, reported: {report}", bug.kinds));
    }
    if report.kernel != case.entry {
        return Err(format!("{order}: the kernel is {}: {report}", case.entry));
    }
    at_line(case, &report, lines).map_err(|wrong| format!("{order}: {wrong}: {report}"))
}

fn at_line(case: &Case, report: &Report, lines: &[u32]) -> Result<(), String> {
    match &report.source {
        _ if lines.is_empty() => Ok(()),
        None => Err("no line".to_owned()),
        Some(source) if !source.file.ends_with(case.file) => Err("the wrong file".to_owned()),
        Some(source) if !lines.contains(&source.line) => Err(format!("not at a line of {lines:?}")),
        Some(_) => Ok(()),
    }
}

/// The case with the bug in it, and the numbers of the lines that may be reported.
fn planted(bug: &Bug) -> (Case, Vec<u32>) {
    let all = cases_of(bug.file);
    let mut found = all.into_iter().filter(|case| case.entry == bug.entry && case.shape == bug.shape);
    let mut case =
        found.next().unwrap_or_else(|| panic!("{}: no case {} [{}]", bug.name, bug.entry, bug.shape));
    for (find, replace) in bug.edits {
        assert_eq!(case.source.matches(find).count(), 1, "{}: must occur once: {find}", bug.name);
        case.source = case.source.replacen(find, replace, 1);
    }
    if let Some(alter) = bug.alter {
        alter(&mut case);
    }
    let text: Vec<&str> = case.source.lines().collect();
    let mut lines: Vec<usize> = (0..text.len()).filter(|&line| text[line].contains("BUG")).collect();
    for start in bug.at {
        let found: Vec<usize> = (0..text.len()).filter(|&line| text[line].contains(start)).collect();
        let [first] = found[..] else { panic!("{}: must be in one line: {start}", bug.name) };
        let last = (first..text.len()).find(|&line| ends_statement(text[line])).unwrap();
        lines.extend(first..=last);
    }
    let lines = lines.iter().map(|line| *line as u32 + 1).collect();
    (case, lines)
}

/// The compiler gives a statement of several lines the number of any of them.
fn ends_statement(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line).trim_end();
    code.ends_with([';', '{', '}'])
}

/// Plants every bug of a kernel and says which were missed.
fn hunt(file: &str) {
    let mut wrong = Vec::new();
    for bug in bugs().into_iter().filter(|bug| bug.file == file) {
        let (case, lines) = planted(&bug);
        for (seed, late_copies, workers) in
            [(None, false, 1), (None, true, 1), (Some(1), true, 1), (Some(5), false, 2)]
        {
            let mut options = Options { seed, late_copies, workers, ..Options::default() };
            options.every_schedule = bug.kinds.contains(&Kind::ScheduleDependent);
            if let Some(limit) = bug.instruction_limit {
                options.instruction_limit = limit;
            }
            if let Err(text) = reported(&case, &bug, &lines, &options) {
                wrong.push(format!("{file}, {}: {text}", bug.name));
                break;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} bugs were not reported as they should be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

macro_rules! kernels {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                hunt(concat!(stringify!($name), ".cu"));
            }
        )*

        const HUNTED: &[&str] = &[$(concat!(stringify!($name), ".cu")),*];
    };
}

kernels! {
    adamw attention conv2d gelu histogram layer_norm matmul_mma
    ntxent philox reduce scan softmax softmax_xent transpose
}

#[test]
fn every_bug_is_hunted_and_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = bugs().iter().map(|bug| bug.name).collect();
    assert_eq!(names.len(), bugs().len());
    assert!(bugs().iter().all(|bug| HUNTED.contains(&bug.file)));
}
