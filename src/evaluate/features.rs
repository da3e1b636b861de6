//! Encoders on disk, and the features they give for a dataset.

use super::Labelled;
use super::inputs::{Part, Source, Token};
use autograd::{Var, module, no_grad, ops};
use data::{Dataset, Evaluation, Lightness, Loader, LoaderOptions, Subset};
use engine::safetensors::{self, Contents};
use engine::{Error, Result};
use kernels::augment::{Normalize, Recipe};
use models::{Arch, Encoder, ImageShape, Mode};
use objectives::{DataProfile, Objective};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// Which features of an encoder are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Those behind a block, counted from 1: see [`Encoder::block_features`].
    Block(usize),
    /// Those of the block that does best on a held-out part of the training images.
    Best,
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Layer, String> {
        match (text, text.parse()) {
            ("best", _) => Ok(Layer::Best),
            (_, Ok(block)) => Ok(Layer::Block(block)),
            _ => Err("a layer is a number from 1, or 'best'".into()),
        }
    }
}

/// What metadata calls lightness.
const LIGHTNESS: &str = "lightness";

/// Images a forward pass of evaluation.
pub const BATCH: usize = 250;

/// An encoder, and how it wants its images.
pub struct Trained {
    /// The network.
    pub encoder: Box<dyn Encoder>,
    /// Size and normalisation of its input.
    pub input: Recipe,
    /// Whether it takes the lightness of images in colour.
    pub lightness: bool,
    /// Where the weights come from, for messages and tables.
    pub origin: String,
}

