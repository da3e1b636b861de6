//! Inpainting (Pathak et al. 2016, "Context Encoders: Feature Learning by Inpainting").
//!
//! Part of each image is hidden, filled with the training images' mean colour ([`Objective::prepare`]); the encoder sees what
//! is left, a layer joins the places of its map channel by channel ([`models::ChannelwiseConnection`]), and a decoder of
//! transposed convolutions ends in tanh: values are in -1 to 1. What counts is the squared error in the hole and, with another
//! weight, in a ring of visible pixels around it ([`crate::holes`]): the weighted mean, as in equation 1 with the mask of the
//! hole. (The reference code counts the whole image for random regions.) `hole = "centre"` hides the middle square, `"random"`
//! a blob of its own for every image, where the reference has one a batch.
//!
//! With `adversarial_weight` a above 0 a discriminator judges the predicted region (equation 2): the loss is
//! (1 - a) reconstruction + a adversarial, plus the discriminator's own loss, whose gradient reaches nothing else. The
//! discriminator has an optimiser of its own, Adam with betas 0.5 and 0.999 without weight decay as the reference's, at
//! `discriminator_rate` times the run's learning rate; both learn from the same predictions (the reference updates it first).
//! For a centre it sees the square alone, for random regions the image with its hole filled in. The default is 0: the paper's
//! own features were learnt without it, since adversarial training did not converge with its encoder.
//!
//! Signals: `hole_error`, the mean squared error in holes alone, `mean_error`, what predicting the mean colour costs there (it
//! must be beaten), `hole_psnr` = 10 log10(4 / hole_error) in dB, for values 2 apart; `hole_sharpness`, the energy of
//! edges, squared differences of neighbours in holes, in dB over that of the true pixels: squared error alone blurs, well below 0.

use crate::holes::{HoleRule, HoleShape};
use crate::objective::Pictures;
use crate::settings::{at_least_one, parse, part, positive, require, require_channels};
use crate::view::View;
use crate::{Batch, DataProfile, Draws, Loss, Method, Objective, Run, Special, recipes};
use autograd::module::{Path, Visitor, set_trainable};
use autograd::optim::Algorithm;
use autograd::{Buffer, Module, Var, no_grad, ops};
use engine::{DType, Device, Error, ErrorKind, Result, Tensor};
use kernels::augment::{Normalize, Recipe};
use kernels::{copy, elementwise, reduce};
use models::{ChannelwiseConnection, Discriminator, Encoder, Initializer, Mode, Upsampler, UpsamplerSpec};
use serde::Deserialize;
use toml::Table;

/// Inpainting's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "inpainting",
    summary: "the pixels of a hole are predicted from what is around it",
    reference: "Pathak et al. 2016, Context Encoders: Feature Learning by Inpainting",
    recipes: recipes!("inpainting"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;
/// 10 log10(x) over ln(x).
const DECIBEL: f32 = 10.0 / std::f32::consts::LN_10;
/// What trains the discriminator.
const ADVERSARY: Algorithm = Algorithm::AdamW { betas: (0.5, 0.999), eps: 1e-8 };

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where holes are.
    pub hole: HoleShape,
    /// Part of the image's area that is hidden; a centre's includes its ring.
    pub area: f32,
    /// Pixels around a hole that are seen and predicted too.
    pub ring: usize,
    /// What a pixel of the ring counts, where one of the hole counts 1.
    pub ring_weight: f32,
    /// Channels of the decoder's first layer.
    pub decoder_width: usize,
    /// Share of the adversarial loss; at 0 there is no discriminator.
    pub adversarial_weight: f32,
    /// Channels of the discriminator's first layer.
    pub discriminator_width: usize,
    /// The discriminator's learning rate, where the others' is 1.
    pub discriminator_rate: f32,
    /// The view with the hole.
    pub view: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Inpainting::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// Inpainting at work.
pub struct Inpainting {
    settings: Settings,
    seed: u64,
    rule: HoleRule,
    /// Part of all pixels that is hidden.
    share: f32,
    views: [Recipe; 1],
    networks: Networks,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    connection: ChannelwiseConnection,
    decoder: Upsampler,
    discriminator: Option<Discriminator>,
    /// [C]: what holes are filled with.
    fill: Buffer,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.connection.visit(&path.child("connection"), visitor);
        self.decoder.visit(&path.child("decoder"), visitor);
        if let Some(discriminator) = &mut self.discriminator {
            discriminator.visit(&path.child("discriminator"), visitor);
        }
        visitor.buffer(path.name("fill"), &mut self.fill);
    }
}

