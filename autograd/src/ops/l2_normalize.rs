//! `l2_normalize`: rows scaled to unit length.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::norm;

/// The operation of [`l2_normalize`].
#[derive(Clone)]
pub struct L2Normalize {
    /// The least length that is divided by.
    pub eps: f32,
}

/// `x / max(|x|, eps)` for each row of x [M, D].
#[track_caller]
pub fn l2_normalize(x: &Var, eps: f32) -> Result<Var> {
    apply_one(L2Normalize { eps }, &[x])
}

impl Op for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        match inputs[0].shape.len() {
            2 => Ok(inputs.to_vec()),
            _ => Err(wrong_shapes(self, inputs, "x must be [M, D]")),
        }
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (y, norm) = norm::l2_forward(&contiguous(inputs[0])?, self.eps)?;
        save.save(&y);
        save.save(&norm);
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || norm::l2_backward(&dy, &at.saved[0], &at.saved[1], self.eps))?])
    }
}

impl Reference for L2Normalize {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut y = inputs[0].clone();
        for row in y.data.chunks_mut(inputs[0].shape[1].max(1)) {
            let mut squares = T::ZERO;
            row.iter().for_each(|&v| squares += v * v);
            let length = squares.sqrt().max(T::of(f64::from(self.eps)));
            row.iter_mut().for_each(|v| *v = *v / length);
        }
        vec![y]
    }
}

/// Cases of the operation's checks: lengths far above and far below `eps`, never near it.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[1, 1][..], 1.0, 1e-12),
        (&[4, 5], 1.0, 1e-12),
        (&[3, 7], 1e4, 1e-12),
        (&[3, 4], 0.01, 10.0),
        (&[13, 128], 0.3, 1e-12),
        (&[5, 131], 2.0, 1e-12),
    ]
    .into_iter()
    .map(|(shape, scale, eps)| {
        let inputs = vec![Input::random(shape, 131, scale)];
        Case::new(format!("{shape:?} times {scale} eps {eps}"), L2Normalize { eps }, inputs)
    })
    .collect()
}
