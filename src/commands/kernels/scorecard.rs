//! `pretext kernels scorecard`: what can be said of each kernel without a device, in a page that is committed, and whether
//! anything got worse.
//!
//! The assembler's log and the disassembler give what a kernel is, one run of each workload on the emulated device what it
//! does, and a model of an H100 ([`super::model`]) how long that takes at least.

use super::model::{self, Usage};
use super::profile::{is_not_there, records};
use super::resources::{self, Resources};
use super::sass::{self, CLASSES, Disassembler, Loop};
use super::{all, cuda_device, families};
use crate::cli::KernelsScorecard;
use crate::output::{Output, table};
use engine::cuda::nvrtc::{Code, Compiled};
use engine::cuda::profile::Record;
use engine::cuda::{Kernel, compile};
use engine::files::write_atomically;
use engine::{DType, Error, Result};
use serde_json::json;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What is worse: more of it or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worse {
    More,
    Less,
}

/// The columns of numbers, and which way they get worse.
const METRICS: [(&str, Worse); 12] = [
    ("registers sm_80", Worse::More),
    ("sm_90", Worse::More),
    ("spilled", Worse::More),
    ("shared", Worse::More),
    ("occupancy % sm_80", Worse::Less),
    ("occupancy % sm_90", Worse::Less),
    ("mma % of loop", Worse::Less),
    ("mma:ldmatrix", Worse::Less),
    ("16-byte %", Worse::Less),
    ("conflicts %", Worse::More),
    ("moved/bytes", Worse::More),
    ("us", Worse::More),
];

/// How much worse a number may get before `--check` fails.
const ALLOWED: f64 = 0.03;

/// And how much beyond that: what is rounded away, and the share of bank conflicts that comes and goes with NVRTC, which
/// does not make the same PTX of the same source every time.
fn slack(metric: &str) -> f64 {
    if metric == "conflicts %" { 0.5 } else { 0.005 }
}

/// A kernel in a workload.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    family: String,
    workload: String,
    kernel: String,
    /// A number for each of [`METRICS`]; none where there is nothing to say.
    metrics: [Option<f64>; METRICS.len()],
    bound: String,
    misses: String,
}

/// Runs the command.
pub fn run(args: &KernelsScorecard, output: &Output) -> Result<()> {
    let chosen = families(args.family.as_deref())?;
    let (device, info) = cuda_device(Some("emulated"))?;
    let disassembler = Disassembler::find()?;
    output.say(&format!("on {info}"));
    let (mut code, mut texts) = (HashMap::new(), Texts::new());
    let mut rows: Vec<Row> = Vec::new();
    for family in chosen {
        for workload in (family.workloads)() {
            for dtype in [DType::F32, DType::BF16] {
                let records = match records(&workload, device, dtype, true) {
                    Err(error) if is_not_there(&error) => continue,
                    records => {
                        records.map_err(|e| e.with("workload", workload.label).with("dtype", dtype))?
                    }
                };
                let what = format!("{} {dtype}", workload.label);
                for record in records {
                    let Some((_, kernel)) = all().find(|(_, k)| k.entry == record.launch.kernel) else {
                        continue;
                    };
                    if rows.iter().any(|row| row.workload == what && row.kernel == kernel.entry) {
                        continue;
                    }
                    let facts = match code.entry(kernel.entry) {
                        Entry::Occupied(found) => found.into_mut(),
                        Entry::Vacant(place) => place.insert(facts(kernel, &disassembler, &mut texts)?),
                    };
                    rows.push(row(family.name, &what, &record, facts));
                }
            }
        }
    }
    rows.iter().for_each(|row| output.event(&event(row)));
    match args.check {
        true => compare(args, &rows, output),
        false => write(args, &rows, output),
    }
}

/// What the compiler makes of a kernel for sm_80 and sm_90, and its hottest loop for sm_90.
struct Facts {
    /// For sm_80 none where the kernel needs more.
    resources: (Option<Resources>, Resources),
    hottest: Loop,
}

