//! MAE (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners").
//!
//! Most patches of an image are removed; a ViT encodes those that are left, and only those; a light decoder sees their
//! tokens, with one learned mask token in every gap, and predicts the pixels of the removed patches. The loss is the mean
//! squared error on removed patches (section 3), whose pixels are normalised by their own mean and deviation
//! (`normalize_targets`; with the unbiased variance, as in facebookresearch/mae). A prediction of zero then costs
//! (d - 1) / d with d values a patch: a loss that stays there has learnt nothing.

use crate::draws::DroppedBranches;
use crate::settings::{at_least_one, parse, require, require_channels};
use crate::view::{Statistics, View};
use crate::{Batch, DataProfile, Draws, Loss, Method, Objective, Pictures, Run, recipes};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, no_grad, ops};
use engine::random::Purpose;
use engine::{DType, Error, ErrorKind, Philox, Result, Tensor};
use kernels::augment::Recipe;
use kernels::{copy, elementwise, norm, reduce};
use models::{Encoder, Initializer, MaeDecoder, MaeDecoderSpec, VitInput};
use serde::Deserialize;
use toml::Table;

/// MAE's entry in the list of methods.
pub const METHOD: Method = Method {
    name: "mae",
    summary: "the pixels of removed patches are predicted from the few that are left",
    reference: "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners",
    recipes: recipes!("mae"),
    lightness: false,
    build,
};

const NAME: &str = METHOD.name;
/// Added to the variance of a target patch.
const TARGET_EPS: f64 = 1e-6;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Part of the patches that is removed.
    pub mask_ratio: f32,
    /// Size of the decoder's tokens.
    pub decoder_width: usize,
    /// Blocks of the decoder.
    pub decoder_depth: usize,
    /// Attention heads of the decoder.
    pub decoder_heads: usize,
    /// Whether target patches are normalised by their own mean and deviation.
    pub normalize_targets: bool,
    /// What views are normalised by.
    pub normalize: Statistics,
    /// The view that is masked.
    pub view: View,
}

fn build(
    given: &Table,
    profile: &DataProfile,
    encoder: Box<dyn Encoder>,
    seed: u64,
) -> Result<Box<dyn Objective>> {
    Ok(Box::new(Mae::new(parse(NAME, given)?, profile, encoder, seed)?))
}

/// MAE at work.
pub struct Mae {
    seed: u64,
    patch: usize,
    patches: usize,
    kept: usize,
    normalize_targets: bool,
    views: [Recipe; 1],
    dropped: Option<DroppedBranches>,
    networks: Networks,
}

struct Networks {
    encoder: Box<dyn Encoder>,
    decoder: MaeDecoder,
}

impl Module for Networks {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.decoder.visit(&path.child("decoder"), visitor);
    }
}

impl Mae {
    /// MAE around `encoder`, which must be a ViT; the decoder is initialised from `seed`.
    #[track_caller]
    pub fn new(
        settings: Settings,
        profile: &DataProfile,
        mut encoder: Box<dyn Encoder>,
        seed: u64,
    ) -> Result<Mae> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Usage, format!("{NAME} settings"), text));
        let ratio = settings.mask_ratio;
        require(
            NAME,
            &[
                (
                    (0.0..1.0).contains(&ratio),
                    format!("mask_ratio must be at least 0 and below 1, not {ratio}"),
                ),
                at_least_one("decoder_width", settings.decoder_width),
                at_least_one("decoder_depth", settings.decoder_depth),
                at_least_one("decoder_heads", settings.decoder_heads),
            ],
        )?;
        require_channels(NAME, encoder.channels(), profile.channels)?;
        let normalize = settings.normalize.normalize(profile.channels);
        let view = settings.view.recipe(NAME, "view", profile, &normalize)?;
        let (dim, name) = (encoder.dim(), encoder.arch().name.clone());
        let Some(vit) = encoder.vit() else {
            return wrong(format!(
                "{name} has no patches that could be removed: take a ViT (--arch vit-micro)"
            ));
        };
        let patch = vit.spec().patch;
        if !view.height.is_multiple_of(patch) || !view.width.is_multiple_of(patch) {
            return wrong(format!(
                "views of {} x {} are not whole patches of {patch}",
                view.height, view.width
            ));
        }
        let grid = [view.height / patch, view.width / patch];
        let patches = grid[0] * grid[1];
        let kept = (patches as f64 * (1.0 - f64::from(ratio))) as usize;
        if kept == 0 || kept == patches {
            return wrong(format!(
                "mask_ratio {ratio} of {patches} patches leaves {kept}: at least one must stay and one be removed"
            ));
        }
        let decoder = MaeDecoderSpec {
            inputs: dim,
            width: settings.decoder_width,
            depth: settings.decoder_depth,
            heads: settings.decoder_heads,
            grid,
            outputs: patch * patch * profile.channels,
        };
        let decoder = MaeDecoder::new(&decoder, &Initializer::new(seed).child("decoder"))?;
        Ok(Mae {
            seed,
            patch,
            patches,
            kept,
            normalize_targets: settings.normalize_targets,
            views: [view],
            dropped: DroppedBranches::of(encoder.as_ref(), seed, 0),
            networks: Networks { encoder, decoder },
        })
    }
}

