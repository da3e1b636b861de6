//! The architectures by name.

use crate::resnet::{Block, ResNet, ResNetSpec, Stem};
use crate::{Encoder, Initializer};
use engine::{Error, Result};

/// A named architecture. `/WIDTH` after the name, or the `width` of [`build`], changes its width.
#[derive(Debug, Clone, Copy)]
pub struct Arch {
    /// What the command line and files call it.
    pub name: &'static str,
    /// One line for lists.
    pub description: &'static str,
    /// Channels of the stem and planes of the first stage, where no other width is asked for.
    pub width: usize,
    block: Block,
    stages: &'static [usize],
    stem: Stem,
}

impl Arch {
    /// The ResNet's full description for images of `channels`.
    pub fn spec(&self, channels: usize, width: Option<usize>) -> ResNetSpec {
        let width = width.unwrap_or(self.width);
        ResNetSpec {
            block: self.block,
            stages: self.stages.to_vec(),
            width,
            stem_width: width,
            stem: self.stem,
            channels,
            classes: None,
            zero_init_residual: false,
        }
    }
}

const fn arch(
    name: &'static str,
    description: &'static str,
    block: Block,
    stages: &'static [usize],
    stem: Stem,
    width: usize,
) -> Arch {
    Arch { name, description, width, block, stages, stem }
}

/// Every architecture.
pub const ARCHS: &[Arch] = &[
    arch(
        "resnet-small",
        "three basic blocks of 16, 32, 64 channels, 3x3 stem: small images, trains in minutes on a CPU",
        Block::Basic,
        &[1, 1, 1],
        Stem::Cifar,
        16,
    ),
    arch(
        "resnet10-cifar",
        "four basic blocks with a 3x3 stem; with width 16 a fast encoder of small grey images",
        Block::Basic,
        &[1, 1, 1, 1],
        Stem::Cifar,
        64,
    ),
    arch(
        "resnet18-cifar",
        "ResNet-18 with a 3x3 stem and no max-pooling: images of 32 to 64 pixels",
        Block::Basic,
        &[2, 2, 2, 2],
        Stem::Cifar,
        64,
    ),
    arch(
        "resnet34-cifar",
        "ResNet-34 with a 3x3 stem and no max-pooling",
        Block::Basic,
        &[3, 4, 6, 3],
        Stem::Cifar,
        64,
    ),
    arch(
        "resnet50-cifar",
        "ResNet-50 with a 3x3 stem and no max-pooling",
        Block::Bottleneck,
        &[3, 4, 6, 3],
        Stem::Cifar,
        64,
    ),
    arch("resnet18", "ResNet-18 as torchvision's", Block::Basic, &[2, 2, 2, 2], Stem::ImageNet, 64),
    arch("resnet34", "ResNet-34 as torchvision's", Block::Basic, &[3, 4, 6, 3], Stem::ImageNet, 64),
    arch(
        "resnet50",
        "ResNet-50 v1.5 as torchvision's: the stride is on the 3x3",
        Block::Bottleneck,
        &[3, 4, 6, 3],
        Stem::ImageNet,
        64,
    ),
];

/// The architecture called `name` for images of `channels`, with initial weights of `seed`.
///
/// `name` is one of [`ARCHS`], or what [`Encoder::architecture`] gave (`NAME/WIDTH`). `width` goes before the
/// width in the name. Errors: an unknown name (all are listed), a width or number of channels of zero.
#[track_caller]
pub fn build(name: &str, channels: usize, width: Option<usize>, seed: u64) -> Result<Box<dyn Encoder>> {
    let (base, suffix) = match name.split_once('/') {
        Some((base, suffix)) => (base, Some(suffix)),
        None => (name, None),
    };
    let Some(arch) = ARCHS.iter().find(|a| a.name == base) else {
        let names: Vec<&str> = ARCHS.iter().map(|a| a.name).collect();
        let text = format!("no architecture is called '{base}'; there are: {}", names.join(", "));
        return Err(Error::new(engine::ErrorKind::Usage, "build model", text));
    };
    let named = suffix.map(|s| {
        s.parse::<usize>().map_err(|_| {
            Error::value("build model", format!("'{s}' in '{name}' is not a width: write NAME/WIDTH"))
        })
    });
    let width = width.or(named.transpose()?);
    let network = ResNet::new(arch.spec(channels, width), &Initializer::new(seed))?;
    let title = match width {
        Some(w) if w != arch.width => format!("{}/{w}", arch.name),
        _ => arch.name.to_string(),
    };
    Ok(Box::new(network.called(title)))
}
