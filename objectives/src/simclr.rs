//! SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations").
//!
//! Two views of each image go through encoder and projector together, so that batch normalisation sees all
//! 2B. With unit vectors z and temperature t, row i's loss is `-log exp(z_i . z_p / t) / sum_{k != i}
//! exp(z_i . z_k / t)`, where p = (i + B) mod 2B is the other view (eq. 1): one positive and 2B - 2 negatives
//! of both views. The mean over 2B is minimised, and gradients flow into every z.
//!
//! What one step of that does to three vectors, two views `a` and `a+` of an image and one view `b` of another:
//!
//! ```
//! use autograd::{Var, ops};
//! use engine::Tensor;
//!
//! // a, a+, b
//! let vectors = [[1.0f32, 0.0], [0.9, 0.4], [-0.5, 0.8]];
//! let cosines = |v: &[[f32; 2]; 3]| {
//!     let unit = v.map(|[x, y]| [x / x.hypot(y), y / x.hypot(y)]);
//!     let with_a = |w: [f32; 2]| unit[0][0] * w[0] + unit[0][1] * w[1];
//!     [with_a(unit[1]), with_a(unit[2])].map(|c| (1000.0 * c).round() / 1000.0)
//! };
//! assert_eq!(cosines(&vectors), [0.914, -0.530]);
//!
//! let leaf = Var::leaf(Tensor::from_slice(&vectors.concat(), &[3, 2])?);
//! let z = ops::l2_normalize(&leaf, 1e-12)?;
//! // Both views of the image look for each other among all but themselves, at temperature 0.5.
//! let pair = ops::narrow(&z, 0, 0, 2)?;
//! let positive = Var::constant(Tensor::from_slice(&[1i32, 0], &[2])?);
//! let losses = ops::ntxent(&pair, &z, ops::Positive::Column(&positive), 0.5, Some(0))?;
//! let loss = ops::mean(&losses, &[0])?;
//! loss.backward()?;
//! assert!((loss.value().item()? - 0.0845).abs() < 1e-4);
//!
//! // A step of gradient descent at rate 0.5.
//! let gradient = leaf.gradient().ok_or("a leaf has a gradient")?.to_vec::<f32>()?;
//! let mut moved = vectors;
//! moved.iter_mut().flatten().zip(gradient).for_each(|(v, g)| *v -= 0.5 * g);
//! // The pair is pulled together, the other image is pushed away.
//! assert_eq!(cosines(&moved), [0.950, -0.592]);
//! println!("cosines {:?} become {:?}", cosines(&vectors), cosines(&moved));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::draws::{DroppedBranches, encode};
use crate::settings::{at_least_one, parse, positive, require, require_channels};
use crate::view::View;
use crate::{Batch, DataProfile, Draws, Loss, Method, Objective, Run, recipes};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, ops};
use engine::{DType, Error, Result, Tensor};
use kernels::augment::Recipe;
use kernels::{copy, elementwise, reduce};
use models::{Encoder, Initializer, Mlp, MlpSpec, Mode};
use serde::Deserialize;
use toml::Table;

/// SimCLR's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "simclr",
    summary: "two views of an image attract each other and repel all other images of the batch",
    reference: "Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual Representations",
    recipes: recipes!("simclr"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;
/// Smallest norm that a projection is divided by, PyTorch's default.
const NORM_EPS: f32 = 1e-12;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Divides the cosines.
    pub temperature: f32,
    /// Linear layers of the projector: 2 in SimCLR, 3 in SimCLR v2.
    pub projector_layers: usize,
    /// Size of the projector's hidden layers; 0 is the encoder's feature size.
    pub projector_hidden: usize,
    /// Size of the projections that are compared.
    pub projector_dim: usize,
    /// Both views. Their values stay in 0 to 1.
    pub view: View,
}

impl Settings {
    /// The settings in `given`. Errors name the setting and what it must be.
    #[track_caller]
    pub fn new(given: &Table) -> Result<Settings> {
        let s: Settings = parse(NAME, given)?;
        require(
            NAME,
            &[
                positive("temperature", s.temperature),
                at_least_one("projector_layers", s.projector_layers),
                at_least_one("projector_dim", s.projector_dim),
            ],
        )?;
        Ok(s)
    }
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Simclr::new(Settings::new(given)?, profile, encoder, seed)?))
}

/// SimCLR at work.
pub struct Simclr {
    temperature: f32,
    views: [Recipe; 2],
    dropped: Option<DroppedBranches>,
    networks: Networks,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    projector: Mlp,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.projector.visit(&path.child("projector"), visitor);
    }
}

impl Simclr {
    /// SimCLR around `encoder`; the projector's initial weights come from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Simclr> {
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let view = settings.view.recipe(NAME, "view", profile, &None)?;
        let dim = encoder.dim();
        let hidden = if settings.projector_hidden == 0 { dim } else { settings.projector_hidden };
        let projector = MlpSpec::simclr(dim, hidden, settings.projector_dim, settings.projector_layers);
        let projector = Mlp::new(projector, &Initializer::new(seed).child("projector"))?;
        Ok(Simclr {
            temperature: settings.temperature,
            views: [view.clone(), view],
            dropped: DroppedBranches::of(encoder.as_ref(), seed, 0),
            networks: Networks { encoder, projector },
        })
    }
}

/// The mean NT-Xent of unit vectors z [2B, D]; rows i and i + B show the same image.
#[track_caller]
pub fn nt_xent(z: &Var, temperature: f32) -> Result<Var> {
    let rows = match *z.shape() {
        [rows, _] if rows >= 4 && rows % 2 == 0 => rows,
        _ => {
            let text = "needs two views of at least 2 images: [2B, D], B >= 2 (use a larger batch)";
            return Err(Error::shape(NAME, text).argument("z", z.value()));
        }
    };
    let positive: Vec<i32> = (0..rows).map(|i| ((i + rows / 2) % rows) as i32).collect();
    let positive = Var::constant(Tensor::constant(&positive, &[rows], z.value().device())?);
    let loss = ops::ntxent(z, z, ops::Positive::Column(&positive), temperature, Some(0))?;
    ops::mean(&loss, &[0])
}

impl Objective for Simclr {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        Ok(DroppedBranches::each(std::slice::from_ref(&self.dropped), 2 * run.batch))
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let images = Var::constant(copy::cat(&batch.pair(NAME)?, 0)?);
        let features = encode(self.networks.encoder.as_mut(), &images, batch.draws.first())?;
        let z = self.networks.projector.forward(&features, Mode::Train)?;
        let z = ops::l2_normalize(&z, NORM_EPS)?;
        let value = nt_xent(&z, self.temperature)?;
        let embeddings = copy::cast(&z.into_value(), DType::F32)?;
        let count = embeddings.shape()[0] / 2;
        let products =
            elementwise::mul(&embeddings.narrow(0, 0, count)?, &embeddings.narrow(0, count, count)?)?;
        let positive = elementwise::scale(&reduce::sum(&products, &[0, 1])?, 1.0 / count as f32)?;
        let negatives = Tensor::full(&[], (2 * count - 2) as f32, embeddings.device())?;
        let signals = vec![("positive_similarity", positive), ("negatives", negatives)];
        Ok(Loss { value, embeddings, signals })
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
