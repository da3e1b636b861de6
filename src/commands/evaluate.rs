//! `pretext probe` and `pretext knn`: what features are worth, of an encoder beside the floors, or of a file.

use super::load_encoder;
use crate::cli;
use crate::evaluate::features::Layer;
use crate::evaluate::floors::{self, Probes, Title};
use crate::evaluate::leak::{self, Duplicates};
use crate::evaluate::{file, knn as neighbours, probe as linear};
use crate::output::Output;
use autograd::module;
use engine::safetensors::Contents;
use engine::{Error, ErrorKind, Result};
use serde_json::json;
use std::path::Path;

/// `pretext probe`.
pub fn probe(args: &cli::Probe, output: &Output) -> Result<()> {
    let settings = linear::Settings {
        protocol: args.protocol,
        rates: args.rates.clone(),
        epochs: args.epochs,
        seed: args.seed,
    };
    run(&args.of, args.seed, Probes { linear: Some(settings), ..Probes::default() }, output)
}

/// `pretext knn`.
pub fn knn(args: &cli::Knn, output: &Output) -> Result<()> {
    let settings = neighbours::Settings { k: args.k, temperature: args.temperature, centre: args.centre };
    run(&args.of, args.seed, Probes { knn: Some(settings), ..Probes::default() }, output)
}

fn run(of: &cli::Evaluated, seed: u64, probes: Probes, output: &Output) -> Result<()> {
    match file::open(&of.encoder)? {
        Some(contents) => of_features(of, &contents, &probes, output),
        None => of_encoder(of, seed, probes, output),
    }
}

/// The images that an encoder is evaluated on; a usage error where the command line names none.
pub(super) fn data(of: &cli::Evaluated) -> Result<&cli::Data> {
    of.data.as_ref().ok_or_else(|| {
        let text = format!("{} is an encoder: name the images with --data SPEC", of.encoder.display());
        Error::new(ErrorKind::Usage, "evaluate", text)
    })
}

fn of_features(of: &cli::Evaluated, contents: &Contents, probes: &Probes, output: &Output) -> Result<()> {
    if of.data.is_some() || of.layer.is_some() {
        let text = format!("{} holds features: leave out --data and --layer", of.encoder.display());
        return Err(Error::new(ErrorKind::Usage, "evaluate", text));
    }
    let found = file::read(contents, Path::new(&of.encoder), Duplicates::allowed(of.allow_duplicates))?;
    let row = floors::of_file(&found, probes)?;
    let images = [found.train.len(), found.test.len()];
    floors::show(output, &Title { method: &found.origin, data: &found.data, images }, probes, &[row]);
    output.say("floors (the encoder at random, raw pixels) need the encoder: give a run and --data");
    Ok(())
}

fn of_encoder(of: &cli::Evaluated, seed: u64, mut probes: Probes, output: &Output) -> Result<()> {
    let data = data(of)?;
    let device = crate::device::choose(&of.device)?;
    let mut trained = load_encoder(&of.encoder)?;
    module::to_device(trained.encoder.as_mut(), device)?;
    let splits = super::open(data, output)?;
    leak::check(&splits, Duplicates::allowed(of.allow_duplicates), output)?;
    let trunk = trained.encoder.as_mut();
    probes.block = match of.layer {
        None => None,
        Some(Layer::Block(block)) => {
            trunk.require_block(block)?;
            Some(block)
        }
        Some(Layer::Best) => {
            if let Some(settings) = &probes.linear {
                settings.protocol.source(trunk, Some(1))?;
            }
            let (best, reached) = floors::best_block(&mut trained, seed, &splits, &probes)?;
            let cells: Vec<String> = reached.iter().map(|top1| format!("{top1:.2}")).collect();
            output.say(&format!(
                "layers 1 to {} on a held-out tenth of the training images: {} percent; layer {best} is shown",
                reached.len(),
                cells.join(", ")
            ));
            output.event(&json!({"event": "layers", "held_out": reached, "best": best}));
            Some(best)
        }
    };
    let rows = floors::evaluate(&mut trained, seed, &splits, &probes)?;
    let images = [splits.train.len(), splits.test.len()];
    floors::show(output, &Title { method: &trained.origin, data: &data.spec(), images }, &probes, &rows);
    Ok(())
}
