//! Augmented views as the loader gave them to the network in the run's first step.

use super::html::Html;
use super::image::{Picture, denormalise};
use crate::config::Config;
use data::{Dataset, Loader, LoaderOptions};
use engine::Result;
use kernels::augment::{CropRule, Normalize, Recipe};
use objectives::Objective;
use std::sync::Arc;

/// Images shown, fewer where they have many views.
const IMAGES: usize = 6;
const CELLS: usize = 60;
/// Pixels of the longer side of an image.
const SIDE: usize = 64;

/// Some images and all their views.
pub struct Views {
    /// For each image: itself, and its views.
    rows: Vec<(Tile, Vec<Tile>)>,
    recipes: Vec<Recipe>,
}

/// An image and the size that it has for the network.
struct Tile {
    address: String,
    size: [usize; 2],
}

impl Views {
    /// The first images of the run's first batch. Draws depend on seed, epoch, image and view alone, so that a smaller batch of
    /// the same order has the same ones.
    pub fn new(config: &Config, objective: &dyn Objective, train: &Arc<dyn Dataset>) -> Result<Views> {
        let recipes = objective.views().to_vec();
        let images = (CELLS / (recipes.len() + 1)).clamp(2, IMAGES).min(train.len());
        let options =
            LoaderOptions { batch: images, seed: config.seed, workers: 0, drop_last: true, prefetch: 1 };
        let loader = Loader::new(train.clone(), recipes.clone(), options)?;
        let mut rows = Vec::new();
        for batch in loader.epoch(0, 0)?.take(1) {
            let batch = batch?;
            for (i, &image) in batch.indices.iter().enumerate() {
                let original = Picture::of(&train.image(image)?);
                let views = batch.views.iter().zip(&recipes).map(|(view, recipe)| {
                    let size = [recipe.height, recipe.width, train.channels()];
                    let one = size.iter().product::<usize>();
                    let mut values = view.as_slice::<f32>()?[i * one..(i + 1) * one].to_vec();
                    denormalise(&mut values, recipe.normalize.as_ref());
                    Tile::new(Picture::from_unit(size, &values))
                });
                rows.push((Tile::new(original)?, views.collect::<Result<_>>()?));
            }
        }
        Ok(Views { rows, recipes })
    }

    /// Writes the views.
    pub fn draw(&self, h: &mut Html, method: &str) {
        h.note(&format!(
            "The first {} images of the run's first step: each image itself, then its {}, with the draws of that step. {} Colours \
             that a bicubic crop carries beyond black and white are cut off here, not in training.",
            self.rows.len(),
            match self.recipes.len() {
                1 => "one view".into(),
                n => format!("{n} views"),
            },
            normalisation(&self.recipes)
        ));
        if let Some(note) = afterwards(method) {
            h.note(note);
        }
        for (original, views) in &self.rows {
            h.element("div", &[("class", "strip")], |h| {
                original.draw(h, "original", "image");
                for (i, view) in views.iter().enumerate() {
                    let name = if views.len() > 1 { format!("view {}", i + 1) } else { "view".into() };
                    view.draw(h, "view", &name);
                }
            });
        }
        let rows: Vec<Vec<String>> =
            self.recipes.iter().enumerate().map(|(i, r)| vec![(i + 1).to_string(), describe(r)]).collect();
        h.table("How views are made", &["view", "recipe"], &rows);
    }
}

impl Tile {
    fn new(picture: Picture) -> Result<Tile> {
        let [height, width, _] = picture.size;
        Ok(Tile { address: picture.at_most(SIDE)?.address()?, size: [height, width] })
    }

    fn draw(&self, h: &mut Html, class: &str, name: &str) {
        let [height, width] = self.size;
        h.element("figure", &[("class", &format!("tile {class}"))], |h| {
            // Views keep their sizes relative to each other.
            let style = format!("width:{}px", (2 * width).clamp(16, 128));
            let alt = format!("{name}, {height} x {width} pixels");
            h.void("img", &[("src", &self.address), ("alt", &alt), ("style", &style)]);
            h.element("figcaption", &[], |h| {
                h.leaf("span", &[], name);
                h.leaf("span", &[], &format!("{height}\u{d7}{width}"));
            });
        });
    }
}

