//! Pixels that a method predicts, beside the truth: made again from the checkpoint, or as the run left them.

use super::html::Html;
use super::image::Picture;
use crate::config::Config;
use crate::train::input::Input;
use crate::train::pictures::{Album, grid};
use crate::train::run::RunFolder;
use crate::train::{Machine, checkpoint};
use data::Dataset;
use engine::{Device, Result};
use objectives::Objective;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pixels of a picture at most: larger ones are shrunk.
const PIXELS: usize = 250_000;

/// Pictures of one state of the run.
struct State {
    step: u64,
    columns: Vec<String>,
    size: [usize; 2],
    address: String,
}

/// Pictures of the earliest and the last state that is there.
pub struct Predictions {
    states: Vec<State>,
}

impl Predictions {
    /// The first and the last picture in the run's folder; empty if there is none.
    pub fn kept(folder: &RunFolder) -> Result<Predictions> {
        let kept = kept(&folder.path().join("pictures"))?;
        let ends = kept.first().into_iter().chain(kept.iter().skip(1).next_back());
        let state = |(step, columns, path): &(u64, Vec<String>, PathBuf)| {
            State::new(*step, columns.clone(), Picture::of(&data::decode::read(path)?))
        };
        Ok(Predictions { states: ends.map(state).collect::<Result<_>>()? })
    }

    /// The first picture in the run's folder, and one of the checkpoint, or the folder's last where there is no checkpoint. Empty
    /// for a method that predicts no pixels, or a run that has neither.
    pub fn new(
        config: &Config,
        folder: &RunFolder,
        objective: &mut dyn Objective,
        train: &Arc<dyn Dataset>,
        device: Device,
    ) -> Result<Predictions> {
        let Predictions { mut states } = Predictions::kept(folder)?;
        if !folder.checkpoint_path().exists() {
            return Ok(Predictions { states });
        }
        let step = checkpoint::load_networks(&folder.checkpoint_path(), objective)?.step;
        autograd::module::to_device(objective.networks(), device)?;
        let machine = Machine { device, workers: 0, graph: false, stop_after: None };
        let input = Input::new(config, objective, train, false, machine)?;
        let album = Album::new(folder, train, objective, input.run())?;
        if let Some(pictures) = album.pictures(objective)? {
            let (size, pixels) = grid(&pictures)?;
            let columns = pictures.columns.iter().map(|c| c.0.to_string()).collect();
            states.truncate(1);
            states.retain(|state| state.step != step);
            states.push(State::new(step, columns, Picture { size, pixels })?);
        }
        Ok(Predictions { states })
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Writes the pictures.
    pub fn draw(&self, h: &mut Html, method: &str) {
        h.note("A row is one of eight training images, the same at every step, without random crops; networks are in evaluation mode.");
        if let Some(state) = self.states.last() {
            h.note(explanation(method, &state.columns));
        }
        h.element("div", &[("class", "states")], |h| {
            for state in &self.states {
                let width = format!("width:{}px", (3 * state.size[1]).clamp(240, 480));
                h.element("figure", &[("class", "state"), ("style", &width)], |h| {
                    h.leaf("figcaption", &[], &format!("after step {}", state.step));
                    let style = format!("grid-template-columns:repeat({},1fr)", state.columns.len());
                    h.element("div", &[("class", "columns"), ("style", &style)], |h| {
                        state.columns.iter().for_each(|c| h.leaf("span", &[], &c.replace('_', " ")));
                    });
                    let alt =
                        format!("columns: {}; a row an image", state.columns.join(", ").replace('_', " "));
                    h.void("img", &[("class", "pixels"), ("src", &state.address), ("alt", &alt)]);
                });
            }
        });
    }
}

impl State {
    fn new(step: u64, columns: Vec<String>, picture: Picture) -> Result<State> {
        let [height, width, _] = picture.size;
        let shrink = (PIXELS as f64 / (height * width) as f64).sqrt().min(1.0);
        let picture = picture.at_most((height.max(width) as f64 * shrink).floor() as usize)?;
        Ok(State { step, columns, size: [height, width], address: picture.address()? })
    }
}

/// Step, columns and path of each picture in a folder, by step.
fn kept(folder: &Path) -> Result<Vec<(u64, Vec<String>, PathBuf)>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for path in entries.filter_map(|e| Some(e.ok()?.path())) {
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".png"))
        else {
            continue;
        };
        let mut parts = name.split('-');
        if let Some(step) = parts.next().and_then(|s| s.parse().ok()) {
            found.push((step, parts.map(String::from).collect(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Which pixels are predicted, and how they became pixels.
fn explanation(method: &str, columns: &[String]) -> &'static str {
    match method {
        "mae" if columns.iter().any(|c| c == "leaked_means") => {
            "Only removed patches are predicted; visible ones are the input's own pixels, pasted. The network predicts (x - mean) / \
             deviation of each patch. Pixels are made of that with the mean and the deviation of the true patch, which the network does \
             not know: \u{201c}leaked means\u{201d} shows what the means alone give away, without any prediction (the deviations leak \
             too). Judge a prediction by what it adds to that column. The normalisation of views is undone in all columns."
        }
        "mae" => {
            "Only removed patches are predicted, as pixels; visible ones are the input's own, pasted. The normalisation of views is undone \
             in all columns."
        }
        "inpainting" => {
            "Only the hole is predicted; around it the second column is the image itself. Values of -1 to 1, which the network has, are shown \
             as 0 to 1."
        }
        "colorization" => {
            "a and b (Lab) of every pixel are predicted, for every target_stride-th pixel and interpolated between; lightness is the \
             image's own. Colour is the annealed mean of the predicted distribution, cut off at the gamut."
        }
        _ => "Columns are named by the method.",
    }
}
