//! Colorization (Zhang, Isola, Efros 2016, "Colorful Image Colorization").
//!
//! The encoder sees the lightness L of an image in Lab and nothing else: one channel, (L - 50) / 100. A decoder predicts for
//! every `target_stride`-th pixel, picked and not averaged, which of 313 bins of the plane a, b its colour lies in. The
//! target is soft: the 10 nearest bins, weighted by a Gaussian of deviation 5 ([`kernels::color::soft_encode`]). Rare
//! colours count more: a pixel weighs what its nearest bin does ([`ab_bins::rebalancing`]), with the prior over bins taken
//! from training images before the first step ([`Objective::prepare`]; the soft targets are what smooths it) and kept as a
//! buffer. An image without colour (no |a| or |b| above 5) has no weight.
//!
//! The loss is the mean over all target pixels of weight times cross-entropy. (The Caffe code applies weights to gradients
//! alone and shows the unweighted loss: the signal `cross_entropy`.) Uniform predictions cost ln 313 = 5.746 for a weight of 1;
//! the signal `constant_loss` is what the best prediction costs that is the same everywhere, prior times weight: a loss that
//! stays there has learnt nothing.
//!
//! Different from the paper: any encoder of this project in the place of its VGG-like one; behind it, as there, convolutions
//! of dilation 2 (`dilated_layers`; six there) and transposed ones; batch norm has scale and shift. Evaluation sees L alone, too.

use crate::ab_bins::{self, BINS};
use crate::objective::Pictures;
use crate::settings::{at_least_one, parse, part, positive, require};
use crate::view::View;
use crate::{Batch, DataProfile, Loss, Method, Objective, Recipes};
use autograd::module::{Path, Visitor};
use autograd::{Buffer, Module, Var, no_grad, ops};
use engine::{DType, Device, Error, ErrorKind, Result, Tensor};
use kernels::augment::{ImageRef, Interpolation, Recipe, resized_crop};
use kernels::color::{Spread, lab_to_rgb, pixel_weights, rgb_to_lab, soft_encode};
use kernels::matmul::matmul;
use kernels::{copy, elementwise, reduce};
use models::{Encoder, Initializer, Mode, Upsampler, UpsamplerSpec};
use serde::Deserialize;
use toml::Table;

/// Colorization's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "colorization",
    summary: "colours are predicted from lightness; the encoder sees one channel",
    reference: "Zhang, Isola, Efros 2016, Colorful Image Colorization",
    recipes: Recipes {
        // Grey images are refused before a setting is looked at.
        small_grey: include_str!("../recipes/colorization/32.toml"),
        small: include_str!("../recipes/colorization/32.toml"),
        medium: include_str!("../recipes/colorization/96.toml"),
        large: include_str!("../recipes/colorization/224.toml"),
    },
    lightness: true,
    build,
};

const NAME: &str = METHOD.name;
/// Bins with a weight in a target. The paper says 5, its code 10.
const NEIGHBOURS: usize = 10;
/// Deviation of a target's weights, in units of a and b.
const SIGMA: f32 = 5.0;
/// An image with no |a| and no |b| above this is grey.
const GREY: f32 = 5.0;
/// Below the probability of any bin that is seen.
const LEAST: f64 = 1e-8;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Pixels of a view from one target to the next, in rows and columns.
    pub target_stride: usize,
    /// Share of the uniform distribution in what weights are the inverse of; 1 weighs all colours alike.
    pub lambda: f32,
    /// Convolutions of dilation 2 that the decoder begins with.
    pub dilated_layers: usize,
    /// Channels of the decoder's first layers.
    pub decoder_width: usize,
    /// Of the annealed mean, for pictures alone.
    pub temperature: f32,
    /// The view that is coloured.
    pub view: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Colorization::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// Colorization at work.
pub struct Colorization {
    settings: Settings,
    views: [Recipe; 1],
    networks: Networks,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    decoder: Upsampler,
    /// [313]: the weight of each bin, and the logarithm of weight times prior, which adds up to 1.
    weights: Buffer,
    log_constant: Buffer,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.decoder.visit(&path.child("decoder"), visitor);
        visitor.buffer(path.name("weights"), &mut self.weights);
        visitor.buffer(path.name("log_constant"), &mut self.log_constant);
    }
}

