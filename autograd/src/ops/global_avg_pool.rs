//! `global_avg_pool`: the mean over all pixels of each channel.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::pool;

/// The operation of [`global_avg_pool`].
#[derive(Clone)]
pub struct GlobalAvgPool;

/// Mean over the pixels of images [N, H, W, C] -> [N, C].
#[track_caller]
pub fn global_avg_pool(x: &Var) -> Result<Var> {
    apply_one(GlobalAvgPool, &[x])
}

impl Op for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        match inputs[0].shape[..] {
            [n, h, w, c] if h * w > 0 => Ok(vec![inputs[0].with_shape(&[n, c])]),
            _ => Err(wrong_shapes(self, inputs, "x must be [N, H, W, C] with at least one pixel")),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![pool::global_average_forward(&contiguous(inputs[0])?)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || pool::global_average_backward(&dy, &at.inputs[0].shape))?])
    }
}

impl Reference for GlobalAvgPool {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![pool::reference::global_average_forward(&inputs[0])]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [[1, 1, 1, 1], [2, 2, 3, 2], [2, 7, 7, 5], [3, 4, 4, 17]]
        .into_iter()
        .map(|shape| Case::new(format!("{shape:?}"), GlobalAvgPool, vec![Input::random(&shape, 91, 2.0)]))
        .collect()
}
