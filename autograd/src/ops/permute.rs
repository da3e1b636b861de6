//! `permute`: dimensions in another order, without copying.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference, build};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};

/// The operation of [`permute`]: which dimension of x each dimension of the result is.
#[derive(Clone)]
pub struct Permute(Vec<usize>);

/// The dimensions of `x` in the given order, which names each once. A view.
#[track_caller]
pub fn permute(x: &Var, order: &[usize]) -> Result<Var> {
    apply_one(Permute(order.to_vec()), &[x])
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..inputs[0].shape.len()) {
            let rule = "the order must name every dimension once";
            return Err(wrong_shapes(self, inputs, rule).with("order", &self.0));
        }
        let shape: Vec<usize> = self.0.iter().map(|&d| inputs[0].shape[d]).collect();
        Ok(vec![inputs[0].with_shape(&shape)])
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].permute(&self.0)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        let mut inverse = vec![0; self.0.len()];
        self.0.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
        Ok(vec![at.when(0, || dy.permute(&inverse))?])
    }
}

impl Reference for Permute {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let shape: Vec<usize> = self.0.iter().map(|&d| inputs[0].shape[d]).collect();
        vec![build(&shape, |index| {
            let mut source = vec![0; index.len()];
            self.0.iter().zip(index).for_each(|(&d, &i)| source[d] = i);
            inputs[0].get(&source)
        })]
    }
}

/// Cases of the operation's checks; orders that are not their own inverse among them.
pub(crate) fn cases() -> Vec<Case> {
    [
        (&[][..], &[][..]),
        (&[4], &[0]),
        (&[3, 5], &[1, 0]),
        (&[3, 3], &[1, 0]),
        (&[2, 3, 4], &[1, 2, 0]),
        (&[2, 2, 2], &[2, 0, 1]),
        (&[2, 3, 4, 5], &[0, 3, 1, 2]),
    ]
    .into_iter()
    .map(|(shape, order)| {
        let inputs = vec![Input::random(shape, 171, 1.0)];
        Case::new(format!("{shape:?} order {order:?}"), Permute(order.to_vec()), inputs)
    })
    .collect()
}
