//! The table that every accuracy stands in: the trained encoder, the same encoder at random, raw pixels,
//! all under the same probes.
//!
//! What a random encoder is worth depends on its batch norm. `random` is the network as training starts with it:
//! normalised by statistics of the training images. `random-unset` has never seen an image: its batch norm does
//! nothing, brightness passes through, and on centred items on black that alone is worth ten points. Both are
//! shown, so that nobody needs to guess which floor was meant. An encoder without batch norm has one `random`.

use super::features::{self, Frozen, Trained};
use super::file::FeatureFile;
use super::inputs::{Input, Part, Source};
use super::{Labelled, knn, probe};
use crate::output::{Output, table};
use autograd::module;
use data::Splits;
use engine::Result;
use models::Encoder;
use serde_json::json;

/// Which evaluations a table shows.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    /// The block whose features are shown, from 1; the encoder's own features if there is none.
    pub block: Option<usize>,
    /// The linear probe, if wanted.
    pub linear: Option<probe::Settings>,
    /// k nearest neighbours, if wanted.
    pub knn: Option<knn::Settings>,
}

/// One row: what the features are and what they are worth, in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `trained`, `random`, `random-unset` or `pixels`.
    pub features: &'static str,
    /// Values in a feature vector.
    pub dim: usize,
    /// Linear probe, test top-1.
    pub linear: Option<probe::Outcome>,
    /// k nearest neighbours, test top-1.
    pub knn: Option<f32>,
}

fn row(
    name: &'static str,
    train: &Labelled,
    test: &Labelled,
    parts: &[Part],
    probes: &Probes,
) -> Result<Row> {
    let linear = |settings: &probe::Settings| {
        probe::linear(train, test, &settings.protocol.inputs(parts, train.dim), settings)
    };
    Ok(Row {
        features: name,
        dim: train.dim,
        linear: probes.linear.as_ref().map(linear).transpose()?,
        knn: probes.knn.map(|s| knn::accuracy(train, test, s)).transpose()?,
    })
}

/// The row of features that a file holds: there is nothing to compare them with.
pub fn of_file(file: &FeatureFile, probes: &Probes) -> Result<Row> {
    let protocol = probes.linear.as_ref().map(|settings| settings.protocol);
    match &file.blocks {
        Some((train, test, parts)) if protocol.is_some_and(|p| p.takes_blocks(parts)) => {
            row("trained", train, test, parts, probes)
        }
        _ => row("trained", &file.train, &file.test, &[], probes),
    }
}

/// The block of an encoder whose features do best on a held-out tenth of the training images: under the linear probe if `probes`
/// has one, else by nearest neighbours. With what every block reached there, in percent.
pub fn best_block(
    trained: &mut Trained,
    seed: u64,
    splits: &Splits,
    probes: &Probes,
) -> Result<(usize, Vec<f32>)> {
    let blocks = trained.encoder.blocks();
    let images = trained.sees(&splits.train)?;
    let mut reached = Vec::with_capacity(blocks);
    for block in 1..=blocks {
        let source = Source::Block(block);
        let (train, _) = features::labelled(trained.encoder.as_mut(), source, &trained.input, &images)?;
        reached.push(match (&probes.linear, probes.knn) {
            (None, Some(settings)) => {
                let (bank, queries) = probe::split(&train, seed);
                knn::accuracy(&bank, &queries, settings)?
            }
            (linear, _) => {
                let settings = linear.clone().unwrap_or_default();
                let whole = [Input { name: String::new(), columns: vec![0..train.dim] }];
                probe::choose(&train, &whole, &settings)?.held_out.unwrap_or(0.0)
            }
        });
    }
    // Of equals the last: it is nearest to the encoder's own features.
    let best = (1..=blocks).max_by(|&a, &b| reached[a - 1].total_cmp(&reached[b - 1])).unwrap_or(blocks);
    Ok((best, reached))
}