impl Inpainting {
    /// Inpainting around `encoder`; all else is initialised from `seed`. Until [`Objective::prepare`] holes are filled with 0,
    /// the middle grey.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Inpainting> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
        require(
            NAME,
            &[
                part("area", settings.area),
                positive("area", settings.area),
                positive("ring_weight", settings.ring_weight),
                at_least_one("decoder_width", settings.decoder_width),
                part("adversarial_weight", settings.adversarial_weight),
                at_least_one("discriminator_width", settings.discriminator_width),
                positive("discriminator_rate", settings.discriminator_rate),
            ],
        )?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let channels = profile.channels;
        let normalize = Some(Normalize { mean: vec![0.5; channels], std: vec![0.5; channels] });
        let view = settings.view.recipe(NAME, "view", profile, &normalize)?;
        if encoder.drop_rates().iter().any(|rate| *rate > 0.0) {
            return wrong("drops no residual branches: leave out arch.drop_path".into());
        }
        let (height, width) = (view.height, view.width);
        let rule = HoleRule {
            size: [height, width],
            shape: settings.hole,
            area: settings.area,
            ring: settings.ring,
            ring_weight: settings.ring_weight,
        };
        rule.check(NAME)?;
        let [rows, columns, dim] = crate::colorization::map_shape(encoder.as_mut(), height, width)?;
        let Some(doublings) = (0..16).find(|d| [rows << d, columns << d] == [height, width]) else {
            return wrong(format!(
                "{} gives {rows} x {columns} places, which doubled some times must be the view's {height} x {width} pixels: \
                 choose another view.size",
                encoder.arch().name
            ));
        };
        let init = Initializer::new(seed);
        let spec = UpsamplerSpec {
            inputs: dim,
            dilated: 0,
            width: settings.decoder_width,
            doublings,
            outputs: channels,
        };
        let judged = match settings.hole {
            HoleShape::Centre => [rule.square()[2], rule.square()[3], channels],
            HoleShape::Random => [height, width, channels],
        };
        let discriminator = (settings.adversarial_weight > 0.0)
            .then(|| Discriminator::new(judged, settings.discriminator_width, &init.child("discriminator")))
            .transpose()?;
        let networks = Networks {
            encoder,
            connection: ChannelwiseConnection::new([rows, columns], dim, &init.child("connection"))?,
            decoder: Upsampler::new(&spec, &init.child("decoder"))?,
            discriminator,
            fill: Buffer::new(Tensor::zeros(&[channels], DType::F32, Device::Cpu)?),
        };
        Ok(Inpainting { settings, seed, share: rule.share()?, rule, views: [view], networks })
    }

    /// Predictions f32 [B, H, W, C] in -1 to 1 for images that are masked already, and the encoder's map.
    fn predict(&mut self, masked: &Tensor, mode: Mode) -> Result<(Var, Var)> {
        let map = self.networks.encoder.map(&Var::constant(masked.clone()), mode)?;
        let joined = self.networks.connection.forward(&map, mode)?;
        let values = ops::cast(&self.networks.decoder.forward(&joined, mode)?, DType::F32)?;
        Ok((ops::tanh(&values)?, map))
    }

    /// The generator's and the discriminator's loss for images and predictions with the hole's mask, both f32 [B, H, W, C].
    fn adversarial(
        &mut self,
        images: &Tensor,
        prediction: &Var,
        hidden: &Tensor,
    ) -> Result<Option<[Var; 2]>> {
        let Some(discriminator) = &mut self.networks.discriminator else { return Ok(None) };
        let truth = Var::constant(images.clone());
        let (real, made) = match self.rule.shape {
            HoleShape::Centre => {
                let [top, left, height, width] = self.rule.square();
                let square = |x: &Var| ops::narrow(&ops::narrow(x, 1, top, height)?, 2, left, width);
                (square(&truth)?, square(prediction)?)
            }
            HoleShape::Random => {
                let difference = ops::mul(&ops::sub(prediction, &truth)?, &Var::constant(hidden.clone()))?;
                let made = ops::add(&truth, &difference)?;
                (truth, made)
            }
        };
        // In the generator's loss the discriminator is a fixed function; in its own the predictions are fixed images.
        set_trainable(discriminator, false);
        let fooled = discriminator.forward(&made, Mode::Train)?;
        set_trainable(discriminator, true);
        let generator = judge(&fooled, 1)?;
        let real = judge(&discriminator.forward(&real, Mode::Train)?, 1)?;
        let made = judge(&discriminator.forward(&made.detach(), Mode::Train)?, 0)?;
        Ok(Some([generator, ops::scale(&ops::add(&real, &made)?, 0.5)?]))
    }
}

