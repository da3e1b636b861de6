//! `swiglu`: silu(a) b of both halves of each row, the gated unit of Shazeer, "GLU variants improve transformer", 2020.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`swiglu`].
#[derive(Clone)]
pub struct Swiglu;

/// `silu(a) b`: x [.., 2 H] -> [.., H], a the first half of each row and b the second, silu(a) = a / (1 + e^-a).
#[track_caller]
pub fn swiglu(x: &Var) -> Result<Var> {
    apply_one(Swiglu, &[x])
}

impl Op for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        match &inputs[0].shape[..] {
            [rows @ .., width] if width.is_multiple_of(2) => {
                Ok(vec![inputs[0].with_shape(&[rows, &[width / 2]].concat())])
            }
            _ => Err(wrong_shapes(self, inputs, "x must be [.., 2 H]")),
        }
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        save.save(&x);
        Ok(vec![elementwise::swiglu(&x)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || elementwise::swiglu_backward(&dy, &at.saved[0]))?])
    }
}

impl Reference for Swiglu {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![elementwise::reference::swiglu(&inputs[0])]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    [(&[2][..], 1.0), (&[3, 4], 0.1), (&[2, 3, 10], 2.0), (&[7, 34], 4.0), (&[2, 2, 2, 16], 1.0)]
        .into_iter()
        .map(|(shape, scale)| {
            Case::new(format!("{shape:?} times {scale}"), Swiglu, vec![Input::random(shape, 46, scale)])
        })
        .collect()
}
