//! The architectures by name, and encoders built from their description.

use crate::encoders::{ResNetEncoder, VitEncoder};
use crate::resnet::{Block, ResNet, ResNetSpec, Stem};
use crate::{
    Arch, Encoder, FeedForward, ImageShape, Init, Initializer, Pool, Position, VisionTransformer, VitSpec,
};
use autograd::module;
use engine::{Error, ErrorKind, Result};

/// An architecture with a name.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// What the command line and files call it.
    pub name: &'static str,
    /// One line for lists.
    pub description: &'static str,
    /// Its width where no other is asked for; see [`Arch::width`].
    pub width: usize,
    family: Family,
}

/// What kind of network it is, and its sizes.
#[derive(Debug, Clone, Copy)]
enum Family {
    ResNet { block: Block, stages: &'static [usize], stem: Stem },
    Vit { patch: usize, depth: usize, heads: usize },
}

impl Family {
    /// What messages call it.
    fn name(self) -> &'static str {
        match self {
            Family::ResNet { .. } => "a ResNet",
            Family::Vit { .. } => "a ViT",
        }
    }

    /// The fields of [`Arch`] that it has beside the name and the width.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Family::ResNet { .. } => &["norm_splits", "zero_init_residual"],
            Family::Vit { .. } => &[
                "patch",
                "depth",
                "heads",
                "registers",
                "layer_scale",
                "drop_path",
                "drop_path_uniform",
                "position",
                "feed_forward",
                "pool",
                "init",
            ],
        }
    }
}

const fn resnet(
    name: &'static str,
    description: &'static str,
    block: Block,
    stages: &'static [usize],
    stem: Stem,
    width: usize,
) -> Named {
    Named { name, description, width, family: Family::ResNet { block, stages, stem } }
}

const fn vit(
    name: &'static str,
    description: &'static str,
    [width, patch, depth, heads]: [usize; 4],
) -> Named {
    Named { name, description, width, family: Family::Vit { patch, depth, heads } }
}

/// Every architecture.
pub const ARCHS: &[Named] = &[
    resnet(
        "resnet-small",
        "three basic blocks of 16, 32, 64 channels, 3x3 stem: small images, trains in minutes on a CPU",
        Block::Basic,
        &[1, 1, 1],
        Stem::Cifar,
        16,
    ),
    resnet(
        "resnet10-cifar",
        "four basic blocks with a 3x3 stem; with width 16 a fast encoder of small grey images",
        Block::Basic,
        &[1, 1, 1, 1],
        Stem::Cifar,
        64,
    ),
    resnet(
        "resnet18-cifar",
        "ResNet-18 with a 3x3 stem and no max-pooling: images of 32 to 64 pixels",
        Block::Basic,
        &[2, 2, 2, 2],
        Stem::Cifar,
        64,
    ),
    resnet(
        "resnet34-cifar",
        "ResNet-34 with a 3x3 stem and no max-pooling",
        Block::Basic,
        &[3, 4, 6, 3],
        Stem::Cifar,
        64,
    ),
    resnet(
        "resnet50-cifar",
        "ResNet-50 with a 3x3 stem and no max-pooling",
        Block::Bottleneck,
        &[3, 4, 6, 3],
        Stem::Cifar,
        64,
    ),
    resnet("resnet18", "ResNet-18 as torchvision's", Block::Basic, &[2, 2, 2, 2], Stem::ImageNet, 64),
    resnet("resnet34", "ResNet-34 as torchvision's", Block::Basic, &[3, 4, 6, 3], Stem::ImageNet, 64),
    resnet(
        "resnet50",
        "ResNet-50 v1.5 as torchvision's: the stride is on the 3x3",
        Block::Bottleneck,
        &[3, 4, 6, 3],
        Stem::ImageNet,
        64,
    ),
    vit(
        "vit-micro",
        "four blocks of width 96, patches of 4: small images, trains in minutes on a CPU",
        [96, 4, 4, 3],
    ),
    vit("vit-tiny", "ViT-Ti/16: 12 blocks of width 192, 3 heads", [192, 16, 12, 3]),
    vit("vit-small", "ViT-S/16: 12 blocks of width 384, 6 heads (12 in MoCo v3)", [384, 16, 12, 6]),
    vit("vit-base", "ViT-B/16: 12 blocks of width 768, 12 heads", [768, 16, 12, 12]),
    vit("vit-large", "ViT-L/16: 24 blocks of width 1024, 16 heads", [1024, 16, 24, 16]),
];

