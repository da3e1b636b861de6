//! The command line: what can be said, and where it goes.

mod evaluate;

pub use evaluate::{Classical, Compare, Evaluated, Knn, Probe, Retrieve};

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Self-supervised vision from scratch: pre-train an encoder on unlabelled images, keep it, use it.
#[derive(Debug, Parser)]
#[command(name = "pretext", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print one JSON object a line on stdout; messages go to stderr.
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads for computation (default: all cores). Results do not depend on it.
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pre-train an encoder on images, without looking at labels.
    Pretrain(Pretrain),
    /// Train one linear layer on an encoder's frozen features and test it.
    Probe(Probe),
    /// Classify by an encoder's nearest neighbours.
    Knn(Knn),
    /// Show the training images whose features are nearest to those of test images.
    Retrieve(Retrieve),
    /// Train an encoder further with labels, beside the same architecture from scratch, and test both.
    Finetune(Finetune),
    /// Say which method suits some data: train each for the same time, evaluate all, recommend one.
    Compare(Compare),
    /// Write an encoder's features to a file.
    Embed(Embed),
    /// What principal components and k-means on pixels are worth: learning without labels and without a network.
    Classical(Classical),
    /// Write one self-contained HTML page about runs: curves, accuracies with floors, maps, neighbours, pictures.
    Report(Report),
    /// The methods there are.
    Methods,
    /// The architectures there are.
    Archs,
    /// The datasets there are, and which are found here.
    Datasets,
    /// The CUDA kernels: what there is, how it compiles, whether it is right, what it costs.
    #[command(subcommand)]
    Kernels(Kernels),
    /// Run any program that uses the CUDA driver on the emulated device, which checks its kernels.
    Emulate(Emulate),
    /// What this machine has: processor, devices, CUDA, datasets.
    Doctor(Doctor),
}

/// Where images come from.
#[derive(Debug, Args)]
pub struct Data {
    /// The dataset: sample, sample-color, fashion-mnist, mnist:DIR, folder:DIR (see `pretext datasets`).
    #[arg(long = "data", value_name = "SPEC")]
    spec: String,
    /// The dataset's folder, if it is not where it is usually installed.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// folder:DIR: the shorter side of every image becomes N pixels, of which the centre N x N stay.
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// folder:DIR: take N random windows of each photo, of --size pixels (64 unless given), for few large photos.
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// folder:DIR: leave out files that cannot be decoded, and count them.
    #[arg(long)]
    skip_corrupt: bool,
}

impl Data {
    /// The whole specification, options included: what a run's `config.toml` keeps.
    pub fn spec(&self) -> String {
        let mut spec = self.spec.clone();
        let mut add = |option: &str, value: Option<usize>| {
            spec.extend(value.map(|value| format!(" --{option} {value}")));
        };
        add("size", self.size);
        add("windows", self.windows);
        if self.skip_corrupt {
            spec.push_str(" --skip-corrupt");
        }
        spec
    }
}

/// Arguments of `pretrain`.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// The method (see `pretext methods`).
    pub method: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: Data,
    /// The encoder's architecture (see `pretext archs`).
    #[arg(long)]
    pub arch: Option<String>,
    /// Passes over the images.
    #[arg(long, conflicts_with = "steps")]
    pub epochs: Option<i64>,
    /// Optimiser steps, instead of epochs.
    #[arg(long)]
    pub steps: Option<i64>,
    /// Images a step.
    #[arg(long)]
    pub batch: Option<i64>,
    /// Seed of everything random.
    #[arg(long)]
    pub seed: Option<i64>,
    /// Where to compute: cpu, cuda, cuda:N, emulated (a checked GPU in software, for a few small steps).
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Capture the training step as a CUDA graph and replay it: the same bits, less work for the host.
    #[arg(long)]
    pub graph: bool,
    /// Show at the end what each kernel cost: times on hardware, counted bytes on the emulated device.
    #[arg(long, conflicts_with = "graph")]
    pub profile: bool,
    /// Write a Chrome trace of all launches to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "graph")]
    pub trace: Option<PathBuf>,
    /// The run's folder (default: runs/METHOD-DATA).
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in --out.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, such as training.learning_rate=0.3 or settings.temperature=0.2.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Threads that prepare images ahead.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Stop and save after this step of the run, as Ctrl-C would; --resume goes on.
    #[arg(long, value_name = "STEP")]
    pub stop_after: Option<u64>,
    /// Leave out the table of accuracies at the end.
    #[arg(long)]
    pub no_table: bool,
    /// Go on where more than 1 % of the test images are training images too.
    #[arg(long)]
    pub allow_duplicates: bool,
}

