//! `pretext classical`: what learning without labels gives without a network, beside an encoder if one is named.

use super::load_encoder;
use crate::cli::Classical;
use crate::evaluate::classical::kmeans::KMeans;
use crate::evaluate::classical::pca::Pca;
use crate::evaluate::inputs::Source;
use crate::evaluate::{Labelled, features, knn, probe};
use crate::output::{Output, table};
use crate::train;
use autograd::module;
use engine::Result;
use kernels::augment::Recipe;
use serde_json::json;

/// Runs the command.
pub fn run(args: &Classical, output: &Output) -> Result<()> {
    let splits = super::open(&args.data, output)?;
    let mut sets = Vec::new();
    if let Some(path) = &args.encoder {
        let mut trained = load_encoder(path)?;
        module::to_device(trained.encoder.as_mut(), crate::device::choose(&args.device)?)?;
        let input = trained.input.clone();
        let mut of = |dataset| {
            features::labelled(trained.encoder.as_mut(), Source::Own, &input, dataset).map(|(set, _)| set)
        };
        let (train, test) = (of(&splits.train)?, of(&splits.test)?);
        sets.push((format!("trained encoder ({})", trained.origin), "trained", train, test));
    }
    let profile = train::profile(splits.train.as_ref())?;
    let whole = Recipe::evaluation(profile.height, profile.width);
    let train = features::pixels(&whole, &splits.train)?;
    let test = features::pixels(&whole, &splits.test)?;
    let pca = Pca::fit(&train, args.components)?;
    let mut both = |name: String, kind, f: &dyn Fn(&Labelled) -> Result<Labelled>| -> Result<()> {
        sets.push((name, kind, f(&train)?, f(&test)?));
        Ok(())
    };
    let clusters = KMeans::fit(&train, args.clusters, args.seed)?;
    both("raw pixels".into(), "pixels", &|set| Ok(set.clone()))?;
    both(format!("{} principal components", args.components), "pca", &|set| pca.project(set, false))?;
    both("the same, whitened".into(), "pca-whitened", &|set| pca.project(set, true))?;
    both(format!("k-means, {} soft assignments", args.clusters), "kmeans", &|set| clusters.triangle(set))?;
    let linear = probe::Settings { seed: args.seed, ..probe::Settings::default() };
    let mut rows = Vec::new();
    for (name, kind, train, test) in &sets {
        let whole = linear.protocol.inputs(&[], train.dim);
        let by_probe = probe::linear(train, test, &whole, &linear)?.top1;
        let by_neighbours = knn::accuracy(train, test, knn::Settings::default())?;
        let by_cluster = KMeans::fit(train, args.clusters, args.seed)?.majority(train, test)?;
        let found = [("linear", by_probe), ("knn", by_neighbours), ("clusters", by_cluster)];
        for (probe, top1) in found {
            let rounded = (f64::from(top1) * 100.0).round() / 100.0;
            output.event(&json!({"event": "result", "method": "classical", "features": kind, "probe": probe,
                "labels": "all", "dim": train.dim, "top1": rounded}));
        }
        let cells = found.iter().map(|(_, top1)| format!("{top1:.2}"));
        rows.push([name.clone(), train.dim.to_string()].into_iter().chain(cells).collect());
    }
    output.result(&format!(
        "{}: test top-1 in percent ({} training, {} test images)\n\n{}",
        args.data.spec(),
        splits.train.len(),
        splits.test.len(),
        table(&["features", "dim", "linear probe", "kNN", &format!("{} clusters", args.clusters)], &rows)
    ));
    Ok(())
}