/// `texts` has the functions of modules that are disassembled already, by the module's address.
fn facts(kernel: &Kernel, disassembler: &Disassembler, texts: &mut Texts) -> Result<Facts> {
    let missing = || {
        Error::value("kernels scorecard", "the compiler does not name the entry").with("entry", kernel.entry)
    };
    let used =
        |compiled: &Compiled| resources::parse(&compiled.log).get(kernel.entry).copied().ok_or_else(missing);
    let before = match kernel.arch_min {
        ..=80 => Some(used(&compile::cached(kernel.module, "sm_80")?)?),
        _ => None,
    };
    let after = compile::cached(kernel.module, "sm_90")?;
    let functions = match texts.entry(std::ptr::from_ref(kernel.module) as usize) {
        Entry::Occupied(found) => found.into_mut(),
        Entry::Vacant(place) => match &after.code {
            Code::Cubin(bytes) => place.insert(disassembler.disassemble(bytes)?),
            Code::Ptx(_) => return Err(missing()),
        },
    };
    let hottest = sass::hottest_loop(functions.get(kernel.entry).ok_or_else(missing)?);
    Ok(Facts { resources: (before, used(&after)?), hottest })
}

/// Functions' machine code by name, of each module by its address.
type Texts = HashMap<usize, BTreeMap<String, String>>;

fn row(family: &str, workload: &str, record: &Record, facts: &Facts) -> Row {
    let kernel_is_specific = facts.resources.0.is_none();
    let launch = &record.launch;
    let counters = record.counters.unwrap_or_default();
    let threads = launch.block.iter().product();
    let (before, after) = facts.resources;
    let shared = launch.shared as u32 + after.shared;
    let usage = |used: Resources| Usage { registers: used.registers, threads, shared };
    let spilled: u32 =
        [before, Some(after)].into_iter().flatten().map(|used| used.spill_stores + used.spill_loads).sum();
    let of = |class: &str| CLASSES.iter().position(|c| *c == class).map_or(0, |at| facts.hottest.counts[at]);
    let quotient = |a: f64, b: f64| (b > 0.0).then(|| a / b);
    let mma = f64::from(of("mma"));
    let prediction = model::predict(&counters, launch.grid.iter().product(), kernel_is_specific);
    let metrics = [
        before.map(|used| f64::from(used.registers)),
        Some(f64::from(after.registers)),
        Some(f64::from(spilled)),
        Some(f64::from(shared)),
        before.map(|used| 100.0 * usage(used).occupancy(model::A100)),
        Some(100.0 * usage(after).occupancy(model::H100)),
        quotient(100.0 * mma, f64::from(of("all"))).filter(|_| mma > 0.0),
        quotient(mma, f64::from(of("ldmatrix"))),
        quotient(100.0 * counters.global_wide_bytes as f64, counters.requested_bytes() as f64),
        quotient(100.0 * counters.bank_conflicts() as f64, counters.shared_waves as f64),
        quotient(counters.unique_bytes() as f64, launch.bytes as f64),
        Some(1e6 * prediction.seconds),
    ]
    .map(|metric| metric.map(rounded));
    let (kernel, bound) = (launch.kernel.to_string(), prediction.resource.to_string());
    let misses = misses(&kernel, launch.bytes, &metrics);
    Row { family: family.into(), workload: workload.into(), kernel, metrics, bound, misses }
}

/// As the page shows it, so that what is compared is what is read.
fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

/// Bytes below which a launch waits rather than moves: how wide its accesses are does not matter.
const FEW_BYTES: u64 = 64 << 10;

/// What is not as a good kernel has it. `bytes`: what the launch moves.
fn misses(kernel: &str, bytes: u64, metrics: &[Option<f64>; METRICS.len()]) -> String {
    let of = |name: &str| METRICS.iter().position(|m| m.0 == name).and_then(|at| metrics[at]);
    let below = |name: &str, limit: f64| of(name).is_some_and(|value| value < limit);
    let above = |name: &str, limit: f64| of(name).is_some_and(|value| value > limit);
    let is_matmul = kernel.starts_with("matmul") || kernel.starts_with("conv2d");
    [
        ("spills", above("spilled", 0.0)),
        ("few mma", below("mma % of loop", 25.0)),
        ("many ldmatrix", is_matmul && below("mma:ldmatrix", 4.0)),
        ("narrow access", bytes >= FEW_BYTES && below("16-byte %", 90.0)),
        ("conflicts", above("conflicts %", 2.0)),
        ("moves too much", above("moved/bytes", 1.05)),
    ]
    .iter()
    .filter(|(_, missed)| *missed)
    .map(|(name, _)| *name)
    .collect::<Vec<_>>()
    .join(", ")
}