/// Arguments of `finetune`.
#[derive(Debug, Args)]
pub struct Finetune {
    /// A run's folder, or an encoder's file.
    pub encoder: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: Data,
    /// The training labels that are used: all, a part of each class such as 1%, or so many of each such as 10/class
    /// (default: all).
    #[arg(long, value_name = "all|P%|N/class")]
    pub labels: Option<String>,
    /// Runs of each encoder, whose mean and deviation are shown (default: 1 with all labels, else 3).
    #[arg(long)]
    pub seeds: Option<i64>,
    /// Passes over the labelled images.
    #[arg(long, conflicts_with = "steps")]
    pub epochs: Option<i64>,
    /// Optimiser steps, instead of epochs.
    #[arg(long)]
    pub steps: Option<i64>,
    /// Images a step.
    #[arg(long)]
    pub batch: Option<i64>,
    /// The first seed: of the labelled images that are chosen, and of everything random.
    #[arg(long)]
    pub seed: Option<i64>,
    /// Where to compute: cpu, cuda, cuda:N, emulated.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Capture the training step as a CUDA graph and replay it: the same bits, less work for the host.
    #[arg(long)]
    pub graph: bool,
    /// The folder of all runs (default: runs/finetune-DATA).
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the runs in --out.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, such as training.learning_rate=0.001, scratch.warmup_epochs=5 or settings.mixup=0.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Threads that prepare images ahead.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Stop and save after this step of a run, as Ctrl-C would; --resume goes on.
    #[arg(long, value_name = "STEP")]
    pub stop_after: Option<u64>,
    /// Go on where more than 1 % of the test images are training images too.
    #[arg(long)]
    pub allow_duplicates: bool,
}

/// Arguments of `embed`.
#[derive(Debug, Args)]
pub struct Embed {
    /// A run's folder, or an encoder's file.
    pub encoder: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: Data,
    /// Where to compute features: cpu, cuda, cuda:N, emulated.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Also write the features behind each of the last N blocks, for the probes that look at several.
    #[arg(long, value_name = "N")]
    pub blocks: Option<usize>,
    /// The file to write: tensors train, test and, where there are labels, train_labels, test_labels.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Folders of pre-training runs, finished or not; several are shown side by side.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The file to write (default: RUN/report.html, or report.html for several runs).
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where to compute features: cpu, cuda, cuda:N, emulated.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Images on a map at most; 0 leaves the maps out.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub points: u16,
    /// Leave out accuracies that the runs have not recorded, instead of computing them.
    #[arg(long)]
    pub no_table: bool,
}

/// What `kernels` can do.
#[derive(Debug, Subcommand)]
pub enum Kernels {
    /// Every kernel: family, entry, defines, file.
    List,
    /// A kernel's source, PTX and machine code (which needs nvdisasm).
    Show(KernelsShow),
    /// Run every case of the families on a device and compare with the references.
    Check(KernelsCheck),
    /// Write what the compiler says of every kernel (registers, spills, shared memory, instructions) to kernels.lock.
    Lock(KernelsLock),
    /// Run typical sizes and show what each launch cost beside what it must cost.
    Profile(KernelsProfile),
    /// Record what single instructions give on a device, or compare this one with a recording.
    Record(KernelsRecord),
    /// Write what can be said of every kernel without a GPU (registers, hottest loop, counters, a model's time) to a page,
    /// or compare with it.
    Scorecard(KernelsScorecard),
}

