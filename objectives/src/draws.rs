//! What methods draw for a step on the host: dropped branches, orders, masks. Each is a pure function of seed and step.

use crate::Draws;
use crate::settings::not_begun;
use autograd::{Var, ops};
use engine::random::Purpose;
use engine::{Device, Philox, Result, Tensor};
use kernels::copy;
use models::{Encoder, Mode};

/// Stochastic depth (Huang et al. 2016): which residual branches of an encoder are dropped for which samples.
#[derive(Debug, Clone, PartialEq)]
pub struct DroppedBranches {
    rates: Vec<f32>,
    seed: u64,
    /// Distinguishes several draws of one step.
    which: u64,
}

impl DroppedBranches {
    /// The draws for an encoder; `None` if it drops nothing. `which` distinguishes several draws of one step (below 16).
    pub fn of(encoder: &dyn Encoder, seed: u64, which: u64) -> Option<DroppedBranches> {
        let rates = encoder.drop_rates();
        rates.iter().any(|r| *r > 0.0).then_some(DroppedBranches { rates, seed, which })
    }

    /// f32 [branches, rows] of a step: 0 where a branch is dropped, else 1 / (1 - rate).
    pub fn draw(&self, step: u64, rows: usize) -> Result<Tensor> {
        let mut random = Philox::new(self.seed, Purpose::DropBranch, step * 16 + self.which);
        let mut keep = Vec::with_capacity(self.rates.len() * rows);
        for &rate in &self.rates {
            for _ in 0..rows {
                keep.push(if random.uniform() < rate { 0.0 } else { 1.0 / (1.0 - rate) });
            }
        }
        Tensor::from_slice(&keep, &[self.rates.len(), rows])
    }

    /// The draws of a method that draws nothing else, one for each forward pass of `rows` images.
    pub fn each(passes: &[Option<DroppedBranches>], rows: usize) -> Option<Draws> {
        let passes = passes.iter().cloned().collect::<Option<Vec<_>>>()?;
        Some(Box::new(move |step| passes.iter().map(|dropped| dropped.draw(step, rows)).collect()))
    }
}

/// Masks of a dropout: fixed, each used by many rows.
const MASKS: usize = 1024;

/// Dropout (Srivastava et al. 2014) that a captured step can do: each row of a step takes one of 1,024 random masks, drawn for
/// it, where an ordinary dropout would draw a new mask for each.
#[derive(Debug, Clone)]
pub struct Dropout {
    rate: f32,
    width: usize,
    seed: u64,
    /// f32 [1024, width]: 0 where a value is dropped, else 1 / (1 - rate).
    masks: Option<Tensor>,
}

impl Dropout {
    /// Dropout of rows of `width` values with probability `rate`; `None` if it drops nothing.
    pub fn of(rate: f32, width: usize, seed: u64) -> Option<Dropout> {
        (rate > 0.0).then_some(Dropout { rate, width, seed, masks: None })
    }

    /// Makes the masks, on the device of the networks.
    pub fn begin(&mut self, device: Device) -> Result<()> {
        let mut values = Vec::with_capacity(MASKS * self.width);
        for mask in 0..MASKS {
            let mut random = Philox::new(self.seed, Purpose::Dropout, mask as u64);
            let kept = 1.0 / (1.0 - self.rate);
            values.extend((0..self.width).map(|_| if random.chance(self.rate) { 0.0 } else { kept }));
        }
        self.masks = Some(Tensor::from_slice(&values, &[MASKS, self.width])?.to_device(device)?);
        Ok(())
    }

    /// The masks of `rows` rows, i32 [rows].
    pub fn draw(&self, random: &mut Philox, rows: usize) -> Result<Tensor> {
        let masks: Vec<i32> = (0..rows).map(|_| random.below(MASKS) as i32).collect();
        Tensor::from_slice(&masks, &[rows])
    }

    /// x [rows, width] with what the masks `drawn` for it drop as 0, and the rest enlarged by as much as is lost.
    #[track_caller]
    pub fn apply(&self, method: &str, x: &Var, drawn: &Tensor) -> Result<Var> {
        let masks = self.masks.as_ref().ok_or_else(|| not_begun(method))?;
        let mask = copy::cast(&copy::gather_rows(masks, drawn)?, x.value().dtype())?;
        ops::mul(x, &Var::constant(mask))
    }
}

/// Features in training mode, with branches dropped as `keep` says if there is one: see [`DroppedBranches::draw`].
#[track_caller]
pub fn encode(encoder: &mut dyn Encoder, images: &Var, keep: Option<&Tensor>) -> Result<Var> {
    match keep {
        Some(keep) => encoder.dropped_features(images, keep),
        None => encoder.features(images, Mode::Train),
    }
}

/// A random order of `rows` rows and its inverse, i32 [rows] each.
pub fn order(seed: u64, step: u64, rows: usize) -> Result<[Tensor; 2]> {
    let forward = Philox::new(seed, Purpose::Order, step).permutation(rows);
    let mut back = vec![0i32; rows];
    for (to, &from) in forward.iter().enumerate() {
        back[from] = to as i32;
    }
    let forward: Vec<i32> = forward.into_iter().map(|i| i as i32).collect();
    Ok([Tensor::from_slice(&forward, &[rows])?, Tensor::from_slice(&back, &[rows])?])
}

/// The i32 \[1\] that counts the steps taken, for whoever drives an objective without the trainer.
pub fn clock(step: u64, device: Device) -> Result<Tensor> {
    Tensor::from_slice(&[step as i32], &[1])?.to_device(device)
}