fn event(row: &Row) -> serde_json::Value {
    let metrics: serde_json::Map<_, _> =
        METRICS.iter().zip(row.metrics).map(|((name, _), value)| (name.to_string(), json!(value))).collect();
    json!({
        "event": "score", "family": row.family, "workload": row.workload, "kernel": row.kernel, "metrics": metrics,
        "bound": row.bound, "misses": row.misses,
    })
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let number = |value: &Option<f64>| match value {
            None => "-".to_string(),
            Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
        };
        let mut cells = vec![self.workload.clone(), self.kernel.clone()];
        cells.extend(self.metrics.iter().map(number));
        cells.extend([self.bound.clone(), self.misses.clone()]);
        cells
    }

    /// From a line of the page's tables.
    fn parse(family: &str, line: &str) -> Option<Row> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [workload, kernel, numbers @ .., bound, misses] = &cells[..] else { return None };
        let numbers: Vec<Option<f64>> = numbers
            .iter()
            .map(|cell| if *cell == "-" { Some(None) } else { cell.parse().ok().map(Some) })
            .collect::<Option<_>>()?;
        let metrics = numbers.try_into().ok()?;
        let [workload, kernel, bound, misses] =
            [workload, kernel, bound, misses].map(|s| s.trim().to_string());
        Some(Row { family: family.into(), workload, kernel, metrics, bound, misses })
    }
}

/// The rows of a page.
fn parse(text: &str) -> Vec<Row> {
    let mut family = "";
    let mut rows = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("## ") {
            Some(name) => family = name.trim(),
            None => rows.extend(Row::parse(family, line)),
        }
    }
    rows
}

fn read(file: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::io("kernels scorecard", file, e))?;
    Ok(parse(&text))
}

/// What is worse than `before` by more than is allowed, and what is there in one of them alone.
fn regressions(before: &[Row], now: &[Row]) -> Vec<String> {
    let same = |a: &Row, b: &Row| a.workload == b.workload && a.kernel == b.kernel;
    let mut found = Vec::new();
    for row in now {
        let Some(old) = before.iter().find(|old| same(old, row)) else {
            found.push(format!("{}: {} is not in the file", row.workload, row.kernel));
            continue;
        };
        for ((name, worse), (old, new)) in METRICS.iter().zip(old.metrics.iter().zip(row.metrics)) {
            let is_worse = match (old, new) {
                (Some(old), Some(new)) => match worse {
                    Worse::More => new > old * (1.0 + ALLOWED) + slack(name),
                    Worse::Less => new < old * (1.0 - ALLOWED) - slack(name),
                },
                (old, new) => old.is_some() != new.is_some(),
            };
            if is_worse {
                let show = |value: Option<f64>| value.map_or("-".to_string(), |v| v.to_string());
                let (old, new) = (show(*old), show(new));
                found.push(format!("{}: {}: {name} {old} -> {new}", row.workload, row.kernel));
            }
        }
    }
    let gone = before.iter().filter(|old| !now.iter().any(|row| same(old, row)));
    found.extend(gone.map(|old| format!("{}: {} is gone", old.workload, old.kernel)));
    found
}

fn compare(args: &KernelsScorecard, now: &[Row], output: &Output) -> Result<()> {
    let mut before = read(&args.file)?;
    before.retain(|row| args.family.as_ref().is_none_or(|family| row.family == *family));
    let found = regressions(&before, now);
    for text in &found {
        output.event(&json!({"event": "regression", "text": text}));
        output.result(text);
    }
    if found.is_empty() {
        output.result(&format!("{} rows, none worse than in {}", now.len(), args.file.display()));
        return Ok(());
    }
    let text = format!(
        "{} numbers are worse than in {} by more than {:.0} %: if that is meant, write it anew: pretext kernels scorecard",
        found.len(),
        args.file.display(),
        100.0 * ALLOWED
    );
    Err(Error::value("kernels scorecard", text))
}

