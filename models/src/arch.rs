//! The description of an encoder's architecture: what configurations and files hold.

use engine::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Size of the images that an encoder is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels: 1 grey, 3 RGB.
    pub channels: usize,
}

/// A named architecture and what differs from it. Fields that are `None` have the named architecture's value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    /// A name of [`crate::ARCHS`], or `NAME/WIDTH`.
    pub name: String,
    /// ResNet: channels of the stem and planes of the first stage. ViT: size of a token. Goes before the width in the
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// ViT: side of a square patch, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// ViT: number of blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// ViT: attention heads; they divide the width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// ViT: number of register tokens, 0 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<usize>,
    /// ViT: initial factor of every residual branch (LayerScale); no such factor unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_scale: Option<f64>,
    /// ViT: probability of dropping a residual branch in training (stochastic depth), 0 unless given. It grows linearly
    /// from 0 at the first block to this at the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
    /// ViT: whether all branches have the probability `drop_path`, as in DINOv2; false unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_path_uniform: Option<bool>,
    /// ViT: where positions come from, learned unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// ViT: what follows attention in a block, an MLP unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_forward: Option<FeedForward>,
    /// ViT: what features are, the class token unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// ViT: distribution of the initial weights: normal with learned positions, Xavier's with fixed ones unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// ResNet: parts of a batch that are normalised apart, as several devices would do; 1 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_splits: Option<usize>,
    /// ResNet: whether residual blocks start as the identity; false unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_init_residual: Option<bool>,
}

/// Where a ViT's positions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Trained, initially normal with deviation 0.02.
    Learned,
    /// Sines and cosines of rows and columns, not trained (MAE, MoCo v3).
    Sincos,
}

/// What follows attention in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedForward {
    /// Linear to four times the width, GELU, linear.
    Mlp,
    /// Linear, a product of one half with SiLU of the other, linear (Shazeer 2020), of about as many weights.
    Swiglu,
}

/// What the features of an image are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The class token.
    Token,
    /// The average of the patch tokens.
    Average,
}

/// Distribution of a ViT's initial weights; biases are 0 in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Normal with deviation 0.02 (DINO, DINOv2, timm); the patch embedding is PyTorch's default for a convolution, uniform
    /// within 1 / sqrt(inputs).
    Normal,
    /// Uniform of variance 2 / (inputs + outputs) (Glorot and Bengio 2010), the class token normal of deviation 0.02 (MAE).
    Xavier,
    /// As [`Init::Xavier`], with queries, keys and values as three matrices and a class token of deviation 1e-6 (MoCo v3).
    XavierSplit,
}

impl Arch {
    /// The architecture called `name` as it is.
    pub fn named(name: impl Into<String>) -> Arch {
        Arch { name: name.into(), ..Arch::default() }
    }

    /// The same with the width in the name moved to its field, which goes before it.
    #[track_caller]
    pub(crate) fn resolved(&self) -> Result<Arch> {
        let Some((name, suffix)) = self.name.split_once('/') else { return Ok(self.clone()) };
        let width = suffix.parse::<usize>().map_err(|_| {
            let text = format!("'{suffix}' in '{}' is not a width: write NAME/WIDTH", self.name);
            Error::new(ErrorKind::Usage, "build model", text)
        })?;
        Ok(Arch { name: name.into(), width: self.width.or(Some(width)), ..self.clone() })
    }

    /// Names of the fields beside the name and the width that are given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let fields = [
            ("patch", self.patch.is_some()),
            ("depth", self.depth.is_some()),
            ("heads", self.heads.is_some()),
            ("registers", self.registers.is_some()),
            ("layer_scale", self.layer_scale.is_some()),
            ("drop_path", self.drop_path.is_some()),
            ("drop_path_uniform", self.drop_path_uniform.is_some()),
            ("position", self.position.is_some()),
            ("feed_forward", self.feed_forward.is_some()),
            ("pool", self.pool.is_some()),
            ("init", self.init.is_some()),
            ("norm_splits", self.norm_splits.is_some()),
            ("zero_init_residual", self.zero_init_residual.is_some()),
        ];
        fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}