fn list(values: &[f32]) -> String {
    values
        .iter()
        .map(|v| format!("{v:.4}").trim_end_matches('0').trim_end_matches('.').to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// How pixels were made from what the loader gave.
fn normalisation(recipes: &[Recipe]) -> String {
    match recipes.iter().find_map(|r| r.normalize.as_ref()) {
        Some(Normalize { mean, std }) => format!(
            "The loader gave (x - mean) / deviation with mean {} and deviation {} by channel; this is undone here.",
            list(mean),
            list(std)
        ),
        None => "The loader gave these values of 0 to 1 as they are.".into(),
    }
}

/// What is done to a view, in the order in which it is done.
fn describe(recipe: &Recipe) -> String {
    let mut parts = vec![format!("{} x {} pixels", recipe.height, recipe.width)];
    parts.push(match recipe.crop {
        CropRule::Whole => "whole image".into(),
        CropRule::Random { area: [low, high], .. } => format!("a crop of {low} to {high} of the area"),
    });
    let mut sometimes = |p: f32, what: &str| {
        if p > 0.0 {
            parts.push(format!("{what} ({} %)", list(&[100.0 * p])));
        }
    };
    sometimes(recipe.flip, "mirrored");
    if let Some(j) = recipe.jitter {
        let what = format!("jitter {}", list(&[j.brightness, j.contrast, j.saturation, j.hue]));
        sometimes(j.probability, &what);
    }
    sometimes(recipe.grayscale, "grey");
    if let Some(b) = recipe.blur {
        sometimes(b.probability, &format!("blur of deviation {} to {} pixels", b.sigma[0], b.sigma[1]));
    }
    sometimes(recipe.solarize, "solarised");
    parts.join(", ")
}

/// What a method does to a view before its network sees it.
fn afterwards(method: &str) -> Option<&'static str> {
    Some(match method {
        "rotation" => "The method turns each view by 0, 90, 180 and 270 degrees after this.",
        "jigsaw" => {
            "The method cuts each view into tiles after this and shuffles them; the network sees single tiles."
        }
        "relative-position" => {
            "The method cuts patches out of each view after this; the network sees single patches."
        }
        "colorization" => "The network sees the lightness alone of each view.",
        "inpainting" => "The method cuts holes into each view after this.",
        "mae" => {
            "The method removes most patches of each view after this; the encoder sees the others alone."
        }
        "dinov2" => "The method masks patches of some global views for the student after this.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::train::{self, Machine, input::Input};
    use engine::Device;

    /// The pictures are those of the batch that the trainer takes first, at the trainer's own batch size.
    #[test]
    fn views_are_those_of_the_first_step() {
        let splits = data::open("sample", None).unwrap();
        let profile = train::profile(splits.train.as_ref()).unwrap();
        // Views that are normalised, and views of two sizes.
        for method in ["mae", "dino"] {
            let method = objectives::find(method).unwrap();
            let mut config = config::defaults(method, "sample", &profile).unwrap();
            (config.seed, config.training.batch) = (7, 48);
            let objective = train::build(&config, &profile).unwrap();
            let shown = Views::new(&config, objective.as_ref(), &splits.train).unwrap();
            let machine = Machine { device: Device::Cpu, workers: 0, graph: false, stop_after: None };
            let mut input = Input::new(&config, objective.as_ref(), &splits.train, false, machine).unwrap();
            input.begin(0, 0).unwrap();
            assert!(input.advance().unwrap());
            let given = input.current().unwrap().views;
            assert!(shown.rows.len() == 6 && given[0].shape()[0] == 48);
            for (i, (_, views)) in shown.rows.iter().enumerate() {
                assert_eq!(views.len(), given.len());
                for ((view, batch), recipe) in views.iter().zip(&given).zip(objective.views()) {
                    let one = recipe.height * recipe.width;
                    let seen = &batch.as_slice::<f32>().unwrap()[i * one..(i + 1) * one];
                    let (mean, std) = recipe.normalize.as_ref().map_or((0.0, 1.0), |n| (n.mean[0], n.std[0]));
                    let values: Vec<f32> = seen.iter().map(|v| v * std + mean).collect();
                    let picture = Picture::from_unit([recipe.height, recipe.width, 1], &values);
                    assert_eq!(view.address, picture.address().unwrap(), "{} {i}", method.name);
                }
            }
        }
    }
}