impl Trained {
    /// The dataset as the encoder wants it.
    pub fn sees(&self, dataset: &Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>> {
        as_seen(self.lightness, dataset)
    }
}

/// The dataset itself, or the lightness of its images.
pub fn as_seen(lightness: bool, dataset: &Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>> {
    Ok(match lightness && !dataset.is_empty() {
        true => Arc::new(Lightness::new(dataset.clone())?),
        false => dataset.clone(),
    })
}

/// Whether the encoder of a method takes lightness alone.
pub fn lightness(objective: &dyn Objective) -> bool {
    objectives::find(objective.name()).is_ok_and(|method| method.lightness)
}

/// How an encoder sees whole images after training on views of `objective`: at the data's own size, normalised
/// as in training, nothing random.
pub fn evaluation_recipe(objective: &dyn Objective, data: &DataProfile) -> Recipe {
    let normalize = match lightness(objective) {
        // Bytes of L / 100 to (L - 50) / 100.
        true => Some(Normalize { mean: vec![0.5], std: vec![1.0] }),
        false => objective.views().first().and_then(|view| view.normalize.clone()),
    };
    Recipe { normalize, ..Recipe::evaluation(data.height, data.width) }
}

/// An encoder with torchvision's names, and how to use it in the metadata: what `encoder.safetensors` holds.
pub fn contents(
    encoder: &mut dyn Encoder,
    input: &Recipe,
    lightness: bool,
    origin: &str,
) -> Result<Contents> {
    let mut contents = Contents::default();
    module::save(encoder, "", &mut contents)?;
    let mut note = |key: &str, value: String| contents.metadata.insert(key.into(), value);
    let arch = serde_json::to_string(encoder.arch()).map_err(|e| {
        Error::value("save encoder", format!("its architecture cannot be written as JSON: {e}"))
    })?;
    note("arch", arch);
    let ImageShape { height, width, channels } = encoder.image();
    note("image", format!("{height} {width} {channels}"));
    note("origin", origin.into());
    note("height", input.height.to_string());
    note("input_width", input.width.to_string());
    if lightness {
        note("colour", LIGHTNESS.into());
    }
    if let Some(n) = &input.normalize {
        let join = |v: &[f32]| v.iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
        note("mean", join(&n.mean));
        note("std", join(&n.std));
    }
    Ok(contents)
}

/// The encoder in a file of [`contents`]. Errors name the file and what is missing.
pub fn load(path: &Path) -> Result<Trained> {
    restore(&safetensors::load(path)?, path)
}

/// The encoder in what [`contents`] gave; `path` is its origin in messages.
pub fn restore(contents: &Contents, path: &Path) -> Result<Trained> {
    let fail = |text: String| Error::format("load encoder", path, text);
    let note = |key: &str| {
        contents.metadata.get(key).cloned().ok_or_else(|| {
            fail(format!("has no '{key}' in its metadata: it is not an encoder that this program saved"))
        })
    };
    let number = |key: &str| -> Result<usize> {
        note(key)?.parse().map_err(|_| fail(format!("'{key}' in its metadata is no number")))
    };
    let arch: Arch = serde_json::from_str(&note("arch")?)
        .map_err(|e| fail(format!("'arch' in its metadata describes no architecture: {e}")))?;
    let sizes: Option<Vec<usize>> = note("image")?.split(' ').map(|size| size.parse().ok()).collect();
    let Some(&[height, width, channels]) = sizes.as_deref() else {
        return Err(fail("'image' in its metadata is not height, width, channels".into()));
    };
    let mut encoder = models::build(&arch, ImageShape { height, width, channels }, 0)?;
    // A token that pre-training puts in the place of masked patches; features do without.
    module::load(encoder.as_mut(), "", contents, &["mask_token"]).map_err(|e| fail(e.message().into()))?;
    let mut input = Recipe::evaluation(number("height")?, number("input_width")?);
    if contents.metadata.contains_key("mean") {
        let list = |key: &str| -> Result<Vec<f32>> {
            let values = note(key)?;
            values.split(' ').map(|v| v.parse().map_err(|_| fail(format!("'{key}' is no list")))).collect()
        };
        input = input.normalized(&list("mean")?, &list("std")?);
    }
    let lightness = match contents.metadata.get("colour").map(String::as_str) {
        None => false,
        Some(LIGHTNESS) => true,
        Some(other) => {
            return Err(fail(format!("'colour' in its metadata is '{other}', which is not known")));
        }
    };
    Ok(Trained { encoder, input, lightness, origin: note("origin")? })
}

/// Batches whose statistics [`calibrate`] averages. Running statistics keep 0.9 of the old at each, so nothing
/// is left of what was there before.
const CALIBRATION: usize = 50;

/// Sets the running statistics of batch norm to those of whole training images.
///
/// No weight is changed and no label is looked at.
pub fn calibrate(
    encoder: &mut dyn Encoder,
    input: &Recipe,
    train: &Arc<dyn Dataset>,
    seed: u64,
) -> Result<()> {
    // Encoders that normalise parts of a batch apart want whole parts.
    let splits = encoder.arch().norm_splits.unwrap_or(1).max(1);
    let batch = BATCH.min(train.len()) / splits * splits;
    let options = LoaderOptions { batch, seed, workers: 0, drop_last: true, prefetch: 1 };
    let loader = Loader::new(train.clone(), vec![input.clone()], options)?;
    let device = module::device(encoder);
    let _off = no_grad();
    let epochs = (0..CALIBRATION.div_ceil(loader.steps_per_epoch())).map(|epoch| loader.epoch(epoch, 0));
    for batch in epochs.collect::<Result<Vec<_>>>()?.into_iter().flatten().take(CALIBRATION) {
        encoder.features(&Var::constant(batch?.views[0].to_device(device)?), Mode::Train)?;
    }
    Ok(())
}

/// Gives each row of features of `dataset` in order, batch by batch: `each(rows, dim, labels)`. What the columns of the rows are is
/// returned; empty for [`Source::Own`] and [`Source::Block`].
///
/// It runs on the encoder's device. The trunk is frozen: evaluation mode, no gradient. A check that none of its tensors changed is part of
/// every call.
pub fn for_each_batch(
    encoder: &mut dyn Encoder,
    source: Source,
    input: &Recipe,
    dataset: &Arc<dyn Dataset>,
    mut each: impl FnMut(&[f32], usize, Option<&[i32]>) -> Result<()>,
) -> Result<Vec<Part>> {
    if encoder.channels() != dataset.channels() {
        return Err(Error::shape(
            "features",
            format!(
                "the encoder takes images of {} channels, {} has {}",
                encoder.channels(),
                dataset.name(),
                dataset.channels()
            ),
        ));
    }
    let (frozen, device) = (Frozen::new(encoder)?, module::device(encoder));
    let mut columns = Vec::new();
    let _off = no_grad();
    for batch in Evaluation::new(dataset.clone(), input.clone(), BATCH)? {
        let batch = batch?;
        let images = Var::constant(batch.views[0].to_device(device)?);
        let features = match source {
            Source::Own => encoder.features(&images, Mode::Evaluate)?,
            Source::Block(block) => encoder.block_features(&images, block)?,
            Source::LastBlocks(count) => {
                let (parts, features) = last_blocks(encoder, &images, count)?;
                columns = parts;
                features
            }
        };
        let features = features.into_value();
        each(&features.to_vec::<f32>()?, features.shape()[1], batch.labels.as_deref())?;
    }
    frozen.check(encoder)?;
    Ok(columns)
}

/// Class token and average of the patches behind each of the last `count` blocks of a ViT; the average over places behind each of
/// the last stages of a ResNet: side by side, [B, D].
fn last_blocks(encoder: &mut dyn Encoder, images: &Var, count: usize) -> Result<(Vec<Part>, Var)> {
    let blocks = encoder.blocks();
    let from = blocks - count.min(blocks) + 1;
    let mut found = Vec::new();
    match encoder.vit() {
        Some(vit) => {
            for (i, tokens) in vit.last_blocks(images, count.min(blocks))?.iter().enumerate() {
                found.push((from + i, Token::Class, tokens.class()?));
                found.push((from + i, Token::Average, ops::mean(&tokens.patches()?, &[1])?));
            }
        }
        None => {
            for block in from..=blocks {
                found.push((block, Token::Average, encoder.block_features(images, block)?));
            }
        }
    }
    let mut start = 0;
    let parts = found.iter().map(|(block, token, features)| {
        let columns = start..start + features.shape()[1];
        start = columns.end;
        Part { block: *block, token: *token, columns }
    });
    let parts = parts.collect();
    let all: Vec<&Var> = found.iter().map(|(_, _, features)| features).collect();
    Ok((parts, ops::cat(&all, 1)?))
}

/// All features of a labelled dataset, and what their columns are: see [`for_each_batch`].
pub fn labelled(
    encoder: &mut dyn Encoder,
    source: Source,
    input: &Recipe,
    dataset: &Arc<dyn Dataset>,
) -> Result<(Labelled, Vec<Part>)> {
    let mut out = Labelled { features: Vec::new(), dim: 0, labels: Vec::new() };
    let parts = for_each_batch(encoder, source, input, dataset, |rows, dim, labels| {
        let labels = labels.ok_or_else(|| unlabelled(dataset.as_ref()))?;
        out.dim = dim;
        out.features.extend_from_slice(rows);
        out.labels.extend_from_slice(labels);
        Ok(())
    })?;
    Ok((out, parts))
}

/// The pixels of a labelled dataset as the encoder would see them, as features.
pub fn pixels(input: &Recipe, dataset: &Arc<dyn Dataset>) -> Result<Labelled> {
    let mut out = Labelled { features: Vec::new(), dim: 0, labels: Vec::new() };
    for batch in Evaluation::new(dataset.clone(), input.clone(), BATCH)? {
        let batch = batch?;
        let labels = batch.labels.ok_or_else(|| unlabelled(dataset.as_ref()))?;
        out.dim = batch.views[0].len() / labels.len().max(1);
        out.features.extend_from_slice(batch.views[0].as_slice::<f32>()?);
        out.labels.extend(labels);
    }
    Ok(out)
}

/// The error of images whose labels are needed and not there.
pub fn unlabelled(dataset: &dyn Dataset) -> Error {
    Error::value(
        "features",
        format!("{} has images without labels: accuracy needs labelled data", dataset.name()),
    )
}

/// Evenly spaced samples of a dataset.
pub fn spread(dataset: &Arc<dyn Dataset>, count: usize) -> Result<Arc<dyn Dataset>> {
    let (n, count) = (dataset.len(), count.min(dataset.len()));
    let indices = (0..count).map(|i| i * n / count.max(1)).collect();
    Ok(Arc::new(Subset::new(dataset.clone(), indices)?))
}

/// An encoder as it was, to see that it still is.
#[derive(Debug, Clone, Copy)]
pub struct Frozen(u64);

impl Frozen {
    /// Remembers every parameter and buffer.
    pub fn new(encoder: &mut dyn Encoder) -> Result<Frozen> {
        Ok(Frozen(checksum(encoder)?))
    }

    /// An error if any of them is not what it was.
    #[track_caller]
    pub fn check(self, encoder: &mut dyn Encoder) -> Result<()> {
        match checksum(encoder)? == self.0 {
            true => Ok(()),
            false => Err(Error::value("features", "the frozen encoder changed while it was evaluated")),
        }
    }
}

/// A fingerprint of every parameter and buffer (64-bit FNV-1a over their bits).
pub fn checksum(encoder: &mut dyn Encoder) -> Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |values: &[f32]| {
        for v in values {
            hash = (hash ^ u64::from(v.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    let parts = module::parts(encoder);
    for (_, param) in &parts.params {
        add(&param.value().to_vec::<f32>()?);
    }
    for (_, buffer) in &parts.buffers {
        add(&buffer.value().to_vec::<f32>()?);
    }
    Ok(hash)
}
