//! `pretext kernels lock`: what the compiler makes of every kernel, in a file that is committed, so that a change shows in
//! the diff.
//!
//! One line a kernel and architecture: `entry arch registers=.. ..: loop all=.. ..`. What stands behind the colon is of the
//! hottest loop (see [`sass::hottest_loop`]) and needs nvdisasm: without it, or with another version than the file's, it
//! is not compared. The part before it is the compiler's, and means something under one NVRTC alone.

use super::families;
use super::resources::{self, Resources};
use super::sass::{self, Disassembler, Loop};
use crate::cli::KernelsLock;
use crate::output::Output;
use engine::cuda::nvrtc::{Code, Nvrtc, testing};
use engine::cuda::{Kernel, Module, compile};
use engine::files::write_atomically;
use engine::{Error, ErrorKind, Result};
use kernels::registry::Family;
use rayon::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

/// The architectures that kernels are compiled for.
const ARCHITECTURES: [u32; 2] = [80, 90];

/// A kernel for an architecture: its name in the file.
type Name = String;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Lock {
    nvrtc: String,
    /// None where there was none.
    nvdisasm: Option<String>,
    lines: BTreeMap<Name, Line>,
}

/// What is known of a kernel: `key=value` words, before the colon and behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    resources: String,
    hottest: Option<String>,
}

/// Runs the command.
pub fn run(args: &KernelsLock, output: &Output) -> Result<()> {
    let families = families(args.family.as_deref())?;
    let release = pinned_release(&args.file)?;
    let disassembler = Disassembler::find();
    if let Err(error) = &disassembler {
        output.say(&format!("instructions are left out: {}", error.message()));
    }
    let now = compiled(&families, release, disassembler.as_ref().ok())?;
    match args.check {
        true => compare(args, &now, output)?,
        false => write(args, &now)?,
    }
    let done = if args.check { "as in" } else { "written to" };
    output.event(&json!({"event": "lock", "lines": now.lines.len(), "file": args.file}));
    output.result(&format!("{} lines {done} {}", now.lines.len(), args.file.display()));
    let spills = |line: &Line| !line.resources.contains("spill_stores=0 spill_loads=0");
    let spilled: Vec<&str> =
        now.lines.iter().filter(|(_, line)| spills(line)).map(|(name, _)| name.as_str()).collect();
    match spilled.is_empty() {
        true => Ok(()),
        false => {
            Err(Error::value("kernels lock", format!("registers are spilled in {}", spilled.join(", "))))
        }
    }
}

/// This machine's NVRTC, which must be the one that the file is of.
fn pinned_release(file: &Path) -> Result<String> {
    let nvrtc = Nvrtc::find()?;
    let (pinned, release) = (testing::VERSION, nvrtc.release()?);
    if release == pinned {
        return Ok(release);
    }
    let text = format!(
        "{} is of NVRTC {pinned}, and this is {release} in {}: pip install nvidia-cuda-nvrtc-cu12=={pinned}, and name \
         its folder: PRETEXT_CUDA_LIB_DIR",
        file.display(),
        nvrtc.path().display()
    );
    Err(Error::new(ErrorKind::Device, "kernels lock", text))
}

/// Whether a line is of a family that was not asked for: every entry begins with its family's name.
fn is_of_others(args: &KernelsLock, name: &str) -> bool {
    args.family.as_ref().is_some_and(|family| !name.starts_with(&format!("{family}_")))
}

fn read(file: &Path) -> Result<Lock> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::io("kernels lock", file, e))?;
    Lock::parse(&text, file)
}

/// Prints what differs from the file; an error if anything does.
fn compare(args: &KernelsLock, now: &Lock, output: &Output) -> Result<()> {
    let mut before = read(&args.file)?;
    before.lines.retain(|name, _| !is_of_others(args, name));
    if before.nvdisasm != now.nvdisasm && now.nvdisasm.is_some() {
        let other = before.nvdisasm.as_deref().unwrap_or("none");
        output.say(&format!("instructions are not compared: the file is of nvdisasm {other}"));
    }
    let differences = before.differences(now);
    for (name, text) in &differences {
        output.event(&json!({"event": "difference", "kernel": name, "text": text}));
        output.result(&format!("{name}: {text}"));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} of {} lines differ from {}: if that is meant, write it anew: pretext kernels lock",
        differences.len(),
        now.lines.len(),
        args.file.display()
    );
    Err(Error::value("kernels lock", text))
}

/// Writes the file. Lines of families that were not asked for stay.
fn write(args: &KernelsLock, now: &Lock) -> Result<()> {
    let mut all = now.clone();
    if args.family.is_some() && args.file.exists() {
        let before = read(&args.file)?;
        if before.nvdisasm != now.nvdisasm {
            let other = before.nvdisasm.as_deref().unwrap_or("none");
            let text = format!("the file is of nvdisasm {other}: write all families anew");
            return Err(Error::new(ErrorKind::Device, "kernels lock", text));
        }
        all.lines.extend(before.lines.into_iter().filter(|(name, _)| is_of_others(args, name)));
    }
    write_atomically(&args.file, |out| out.write_all(all.text().as_bytes()))
}

