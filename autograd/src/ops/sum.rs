//! `sum`: the sum over dimensions, which are removed.

use super::check::{floats, spread, without};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::reduce;

/// The operation of [`sum`]: the dimensions.
#[derive(Clone)]
pub struct Sum(Vec<usize>);

/// Sum of `x` over the dimensions `dims`, which are removed.
#[track_caller]
pub fn sum(x: &Var, dims: &[usize]) -> Result<Var> {
    apply_one(Sum(dims.to_vec()), &[x])
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        Ok(vec![inputs[0].with_shape(&without(self, &inputs[0], &self.0)?)])
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![reduce::sum(&contiguous(inputs[0])?, &self.0)?])
    }

    /// Every summand gets the sum's gradient: a view, nothing is copied.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        Ok(vec![at.when(0, || spread(dy, &at.inputs[0].shape, &self.0))?])
    }
}

impl Reference for Sum {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![summed(&inputs[0], &self.0)]
    }
}

/// The sum over `dims`, one element after another.
pub(super) fn summed<T: Real>(x: &Array<T>, dims: &[usize]) -> Array<T> {
    let kept: Vec<usize> = (0..x.shape.len()).filter(|d| !dims.contains(d)).collect();
    let mut y = Array::zeros(&kept.iter().map(|&d| x.shape[d]).collect::<Vec<_>>());
    for (at, &value) in x.data.iter().enumerate() {
        let mut index = vec![0; x.shape.len()];
        let mut rest = at;
        for d in (0..x.shape.len()).rev() {
            index[d] = rest % x.shape[d];
            rest /= x.shape[d];
        }
        let target = y.at(&kept.iter().map(|&d| index[d]).collect::<Vec<_>>());
        y.data[target] += value;
    }
    y
}

/// Shapes and dimensions for this operation and for `mean`.
pub(super) const SHAPES: [(&[usize], &[usize]); 9] = [
    (&[], &[]),
    (&[1], &[0]),
    (&[7], &[0]),
    (&[3, 5], &[0]),
    (&[3, 5], &[1]),
    (&[4, 4], &[1, 0]),
    (&[2, 3, 4], &[0, 2]),
    (&[2, 3, 4, 5], &[1, 2]),
    (&[129, 65], &[0]),
];

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    SHAPES
        .into_iter()
        .map(|(shape, dims)| {
            Case::new(
                format!("{shape:?} over {dims:?}"),
                Sum(dims.to_vec()),
                vec![Input::random(shape, 221, 3.0)],
            )
        })
        .collect()
}
