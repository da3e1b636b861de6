//! A layer that joins all places of a map, channel by channel (Pathak et al. 2016, section 3.1).

use crate::layers::{Activation, BatchNorm, Linear};
use crate::{Initializer, Mode};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Module, Param, Var, ops};
use engine::{Error, Result};

/// [B, h, w, C] to the same: every channel's h w values through a matrix of its own (no channel sees another), batch norm, ReLU;
/// then a linear map of channels at each place (a 1 x 1 convolution), batch norm, ReLU. That is C (h w)^2 weights where a full
/// connection has (C h w)^2.
pub struct ChannelwiseConnection {
    /// [C, h w, h w]: from the last but one to the last.
    weight: Param,
    norm: BatchNorm,
    mix: Linear,
    mix_norm: BatchNorm,
    places: [usize; 2],
}

impl ChannelwiseConnection {
    /// For maps of `places` rows and columns and `channels`; weights of variance 2 / (h w). Errors if a size is 0.
    #[track_caller]
    pub fn new(places: [usize; 2], channels: usize, init: &Initializer) -> Result<ChannelwiseConnection> {
        let n = places[0] * places[1];
        if n * channels == 0 {
            let error = Error::value("channelwise connection", "sizes must be at least 1");
            return Err(error.with("places", places).with("channels", channels));
        }
        let weight = init.normal("weight", &[channels, n, n], (2.0 / n as f32).sqrt())?;
        Ok(ChannelwiseConnection {
            weight: Param::new(weight, Role::Weight),
            norm: BatchNorm::new(channels)?,
            mix: Linear::new(channels, channels, false, &init.child("mix"))?,
            mix_norm: BatchNorm::new(channels)?,
            places,
        })
    }

    /// The joined map.
    #[track_caller]
    pub fn forward(&mut self, map: &Var, mode: Mode) -> Result<Var> {
        let [h, w] = self.places;
        let &[b, rows, columns, channels] = map.shape() else {
            let error = Error::shape("channelwise connection", "the map must be [B, h, w, C]");
            return Err(error.argument("map", map.value()));
        };
        if [rows, columns] != [h, w] {
            let text = format!("was made for maps of {h} x {w} places: all images must have one size");
            return Err(Error::shape("channelwise connection", text).argument("map", map.value()));
        }
        let n = h * w;
        // [C, B, h w] times [C, h w, h w]
        let by_channel = ops::permute(&ops::reshape(map, &[b, n, channels])?, &[2, 0, 1])?;
        let joined = ops::matmul(&by_channel, &self.weight.var_as(map.value().dtype())?, false, false)?;
        let joined = ops::reshape(&ops::permute(&joined, &[1, 2, 0])?, &[b * n, channels])?;
        let x = self.norm.forward(&joined, None, Activation::Relu, mode)?;
        let x = self.mix_norm.forward(&self.mix.forward(&x)?, None, Activation::Relu, mode)?;
        ops::reshape(&x, &[b, h, w, channels])
    }
}

impl Module for ChannelwiseConnection {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("weight"), &mut self.weight);
        self.norm.visit(&path.child("norm"), visitor);
        self.mix.visit(&path.child("mix"), visitor);
        self.mix_norm.visit(&path.child("mix_norm"), visitor);
    }
}