/// Evaluates an encoder and its floors, on the encoder's device, on the test part of `splits`.
pub fn evaluate(trained: &mut Trained, seed: u64, splits: &Splits, probes: &Probes) -> Result<Vec<Row>> {
    let input = trained.input.clone();
    let (train_images, test_images) = (trained.sees(&splits.train)?, trained.sees(&splits.test)?);
    let source = match (&probes.linear, probes.block) {
        (Some(settings), block) => settings.protocol.source(trained.encoder.as_mut(), block)?,
        (None, Some(block)) => Source::Block(block),
        (None, None) => Source::Own,
    };
    let evaluated = |name: &'static str, encoder: &mut dyn Encoder| -> Result<Row> {
        let frozen = Frozen::new(encoder)?;
        let (train, parts) = features::labelled(encoder, source, &input, &train_images)?;
        let (test, _) = features::labelled(encoder, source, &input, &test_images)?;
        let row = row(name, &train, &test, &parts, probes)?;
        frozen.check(encoder)?;
        Ok(row)
    };
    let mut rows = vec![evaluated("trained", trained.encoder.as_mut())?];
    let mut random = models::build(trained.encoder.arch(), trained.encoder.image(), seed)?;
    module::to_device(random.as_mut(), module::device(trained.encoder.as_mut()))?;
    match has_statistics(random.as_mut()) {
        false => rows.push(evaluated("random", random.as_mut())?),
        true => {
            let unset = evaluated("random-unset", random.as_mut())?;
            features::calibrate(random.as_mut(), &input, &train_images, seed)?;
            rows.push(evaluated("random", random.as_mut())?);
            rows.push(unset);
        }
    }
    let (train, test) = (features::pixels(&input, &train_images)?, features::pixels(&input, &test_images)?);
    rows.push(row("pixels", &train, &test, &[], probes)?);
    Ok(rows)
}

/// Whether an encoder normalises by statistics of images that it has seen.
pub(crate) fn has_statistics(encoder: &mut dyn Encoder) -> bool {
    module::parts(encoder).buffers.iter().any(|(name, _)| name.ends_with("running_mean"))
}

/// What a table is of, for its title.
pub struct Title<'a> {
    /// The encoder's method.
    pub method: &'a str,
    /// The data.
    pub data: &'a str,
    /// Numbers of training and test images.
    pub images: [usize; 2],
}

/// Prints rows as a table, or as `result` events.
pub fn show(output: &Output, title: &Title, probes: &Probes, rows: &[Row]) {
    let Title { method, data, images: [trained, tested] } = title;
    for row in rows {
        let event = |probe: &str, top1: f32| {
            let mut event = json!({"event": "result", "method": method, "features": row.features,
                "probe": probe, "labels": "all", "dim": row.dim, "top1": round(top1)});
            if let (Some(block), true) = (probes.block, row.features != "pixels") {
                event["layer"] = json!(block);
            }
            event
        };
        if let (Some(found), Some(settings)) = (&row.linear, &probes.linear) {
            let mut event = event("linear", found.top1);
            event["protocol"] = json!(settings.protocol.to_string());
            event["chosen"] = json!(found.choice.to_string());
            event["held_out"] = json!(found.choice.held_out.map(round));
            output.event(&event);
        }
        if let Some(top1) = row.knn {
            output.event(&event("knn", top1));
        }
    }
    let names = |f: &str| match f {
        "trained" => format!("trained encoder ({method})"),
        "random" => "same encoder at random".into(),
        "random-unset" => "same, batch norm unset".into(),
        _ => "raw pixels".into(),
    };
    let cell = |v: Option<f32>| v.map_or("-".into(), |v| format!("{v:.2}"));
    let linear = |row: &Row| row.linear.as_ref().map(|found| found.top1);
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|r| vec![names(r.features), r.dim.to_string(), cell(linear(r)), cell(r.knn)])
        .collect();
    let text = table(&["features", "dim", "linear probe", "kNN"], &lines);
    output.result(&format!(
        "\n{data}: test top-1 in percent ({trained} training, {tested} test images){}{}\n\n{text}",
        match &probes.linear {
            Some(s) if s.protocol != probe::Protocol::default() => format!(", protocol {}", s.protocol),
            _ => String::new(),
        },
        probes.block.map_or(String::new(), |block| format!(", encoders' features of layer {block}"))
    ));
    for row in rows {
        if let Some(found) = &row.linear
            && row.features == "trained"
        {
            let edge = ", at the edge of what was tried: more may be found beyond it";
            let edge = if found.choice.at_edge { edge } else { "" };
            output.say(&format!("chosen on held-out training images: {}{edge}", found.choice));
        }
    }
}

/// Two decimals, as printed.
fn round(percent: f32) -> f64 {
    (f64::from(percent) * 100.0).round() / 100.0
}