impl Colorization {
    /// Colorization around `encoder`, which takes one channel; the decoder is initialised from `seed`. Until
    /// [`Objective::prepare`] the prior is uniform.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Colorization> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
        if profile.channels != 3 {
            return wrong(
                "colours are what is predicted, and these images are grey: take images in colour (--data sample-color, or \
                 folder:DIR), or another method (mae, inpainting)"
                    .into(),
            );
        }
        let stride = settings.target_stride;
        require(
            NAME,
            &[
                at_least_one("target_stride", stride),
                at_least_one("decoder_width", settings.decoder_width),
                part("lambda", settings.lambda),
                positive("lambda", settings.lambda),
                positive("temperature", settings.temperature),
            ],
        )?;
        let view = settings.view.recipe(NAME, "view", profile, &None)?;
        if encoder.channels() != 1 {
            let text = "the encoder must take one channel, lightness";
            return Err(Error::value(NAME, text).with("channels", encoder.channels()));
        }
        if encoder.drop_rates().iter().any(|rate| *rate > 0.0) {
            return wrong("drops no residual branches: leave out arch.drop_path".into());
        }
        let (height, width) = (view.height, view.width);
        if height % stride != 0 || width % stride != 0 {
            return wrong(format!("target_stride {stride} does not divide views of {height} x {width}"));
        }
        let map = map_shape(encoder.as_mut(), height, width)?;
        let target = [height / stride, width / stride];
        let Some(doublings) = (0..16).find(|d| [map[0] << d, map[1] << d] == target) else {
            return wrong(format!(
                "{} gives {} x {} places for views of {height} x {width}, which doubled some times must be the {} x {} \
                 targets: choose another target_stride or view.size",
                encoder.arch().name,
                map[0],
                map[1],
                target[0],
                target[1]
            ));
        };
        let spec = UpsamplerSpec {
            inputs: map[2],
            dilated: settings.dilated_layers,
            width: settings.decoder_width,
            doublings,
            outputs: BINS,
        };
        let networks = Networks {
            encoder,
            decoder: Upsampler::new(&spec, &Initializer::new(seed).child("decoder"))?,
            weights: Buffer::new(Tensor::full(&[BINS], 1.0, Device::Cpu)?),
            log_constant: Buffer::new(Tensor::full(&[BINS], -(BINS as f32).ln(), Device::Cpu)?),
        };
        Ok(Colorization { settings, views: [view], networks })
    }
}

/// Rows, columns and channels of the encoder's map for images of this size.
pub(crate) fn map_shape(encoder: &mut dyn Encoder, height: usize, width: usize) -> Result<[usize; 3]> {
    let _off = no_grad();
    let image =
        Var::constant(Tensor::zeros(&[1, height, width, encoder.channels()], DType::F32, Device::Cpu)?);
    match *encoder.map(&image, Mode::Evaluate)?.shape() {
        [_, rows, columns, channels] => Ok([rows, columns, channels]),
        _ => Err(Error::shape(NAME, "an encoder's map is [B, rows, columns, channels]")),
    }
}

/// The encoder's input, (L - 50) / 100 as [B, H, W, 1], and the points (a, b) of every `stride`-th pixel, [B, P, 2], of sRGB
/// images [B, H, W, 3] in 0 to 1.
#[track_caller]
pub fn split(images: &Tensor, stride: usize) -> Result<(Tensor, Tensor)> {
    let &[b, h, w, 3] = images.shape() else {
        return Err(Error::shape(NAME, "images must be [B, H, W, 3]").argument("images", images));
    };
    let lab = rgb_to_lab(&copy::cast(images, DType::F32)?)?;
    let lightness = copy::contiguous(&lab.narrow(3, 0, 1)?)?;
    let middle = Tensor::constant(&[-0.5f32], &[1], images.device())?;
    let lightness = elementwise::add_bias(&elementwise::scale(&lightness, 0.01)?, &middle)?;
    let (rows, columns) = (h / stride, w / stride);
    let picked = lab.reshape(&[b, rows, stride, columns, stride, 3])?.narrow(2, 0, 1)?.narrow(4, 0, 1)?;
    let points = copy::contiguous(&picked.narrow(5, 1, 2)?)?.reshape(&[b, rows * columns, 2])?;
    Ok((lightness, points))
}

/// Soft targets [B P, 313] and the nearest bins [B P] of points [B, P, 2].
#[track_caller]
pub fn targets(points: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = points.reshape(&[points.len() / 2, 2])?;
    let spread = Spread { neighbours: NEIGHBOURS, sigma: SIGMA };
    soft_encode(&rows, &ab_bins::centres_on(points.device())?, spread)
}

/// The mean over pixels of weight times cross-entropy, and each pixel's cross-entropy [M]: logits [M, 313] in f32, targets
/// [M, 313], weights [M].
#[track_caller]
pub fn loss(logits: &Var, targets: &Tensor, weights: &Tensor) -> Result<(Var, Tensor)> {
    let each = ops::softmax_xent(logits, &Var::constant(targets.clone()), 0.0)?;
    let weighted = ops::mul(&each, &Var::constant(weights.clone()))?;
    Ok((ops::mean(&weighted, &[0])?, each.into_value()))
}