/// The entry of [`ARCHS`] called `name`. The error lists all.
#[track_caller]
fn find(name: &str) -> Result<&'static Named> {
    ARCHS.iter().find(|named| named.name == name).ok_or_else(|| {
        let names: Vec<&str> = ARCHS.iter().map(|named| named.name).collect();
        let text = format!("no architecture is called '{name}'; there are: {}", names.join(", "));
        Error::new(ErrorKind::Usage, "build model", text)
    })
}

/// The encoder that `arch` describes for images of shape `image`, with initial weights of `seed`.
///
/// Errors: an unknown name (all are listed), a field of `arch` that networks of this family lack (it is named), and sizes
/// that do not fit each other or the images.
#[track_caller]
pub fn build(arch: &Arch, image: ImageShape, seed: u64) -> Result<Box<dyn Encoder>> {
    let arch = arch.resolved()?;
    let named = find(&arch.name)?;
    let fields = named.family.fields();
    if let Some(field) = arch.given().into_iter().find(|field| !fields.contains(field)) {
        let text = format!(
            "'{field}' does not apply to {}, {}: it has name, width, {}",
            named.name,
            named.family.name(),
            fields.join(", ")
        );
        return Err(Error::new(ErrorKind::Usage, "build model", text));
    }
    if [image.height, image.width].contains(&0) {
        return Err(Error::value("build model", "images must have rows and columns").with("image", image));
    }
    let width = arch.width.unwrap_or(named.width);
    let init = Initializer::new(seed);
    match named.family {
        Family::ResNet { block, stages, stem } => {
            let spec = ResNetSpec {
                block,
                stages: stages.to_vec(),
                width,
                stem_width: width,
                stem,
                channels: image.channels,
                classes: None,
                zero_init_residual: arch.zero_init_residual.unwrap_or(false),
                norm_splits: arch.norm_splits.unwrap_or(1),
            };
            Ok(Box::new(ResNetEncoder { network: ResNet::new(spec, &init)?, arch, image }))
        }
        Family::Vit { patch, depth, heads } => {
            let position = arch.position.unwrap_or(Position::Learned);
            let usual = if position == Position::Learned { Init::Normal } else { Init::Xavier };
            let spec = VitSpec {
                image,
                patch: arch.patch.unwrap_or(patch),
                width,
                depth: arch.depth.unwrap_or(depth),
                heads: arch.heads.unwrap_or(heads),
                registers: arch.registers.unwrap_or(0),
                layer_scale: arch.layer_scale.map(|scale| scale as f32),
                drop_path: arch.drop_path.unwrap_or(0.0) as f32,
                drop_path_uniform: arch.drop_path_uniform.unwrap_or(false),
                position,
                feed_forward: arch.feed_forward.unwrap_or(FeedForward::Mlp),
                pool: arch.pool.unwrap_or(Pool::Token),
                init: arch.init.unwrap_or(usual),
                classes: None,
            };
            Ok(Box::new(VitEncoder { network: VisionTransformer::new(spec, &init)?, arch }))
        }
    }
}

/// Another network of the same architecture on the same device with the values, frozen parameters and copies in bf16 of
/// `encoder`, which shares no memory with it: a momentum encoder or teacher as training starts.
#[track_caller]
pub fn duplicate(encoder: &mut dyn Encoder) -> Result<Box<dyn Encoder>> {
    let mut copy = build(encoder.arch(), encoder.image(), 0)?;
    if encoder.vit().is_some_and(|vit| vit.has_mask_token())
        && let Some(vit) = copy.vit()
    {
        vit.add_mask_token()?;
    }
    module::copy(encoder, copy.as_mut())?;
    Ok(copy)
}
