//! `koleo`: the regulariser that keeps rows apart, row by row.

use super::check::{arity, element_type, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::distill as kernel;

/// The operation of [`koleo`].
#[derive(Clone)]
pub struct Koleo {
    eps: f32,
}

/// `loss_i = -log(|x_i - x_n + eps| + eps)` [N], x_n the other row with the largest inner product with x_i (Sablayrolles
/// et al. 2019, equation 4). The gradient flows to both.
///
/// x [N, D] f32, N at least 2; normalise the rows before. eps is usually 1e-8; take the mean for the paper's loss.
#[track_caller]
pub fn koleo(x: &Var, eps: f32) -> Result<Var> {
    apply_one(Koleo { eps }, &[x])
}

impl Op for Koleo {
    fn name(&self) -> &'static str {
        "koleo"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 1)?;
        element_type(self, 0, &inputs[0], DType::F32)?;
        match inputs[0].shape[..] {
            [n, d] if n != 1 && d > 0 => Ok(vec![Spec::f32(&[n])]),
            _ => Err(wrong_shapes(self, inputs, "x must be [N, D] of at least two rows")),
        }
    }

    /// Saves x and the nearest of each row.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let x = contiguous(inputs[0])?;
        let (loss, nearest) = kernel::koleo_forward(&x, self.eps)?;
        [&x, &nearest].into_iter().for_each(|t| save.save(t));
        Ok(vec![loss])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dloss = contiguous(at.gradient()?)?;
        Ok(vec![Some(kernel::koleo_backward(&dloss, &at.saved[0], &at.saved[1], self.eps)?)])
    }
}

impl Reference for Koleo {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let nearest = kernel::reference::nearest(&inputs[0]);
        vec![kernel::reference::koleo(&inputs[0], &nearest, T::of(f64::from(self.eps)))]
    }
}

/// Cases of the operation's checks. Distances far above what differences take away.
pub(crate) fn cases() -> Vec<Case> {
    [(2, 1), (2, 3), (5, 4), (9, 12), (33, 33)]
        .into_iter()
        .map(|(n, d)| {
            let input = Input::random(&[n, d], 161, 1.0).in_f32();
            Case { gradient_factor: 3.0, ..Case::new(format!("[{n}, {d}]"), Koleo { eps: 1e-8 }, vec![input]) }
        })
        .collect()
}
