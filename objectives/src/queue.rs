//! A queue of keys: the negatives of MoCo v1 and v2 (He et al. 2020, section 3.2).

use autograd::Buffer;
use engine::random::Purpose;
use engine::{Device, Result, Tensor};
use kernels::{copy, norm, random};

/// The newest keys, [len, dim], unit vectors.
///
/// Keys replace the oldest ones. Where the next go follows from the step's number and the batch, so that there is no
/// pointer that could be lost: [`KeyQueue::rows`].
pub struct KeyQueue {
    keys: Buffer,
}

impl KeyQueue {
    /// A queue of normalised Gaussian noise, as the reference code starts with.
    pub fn new(len: usize, dim: usize, seed: u64) -> Result<KeyQueue> {
        let noise = random::normal(&[len, dim], 0.0, 1.0, seed, Purpose::Initialise, u64::MAX, Device::Cpu)?;
        let (keys, _) = norm::l2_forward(&noise, 1e-12)?;
        Ok(KeyQueue { keys: Buffer::new(keys) })
    }

    /// The keys.
    pub fn keys(&self) -> &Tensor {
        self.keys.value()
    }

    /// The buffer, for state dicts.
    pub fn buffer(&mut self) -> &mut Buffer {
        &mut self.keys
    }

    /// Which rows the keys of a step go to, i32 [batch]: a batch after that of the step before, around the end.
    pub fn rows(len: usize, step: u64, batch: usize) -> Result<Tensor> {
        let first = (u128::from(step) * batch as u128 % len.max(1) as u128) as usize;
        let rows: Vec<i32> = (0..batch).map(|i| ((first + i) % len.max(1)) as i32).collect();
        Tensor::from_slice(&rows, &[batch])
    }

    /// Replaces rows by new keys [batch, dim], f32.
    #[track_caller]
    pub fn put(&mut self, rows: &Tensor, keys: &Tensor) -> Result<()> {
        copy::put_rows(self.keys.value_mut(), rows, keys)
    }
}
