//! `mean`: the mean over dimensions, which are removed.

use super::check::{floats, spread, without, wrong_shapes};
use super::sum::{SHAPES, summed};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::{elementwise, reduce};

/// The operation of [`mean`]: the dimensions.
#[derive(Clone)]
pub struct Mean(Vec<usize>);

/// Mean of `x` over the dimensions `dims`, which are removed. They must hold at least one element.
#[track_caller]
pub fn mean(x: &Var, dims: &[usize]) -> Result<Var> {
    apply_one(Mean(dims.to_vec()), &[x])
}

impl Mean {
    fn count(&self, shape: &[usize]) -> usize {
        self.0.iter().map(|&d| shape[d]).product()
    }
}

impl Op for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        let shape = without(self, &inputs[0], &self.0)?;
        match self.count(&inputs[0].shape) {
            0 => Err(wrong_shapes(self, inputs, "there is no mean of nothing").with("dims", &self.0)),
            _ => Ok(vec![inputs[0].with_shape(&shape)]),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        let sum = reduce::sum(&contiguous(inputs[0])?, &self.0)?;
        Ok(vec![elementwise::scale(&sum, 1.0 / self.count(inputs[0].shape()) as f32)?])
    }

    /// Every summand gets an equal share: a view of the scaled gradient, no copy of the size of x.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let shape = &at.inputs[0].shape;
        Ok(vec![
            at.when(0, || spread(&elementwise::scale(&dy, 1.0 / self.count(shape) as f32)?, shape, &self.0))?,
        ])
    }
}

impl Reference for Mean {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let count = T::of(self.count(&inputs[0].shape) as f64);
        vec![summed(&inputs[0], &self.0).map(|s| s / count)]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    SHAPES
        .into_iter()
        .map(|(shape, dims)| {
            Case::new(
                format!("{shape:?} over {dims:?}"),
                Mean(dims.to_vec()),
                vec![Input::random(shape, 231, 3.0)],
            )
        })
        .collect()
}
