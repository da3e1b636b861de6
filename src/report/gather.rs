//! Everything that the page shows of a run, read from its folder or computed from its weights. What cannot be had is a sentence
//! that says why.

use super::gallery::Gallery;
use super::inside::{Attention, Filters};
use super::map::{self, Maps};
use super::metrics::Metrics;
use super::predictions::Predictions;
use super::results::Results;
use super::space::Space;
use super::views::Views;
use super::{Options, Sheets, Source};
use crate::config::{self, Config};
use crate::evaluate::features::Trained;
use crate::output::Output;
use crate::train::cost::Cost;
use crate::train::run::RunFolder;
use crate::train::{self, checkpoint};
use autograd::module;
use data::Splits;
use engine::{Error, ErrorKind, Result};
use objectives::Method;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Something, or why it is not there.
pub type Part<T> = std::result::Result<T, String>;

/// What is shown of a run.
pub struct Gathered {
    /// What the page calls it.
    pub name: String,
    /// The folder as the user named it.
    pub path: PathBuf,
    /// Its configuration, and the same as text.
    pub config: Config,
    /// `config.toml`.
    pub config_text: String,
    /// The method.
    pub method: &'static Method,
    /// `metrics.jsonl`.
    pub metrics: Metrics,
    /// `cost.json`, if there is one.
    pub cost: Part<Option<Cost>>,
    /// Steps of the whole run.
    pub steps: Part<u64>,
    /// Images for training and test, and their height, width and channels.
    pub data: Part<([usize; 2], [usize; 3])>,
    /// The step of the weights that are evaluated, and how many there are.
    pub weights: Part<Weights>,
    /// Accuracies with floors.
    pub results: Part<Results>,
    /// What is made of features.
    pub features: Part<Features>,
    /// Augmented views.
    pub views: Part<Views>,
    /// First-layer filters.
    pub filters: Part<Filters>,
    /// Attention of a ViT's class token.
    pub attention: Part<Attention>,
    /// Predicted pixels.
    pub predictions: Part<Predictions>,
}

/// What is made of features.
pub struct Features {
    /// The features themselves.
    pub space: Space,
    /// Maps, and the number of their sheet of thumbnails; none if the user wants none.
    pub maps: Option<(Maps, usize)>,
    /// Neighbours and failures.
    pub gallery: Gallery,
}

/// The encoder that is shown.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Trained parameters.
    pub parameters: usize,
    /// Values in a feature vector.
    pub dim: usize,
    /// Where they come from.
    pub file: String,
}

/// The configuration in a run's folder. An error says what the folder is, if it is not a pre-training run.
fn configuration(folder: &RunFolder) -> Result<(Config, String)> {
    let wrong = |text: String| {
        let path = folder.path().display();
        Error::new(ErrorKind::Usage, "report", format!("{path} {text}: name folders of `pretext pretrain`"))
    };
    if !folder.config_path().exists() {
        return Err(wrong("holds no config.toml".into()));
    }
    let path = folder.config_path();
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read configuration", &path, e))?;
    let table: toml::Table = text.parse().map_err(|e| Error::format("read configuration", &path, e))?;
    let method = table.get("method").and_then(|m| m.as_str());
    if method.is_none() || method == Some(crate::finetune::NAME) {
        return Err(wrong("is not a pre-training run".into()));
    }
    Ok((config::read(&path)?, text))
}

fn said<T>(result: Result<T>) -> Part<T> {
    result.map_err(|e| e.to_string())
}

/// What `make` makes of a network and the data, if both are there.
fn on<N, T>(
    network: &mut Part<N>,
    splits: &Part<Splits>,
    make: impl FnOnce(&mut N, &Splits) -> Part<T>,
) -> Part<T> {
    make(network.as_mut().map_err(|e| e.clone())?, splits.as_ref().map_err(String::clone)?)
}

/// Where a run's images come from.
fn source(config: &Config) -> Source {
    (config.data.clone(), config.data_dir.clone())
}

/// Datasets that were opened, or why they were not.
#[derive(Default)]
pub struct Opened(Vec<(Source, Part<Splits>)>);

impl Opened {
    fn get(&mut self, config: &Config, output: &Output) -> Part<Splits> {
        let key = source(config);
        if let Some((_, splits)) = self.0.iter().find(|(k, _)| *k == key) {
            return splits.clone();
        }
        let splits = said(data::open(&config.data, config.data_dir.as_deref()));
        if let Ok(splits) = &splits {
            splits.notes.iter().for_each(|note| output.say(note));
        }
        self.0.push((key, splits.clone()));
        splits
    }
}

