//! Jigsaw (Noroozi and Favaro 2016, "Unsupervised learning of visual representations by solving jigsaw puzzles").
//!
//! An image is cut into nine tiles, which come in one of N known orders; the network says which. Every tile goes through the
//! same encoder by itself; the features of all, one after another in the order in which the tiles came, go to the layers that
//! tell the orders apart. Cross-entropy over N classes, ln N for a guess.
//!
//! What would give the order away without a look at what is shown: lines that go on from tile to tile (gaps and jitter,
//! [`crate::tiles`]), brightness and contrast (each channel of each tile is normalised by itself, before tiles are put in
//! order), colours that the lens moved (`tiles.channel_shift`; `view.grayscale` for a part of the images), and orders that are
//! nearly equal ([`crate::permutations`]). The set of orders is a buffer of the networks, so a checkpoint has it, and a label is
//! looked up in it on the device.
//!
//! The encoder sees single tiles, so their order makes no difference to it: features are put in order instead of tiles, and
//! each image's can come in several orders (`orders`) at the price of the last layers alone. A ResNet whose strides reduce a
//! tile of 8 pixels to one still works: its last map is then that one place.
//!
//! Left out: dropout, which VISSL's network with batch norm does without.

use crate::classify::{accuracy, cross_entropy, warning};
use crate::draws::{DroppedBranches, encode};
use crate::permutations::Permutations;
use crate::settings::{at_least_one, parse, require, require_channels};
use crate::tiles::{Grid, TILES, TileSettings};
use crate::view::{Statistics, View};
use crate::{Batch, DataProfile, Draws, Loss, Method, Objective, Run, recipes};
use autograd::module::{Path, Visitor};
use autograd::{Buffer, Module, Var, ops};
use engine::random::Purpose;
use engine::{DType, Philox, Result, Tensor};
use kernels::augment::Recipe;
use kernels::{copy, elementwise};
use models::{Activation, BatchNorm, Encoder, Initializer, Linear, Mlp, MlpSpec, Mode};
use serde::Deserialize;
use std::sync::Arc;
use toml::Table;

/// Jigsaw's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "jigsaw",
    summary: "which order the tiles of an image come in",
    reference: "Noroozi and Favaro 2016, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    recipes: recipes!("jigsaw"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Orders of tiles that are told apart.
    pub permutations: usize,
    /// Orders in which each image's tiles come in a step.
    pub orders: usize,
    /// Size of what the layer behind the encoder makes of a tile.
    pub tile_features: usize,
    /// Size of the hidden layer behind all tiles; 0 leaves it out.
    pub hidden: usize,
    /// What views are normalised by.
    pub normalize: Statistics,
    /// The tiles.
    pub tiles: TileSettings,
    /// The view that is cut into tiles.
    pub view: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Jigsaw::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// Jigsaw at work.
pub struct Jigsaw {
    seed: u64,
    orders: usize,
    permutations: Arc<Permutations>,
    grid: Grid,
    views: [Recipe; 1],
    dropped: Option<DroppedBranches>,
    networks: Networks,
    run: Option<Run>,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    tile: Linear,
    norm: BatchNorm,
    head: Mlp,
    /// f32 [N, 9]: see [`Permutations`].
    table: Buffer,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.tile.visit(&path.child("tile"), visitor);
        self.norm.visit(&path.child("tile_norm"), visitor);
        self.head.visit(&path.child("head"), visitor);
        visitor.buffer(path.name("permutations"), &mut self.table);
    }
}

