//! `pretext probe` and `pretext knn`: what an encoder's features are worth, beside the floors.

use super::load_encoder;
use crate::cli;
use crate::evaluate::floors::{self, Probes};
use crate::evaluate::{knn as neighbours, probe as linear};
use crate::output::Output;
use autograd::module;
use engine::Result;
use std::path::Path;

/// `pretext probe`.
pub fn probe(args: &cli::Probe, output: &Output) -> Result<()> {
    let mut settings =
        linear::Settings { epochs: args.epochs, seed: args.seed, ..linear::Settings::default() };
    if let Some(rates) = &args.rates {
        settings.rates = rates.clone();
    }
    let probes = Probes { linear: Some(settings), knn: None };
    table(&args.encoder, &args.data, &args.device, args.seed, &probes, output)
}

/// `pretext knn`.
pub fn knn(args: &cli::Knn, output: &Output) -> Result<()> {
    let settings = neighbours::Settings { k: args.k, temperature: args.temperature, centre: args.centre };
    let probes = Probes { linear: None, knn: Some(settings) };
    table(&args.encoder, &args.data, &args.device, args.seed, &probes, output)
}

fn table(
    encoder: &Path,
    data: &cli::Data,
    device: &str,
    seed: u64,
    probes: &Probes,
    output: &Output,
) -> Result<()> {
    let device = crate::device::choose(device)?;
    let mut trained = load_encoder(encoder)?;
    module::to_device(trained.encoder.as_mut(), device)?;
    let splits = super::open(data, output)?;
    let rows = floors::evaluate(&mut trained, seed, &splits, probes)?;
    floors::show(output, &trained.origin, &data.spec(), &splits, &rows);
    Ok(())
}