/// Writes the page. Families that were not asked for stay.
fn write(args: &KernelsScorecard, now: &[Row], output: &Output) -> Result<()> {
    let others = match &args.family {
        Some(family) if args.file.exists() => {
            let mut rows = read(&args.file)?;
            rows.retain(|row| row.family != *family);
            rows
        }
        _ => Vec::new(),
    };
    let mut text = EXPLANATION.to_string();
    for family in families(None)? {
        let rows = others.iter().chain(now).filter(|row| row.family == family.name);
        let lines: Vec<String> = rows.map(|row| format!("| {} |\n", row.cells().join(" | "))).collect();
        if !lines.is_empty() {
            text.push_str(&format!("\n## {}\n\n| {} |\n", family.name, header().join(" | ")));
            text.push_str(&format!("|---|---|{}---|---|\n", "---:|".repeat(METRICS.len())));
            text.extend(lines);
        }
    }
    write_atomically(&args.file, |out| out.write_all(text.as_bytes()))?;
    let lines: Vec<_> = now.iter().map(Row::cells).collect();
    output.result(&table(&header(), &lines));
    output.say(&format!("written to {}", args.file.display()));
    Ok(())
}

fn header() -> Vec<&'static str> {
    let names = METRICS.iter().map(|metric| metric.0);
    ["workload", "kernel"].into_iter().chain(names).chain(["bound by", "misses"]).collect()
}

/// What the page begins with.
const EXPLANATION: &str = include_str!("scorecard.md");

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: &str, us: f64, share: Option<f64>) -> Row {
        let mut metrics = [Some(1.0); METRICS.len()];
        metrics[6] = share;
        metrics[11] = Some(us);
        let [family, kernel, bound] = ["f", "f_add_f32", "memory"].map(String::from);
        Row { family, workload: workload.into(), kernel, metrics, bound, misses: "spills, conflicts".into() }
    }

    #[test]
    fn the_page_says_all_of_it() {
        let rows = [row("add 3x4 f32", 1.25, None), row("add, b transposed", 2.0, Some(33.33))];
        let mut text = format!("{EXPLANATION}\n## f\n\n| {} |\n|---|\n", header().join(" | "));
        rows.iter().for_each(|row| text.push_str(&format!("| {} |\n", row.cells().join(" | "))));
        assert_eq!(parse(&text), rows);
        let without = Row { misses: String::new(), ..rows[0].clone() };
        assert_eq!(Row::parse("f", &format!("| {} |", without.cells().join(" | "))), Some(without));
    }

    #[test]
    fn what_is_worse_is_named_and_what_is_better_is_not() {
        let old = [row("a", 100.0, Some(50.0)), row("b", 1.0, None)];
        assert!(regressions(&old, &old).is_empty());
        let near = [row("a", 102.9, Some(48.6)), row("b", 0.5, None)];
        assert!(regressions(&old, &near).is_empty());
        let worse = [row("a", 103.2, Some(48.4)), row("c", 1.0, None)];
        assert_eq!(
            regressions(&old, &worse),
            [
                "a: f_add_f32: mma % of loop 50 -> 48.4",
                "a: f_add_f32: us 100 -> 103.2",
                "c: f_add_f32 is not in the file",
                "b: f_add_f32 is gone"
            ]
        );
        assert_eq!(regressions(&old, &[row("a", 100.0, None), row("b", 1.0, None)]).len(), 1);
        let conflicts = |share| {
            let mut one = row("a", 100.0, None);
            one.metrics[9] = Some(share);
            [one]
        };
        assert!(regressions(&conflicts(0.0), &conflicts(0.4)).is_empty());
        assert_eq!(regressions(&conflicts(0.0), &conflicts(0.6)), ["a: f_add_f32: conflicts % 0 -> 0.6"]);
    }

    #[test]
    fn what_a_good_kernel_has_is_asked_for() {
        let mut metrics = [Some(100.0); METRICS.len()];
        metrics[2] = Some(0.0);
        metrics[9] = Some(0.0);
        metrics[10] = Some(1.0);
        assert_eq!(misses("matmul_x", 1 << 20, &metrics), "");
        metrics[7] = Some(2.0);
        metrics[10] = Some(1.06);
        assert_eq!(misses("matmul_x", 1 << 20, &metrics), "many ldmatrix, moves too much");
        assert_eq!(misses("attention_x", 1 << 20, &metrics), "moves too much");
        metrics[8] = Some(50.0);
        assert_eq!(misses("attention_x", 64 << 10, &metrics), "narrow access, moves too much");
        assert_eq!(misses("attention_x", (64 << 10) - 1, &metrics), "moves too much");
    }
}