/// Which patches of a batch are kept and removed.
#[derive(Debug, Clone)]
pub struct Masks {
    /// i32 [B K]: rows of [B L] that the encoder sees, K a sample.
    pub kept: Tensor,
    /// i32 [B M]: rows of [B L] that are removed, M = L - K a sample.
    pub removed: Tensor,
    /// i32 [B L]: for each place the row of [B K] that belongs there, or B K, the mask token, where the patch was removed.
    pub restore: Tensor,
}

impl Masks {
    /// The masks of a step: for each sample the first `kept` of a random order of its patches stay.
    pub fn draw(seed: u64, step: u64, batch: usize, patches: usize, kept: usize) -> Result<Masks> {
        let (mut stay, mut gone) = (Vec::with_capacity(batch * kept), Vec::new());
        let mut restore = vec![(batch * kept) as i32; batch * patches];
        for sample in 0..batch {
            let index = step * batch as u64 + sample as u64;
            let order = Philox::new(seed, Purpose::Mask, index).permutation(patches);
            for (place, &patch) in order.iter().enumerate() {
                let row = sample * patches + patch;
                if place < kept {
                    restore[row] = (sample * kept + place) as i32;
                    stay.push(row as i32);
                } else {
                    gone.push(row as i32);
                }
            }
        }
        let tensor = |rows: &[i32]| Tensor::from_slice(rows, &[rows.len()]);
        Ok(Masks { kept: tensor(&stay)?, removed: tensor(&gone)?, restore: tensor(&restore)? })
    }
}

/// The patches of images [B, H, W, C] as rows [B L, p p C], in the order (row, column, channel) of a patch's values.
#[track_caller]
pub fn patchify(images: &Tensor, patch: usize) -> Result<Tensor> {
    let [b, h, w, c] = match *images.shape() {
        [b, h, w, c] if patch > 0 && h.is_multiple_of(patch) && w.is_multiple_of(patch) => [b, h, w, c],
        _ => {
            let text = format!("images must be [B, H, W, C], whole patches of {patch}");
            return Err(Error::shape(NAME, text).argument("images", images));
        }
    };
    let (rows, columns) = (h / patch, w / patch);
    let split = images.reshape(&[b, rows, patch, columns, patch, c])?.permute(&[0, 1, 3, 2, 4, 5])?;
    copy::contiguous(&split)?.reshape(&[b * rows * columns, patch * patch * c])
}

/// The images [B, H, W, C] whose patches [`patchify`] gave, in host memory.
fn unpatchify(patches: &[f32], shape: &[usize; 4], patch: usize) -> Vec<f32> {
    let &[_, h, w, c] = shape;
    let (rows, columns) = (h / patch, w / patch);
    let place = |i: usize| {
        let (channel, x, y, image) = (i % c, i / c % w, i / (c * w) % h, i / (c * w * h));
        let row = (image * rows + y / patch) * columns + x / patch;
        ((row * patch + y % patch) * patch + x % patch) * c + channel
    };
    (0..shape.iter().product()).map(|i| patches[place(i)]).collect()
}

/// What is to be predicted for each patch, f32 [B L, p p C]: its pixels, or its pixels normalised by their mean and
/// unbiased variance.
#[track_caller]
pub fn targets(images: &Tensor, patch: usize, normalize: bool) -> Result<Tensor> {
    let patches = copy::cast(&patchify(images, patch)?, DType::F32)?;
    let d = patches.shape()[1] as f64;
    if !normalize || d < 2.0 {
        return Ok(patches);
    }
    // (x - m) / sqrt(v d / (d - 1) + e) with the biased variance v of layer norm.
    let shrink = ((d - 1.0) / d).sqrt();
    let (y, ..) = norm::layer_forward(&patches, None, None, (TARGET_EPS * (d - 1.0) / d) as f32)?;
    elementwise::scale(&y, shrink as f32)
}

/// The mean squared error of predictions for the patches `removed` (i32 rows of [B L]): predictions [B, L, P] or [B L, P],
/// targets [B L, P].
#[track_caller]
pub fn reconstruction(prediction: &Var, targets: &Tensor, removed: &Tensor) -> Result<Var> {
    let prediction = ops::reshape(prediction, targets.shape())?;
    let rows = Var::constant(removed.clone());
    let prediction = ops::cast(&ops::gather_rows(&prediction, &rows)?, DType::F32)?;
    let wanted = Var::constant(copy::gather_rows(targets, removed)?);
    let difference = ops::sub(&prediction, &wanted)?;
    ops::mean(&ops::mul(&difference, &difference)?, &[0, 1])
}

