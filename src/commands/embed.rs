//! `pretext embed`: features of a dataset, in a file that anything can read.

use super::load_encoder;
use crate::cli::Embed;
use crate::evaluate::features::{self, Trained};
use crate::evaluate::inputs::{self, Part, Source};
use crate::output::Output;
use autograd::module;
use data::Dataset;
use engine::safetensors::{self, Contents};
use engine::{Error, ErrorKind, Result, Tensor};
use serde_json::json;
use std::sync::Arc;

/// Runs the command.
pub fn run(args: &Embed, output: &Output) -> Result<()> {
    let device = crate::device::choose(&args.device)?;
    let mut trained = load_encoder(&args.encoder)?;
    module::to_device(trained.encoder.as_mut(), device)?;
    if args.blocks == Some(0) {
        return Err(Error::new(ErrorKind::Usage, "--blocks", "must be at least 1"));
    }
    let splits = super::open(&args.data, output)?;
    let mut contents = Contents::default();
    contents.metadata.insert("data".into(), args.data.spec());
    contents.metadata.insert("encoder".into(), args.encoder.display().to_string());
    contents.metadata.insert("origin".into(), trained.origin.clone());
    let mut shapes = Vec::new();
    for (name, dataset) in [("train", &splits.train), ("test", &splits.test)] {
        if dataset.is_empty() {
            continue;
        }
        let (values, labels, _) = extract(&mut trained, Source::Own, dataset)?;
        shapes.push(json!({"name": name, "shape": values.shape(), "labels": labels.is_some()}));
        contents.insert(name, &values)?;
        if let Some(count) = args.blocks {
            let (values, _, parts) = extract(&mut trained, Source::LastBlocks(count), dataset)?;
            contents.metadata.insert("blocks".into(), inputs::write(&parts));
            contents.insert(format!("{name}_blocks"), &values)?;
        }
        if let Some(labels) = labels {
            contents.insert(format!("{name}_labels"), &labels)?;
        }
    }
    safetensors::save(&args.out, &contents)?;
    output.event(&json!({"event": "embedded", "path": args.out, "tensors": shapes}));
    output.say(&format!("features: {}", args.out.display()));
    Ok(())
}

/// Features \[N, D\], labels \[N\] if every image has one, and what the columns are.
fn extract(
    trained: &mut Trained,
    source: Source,
    dataset: &Arc<dyn Dataset>,
) -> Result<(Tensor, Option<Tensor>, Vec<Part>)> {
    let (mut values, mut all, mut width) = (Vec::new(), Some(Vec::new()), 0);
    let (input, dataset) = (trained.input.clone(), trained.sees(dataset)?);
    let encoder = trained.encoder.as_mut();
    let parts = features::for_each_batch(encoder, source, &input, &dataset, |rows, dim, labels| {
        width = dim;
        values.extend_from_slice(rows);
        match (labels, &mut all) {
            (Some(labels), Some(all)) => all.extend_from_slice(labels),
            _ => all = None,
        }
        Ok(())
    })?;
    let rows = values.len() / width.max(1);
    let labels = all.map(|l| Tensor::from_slice(&l, &[rows])).transpose()?;
    Ok((Tensor::from_slice(&values, &[rows, width])?, labels, parts))
}
