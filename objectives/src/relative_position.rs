//! Relative position (Doersch, Gupta and Efros 2015, "Unsupervised visual representation learning by context prediction").
//!
//! Two patches of an image, the centre of a grid of three by three and one of its eight neighbours: where does the second lie,
//! seen from the first? Both go through the same encoder, each by itself; the layers behind see both. Every neighbour comes in
//! both orders: with its patches exchanged, the pair of label l has label 7 - l. Cross-entropy over 8 classes, ln 8 = 2.079 for
//! a guess.
//!
//! Against answers that need no look at what is shown (section 3.1): gaps and jitter ([`crate::tiles`]), each channel of a
//! patch normalised by itself, patches shrunk and enlarged again now and then (`shrink`), and all colours of a patch but one
//! dropped for noise (`drop_colors`), because a lens leaves them in different places. On grey images the last does nothing.
//!
//! The layers behind the encoder and the rates are those of mmselfsup's recipe for a ResNet-50: a hidden layer with batch norm,
//! ReLU and dropout. A patch of 8 pixels leaves a ResNet with strides of 8 one place in its last map, which works.

use crate::classify::{accuracy, cross_entropy, warning};
use crate::draws::{Dropout, DroppedBranches, encode};
use crate::settings::{at_least_one, not_begun, parse, part, positive, require, require_channels};
use crate::tiles::{Grid, TILES, TileSettings};
use crate::view::{Statistics, View};
use crate::{Batch, DataProfile, Draws, Loss, Method, Objective, Run, Special, recipes};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::random::Purpose;
use engine::{DType, Device, Philox, Result, Tensor};
use kernels::augment::{Interpolation, Recipe, resize_weights};
use kernels::{copy, matmul, random};
use models::{Activation, BatchNorm, Encoder, Initializer, Linear, Mode};
use serde::Deserialize;
use toml::Table;

/// Relative position's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "relative-position",
    summary: "on which side of one patch another lies",
    reference: "Doersch et al. 2015, Unsupervised Visual Representation Learning by Context Prediction",
    recipes: recipes!("relative-position"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;
/// Neighbours of a patch.
pub const NEIGHBOURS: usize = 8;
/// Weight of the newest batch in the head's running statistics, as mmselfsup has it.
const NORM_MOMENTUM: f32 = 0.003;
/// Deviation of the noise in the place of dropped colours, as a part of the colour's that is kept (section 3.1).
const NOISE: f32 = 0.01;
/// Patches of noise that dropped colours take theirs from.
const NOISES: usize = 1024;
/// The smallest side that a patch is shrunk to, as a part of its own: 10 of 96 pixels (cdoersch/deepcontext).
const SMALLEST: f64 = 10.0 / 96.0;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Size of the hidden layer that sees both patches.
    pub hidden: usize,
    /// Part of the hidden layer that is dropped.
    pub dropout: f32,
    /// How much faster than the encoder the layers behind it learn.
    pub head_rate: f32,
    /// How often all colours of a patch but one are replaced by noise. On grey images it does nothing.
    pub drop_colors: f32,
    /// How often a patch is shrunk, to 10/96 of its side or more, and enlarged again.
    pub shrink: f32,
    /// What views are normalised by.
    pub normalize: Statistics,
    /// The patches.
    pub tiles: TileSettings,
    /// The view that patches are cut from.
    pub view: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(RelativePosition::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// Relative position at work.
pub struct RelativePosition {
    seed: u64,
    settings: Settings,
    grid: Grid,
    views: [Recipe; 1],
    dropped: Option<DroppedBranches>,
    dropout: Option<Dropout>,
    networks: Networks,
    ready: Option<Ready>,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    hidden: Linear,
    norm: BatchNorm,
    head: Linear,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.hidden.visit(&path.child("hidden"), visitor);
        self.norm.visit(&path.child("norm"), visitor);
        self.head.visit(&path.child("head"), visitor);
    }
}

/// What is made before the first step, on the device.
struct Ready {
    run: Run,
    /// f32 [t, t t]: to side s + 1 and back, for every side up to a patch's.
    resizes: Option<Tensor>,
    /// f32 [1024, t t].
    noise: Option<Tensor>,
}

impl RelativePosition {
    /// Relative position around `encoder`; the layers behind it are initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<RelativePosition> {
        require(
            NAME,
            &[
                at_least_one("hidden", settings.hidden),
                part("drop_colors", settings.drop_colors),
                part("shrink", settings.shrink),
                positive("head_rate", settings.head_rate),
                (
                    (0.0..1.0).contains(&settings.dropout),
                    format!("dropout must be at least 0 and below 1, not {}", settings.dropout),
                ),
            ],
        )?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let view = settings.view.recipe(NAME, "view", profile, &normalize)?;
        let grid = Grid::new(NAME, settings.tiles, &view, profile.channels)?;
        grid.require_encoder(NAME, encoder.as_mut())?;
        let init = Initializer::new(seed);
        let dropped = DroppedBranches::of(encoder.as_ref(), seed, 0);
        let networks = Networks {
            hidden: Linear::new(2 * encoder.dim(), settings.hidden, true, &init.child("hidden"))?,
            norm: BatchNorm::new(settings.hidden)?.with_momentum(NORM_MOMENTUM),
            head: Linear::new(settings.hidden, NEIGHBOURS, true, &init.child("head"))?,
            encoder,
        };
        let dropout = Dropout::of(settings.dropout, settings.hidden, seed);
        Ok(RelativePosition { seed, settings, grid, views: [view], dropped, dropout, networks, ready: None })
    }

    /// Whether colours are dropped at all.
    fn drops_colors(&self) -> bool {
        self.settings.drop_colors > 0.0 && self.grid.channels() > 1
    }

    /// The patches of views, f32 or bf16 [B 9, t, t, C], as the network sees them.
    fn patches(&self, batch: &Batch) -> Result<Tensor> {
        let ready = self.ready.as_ref().ok_or_else(|| not_begun(NAME))?;
        let views = batch.single(NAME)?;
        let mut planes = self.grid.cut(views, batch.draw(NAME, 0)?)?;
        let mut next = 1;
        if let Some(resizes) = &ready.resizes {
            let resizes = copy::gather_rows(resizes, batch.draw(NAME, next)?)?.reshape(planes.shape())?;
            let rows = matmul::matmul(&resizes, &planes, false, false)?;
            planes = matmul::matmul(&rows, &resizes, false, true)?;
            next += 1;
        }
        if let Some(noise) = &ready.noise {
            let flat = planes.reshape(&[planes.shape()[0], noise.shape()[1]])?;
            let table = copy::cat(&[&flat, noise], 0)?;
            planes = copy::gather_rows(&table, batch.draw(NAME, next)?)?;
        }
        self.grid.images(&planes, views.dtype())
    }
}

