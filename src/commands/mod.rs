//! The commands, one file each.

pub mod classical;
pub mod compare;
pub mod doctor;
pub mod embed;
pub mod emulate;
pub mod evaluate;
pub mod finetune;
pub mod kernels;
pub mod list;
pub mod pretrain;
pub mod report;
pub mod retrieve;

use crate::cli::{self, Cli, Command};
use crate::config::Config;
use crate::evaluate::features::{self, Trained};
use crate::output::Output;
use crate::train::{self, checkpoint, run::RunFolder};
use data::Splits;
use engine::{Error, ErrorKind, Result};
use std::path::Path;

/// Runs what the command line asks for.
pub fn run(cli: &Cli) -> Result<()> {
    let output = Output { json: cli.json };
    if let Some(threads) = cli.threads {
        if threads == 0 {
            return Err(Error::new(ErrorKind::Usage, "--threads", "must be at least 1"));
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|e| {
            Error::new(ErrorKind::Usage, "--threads", format!("cannot start {threads} threads: {e}"))
        })?;
    }
    match &cli.command {
        Command::Pretrain(args) => pretrain::run(args, &output),
        Command::Probe(args) => evaluate::probe(args, &output),
        Command::Knn(args) => evaluate::knn(args, &output),
        Command::Retrieve(args) => retrieve::run(args, &output),
        Command::Finetune(args) => finetune::run(args, &output),
        Command::Compare(args) => compare::run(args, &output),
        Command::Embed(args) => embed::run(args, &output),
        Command::Classical(args) => classical::run(args, &output),
        Command::Report(args) => report::run(args, &output),
        Command::Methods => list::methods(&output),
        Command::Archs => list::archs(&output),
        Command::Datasets => list::datasets(&output),
        Command::Kernels(command) => kernels::run(command, &output),
        Command::Emulate(args) => emulate::run(args),
        Command::Doctor(args) => doctor::run(args, &output),
    }
}

/// The images that the command line names. What a user should know of them is said.
fn open(data: &cli::Data, output: &Output) -> Result<Splits> {
    let splits = data::open(&data.spec(), data.data_dir.as_deref())?;
    splits.notes.iter().for_each(|note| output.say(note));
    Ok(splits)
}

/// The encoder of a run's folder (its last state, finished or not) or of an encoder's file.
pub(crate) fn load_encoder(path: &Path) -> Result<Trained> {
    if !path.is_dir() {
        return features::load(path);
    }
    let folder = RunFolder::at(path);
    if folder.encoder_path().exists() {
        return features::load(&folder.encoder_path());
    }
    if !folder.checkpoint_path().exists() {
        return Err(Error::new(
            ErrorKind::Io,
            "load encoder",
            format!(
                "{} holds neither encoder.safetensors nor checkpoint.safetensors: name a run's folder or an \
                 encoder's file",
                path.display()
            ),
        ));
    }
    let config: Config = crate::config::read(&folder.config_path())?;
    if config.method == crate::finetune::NAME {
        let text =
            format!("{} is not finished: go on with it (pretext finetune .. --resume)", path.display());
        return Err(Error::new(ErrorKind::Usage, "load encoder", text));
    }
    let splits = data::open(&config.data, config.data_dir.as_deref())?;
    let profile = train::profile(splits.train.as_ref())?;
    let mut objective = train::build(&config, &profile)?;
    checkpoint::load_networks(&folder.checkpoint_path(), objective.as_mut())?;
    features::restore(&pretrain::encoder(&config, &profile, objective.as_mut())?, &folder.checkpoint_path())
}