/// Compiles every kernel of the families for every architecture that it runs on.
fn compiled(
    families: &[&'static Family],
    nvrtc: String,
    disassembler: Option<&Disassembler>,
) -> Result<Lock> {
    let mut modules: Vec<(&'static Module, u32, Vec<&'static Kernel>)> = Vec::new();
    for kernel in families.iter().flat_map(|family| family.kernels()) {
        for arch in ARCHITECTURES.into_iter().filter(|&arch| arch >= kernel.arch_min) {
            let same = |m: &&mut (&Module, u32, _)| std::ptr::eq(m.0, kernel.module) && m.1 == arch;
            match modules.iter_mut().find(same) {
                Some((_, _, kernels)) => kernels.push(kernel),
                None => modules.push((kernel.module, arch, vec![kernel])),
            }
        }
    }
    let mut uses: HashMap<&str, usize> = HashMap::new();
    super::all().for_each(|(_, kernel)| *uses.entry(kernel.entry).or_default() += 1);
    let name = |kernel: &Kernel, arch: u32| match uses.get(kernel.entry) {
        Some(1) | None => format!("{} sm_{arch}", kernel.entry),
        _ => format!("{}[{}] sm_{arch}", kernel.entry, kernel.module.defines.join(",")),
    };
    let of_module = |(module, arch, kernels): &(&'static Module, u32, Vec<&'static Kernel>)| -> Result<_> {
        let compiled = compile::cached(module, &format!("sm_{arch}"))?;
        let used = resources::parse(&compiled.log);
        let code = match (&compiled.code, disassembler) {
            (Code::Cubin(bytes), Some(found)) => found.disassemble(bytes)?,
            _ => BTreeMap::new(),
        };
        kernels
            .iter()
            .map(|kernel| {
                let missing = || Error::value("kernels lock", "the compiler's log does not name the entry");
                let used = used.get(kernel.entry).ok_or_else(|| missing().with("entry", kernel.entry))?;
                let hottest = code.get(kernel.entry).map(|text| sass::hottest_loop(text));
                Ok((name(kernel, *arch), Line::new(used, hottest.as_ref())))
            })
            .collect::<Result<Vec<_>>>()
    };
    let lines: Vec<Vec<(Name, Line)>> = modules.par_iter().map(of_module).collect::<Result<_>>()?;
    let nvdisasm = disassembler.map(|found| found.version.clone());
    Ok(Lock { nvrtc, nvdisasm, lines: lines.into_iter().flatten().collect() })
}

impl Line {
    fn new(used: &Resources, hottest: Option<&Loop>) -> Line {
        let Resources { registers, spill_stores, spill_loads, stack, shared, constant } = used;
        let mut resources = format!(
            "registers={registers} spill_stores={spill_stores} spill_loads={spill_loads} stack={stack} \
             shared={shared}"
        );
        if let Some(constant) = constant {
            let _ = write!(resources, " constant={constant}");
        }
        let hottest = hottest.map(|hottest| {
            let mut text = String::from(if hottest.is_loop { "loop" } else { "whole" });
            for (class, count) in sass::CLASSES.iter().zip(hottest.counts).filter(|(_, count)| *count > 0) {
                let _ = write!(text, " {class}={count}");
            }
            text
        });
        Line { resources, hottest }
    }
}

/// What the file says of itself.
const HEAD: &str = "\
# What the compiler makes of every CUDA kernel, so that a change shows: pretext kernels lock [--check].
# A line: entry, architecture, registers a thread, bytes spilled and read back, bytes of stack, of static shared memory and
# of constant memory (where the assembler says it); behind the colon the instructions of the hottest loop, or of the whole kernel where it has no loop.
";

impl Lock {
    fn text(&self) -> String {
        let mut text = format!("{HEAD}nvrtc {}\n", self.nvrtc);
        let _ = writeln!(text, "nvdisasm {}", self.nvdisasm.as_deref().unwrap_or("none"));
        for (name, line) in &self.lines {
            let _ = match &line.hottest {
                Some(hottest) => writeln!(text, "{name} {}: {hottest}", line.resources),
                None => writeln!(text, "{name} {}", line.resources),
            };
        }
        text
    }

    fn parse(text: &str, file: &Path) -> Result<Lock> {
        let mut lock = Lock::default();
        for (number, line) in text.lines().enumerate() {
            let wrong =
                |what: &str| Error::format("kernels lock", file, format!("line {}: {what}", number + 1));
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if let Some(version) = line.strip_prefix("nvrtc ") {
                lock.nvrtc = version.to_string();
            } else if let Some(version) = line.strip_prefix("nvdisasm ") {
                lock.nvdisasm = Some(version.to_string()).filter(|version| version != "none");
            } else {
                let at = line
                    .find(" registers=")
                    .ok_or_else(|| wrong("an entry, an architecture, registers=.."))?;
                let (resources, hottest) = match line[at + 1..].split_once(": ") {
                    Some((resources, hottest)) => (resources, Some(hottest.to_string())),
                    None => (&line[at + 1..], None),
                };
                let parsed = Line { resources: resources.to_string(), hottest };
                if lock.lines.insert(line[..at].to_string(), parsed).is_some() {
                    return Err(wrong("the kernel is here twice"));
                }
            }
        }
        if lock.nvrtc != testing::VERSION {
            let text =
                format!("it is of NVRTC '{}', and kernels are locked under {}", lock.nvrtc, testing::VERSION);
            return Err(Error::format("kernels lock", file, text));
        }
        Ok(lock)
    }

    /// Each kernel that is not in `now` what it is here, and how.
    fn differences(&self, now: &Lock) -> Vec<(Name, String)> {
        let mut all = Vec::new();
        let comparable = self.nvdisasm == now.nvdisasm;
        for (name, new) in &now.lines {
            match self.lines.get(name) {
                None => all.push((name.clone(), format!("new: {}", new.resources))),
                Some(old) => {
                    let mut words = changes(&old.resources, &new.resources);
                    if let (Some(old), Some(new), true) = (&old.hottest, &new.hottest, comparable) {
                        words.extend(changes(old, new));
                    }
                    if !words.is_empty() {
                        all.push((name.clone(), words.join(", ")));
                    }
                }
            }
        }
        let gone = self.lines.keys().filter(|name| !now.lines.contains_key(*name));
        all.extend(gone.map(|name| (name.clone(), "gone".to_string())));
        all
    }
}

/// `registers 40 -> 48` for each word that differs.
fn changes(old: &str, new: &str) -> Vec<String> {
    let words = |text: &str| -> BTreeMap<String, String> {
        text.split_whitespace()
            .map(|word| word.split_once('=').unwrap_or(("code", word)))
            .map(|(k, v)| (k.into(), v.into()))
            .collect()
    };
    let (old, new) = (words(old), words(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let of =
        |words: &BTreeMap<String, String>, key: &str| words.get(key).map_or("0", String::as_str).to_string();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key} {} -> {}", of(&old, key), of(&new, key)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(lines: &[(&str, &str, Option<&str>)]) -> Lock {
        let line = |(name, resources, hottest): &(&str, &str, Option<&str>)| {
            (name.to_string(), Line { resources: resources.to_string(), hottest: hottest.map(String::from) })
        };
        Lock {
            nvrtc: testing::VERSION.into(),
            nvdisasm: Some("13.5.37".into()),
            lines: lines.iter().map(line).collect(),
        }
    }

    #[test]
    fn the_text_says_all_of_it() {
        let all = lock(&[
            ("a_f32 sm_80", "registers=8 stack=0", Some("loop all=3")),
            ("b[X,Y=2] sm_90", "registers=9", None),
        ]);
        assert_eq!(Lock::parse(&all.text(), Path::new("f")).unwrap(), all);
        let none = Lock { nvdisasm: None, ..all };
        assert_eq!(Lock::parse(&none.text(), Path::new("f")).unwrap(), none);
    }

    #[test]
    fn every_difference_is_named() {
        let old = lock(&[
            ("a sm_80", "registers=8 spill_stores=0", Some("loop all=3 mma=1")),
            ("b sm_80", "registers=9", None),
            ("c sm_80", "registers=1", Some("whole all=5")),
        ]);
        let new = lock(&[
            ("a sm_80", "registers=10 spill_stores=4", Some("loop all=3")),
            ("c sm_80", "registers=1", Some("loop all=5")),
            ("d sm_80", "registers=2", None),
        ]);
        let said: Vec<String> =
            old.differences(&new).into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
        assert_eq!(
            said,
            [
                "a sm_80: registers 8 -> 10, spill_stores 0 -> 4, mma 1 -> 0",
                "c sm_80: code whole -> loop",
                "d sm_80: new: registers=2",
                "b sm_80: gone",
            ]
        );
        let without = Lock { nvdisasm: None, ..new };
        let said = old.differences(&without);
        assert_eq!(said.iter().map(|d| d.0.as_str()).collect::<Vec<_>>(), ["a sm_80", "d sm_80", "b sm_80"]);
        assert!(!said[0].1.contains("mma"), "instructions of another disassembler are not compared");
        assert!(old.differences(&old).is_empty());
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let said = |text: &str| Lock::parse(text, Path::new("kernels.lock")).unwrap_err().to_string();
        let head = format!("nvrtc {}\n", testing::VERSION);
        assert!(said(&format!("{head}nonsense\n")).contains("line 2"));
        assert!(said(&format!("{head}a sm_80 registers=1\na sm_80 registers=1\n")).contains("twice"));
        assert!(said("nvrtc 11.0.1\n").contains("11.0.1"));
    }
}
