//! Rotation (Gidaris, Singh and Komodakis 2018, "Unsupervised representation learning by predicting image rotations").
//!
//! Every image is in the batch in all four rotations, by 0, 90, 180 and 270 degrees counter-clockwise, and the network says
//! which is which: cross-entropy over 4 classes, ln 4 = 1.386 for a guess. A rotation moves pixels and does nothing else.
//!
//! Views are augmented first and rotated then. A flip after the rotation would make 90 and 270 degrees alike: mirrored, an
//! image turned by 90 degrees is the mirrored image turned by 270. Views come normalised; that is done to each pixel by
//! itself, so it makes no bit of difference whether it is before or after the rotation.
//!
//! Features of earlier blocks are worth more than those of the last, which know rotations rather than things
//! (section 3.1): `pretext probe --layer best`.

use crate::classify::{accuracy, cross_entropy, warning};
use crate::draws::{DroppedBranches, encode};
use crate::settings::{parse, require_channels};
use crate::view::{Statistics, View};
use crate::{Batch, DataProfile, Draws, Loss, Method, Objective, Run, recipes};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var};
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::augment::Recipe;
use kernels::copy;
use models::{Encoder, Initializer, Linear};
use serde::Deserialize;
use toml::Table;

/// Rotation's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "rotation",
    summary: "which of four rotations an image was turned by",
    reference: "Gidaris et al. 2018, Unsupervised Representation Learning by Predicting Image Rotations",
    recipes: recipes!("rotation"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;
/// Rotations of an image.
pub const ROTATIONS: usize = 4;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What views are normalised by.
    pub normalize: Statistics,
    /// The view that is rotated.
    pub view: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Rotation::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// Rotation at work.
pub struct Rotation {
    views: [Recipe; 1],
    dropped: Option<DroppedBranches>,
    networks: Networks,
    run: Option<Run>,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    head: Linear,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.head.visit(&path.child("head"), visitor);
    }
}

impl Rotation {
    /// Rotation around `encoder`; the linear layer behind it is initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Rotation> {
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let view = settings.view.recipe(NAME, "view", profile, &normalize)?;
        if view.height != view.width {
            let text = format!(
                "views of {} x {} are no square, which rotated images of one batch must be: set view.size",
                view.height, view.width
            );
            return Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
        }
        let dropped = DroppedBranches::of(encoder.as_ref(), seed, 0);
        let head = Linear::new(encoder.dim(), ROTATIONS, true, &Initializer::new(seed).child("head"))?;
        Ok(Rotation { views: [view], dropped, networks: Networks { encoder, head }, run: None })
    }
}

/// Square images [B, S, S, C] of any type in all rotations, [4 B, S, S, C]: first all images as they are, then all turned by
/// 90 degrees counter-clockwise, by 180, by 270.
#[track_caller]
pub fn rotations(images: &Tensor) -> Result<Tensor> {
    let [batch, side, channels] = match *images.shape() {
        [batch, height, width, channels] if height == width => [batch, height, channels],
        _ => {
            return Err(Error::shape(NAME, "images must be squares, [B, S, S, C]").argument("images", images));
        }
    };
    // The pixel that comes to row i and column j.
    let source = |turn: usize, i: usize, j: usize| match turn {
        0 => (i, j),
        1 => (j, side - 1 - i),
        2 => (side - 1 - i, side - 1 - j),
        _ => (side - 1 - j, i),
    };
    let mut from = Vec::with_capacity(ROTATIONS * side * side);
    for turn in 0..ROTATIONS {
        for i in 0..side {
            for j in 0..side {
                let (y, x) = source(turn, i, j);
                from.push((y * side + x) as i32);
            }
        }
    }
    let from = Tensor::constant(&from, &[from.len()], images.device())?;
    // With pixels first, a row is that pixel of all images: long runs are moved.
    let pixels = copy::contiguous(&images.reshape(&[batch, side * side, channels])?.permute(&[1, 0, 2])?)?;
    let turned = copy::gather_rows(&pixels, &from)?.reshape(&[ROTATIONS, side * side, batch, channels])?;
    let images = copy::contiguous(&turned.permute(&[0, 2, 1, 3])?)?;
    images.reshape(&[ROTATIONS * batch, side, side, channels])
}

/// The i32 labels of what [`rotations`] makes of `batch` images: 0 to 3, times 90 degrees.
pub fn labels(batch: usize, device: engine::Device) -> Result<Tensor> {
    let labels: Vec<i32> = (0..ROTATIONS * batch).map(|row| (row / batch) as i32).collect();
    Tensor::constant(&labels, &[labels.len()], device)
}

impl Objective for Rotation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        Ok(DroppedBranches::each(std::slice::from_ref(&self.dropped), ROTATIONS * run.batch))
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        self.run = Some(*run);
        Ok(())
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let images = batch.single(NAME)?;
        let turned = Var::constant(rotations(images)?);
        let labels = labels(images.shape()[0], images.device())?;
        let features = encode(self.networks.encoder.as_mut(), &turned, batch.draws.first())?;
        let logits = self.networks.head.forward(&features)?;
        let value = cross_entropy(&logits, &labels)?;
        let right = accuracy(logits.value(), &labels)?;
        let embeddings = copy::cast(&features.into_value(), DType::F32)?;
        Ok(Loss { value, embeddings, signals: vec![("accuracy", right)] })
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let shortcuts =
            "black corners and borders, text, a camera's mark, views that are flipped after rotation";
        warning(ROTATIONS, self.run.as_ref(), shortcuts, figures)
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
