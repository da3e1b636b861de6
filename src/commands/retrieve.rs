//! `pretext retrieve`: the training images nearest to test images, as a picture and as numbers.

use super::{evaluate, load_encoder};
use crate::cli::Retrieve;
use crate::evaluate::features;
use crate::evaluate::inputs::Source;
use crate::evaluate::knn;
use crate::evaluate::leak::{self, Duplicates};
use crate::evaluate::retrieve::{self, Retrieved};
use crate::output::Output;
use autograd::module;
use engine::files::write_atomically;
use engine::{Error, ErrorKind, Result};
use serde_json::json;

/// Runs the command.
pub fn run(args: &Retrieve, output: &Output) -> Result<()> {
    let of = &args.of;
    let data = evaluate::data(of)?;
    let device = crate::device::choose(&of.device)?;
    let mut trained = load_encoder(&of.encoder)?;
    module::to_device(trained.encoder.as_mut(), device)?;
    let splits = super::open(data, output)?;
    leak::check(&splits, Duplicates::allowed(of.allow_duplicates), output)?;
    let tested = splits.test.len();
    let queries = match &args.images {
        Some(images) => images.clone(),
        None => (0..args.count.min(tested)).map(|i| i * tested / args.count.min(tested).max(1)).collect(),
    };
    let usage = |text: String| Err(Error::new(ErrorKind::Usage, "retrieve", text));
    if let Some(wrong) = queries.iter().find(|i| **i >= tested) {
        return usage(format!("there is no test image {wrong}: there are {tested}, from 0"));
    }
    if queries.is_empty() || args.k == 0 {
        return usage("ask for at least one test image and one neighbour".into());
    }
    let source = match of.layer {
        None => Source::Own,
        Some(features::Layer::Block(block)) => {
            trained.encoder.require_block(block)?;
            Source::Block(block)
        }
        Some(features::Layer::Best) => return usage("takes a layer's number, not 'best'".into()),
    };
    let (train_images, test_images) = (trained.sees(&splits.train)?, trained.sees(&splits.test)?);
    let (encoder, input) = (trained.encoder.as_mut(), trained.input.clone());
    let (train, _) = features::labelled(encoder, source, &input, &train_images)?;
    let (test, _) = features::labelled(encoder, source, &input, &test_images)?;
    let all = knn::neighbours(&train, &test, args.k, args.centre)?;
    let precision = retrieve::precision(&all, &train.labels, &test.labels);
    let neighbours = queries.iter().map(|&query| all[query].clone()).collect();
    let found = Retrieved { queries, neighbours };
    retrieve::write_grid(&args.out, &found, splits.train.as_ref(), splits.test.as_ref())?;
    let class = |label: i32| splits.train.classes().get(label as usize).cloned().unwrap_or_default();
    let rows = found.queries.iter().zip(&found.neighbours).map(|(&query, near)| {
        let near = near.iter().map(
            |n| json!({"train": n.index, "similarity": n.similarity, "class": class(train.labels[n.index])}),
        );
        json!({"test": query, "class": class(test.labels[query]), "neighbours": near.collect::<Vec<_>>()})
    });
    let report = json!({
        "event": "retrieved",
        "method": trained.origin,
        "data": data.spec(),
        "k": args.k,
        "precision": precision,
        "tested": tested,
        "queries": rows.collect::<Vec<_>>(),
    });
    let numbers = args.out.with_extension("json");
    write_atomically(&numbers, |out| writeln!(out, "{report:#}"))?;
    output.event(&report);
    output.result(&format!(
        "{}: precision at {} is {:.4}, the mean over all {tested} test images",
        data.spec(),
        args.k,
        precision
    ));
    output.say(&format!("pictures: {}, numbers: {}", args.out.display(), numbers.display()));
    Ok(())
}
