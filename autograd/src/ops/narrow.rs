//! `narrow`: a range of one dimension, without copying.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference, build};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::{cat, contiguous};

/// The operation of [`narrow`].
#[derive(Clone)]
pub struct Narrow {
    dim: usize,
    start: usize,
    len: usize,
}

/// Elements `start .. start + len` of dimension `dim` of `x`. A view.
#[track_caller]
pub fn narrow(x: &Var, dim: usize, start: usize, len: usize) -> Result<Var> {
    apply_one(Narrow { dim, start, len }, &[x])
}

impl Op for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        let mut shape = inputs[0].shape.clone();
        let end = self.start.checked_add(self.len);
        match shape.get_mut(self.dim).filter(|size| end.is_some_and(|end| end <= **size)) {
            Some(size) => *size = self.len,
            None => {
                let range = format!("{}..{}+{} of dimension {}", self.start, self.start, self.len, self.dim);
                return Err(wrong_shapes(self, inputs, format!("{range} is not inside x")));
            }
        }
        Ok(vec![inputs[0].with_shape(&shape)])
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].narrow(self.dim, self.start, self.len)?])
    }

    /// The gradient between zeros: what was left out got nothing.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        let dx = at.when(0, || {
            let shape = &at.inputs[0].shape;
            let zeros = |len: usize| {
                let mut part = shape.clone();
                part[self.dim] = len;
                Tensor::zeros(&part, dy.dtype(), dy.device())
            };
            let after = shape[self.dim] - self.start - self.len;
            let parts = [zeros(self.start)?, contiguous(dy)?, zeros(after)?];
            let parts: Vec<&Tensor> = parts.iter().filter(|t| t.shape()[self.dim] > 0).collect();
            if parts.is_empty() { zeros(0) } else { cat(&parts, self.dim) }
        })?;
        Ok(vec![dx])
    }
}

impl Reference for Narrow {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut shape = inputs[0].shape.clone();
        shape[self.dim] = self.len;
        vec![build(&shape, |index| {
            let mut source = index.to_vec();
            source[self.dim] += self.start;
            inputs[0].get(&source)
        })]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[7][..], 0, 2, 3),
        (&[4, 5], 0, 1, 2),
        (&[4, 5], 1, 3, 2),
        (&[2, 3, 4], 1, 0, 2),
        (&[2, 3, 4], 2, 0, 4),
        (&[2, 5, 3, 4], 1, 4, 1),
        (&[4, 5], 0, 2, 0),
    ]
    .into_iter()
    .map(|(shape, dim, start, len)| {
        let inputs = vec![Input::random(shape, 181, 1.0)];
        Case::new(format!("{shape:?} dim {dim} from {start} len {len}"), Narrow { dim, start, len }, inputs)
    })
    .collect()
}