/// The mean binary cross-entropy of logits [B, 1] with one label: softmax over (0, logit).
fn judge(logits: &Var, label: i32) -> Result<Var> {
    let (batch, device) = (logits.shape()[0], logits.value().device());
    let zero = Var::constant(Tensor::zeros(&[batch, 1], DType::F32, device)?);
    let labels = Var::constant(Tensor::constant(&vec![label; batch], &[batch], device)?);
    ops::mean(&ops::softmax_xent(&ops::cat(&[&zero, logits], 1)?, &labels, 0.0)?, &[0])
}

/// A mask [B, H, W, 1] for every channel.
fn wide(mask: &Tensor, channels: usize) -> Result<Tensor> {
    let &[b, h, w, _] = mask.shape() else {
        return Err(Error::shape(NAME, "masks are [B, H, W, 1]").argument("mask", mask));
    };
    copy::contiguous(&mask.expand(&[b, h, w, channels])?)
}

/// f32 images [B, H, W, C] with hidden pixels (1 in `hidden`, of the same shape) replaced by `fill` [C].
#[track_caller]
pub fn mask(images: &Tensor, hidden: &Tensor, fill: &Tensor) -> Result<Tensor> {
    let seen = elementwise::sub(images, &elementwise::mul(images, hidden)?)?;
    let channels = fill.len();
    let rows = Tensor::zeros(&[hidden.len() / channels.max(1), channels], DType::F32, images.device())?;
    let filled = elementwise::add_bias(&rows, fill)?.reshape(hidden.shape())?;
    elementwise::add(&seen, &elementwise::mul(&filled, hidden)?)
}

/// The sum over all values of weight times squared difference: prediction and truth [B, H, W, C], weights of the same shape.
#[track_caller]
pub fn reconstruction(prediction: &Var, truth: &Tensor, weights: &Tensor) -> Result<Var> {
    let difference = ops::sub(prediction, &Var::constant(truth.clone()))?;
    let squares = ops::mul(&difference, &difference)?;
    ops::sum(&ops::mul(&squares, &Var::constant(weights.clone()))?, &[0, 1, 2, 3])
}

/// The mean squared difference where `hidden` is 1.
fn hole_error(a: &Tensor, b: &Tensor, hidden: &Tensor, share: f32) -> Result<Tensor> {
    let difference = elementwise::sub(a, b)?;
    let squares = elementwise::mul(&elementwise::mul(&difference, &difference)?, hidden)?;
    elementwise::scale(&reduce::sum(&squares, &[0, 1, 2, 3])?, 1.0 / (share * a.len() as f32))
}

/// The summed squares of differences between neighbours in rows and columns of `a`, where both are hidden, in decibel over
/// those of `b`: f32 [1]. All are f32 [B, H, W, C], `hidden` 1 in holes and 0 elsewhere.
pub fn sharpness(a: &Tensor, b: &Tensor, hidden: &Tensor) -> Result<Tensor> {
    let energy = |x: &Tensor, axis: usize| {
        let size = x.shape()[axis];
        let side = |x: &Tensor, first| copy::contiguous(&x.narrow(axis, first, size.saturating_sub(1))?);
        let difference = elementwise::sub(&side(x, 1)?, &side(x, 0)?)?;
        let both = elementwise::mul(&side(hidden, 1)?, &side(hidden, 0)?)?;
        let squares = elementwise::mul(&elementwise::mul(&difference, &difference)?, &both)?;
        reduce::sum(&squares, &[0, 1, 2, 3])
    };
    let both = |x: &Tensor| elementwise::add(&energy(x, 1)?, &energy(x, 2)?)?.reshape(&[1]);
    let tiny = Tensor::constant(&[1e-12f32], &[1], a.device())?;
    let logarithm = |x: &Tensor| elementwise::ln(&elementwise::add(&both(x)?, &tiny)?);
    elementwise::scale(&elementwise::sub(&logarithm(a)?, &logarithm(b)?)?, DECIBEL)
}