impl Objective for Colorization {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    /// Estimates the prior over bins from images with colour.
    fn prepare(&mut self, views: &mut dyn Iterator<Item = Result<Tensor>>) -> Result<()> {
        let every = Tensor::full(&[BINS], 1.0, Device::Cpu)?;
        let mut prior = vec![0f64; BINS];
        for images in views {
            let (_, points) = split(&images?, self.settings.target_stride)?;
            let (targets, nearest) = targets(&points)?;
            let coloured = pixel_weights(&points, &nearest, &every, GREY)?.to_vec::<f32>()?;
            for (row, coloured) in targets.as_slice::<f32>()?.chunks_exact(BINS).zip(coloured) {
                if coloured > 0.0 {
                    prior.iter_mut().zip(row).for_each(|(sum, p)| *sum += f64::from(*p));
                }
            }
        }
        let total: f64 = prior.iter().sum();
        if total == 0.0 {
            let text = "no training image has colour (|a| or |b| above 5 in Lab): take images in colour, or another method \
                        (mae, inpainting)";
            return Err(Error::new(ErrorKind::Usage, NAME, text));
        }
        prior.iter_mut().for_each(|p| *p /= total);
        let weights = ab_bins::rebalancing(&prior, f64::from(self.settings.lambda))?;
        let logs = prior.iter().zip(&weights).map(|(p, w)| (p * f64::from(*w)).max(LEAST).ln() as f32);
        let logs: Vec<f32> = logs.collect();
        self.networks.weights.set(Tensor::from_slice(&weights, &[BINS])?)?;
        self.networks.log_constant.set(Tensor::from_slice(&logs, &[BINS])?)
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let [images] = batch.views else {
            return Err(Error::value(NAME, format!("takes one view, got {}", batch.views.len())));
        };
        let (lightness, points) = split(images, self.settings.target_stride)?;
        let (targets, nearest) = targets(&points)?;
        let weights = pixel_weights(&points, &nearest, self.networks.weights.value(), GREY)?;
        let input = Var::constant(copy::cast(&lightness, images.dtype())?);
        let map = self.networks.encoder.map(&input, Mode::Train)?;
        let logits = self.networks.decoder.forward(&map, Mode::Train)?;
        let logits = ops::cast(&ops::reshape(&logits, &[nearest.len(), BINS])?, DType::F32)?;
        let (value, each) = loss(&logits, &targets, &weights)?;
        let rows = nearest.len();
        let mean = |x: &Tensor| elementwise::scale(&reduce::sum(x, &[0])?, 1.0 / rows as f32);
        let wanted = matmul(&weights.reshape(&[1, rows])?, &targets, false, false)?.reshape(&[BINS])?;
        let constant = elementwise::mul(&wanted, self.networks.log_constant.value())?;
        let signals = vec![
            ("cross_entropy", mean(&each)?),
            ("constant_loss", elementwise::scale(&reduce::sum(&constant, &[0])?, -1.0 / rows as f32)?),
            ("mean_weight", mean(&weights)?),
        ];
        let embeddings = ops::global_avg_pool(&ops::cast(&map.detach(), DType::F32)?)?.into_value();
        Ok(Loss { value, embeddings, signals })
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let (loss, constant) = (figures("loss")?, figures("constant_loss")?);
        (loss > 0.98 * constant).then(|| {
            format!(
                "the loss {loss:.3} is what the same colours everywhere cost ({constant:.3}): nothing is learnt yet; if it \
                 stays there, try another training.learning_rate"
            )
        })
    }

    /// Lightness, the true lightness with predicted colours (every pixel's a and b are predicted, its L is not), the image.
    fn pictures(&mut self, batch: &Batch) -> Result<Option<Pictures>> {
        let [images] = batch.views else { return Ok(None) };
        let _off = no_grad();
        let &[b, h, w, _] = images.shape() else { return Ok(None) };
        let (lightness, _) = split(images, self.settings.target_stride)?;
        let map = self.networks.encoder.map(&Var::constant(lightness), Mode::Evaluate)?;
        let logits = self.networks.decoder.forward(&map, Mode::Evaluate)?;
        let [rows, columns] = [logits.shape()[1], logits.shape()[2]];
        let logits = copy::cast(logits.value(), DType::F32)?.to_vec::<f32>()?;
        let centres = ab_bins::centres();
        let temperature = f64::from(self.settings.temperature);
        let colours: Vec<f32> = logits
            .chunks_exact(BINS)
            .flat_map(|row| ab_bins::annealed_mean(row, &centres, temperature))
            .collect();
        let lab = rgb_to_lab(images)?.to_vec::<f32>()?;
        let (mut input, mut prediction) = (lab.clone(), lab);
        input.chunks_exact_mut(3).for_each(|p| p[1..].fill(0.0));
        for (image, colours) in
            prediction.chunks_exact_mut(h * w * 3).zip(colours.chunks_exact(rows * columns * 2))
        {
            let small = ImageRef::from_f32(colours, rows, columns, 2)?;
            let full = resized_crop(small, small.whole(), h, w, Interpolation::Bilinear)?;
            image
                .chunks_exact_mut(3)
                .zip(full.chunks_exact(2))
                .for_each(|(p, ab)| p[1..].copy_from_slice(ab));
        }
        let rgb = |lab: &[f32]| Tensor::from_slice(&lab_to_rgb(lab), &[b, h, w, 3]);
        let columns = vec![
            ("lightness", rgb(&input)?),
            ("predicted_colour", rgb(&prediction)?),
            ("truth", images.to_device(Device::Cpu)?),
        ];
        Ok(Some(Pictures { columns }))
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
