//! `pretext probe` and `pretext knn`: what an encoder's features are worth, beside the floors.

use super::load_encoder;
use crate::cli;
use crate::evaluate::features::Layer;
use crate::evaluate::floors::{self, Probes};
use crate::evaluate::{knn as neighbours, probe as linear};
use crate::output::Output;
use autograd::module;
use engine::Result;
use serde_json::json;
use std::path::Path;

/// `pretext probe`.
pub fn probe(args: &cli::Probe, output: &Output) -> Result<()> {
    let mut settings =
        linear::Settings { epochs: args.epochs, seed: args.seed, ..linear::Settings::default() };
    if let Some(rates) = &args.rates {
        settings.rates = rates.clone();
    }
    let probes = Probes { block: None, linear: Some(settings), knn: None };
    table(&args.encoder, &args.data, &args.device, args.seed, args.layer, probes, output)
}

/// `pretext knn`.
pub fn knn(args: &cli::Knn, output: &Output) -> Result<()> {
    let settings = neighbours::Settings { k: args.k, temperature: args.temperature, centre: args.centre };
    let probes = Probes { block: None, linear: None, knn: Some(settings) };
    table(&args.encoder, &args.data, &args.device, args.seed, args.layer, probes, output)
}

fn table(
    encoder: &Path,
    data: &cli::Data,
    device: &str,
    seed: u64,
    layer: Option<Layer>,
    mut probes: Probes,
    output: &Output,
) -> Result<()> {
    let device = crate::device::choose(device)?;
    let mut trained = load_encoder(encoder)?;
    module::to_device(trained.encoder.as_mut(), device)?;
    let splits = super::open(data, output)?;
    let trunk = trained.encoder.as_mut();
    probes.block = match layer {
        None => None,
        Some(Layer::Block(block)) => {
            trunk.require_block(block)?;
            Some(block)
        }
        Some(Layer::Best) => {
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
    floors::show(output, &trained.origin, &data.spec(), &splits, probes.block, &rows);
    Ok(())
}
