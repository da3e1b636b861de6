//! `cat`: values one after another along a dimension.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference, build};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy;

/// The operation of [`cat`]: the dimension.
#[derive(Clone)]
pub struct Cat(usize);

/// All `parts` one after another along dimension `dim`; their other dimensions must be equal.
#[track_caller]
pub fn cat(parts: &[&Var], dim: usize) -> Result<Var> {
    apply_one(Cat(dim), parts)
}

impl Op for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["part"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, inputs.len())?;
        let mut shape = inputs.first().map(|s| s.shape.clone()).unwrap_or_default();
        let Some(size) = shape.get_mut(self.0) else {
            let rule = "needs at least one part, and dim must be a dimension of it";
            return Err(wrong_shapes(self, inputs, rule).with("dim", self.0));
        };
        *size = inputs.iter().filter_map(|s| s.shape.get(self.0)).sum();
        let fits = |s: &Spec| {
            s.shape.len() == shape.len() && (0..shape.len()).all(|d| d == self.0 || s.shape[d] == shape[d])
        };
        match inputs.iter().all(fits) {
            true => Ok(vec![inputs[0].with_shape(&shape)]),
            false => Err(wrong_shapes(self, inputs, format!("all but dimension {} must be equal", self.0))),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        let parts = inputs.iter().map(|t| copy::contiguous(t)).collect::<Result<Vec<_>>>()?;
        Ok(vec![copy::cat(&parts.iter().collect::<Vec<_>>(), self.0)?])
    }

    /// Each part's range of the gradient: views, nothing is copied.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        let mut start = 0;
        let parts = at.inputs.iter().enumerate().map(|(i, part)| {
            let len = part.shape[self.0];
            start += len;
            at.when(i, || dy.narrow(self.0, start - len, len))
        });
        parts.collect()
    }
}

impl Reference for Cat {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut shape = inputs[0].shape.clone();
        shape[self.0] = inputs.iter().map(|x| x.shape[self.0]).sum();
        vec![build(&shape, |index| {
            let mut source = index.to_vec();
            let mut part = 0;
            while source[self.0] >= inputs[part].shape[self.0] {
                source[self.0] -= inputs[part].shape[self.0];
                part += 1;
            }
            inputs[part].get(&source)
        })]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[3][..], 0, &[3][..]),
        (&[0, 3], 0, &[2, 2]),
        (&[2, 0], 1, &[3, 1, 4]),
        (&[2, 0, 3], 1, &[2, 2]),
        (&[0, 5, 3], 0, &[1, 7]),
        (&[2, 3, 0, 5], 2, &[4, 1, 3]),
        (&[0, 3], 0, &[2, 0, 1]),
    ]
    .into_iter()
    .map(|(shape, dim, sizes)| {
        let part = |(i, &size): (usize, &usize)| {
            let mut shape = shape.to_vec();
            shape[dim] = size;
            Input::random(&shape, 201 + i as u64, 1.0)
        };
        let inputs = sizes.iter().enumerate().map(part).collect();
        Case::new(format!("{shape:?} dim {dim} sizes {sizes:?}"), Cat(dim), inputs)
    })
    .collect()
}
