//! The figures of each step (loss, norm of the gradients, the method's signals), kept on the device until they are shown,
//! so that a step need not wait for the host.

use engine::{DType, Device, Error, Result, Tensor};
use kernels::optim;
use std::ops::Range;

/// Figures of the most recent steps.
pub struct History {
    /// f32 [rows, figures]; step s is in row s mod rows.
    values: Tensor,
    names: Vec<&'static str>,
}

impl History {
    /// A history of `rows` steps of figures with these names.
    pub fn new(rows: usize, names: Vec<&'static str>, device: Device) -> Result<History> {
        Ok(History { values: Tensor::zeros(&[rows, names.len()], DType::F32, device)?, names })
    }

    /// The figures' names.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Steps that are kept.
    pub fn rows(&self) -> usize {
        self.values.shape()[0]
    }

    /// Writes the figures of the step that `clock` counts, in the names' order. Each is a tensor of one f32.
    pub fn record(&mut self, clock: &Tensor, figures: &[(&'static str, &Tensor)]) -> Result<()> {
        let same =
            figures.len() == self.names.len() && figures.iter().zip(&self.names).all(|(f, n)| f.0 == *n);
        if !same {
            return Err(Error::value("training step", "every step must give the same figures")
                .with("first step", &self.names)
                .with("now", figures.iter().map(|f| f.0).collect::<Vec<_>>()));
        }
        let tensors: Vec<&Tensor> = figures.iter().map(|f| f.1).collect();
        optim::record(&mut self.values, clock, &tensors)
    }

    /// The figures of the steps in `range`, a row a step; waits for the device. At most [`History::rows`] of them.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<Vec<f32>>> {
        let all = self.values.to_vec::<f32>()?;
        let (rows, width) = (self.rows(), self.names.len());
        let row = |step: u64| {
            let at = (step % rows as u64) as usize * width;
            all[at..at + width].to_vec()
        };
        Ok(range.map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_most_recent_steps() {
        let mut history = History::new(3, vec!["loss", "norm"], Device::Cpu).unwrap();
        let one = |v: f32| Tensor::scalar(v).unwrap();
        for step in 0..5i32 {
            let clock = Tensor::from_slice(&[step], &[1]).unwrap();
            let (loss, norm) = (one(step as f32), one(10.0 + step as f32));
            history.record(&clock, &[("loss", &loss), ("norm", &norm)]).unwrap();
        }
        let rows = history.read(2..5).unwrap();
        assert_eq!(rows, [[2.0, 12.0], [3.0, 13.0], [4.0, 14.0]]);
        let clock = Tensor::from_slice(&[5], &[1]).unwrap();
        assert!(history.record(&clock, &[("loss", &one(0.0))]).is_err());
    }
}