impl Gathered {
    /// Reads and computes all parts. Errors: the folder is no run, or its files are damaged.
    pub fn new(
        path: &Path,
        name: String,
        options: &Options,
        opened: &mut Opened,
        sheets: &mut Sheets,
        output: &Output,
    ) -> Result<Gathered> {
        let folder = RunFolder::at(path);
        let (config, config_text) = configuration(&folder)?;
        let method = objectives::find(&config.method)?;
        let metrics = Metrics::read(&folder.metrics_path())?;
        output.say(&format!("{}: {} on {}", path.display(), config.method, config.data));
        let splits = opened.get(&config, output).map_err(|e| format!("The data cannot be opened: {e}"));
        let profile = splits.clone().and_then(|s| said(train::profile(s.train.as_ref())));
        let data = splits.clone().and_then(|s| {
            let p = profile.clone()?;
            Ok(([s.train.len(), s.test.len()], [p.height, p.width, p.channels]))
        });
        let steps = match config.steps {
            Some(steps) => Ok(steps),
            None => data.clone().map(|([train, _], _)| {
                (train / config.training.batch.max(1)) as u64 * config.training.epochs as u64
            }),
        };
        let mut objective = profile.clone().and_then(|p| said(train::build(&config, &p)));
        let trained = said(crate::commands::load_encoder(path)).and_then(|mut trained| {
            said(module::to_device(trained.encoder.as_mut(), options.device))?;
            Ok(trained)
        });
        let mut trained = trained.map_err(|e| format!("The weights cannot be read: {e}"));
        let weights = trained.as_mut().map_err(|e| e.clone()).and_then(|trained| {
            Ok(Weights {
                parameters: module::count(trained.encoder.as_mut()),
                dim: trained.encoder.dim(),
                file: match folder.encoder_path().exists() {
                    true => "encoder.safetensors, written at the end".into(),
                    false => format!(
                        "checkpoint.safetensors, step {}",
                        said(checkpoint::steps(&folder.checkpoint_path()))?
                    ),
                },
            })
        });
        let results = on(&mut trained, &splits, |trained, splits| {
            results(trained, &folder, &config, splits, options, output)
        });
        let features = on(&mut trained, &splits, |trained, splits| {
            output.say("  features, neighbours, maps");
            said(features(trained, &config, splits, options, sheets))
        });
        let filters = on(&mut trained, &splits, |trained, _| said(Filters::new(trained)));
        let attention = on(&mut trained, &splits, |trained, splits| {
            let images = if splits.test.is_empty() { &splits.train } else { &splits.test };
            let none = || format!("{} has no attention: it is not a ViT.", config.arch.name);
            said(Attention::new(trained, images))?.ok_or_else(none)
        });
        drop(trained);
        engine::memory::trim();
        let views = on(&mut objective, &splits, |objective, splits| {
            said(Views::new(&config, objective.as_ref(), &splits.train))
        });
        let predictions = on(&mut objective, &splits, |objective, splits| {
            let found =
                said(Predictions::new(&config, &folder, objective.as_mut(), &splits.train, options.device))?;
            let none = match folder.checkpoint_path().exists() {
                true => format!("{} predicts no pixels: there is nothing to show.", config.method),
                false => "There is no checkpoint, and no picture in the run's folder.".into(),
            };
            if found.is_empty() { Err(none) } else { Ok(found) }
        });
        // What the run left can be seen without its data.
        let predictions = match (predictions, Predictions::kept(&folder)) {
            (Err(_), Ok(kept)) if splits.is_err() && !kept.is_empty() => Ok(kept),
            (predictions, _) => predictions,
        };
        drop(objective);
        engine::memory::trim();
        let cost = said(Cost::read(&folder.cost_path()));
        let path = path.to_path_buf();
        Ok(Gathered {
            name,
            path,
            config,
            config_text,
            method,
            metrics,
            cost,
            steps,
            data,
            weights,
            results,
            features,
            views,
            filters,
            attention,
            predictions,
        })
    }

    /// Whether every step of the run was taken, if that is known.
    pub fn is_complete(&self) -> Option<bool> {
        self.steps.as_ref().ok().map(|steps| self.metrics.last_step >= *steps)
    }
}

fn results(
    trained: &mut Trained,
    folder: &RunFolder,
    config: &Config,
    splits: &Splits,
    options: &Options,
    output: &Output,
) -> Part<Results> {
    if let Some(found) = said(Results::read(folder, trained, &config.data))? {
        return Ok(found);
    }
    let labelled = |d: &Arc<dyn data::Dataset>| !d.is_empty() && d.label(0).is_some();
    if !labelled(&splits.train) {
        return Err("The data has no labels: accuracy cannot be measured.".into());
    }
    if !labelled(&splits.test) {
        return Err("There are no labelled test images: accuracy cannot be measured.".into());
    }
    if !options.table {
        return Err("Not recorded for these weights, and not computed (--no-table).".into());
    }
    output.say("  accuracies, which are not recorded for these weights: linear probe and kNN, with floors");
    let (found, _) = said(Results::evaluate(trained, config.seed, &config.data, splits))?;
    if let Err(error) = found.write(folder) {
        output.say(&format!("  the results are not kept: {error}"));
    }
    Ok(found)
}

fn features(
    trained: &mut Trained,
    config: &Config,
    splits: &Splits,
    options: &Options,
    sheets: &mut Sheets,
) -> Result<Features> {
    let space = Space::new(trained, splits)?;
    let gallery = Gallery::new(&space)?;
    if options.points == 0 {
        return Ok(Features { space, maps: None, gallery });
    }
    let maps = Maps::new(&space, options.points, config.seed)?;
    let sheet = sheets.get(source(config), || map::thumbnails(&space, &maps))?;
    Ok(Features { space, maps: Some((maps, sheet)), gallery })
}
