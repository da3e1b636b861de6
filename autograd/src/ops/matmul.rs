//! `matmul`: the matrix product over the last two dimensions, either factor transposed.

use super::check::{floats, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::matmul as kernel;

/// The operation of [`matmul`].
#[derive(Clone)]
pub struct MatMul {
    /// Whether `a` is [.., K, M].
    pub transpose_a: bool,
    /// Whether `b` is [.., N, K].
    pub transpose_b: bool,
}

/// `[.., M, K] x [.., K, N] -> [.., M, N]`; leading dimensions must be equal.
///
/// With `transpose_a`, `a` is `[.., K, M]`; with `transpose_b`, `b` is `[.., N, K]`.
#[track_caller]
pub fn matmul(a: &Var, b: &Var, transpose_a: bool, transpose_b: bool) -> Result<Var> {
    apply_one(MatMul { transpose_a, transpose_b }, &[a, b])
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        let rule = "needs [.., M, K] and [.., K, N] (after transposition) with equal leading dimensions";
        let ([batch_a @ .., a0, a1], [batch_b @ .., b0, b1]) = (&inputs[0].shape[..], &inputs[1].shape[..])
        else {
            return Err(wrong_shapes(self, inputs, rule));
        };
        let (m, ka) = if self.transpose_a { (a1, a0) } else { (a0, a1) };
        let (kb, n) = if self.transpose_b { (b1, b0) } else { (b0, b1) };
        if batch_a != batch_b || ka != kb {
            return Err(wrong_shapes(self, inputs, rule)
                .with("transpose_a", self.transpose_a)
                .with("transpose_b", self.transpose_b));
        }
        Ok(vec![inputs[0].with_shape(&[batch_a, &[*m, *n]].concat())])
    }

    /// Saves b if the gradient of a is needed, then a if that of b is.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (a, b) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        if save.needs(0) {
            save.save(&b);
        }
        if save.needs(1) {
            save.save(&a);
        }
        Ok(vec![kernel::matmul(&a, &b, self.transpose_a, self.transpose_b)?])
    }

    /// With A and B after transposition: dA = dC B^T, dB = A^T dC, each transposed back.
    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dc = contiguous(at.gradient()?)?;
        let (ta, tb) = (self.transpose_a, self.transpose_b);
        let da = at.when(0, || {
            let b = &at.saved[0];
            if ta { kernel::matmul(b, &dc, tb, true) } else { kernel::matmul(&dc, b, false, !tb) }
        })?;
        let db = at.when(1, || {
            let a = &at.saved[usize::from(at.needs[0])];
            if tb { kernel::matmul(&dc, a, true, ta) } else { kernel::matmul(a, &dc, !ta, false) }
        })?;
        Ok(vec![da, db])
    }
}

impl Reference for MatMul {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![kernel::reference::matmul(&inputs[0], &inputs[1], self.transpose_a, self.transpose_b)]
    }
}

/// Cases of the operation's checks: all four transpositions, alone and batched.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, m, k, n) in [
        (&[][..], 1, 1, 1),
        (&[], 3, 5, 4),
        (&[], 4, 4, 4),
        (&[2], 2, 3, 2),
        (&[2, 3], 5, 7, 3),
        (&[], 33, 65, 17),
    ] {
        for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = if transpose_a { [k, m] } else { [m, k] };
            let b = if transpose_b { [n, k] } else { [k, n] };
            let inputs = vec![
                Input::random(&[batch, &a].concat(), 51, 1.0),
                Input::random(&[batch, &b].concat(), 52, 3.0),
            ];
            let op = MatMul { transpose_a, transpose_b };
            let label = format!("{batch:?} {m}x{k}x{n} transposed {transpose_a} {transpose_b}");
            cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
        }
    }
    cases
}