impl Jigsaw {
    /// Jigsaw around `encoder`; the other layers are initialised, and the orders chosen, from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Jigsaw> {
        require(
            NAME,
            &[at_least_one("orders", settings.orders), at_least_one("tile_features", settings.tile_features)],
        )?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let view = settings.view.recipe(NAME, "view", profile, &normalize)?;
        let grid = Grid::new(NAME, settings.tiles, &view, profile.channels)?;
        grid.require_encoder(NAME, encoder.as_mut())?;
        let permutations = Permutations::of(settings.permutations, seed)?;
        let table: Vec<f32> = permutations.rows.iter().flatten().map(|&tile| f32::from(tile)).collect();
        let init = Initializer::new(seed);
        let head = MlpSpec {
            hidden: settings.hidden.max(1),
            layers: if settings.hidden == 0 { 1 } else { 2 },
            output_bias: true,
            ..MlpSpec::byol(TILES * settings.tile_features, 1, settings.permutations)
        };
        Ok(Jigsaw {
            seed,
            orders: settings.orders,
            grid,
            views: [view],
            dropped: DroppedBranches::of(encoder.as_ref(), seed, 0),
            networks: Networks {
                tile: Linear::new(encoder.dim(), settings.tile_features, true, &init.child("tile"))?,
                norm: BatchNorm::new(settings.tile_features)?,
                head: Mlp::new(head, &init.child("head"))?,
                table: Buffer::new(Tensor::from_slice(&table, &[settings.permutations, TILES])?),
                encoder,
            },
            permutations,
            run: None,
        })
    }
}

/// Which tiles come one after another: for labels i32 [B K], K an image, the rows i32 [B K 9] of the tiles [B 9] of B images.
/// `table`, f32 [N, 9], has an order a row: its entry p is the tile that comes to place p.
#[track_caller]
pub fn order(table: &Tensor, labels: &Tensor, orders: usize) -> Result<Tensor> {
    let count = labels.len();
    let first: Vec<f32> = (0..count * TILES).map(|i| (i / TILES / orders.max(1) * TILES) as f32).collect();
    let first = Tensor::constant(&first, &[count, TILES], labels.device())?;
    // Row numbers are exact in f32 up to 2^24.
    let rows = elementwise::add(&copy::gather_rows(table, labels)?, &first)?;
    copy::cast(&rows, DType::I32)?.reshape(&[count * TILES])
}

impl Objective for Jigsaw {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (seed, grid, batch, dropped) = (self.seed, self.grid, run.batch, self.dropped.clone());
        let (puzzles, classes) = (run.batch * self.orders, self.permutations.rows.len());
        Ok(Some(Box::new(move |step| {
            let mut random = Philox::new(seed, Purpose::Tile, step);
            let labels: Vec<i32> = (0..puzzles).map(|_| random.below(classes) as i32).collect();
            let mut drawn =
                vec![grid.draw(&mut random, batch)?, Tensor::from_slice(&labels, &[labels.len()])?];
            if let Some(dropped) = &dropped {
                drawn.push(dropped.draw(step, TILES * batch)?);
            }
            Ok(drawn)
        })))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        self.run = Some(*run);
        Ok(())
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let views = batch.single(NAME)?;
        let (at, labels) = (batch.draw(NAME, 0)?, batch.draw(NAME, 1)?);
        let keep = self.dropped.as_ref().map(|_| batch.draw(NAME, 2)).transpose()?;
        let tiles = self.grid.images(&self.grid.cut(views, at)?, views.dtype())?;
        let networks = &mut self.networks;
        let features = encode(networks.encoder.as_mut(), &Var::constant(tiles), keep)?;
        let seen = networks.tile.forward(&features)?;
        let seen = networks.norm.forward(&seen, None, Activation::Relu, Mode::Train)?;
        let rows = order(networks.table.value(), labels, self.orders)?;
        let ordered = ops::gather_rows(&seen, &Var::constant(rows))?;
        let width = seen.shape()[1];
        let ordered = ops::reshape(&ordered, &[labels.len(), TILES * width])?;
        let logits = networks.head.forward(&ordered, Mode::Train)?;
        let value = cross_entropy(&logits, labels)?;
        let device = views.device();
        let constant = |value: f64| Tensor::constant(&[value as f32], &[], device);
        let signals = vec![
            ("accuracy", accuracy(logits.value(), labels)?),
            ("hamming_minimum", constant(self.permutations.minimum as f64)?),
            ("hamming_mean", constant(self.permutations.mean)?),
        ];
        let embeddings = copy::cast(&features.into_value(), DType::F32)?;
        Ok(Loss { value, embeddings, signals })
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let shortcuts = "tiles without a gap or jitter, tiles.normalize = false, colours that a lens moved (view.grayscale, \
                         tiles.channel_shift), borders of the images";
        warning(self.permutations.rows.len(), self.run.as_ref(), shortcuts, figures)
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