/// Pairs of the tiles [B 9] of `batch` images: the rows of the first and of the second patch of each, i32 [16 B], and the labels.
/// Label l says that the second is neighbour l of the first: 0 up left, 1 up, .. 7 down right, row by row without the centre.
pub fn pairs(batch: usize, device: Device) -> Result<[Tensor; 3]> {
    let (mut first, mut second, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for image in 0..batch {
        let centre = (TILES * image + TILES / 2) as i32;
        for label in 0..NEIGHBOURS {
            let place = if label < NEIGHBOURS / 2 { label } else { label + 1 };
            let neighbour = (TILES * image + place) as i32;
            first.extend([centre, neighbour]);
            second.extend([neighbour, centre]);
            labels.extend([label as i32, (NEIGHBOURS - 1 - label) as i32]);
        }
    }
    let constant = |values: &[i32]| Tensor::constant(values, &[values.len()], device);
    Ok([constant(&first)?, constant(&second)?, constant(&labels)?])
}

/// For each of the sides 1 .. t the matrix that shrinks a line of t pixels to it and enlarges it again: f32 [t, t t].
fn resizes(t: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(t * t * t);
    for side in 1..=t {
        let (down, up) = match side == t {
            true => {
                all.extend((0..t * t).map(|i| if i / t == i % t { 1.0 } else { 0.0 }));
                continue;
            }
            false => (
                resize_weights(t, side, Interpolation::Bilinear),
                resize_weights(side, t, Interpolation::Bilinear),
            ),
        };
        for i in 0..t {
            for j in 0..t {
                all.push((0..side).map(|k| up[i * side + k] * down[k * t + j]).sum());
            }
        }
    }
    all
}

/// Which row of [`resizes`] each plane [n C] takes, one for the channels of a patch: areas between the smallest and the whole
/// are equally likely.
fn draw_resizes(
    random: &mut Philox,
    patches: usize,
    channels: usize,
    t: usize,
    share: f32,
) -> Result<Tensor> {
    let least = (SMALLEST * t as f64).ceil().max(1.0).powi(2);
    let mut rows = Vec::with_capacity(patches * channels);
    for _ in 0..patches {
        let area = least + f64::from(random.uniform()) * ((t * t) as f64 - least);
        let side = if random.chance(share) { area.sqrt() as usize } else { t };
        rows.extend(vec![side.clamp(1, t) as i32 - 1; channels]);
    }
    Tensor::from_slice(&rows, &[rows.len()])
}

/// Where each plane [n C] of patches comes from: itself, or for dropped colours one of the noises behind all planes.
fn draw_colors(random: &mut Philox, patches: usize, channels: usize, share: f32) -> Result<Tensor> {
    let planes = patches * channels;
    let mut rows: Vec<i32> = (0..planes as i32).collect();
    for patch in rows.chunks_exact_mut(channels) {
        let (drop, kept) = (random.chance(share), random.below(channels));
        for (channel, row) in patch.iter_mut().enumerate() {
            let noise = (planes + random.below(NOISES)) as i32;
            if drop && channel != kept {
                *row = noise;
            }
        }
    }
    Tensor::from_slice(&rows, &[planes])
}

impl Objective for RelativePosition {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (seed, grid, batch) = (self.seed, self.grid, run.batch);
        let Settings { shrink, drop_colors, .. } = self.settings;
        let colors = self.drops_colors();
        let (dropout, dropped) = (self.dropout.clone(), self.dropped.clone());
        Ok(Some(Box::new(move |step| {
            let mut random = Philox::new(seed, Purpose::Tile, step);
            let (patches, channels) = (TILES * batch, grid.channels());
            let mut drawn = vec![grid.draw(&mut random, batch)?];
            if shrink > 0.0 {
                drawn.push(draw_resizes(&mut random, patches, channels, grid.size(), shrink)?);
            }
            if colors {
                drawn.push(draw_colors(&mut random, patches, channels, drop_colors)?);
            }
            if let Some(dropout) = &dropout {
                drawn.push(dropout.draw(&mut random, 2 * NEIGHBOURS * batch)?);
            }
            if let Some(dropped) = &dropped {
                drawn.push(dropped.draw(step, patches)?);
            }
            Ok(drawn)
        })))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        let t = self.grid.size();
        let resizes = match self.settings.shrink > 0.0 {
            true => Some(Tensor::from_slice(&resizes(t), &[t, t * t])?.to_device(run.device)?),
            false => None,
        };
        let noise = match self.drops_colors() {
            true => {
                let shape = [NOISES, t * t];
                let noise =
                    random::normal(&shape, 0.0, NOISE, self.seed, Purpose::Tile, u64::MAX, Device::Cpu)?;
                Some(noise.to_device(run.device)?)
            }
            false => None,
        };
        if let Some(dropout) = &mut self.dropout {
            dropout.begin(run.device)?;
        }
        self.ready = Some(Ready { run: *run, resizes, noise });
        Ok(())
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let patches = self.patches(batch)?;
        let count = patches.shape()[0] / TILES;
        // Behind the places: what `draws` adds in this order.
        let mut next = 1 + usize::from(self.settings.shrink > 0.0) + usize::from(self.drops_colors());
        let mask = self.dropout.as_ref().map(|_| batch.draw(NAME, next)).transpose()?;
        next += usize::from(mask.is_some());
        let keep = self.dropped.as_ref().map(|_| batch.draw(NAME, next)).transpose()?;
        let networks = &mut self.networks;
        let features = encode(networks.encoder.as_mut(), &Var::constant(patches), keep)?;
        let [first, second, labels] = pairs(count, features.value().device())?;
        let take = |rows: Tensor| ops::gather_rows(&features, &Var::constant(rows));
        let both = ops::cat(&[&take(first)?, &take(second)?], 1)?;
        let hidden = networks.hidden.forward(&both)?;
        let mut hidden = networks.norm.forward(&hidden, None, Activation::Relu, Mode::Train)?;
        if let (Some(dropout), Some(rows)) = (&self.dropout, mask) {
            hidden = dropout.apply(NAME, &hidden, rows)?;
        }
        let logits = networks.head.forward(&hidden)?;
        let value = cross_entropy(&logits, &labels)?;
        let right = accuracy(logits.value(), &labels)?;
        let embeddings = copy::cast(&features.into_value(), DType::F32)?;
        Ok(Loss { value, embeddings, signals: vec![("accuracy", right)] })
    }

    fn special(&self, name: &str) -> Special {
        let behind = !name.starts_with("encoder.");
        Special { rate_scale: if behind { self.settings.head_rate } else { 1.0 }, ..Special::default() }
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let shortcuts = "patches without a gap or jitter, tiles.normalize = false, colours that a lens moved (drop_colors, \
                         view.grayscale, tiles.channel_shift), borders of the images";
        warning(NEIGHBOURS, self.ready.as_ref().map(|ready| &ready.run), shortcuts, figures)
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::augment::{ImageRef, resized_crop};

    /// A line's matrix, on rows and on columns, is resizing the patch to the side and back.
    #[test]
    fn matrices_resize_to_every_side_and_back() {
        let t = 9;
        let all = resizes(t);
        let mut random = Philox::new(1, Purpose::Test, 0);
        let patch: Vec<f32> = (0..t * t).map(|_| random.uniform()).collect();
        let resized = |pixels: &[f32], from: usize, to: usize| {
            let image = ImageRef::from_f32(pixels, from, from, 1)?;
            resized_crop(image, image.whole(), to, to, Interpolation::Bilinear)
        };
        for side in 1..=t {
            let matrix = &all[(side - 1) * t * t..side * t * t];
            let apply = |i: usize, j: usize| -> f32 {
                let entry = |k: usize, l: usize| matrix[i * t + k] * patch[k * t + l] * matrix[j * t + l];
                (0..t).flat_map(|k| (0..t).map(move |l| (k, l))).map(|(k, l)| entry(k, l)).sum()
            };
            let there =
                resized(&patch, t, side).and_then(|small| resized(&small, side, t)).unwrap_or_default();
            assert_eq!(there.len(), t * t);
            for (place, wanted) in there.iter().enumerate() {
                let found = apply(place / t, place % t);
                assert!((found - wanted).abs() < 1e-5, "side {side}, place {place}: {found} for {wanted}");
            }
        }
        assert!(all[(t - 1) * t * t..].iter().enumerate().all(|(i, v)| *v == f32::from(i / t == i % t)));
    }
}