impl Objective for Inpainting {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    /// The hidden pixels and what each counts; see [`HoleRule::draw`].
    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (rule, seed, batch) = (self.rule, self.seed, run.batch);
        Ok(Some(Box::new(move |step| {
            let holes = rule.draw(seed, step, batch)?;
            Ok(vec![holes.hidden, holes.weights])
        })))
    }

    /// Takes the mean colour.
    fn prepare(&mut self, views: &mut dyn Iterator<Item = Result<Tensor>>) -> Result<()> {
        let channels = self.networks.fill.value().len();
        let (mut sums, mut count) = (vec![0f64; channels], 0usize);
        for images in views {
            for pixel in images?.as_slice::<f32>()?.chunks_exact(channels) {
                sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += f64::from(*v));
                count += 1;
            }
        }
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / count.max(1) as f64) as f32).collect();
        self.networks.fill.set(Tensor::from_slice(&mean, &[channels])?)
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let [given] = batch.views else {
            return Err(Error::value(NAME, format!("takes one view, got {}", batch.views.len())));
        };
        let images = copy::cast(given, DType::F32)?;
        let channels = self.networks.fill.value().len();
        let hidden = wide(batch.draw(NAME, 0)?, channels)?;
        let weights = elementwise::scale(&wide(batch.draw(NAME, 1)?, channels)?, 1.0 / channels as f32)?;
        let masked = mask(&images, &hidden, self.networks.fill.value())?;
        let (prediction, map) = self.predict(&copy::cast(&masked, given.dtype())?, Mode::Train)?;
        let mut value = reconstruction(&prediction, &images, &weights)?;
        let share = self.share;
        let error = hole_error(prediction.value(), &images, &hidden, share)?;
        // 10 log10(4 / e) = (ln 4 - ln e) 10 / ln 10
        let peak = Tensor::constant(&[DECIBEL * 4f32.ln()], &[1], images.device())?;
        let logarithm = elementwise::scale(&elementwise::ln(&error)?, -DECIBEL)?.reshape(&[1])?;
        let psnr = elementwise::add(&peak, &logarithm)?.reshape(&[])?;
        let mut signals = vec![
            ("mean_error", hole_error(&masked, &images, &hidden, share)?),
            ("hole_psnr", psnr),
            ("hole_error", error),
            ("hole_sharpness", sharpness(prediction.value(), &images, &hidden)?.reshape(&[])?),
        ];
        if let Some([generator, discriminator]) = self.adversarial(&images, &prediction, &hidden)? {
            let part = self.settings.adversarial_weight;
            signals.push(("generator_loss", generator.value().clone()));
            signals.push(("discriminator_loss", discriminator.value().clone()));
            value = ops::add(&ops::scale(&value, 1.0 - part)?, &ops::scale(&generator, part)?)?;
            value = ops::add(&value, &discriminator)?;
        }
        let embeddings = ops::global_avg_pool(&ops::cast(&map.detach(), DType::F32)?)?.into_value();
        Ok(Loss { value, embeddings, signals })
    }

    fn special(&self, name: &str) -> Special {
        match name.starts_with("discriminator.") {
            true => Special {
                rate_scale: self.settings.discriminator_rate,
                group: 1,
                optimiser: Some(ADVERSARY),
                ..Special::default()
            },
            false => Special::default(),
        }
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let (error, mean) = (figures("hole_error")?, figures("mean_error")?);
        (error > 0.98 * mean).then(|| {
            format!(
                "the error in holes {error:.4} is what predicting the mean colour gives ({mean:.4}): nothing is learnt yet; if \
                 it stays there, try another training.learning_rate"
            )
        })
    }

    /// What the encoder sees, the hole's predicted pixels in the true image, the image.
    fn pictures(&mut self, batch: &Batch) -> Result<Option<Pictures>> {
        let [images] = batch.views else { return Ok(None) };
        let _off = no_grad();
        let hidden = wide(batch.draw(NAME, 0)?, self.networks.fill.value().len())?;
        let masked = mask(images, &hidden, self.networks.fill.value())?;
        let (prediction, _) = self.predict(&masked, Mode::Evaluate)?;
        let difference = elementwise::mul(&elementwise::sub(prediction.value(), images)?, &hidden)?;
        let filled = elementwise::add(images, &difference)?;
        // -1 to 1 becomes 0 to 1.
        let shown = |x: &Tensor| {
            let values: Vec<f32> = x.to_vec::<f32>()?.iter().map(|v| (v + 1.0) / 2.0).collect();
            Tensor::from_slice(&values, x.shape())
        };
        let columns =
            vec![("masked", shown(&masked)?), ("predicted_hole", shown(&filled)?), ("truth", shown(images)?)];
        Ok(Some(Pictures { columns }))
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
