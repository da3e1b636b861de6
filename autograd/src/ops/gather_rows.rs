//! `gather_rows`: chosen rows of a table, any of them any number of times.

use super::check::{arity, element_type, float, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy;

/// The operation of [`gather_rows`].
#[derive(Clone)]
pub struct GatherRows;

/// Rows `index` (i32 [M]) of x [N, ..] -> [M, ..].
#[track_caller]
pub fn gather_rows(x: &Var, index: &Var) -> Result<Var> {
    apply_one(GatherRows, &[x, index])
}

impl Op for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "index"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 2)?;
        float(self, 0, &inputs[0])?;
        element_type(self, 1, &inputs[1], DType::I32)?;
        match (&inputs[0].shape[..], &inputs[1].shape[..]) {
            ([_, row @ ..], &[m]) => Ok(vec![inputs[0].with_shape(&[&[m], row].concat())]),
            _ => Err(wrong_shapes(self, inputs, "x must be [N, ..] and the index [M]")),
        }
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (x, index) = (copy::contiguous(inputs[0])?, copy::contiguous(inputs[1])?);
        save.save(&index);
        Ok(vec![copy::gather_rows(&x, &index)?])
    }

    /// Each row's gradient is the sum over all its uses.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = copy::contiguous(at.gradient()?)?;
        let n = at.inputs[0].shape[0];
        Ok(vec![at.when(0, || copy::scatter_add_rows(&dy, &at.saved[0], n))?, None])
    }

    fn has_gradient(&self, input: usize) -> bool {
        input == 0
    }
}

impl Reference for GatherRows {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, index) = (&inputs[0], &inputs[1]);
        let row: usize = x.shape[1..].iter().product();
        let start = |i: &T| i.get() as usize * row;
        let data = index.data.iter().flat_map(|i| x.data[start(i)..start(i) + row].to_vec()).collect();
        vec![Array::new(&[&index.shape[..], &x.shape[1..]].concat(), data)]
    }
}

/// Cases of the operation's checks: rows unused, used once and repeatedly.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[1, 1][..], &[0][..]),
        (&[5], &[4, 0, 4]),
        (&[4, 3], &[3, 3, 0, 3, 1]),
        (&[7, 2, 3], &[6, 5, 4, 3, 2, 1, 0]),
        (&[11, 17], &[0, 10, 10, 5, 0, 0, 7, 10]),
    ]
    .into_iter()
    .map(|(shape, index)| {
        let inputs = vec![Input::random(shape, 211, 1.0), Input::index(&[index.len()], index)];
        Case::new(format!("{shape:?} rows {index:?}"), GatherRows, inputs)
    })
    .collect()
}