/// Arguments of `kernels show`.
#[derive(Debug, Args)]
pub struct KernelsShow {
    /// The kernel's entry (see `pretext kernels list`).
    pub entry: String,
    /// The architecture of PTX and machine code, without its dot.
    #[arg(long, default_value = "90")]
    pub arch: String,
    /// Show one part alone.
    #[arg(long, value_parser = ["source", "ptx", "resources", "sass"])]
    pub part: Option<String>,
}

/// Arguments of `kernels check`.
#[derive(Debug, Args)]
pub struct KernelsCheck {
    /// The family (default: all).
    pub family: Option<String>,
    /// Where to run: cuda, cuda:N or emulated (default: a GPU where there is one, else emulated).
    #[arg(long)]
    pub device: Option<String>,
}

/// Arguments of `kernels lock`.
#[derive(Debug, Args)]
pub struct KernelsLock {
    /// The family (default: all). Lines of others stay as they are.
    pub family: Option<String>,
    /// Compare with the file instead of writing it; fail if anything differs.
    #[arg(long)]
    pub check: bool,
    /// The file.
    #[arg(long, default_value = "kernels.lock")]
    pub file: PathBuf,
}

/// Arguments of `kernels record`.
#[derive(Debug, Args)]
pub struct KernelsRecord {
    /// Where to run: cuda, cuda:N or emulated (default: a GPU where there is one, else emulated).
    #[arg(long)]
    pub device: Option<String>,
    /// The file to write.
    #[arg(long, default_value = "instructions.safetensors", conflicts_with = "replay")]
    pub out: PathBuf,
    /// Run what this file holds instead, and fail where results are not as recorded.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
}

/// Arguments of `kernels profile`.
#[derive(Debug, Args)]
pub struct KernelsProfile {
    /// A family, or the beginning of an entry's name (default: all).
    pub name: Option<String>,
    /// Where to run: cuda, cuda:N for times, or emulated for counters.
    #[arg(long, default_value = "emulated")]
    pub device: String,
    /// Write the table as Markdown to this file, too.
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
}

/// Arguments of `kernels scorecard`.
#[derive(Debug, Args)]
pub struct KernelsScorecard {
    /// The family (default: all). Rows of others stay as they are.
    pub family: Option<String>,
    /// Compare with the file instead of writing it; fail if a number is worse by more than 3 %.
    #[arg(long)]
    pub check: bool,
    /// The file.
    #[arg(long, default_value = "docs/scorecard.md")]
    pub file: PathBuf,
}

/// Arguments of `emulate`. What is not given, the device decides.
#[derive(Debug, Args)]
pub struct Emulate {
    /// Seed of the order in which blocks and warps run.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Run each launch under one order of its threads, or under all orders that are tried, and compare.
    #[arg(long, value_parser = ["one", "all"])]
    pub schedules: Option<String>,
    /// When asynchronous copies land: when they are issued, or at the last moment that is allowed.
    #[arg(long, value_parser = ["early", "late"])]
    pub copies: Option<String>,
    /// Check bounds, initialisation, races and barriers.
    #[arg(long, value_parser = ["on", "off"])]
    pub checks: Option<String>,
    /// When a stream's work is done: when somebody waits for it, or at once.
    #[arg(long, value_parser = ["lazy", "eager"])]
    pub streams: Option<String>,
    /// The compute capability that the device has, without its dot.
    #[arg(long, value_parser = ["80", "90"])]
    pub arch: Option<String>,
    /// The device's memory.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// How tensor cores round.
    #[arg(long, value_parser = ["hopper", "ampere", "float32"])]
    pub mma: Option<String>,
    /// Threads that run blocks.
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The CUDA driver to look at: the machine's, or the emulated one.
    #[arg(long, value_parser = ["cuda", "emulated"], default_value = "cuda")]
    pub device: String,
}
