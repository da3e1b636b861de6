//! `pretext pretrain`: resolve the configuration, train, show what the features are worth.

use crate::cli::Pretrain;
use crate::config::{self, Config, Overrides};
use crate::evaluate::features;
use crate::evaluate::floors::{self, Title};
use crate::evaluate::leak::{self, Duplicates};
use crate::output::Output;
use crate::report::results::{self, Results};
use crate::train::run::RunFolder;
use crate::train::{self, Ended, Machine, Task};
use autograd::module;
use engine::cuda::{self, profile, profile::report};
use engine::files::write_atomically;
use engine::safetensors::{self, Contents};
use engine::{Device, Error, ErrorKind, Result};
use objectives::{DataProfile, Objective};
use serde_json::json;
use std::path::PathBuf;
use toml::Value;

/// Runs the command.
pub fn run(args: &Pretrain, output: &Output) -> Result<()> {
    let device = crate::device::choose(&args.device)?;
    let method = objectives::find(&args.method)?;
    let splits = super::open(&args.data, output)?;
    let shows_table = !args.no_table && splits.train.label(0).is_some() && !splits.test.is_empty();
    if shows_table {
        leak::check(&splits, Duplicates::allowed(args.allow_duplicates), output)?;
    }
    let profile = train::profile(splits.train.as_ref())?;
    let mut base = config::defaults(method, &args.data.spec(), &profile)?;
    base.data_dir = args.data.data_dir.clone();
    let overrides = overrides(args);
    let (config, folder) = match &args.out {
        Some(out) if args.resume => {
            let folder = RunFolder::at(out);
            let stored: Config = config::read(&folder.config_path())?;
            let mut wanted = config::apply(&stored, &overrides)?;
            wanted.method = base.method.clone();
            wanted.data = base.data.clone();
            if base.data_dir.is_some() {
                wanted.data_dir = base.data_dir.clone();
            }
            let differences = config::differences(&stored, &wanted);
            if !differences.is_empty() {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "--resume",
                    format!(
                        "{} was started otherwise: {}. Leave these out, or start a new run with another --out",
                        out.display(),
                        differences.join("; ")
                    ),
                ));
            }
            (stored, folder)
        }
        _ => {
            let config = config::apply(&base, &overrides)?;
            train::build(&config, &profile)?;
            config.training.check()?;
            let name: String =
                args.data.spec().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
            let out = args.out.clone().unwrap_or_else(|| {
                RunFolder::unused(&PathBuf::from("runs").join(format!("{}-{name}", method.name)))
            });
            let folder = RunFolder::create(&out, &config)?;
            (config, folder)
        }
    };
    output.say(&format!(
        "{} on {} ({} images), {}, batch {}, in {}",
        config.method,
        config.data,
        splits.train.len(),
        config.arch.name,
        config.training.batch,
        folder.path().display()
    ));
    let machine = Machine { device, workers: args.workers, graph: args.graph, stop_after: args.stop_after };
    let recording = (args.profile || args.trace.is_some()).then(profile::start).transpose()?;
    let mut objective = train::build(&config, &profile)?;
    let task =
        Task { config: &config, folder: &folder, train: &splits.train, labelled: false, resume: args.resume };
    let (ended, _) = train::cost::run(objective.as_mut(), &task, machine, output)?;
    if recording.is_some() {
        show_profile(args, device, output)?;
    }
    if let Ended::Stopped(step) = ended {
        let path = folder.path().display();
        return Err(Error::new(
            ErrorKind::Interrupted,
            "pretrain",
            format!(
                "stopped after step {step}; everything is saved. To go on: pretext pretrain {} --data {} \
                 --out {path} --resume",
                config.method, config.data
            ),
        ));
    }
    safetensors::save(&folder.encoder_path(), &encoder(&config, &profile, objective.as_mut())?)?;
    drop(objective);
    engine::memory::trim();
    output.event(&json!({"event": "encoder", "path": folder.encoder_path()}));
    output.say(&format!("encoder: {}", folder.encoder_path().display()));
    if !shows_table {
        return Ok(());
    }
    let mut trained = features::load(&folder.encoder_path())?;
    module::to_device(trained.encoder.as_mut(), device)?;
    let (found, rows) = Results::evaluate(&mut trained, config.seed, &config.data, &splits)?;
    found.write(&folder)?;
    let images = [splits.train.len(), splits.test.len()];
    let title = Title { method: &config.method, data: &config.data, images };
    floors::show(output, &title, &results::probes(), &rows);
    Ok(())
}

/// What the recorded launches cost: a table, a trace.
fn show_profile(args: &Pretrain, device: Device, output: &Output) -> Result<()> {
    let records = profile::stop()?;
    if let Some(path) = &args.trace {
        write_atomically(path, |mut out| report::chrome_trace(&records, &mut out))?;
        output.say(&format!("trace of {} launches: {}", records.len(), path.display()));
    }
    match device {
        Device::Cuda(ordinal) if args.profile => {
            output.result(&report::table(&records, cuda::context(ordinal)?.info()));
        }
        Device::Cuda(_) => {}
        Device::Cpu => output.say("no kernel was launched: the CPU trained"),
    }
    Ok(())
}

fn overrides(args: &Pretrain) -> Overrides {
    let mut flags = Vec::new();
    let mut integer = |key, value: Option<i64>| flags.extend(value.map(|v| (key, Value::Integer(v))));
    integer("training.epochs", args.epochs);
    integer("steps", args.steps);
    integer("training.batch", args.batch);
    integer("seed", args.seed);
    flags.extend(args.arch.clone().map(|name| ("arch.name", Value::String(name))));
    Overrides { file: args.config.clone(), set: args.set.clone(), flags }
}

/// What `encoder.safetensors` of a run holds.
pub fn encoder(config: &Config, data: &DataProfile, objective: &mut dyn Objective) -> Result<Contents> {
    let input = features::evaluation_recipe(objective, data);
    let lightness = features::lightness(objective);
    features::contents(objective.encoder(), &input, lightness, &config.method)
}