impl Objective for Mae {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self) -> &[Recipe] {
        &self.views
    }

    fn draws(&self, run: &Run) -> Result<Option<Draws>> {
        let (seed, batch, patches, kept) = (self.seed, run.batch, self.patches, self.kept);
        let dropped = self.dropped.clone();
        Ok(Some(Box::new(move |step| {
            let masks = Masks::draw(seed, step, batch, patches, kept)?;
            let mut drawn = vec![masks.kept, masks.removed, masks.restore];
            if let Some(dropped) = &dropped {
                drawn.push(dropped.draw(step, batch)?);
            }
            Ok(drawn)
        })))
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let images = batch.single(NAME)?;
        let (kept, removed) = (batch.draw(NAME, 0)?, batch.draw(NAME, 1)?);
        let keep = self.dropped.as_ref().map(|_| batch.draw(NAME, 3)).transpose()?;
        let input = Var::constant(images.clone());
        let Some(vit) = self.networks.encoder.vit() else {
            return Err(Error::value(NAME, "the encoder is no ViT"));
        };
        let tokens = vit.forward(&VitInput { images: &input, rows: None, kept: Some(kept), keep })?;
        let prediction = self.networks.decoder.forward(&tokens, batch.draw(NAME, 2)?)?;
        let wanted = targets(images, self.patch, self.normalize_targets)?;
        let value = reconstruction(&prediction, &wanted, removed)?;
        let hidden = copy::gather_rows(&wanted, removed)?;
        let squares = reduce::sum(&elementwise::mul(&hidden, &hidden)?, &[0, 1])?;
        let zero = elementwise::scale(&squares, 1.0 / hidden.len() as f32)?;
        let patches = ops::cast(&tokens.patches()?.detach(), DType::F32)?;
        let embeddings = ops::mean(&patches, &[1])?.into_value();
        Ok(Loss { value, embeddings, signals: vec![("zero_prediction", zero)] })
    }

    /// The masked image; where targets are normalised, removed patches as their own mean; the prediction in the place of removed
    /// patches; truth. A normalised prediction becomes pixels by the mean and the deviation of the patch itself, which the
    /// network does not know: the second column shows what they alone give away.
    fn pictures(&mut self, batch: &Batch) -> Result<Option<Pictures>> {
        let images = batch.single(NAME)?;
        let &[b, h, w, c] = images.shape() else { return Ok(None) };
        let (kept, removed) = (batch.draw(NAME, 0)?, batch.draw(NAME, 1)?);
        let _off = no_grad();
        let Some(vit) = self.networks.encoder.vit() else { return Ok(None) };
        let input = Var::constant(images.clone());
        let tokens = vit.forward(&VitInput { kept: Some(kept), ..VitInput::whole(&input) })?;
        let prediction = self.networks.decoder.forward(&tokens, batch.draw(NAME, 2)?)?;
        let prediction = copy::cast(prediction.value(), DType::F32)?.to_vec::<f32>()?;
        let truth = copy::cast(&patchify(images, self.patch)?, DType::F32)?.to_vec::<f32>()?;
        let d = self.patch * self.patch * c;
        let normalised = self.normalize_targets && d >= 2;
        // Of the first view; grey in the middle of the values that can be seen.
        let statistics = self.views[0].normalize.clone();
        let (mean, std) = statistics.map_or((vec![0.0; c], vec![1.0; c]), |n| (n.mean, n.std));
        let (mut masked, mut means, mut predicted) = (truth.clone(), truth.clone(), truth.clone());
        for row in removed.to_vec::<i32>()? {
            let place = row as usize * d..(row as usize + 1) * d;
            let patch = &truth[place.clone()];
            let average = patch.iter().map(|v| f64::from(*v)).sum::<f64>() / d as f64;
            let squares: f64 = patch.iter().map(|v| (f64::from(*v) - average).powi(2)).sum();
            let deviation = (squares / (d.max(2) - 1) as f64 + TARGET_EPS).sqrt();
            for (i, at) in place.enumerate() {
                masked[at] = (0.5 - mean[i % c]) / std[i % c];
                means[at] = average as f32;
                predicted[at] = match normalised {
                    true => (f64::from(prediction[at]) * deviation + average) as f32,
                    false => prediction[at],
                };
            }
        }
        let column = |name, patches: &[f32]| {
            let mut pixels = unpatchify(patches, &[b, h, w, c], self.patch);
            pixels.iter_mut().enumerate().for_each(|(i, v)| *v = *v * std[i % c] + mean[i % c]);
            Ok((name, Tensor::from_slice(&pixels, &[b, h, w, c])?))
        };
        let mut columns = vec![column("masked", &masked)?];
        if normalised {
            columns.push(column("leaked_means", &means)?);
        }
        columns.extend([column("predicted_removed", &predicted)?, column("truth", &truth)?]);
        Ok(Some(Pictures { columns }))
    }

    fn warning(&self, figures: &dyn Fn(&str) -> Option<f32>) -> Option<String> {
        let (loss, zero) = (figures("loss")?, figures("zero_prediction")?);
        (loss > 0.98 * zero).then(|| {
            format!(
                "the masked loss {loss:.4} is what predicting zero everywhere gives ({zero:.4}): nothing is learnt yet; \
                 if it stays there, try a higher training.learning_rate or a longer warm-up"
            )
        })
    }

    fn networks(&mut self) -> &mut dyn Module {
        &mut self.networks
    }

    fn encoder(&mut self) -> &mut dyn Encoder {
        &mut *self.networks.encoder
    }
}
