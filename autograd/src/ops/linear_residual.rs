//! `linear_residual`: a fully connected layer at the end of a residual block's branch, and what it is added to. As one
//! operation, so that a device can add where the product ends; results are those of `linear` and `residual_scale`.

use super::branch_end::{BranchEnd, Onto};
use super::check::{arity, floats, reshaped, shape, wrong_shapes};
use super::linear::parameter_gradients;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::matmul;

/// The operation of [`linear_residual`].
#[derive(Clone)]
pub struct LinearResidual(BranchEnd);

/// `onto.x + scale keep (x W^T + bias)`: x [N, .., K] of rank 2 or more, weight [C, K], bias [C], onto.x [N, .., C] ->
/// [N, .., C].
#[track_caller]
pub fn linear_residual(x: &Var, weight: &Var, bias: &Var, onto: Onto<'_>) -> Result<Var> {
    let (end, ends) = onto.inputs(3);
    let inputs: Vec<&Var> = [x, weight, bias].into_iter().chain(ends).collect();
    apply_one(LinearResidual(end), &inputs)
}

impl Op for LinearResidual {
    fn name(&self) -> &'static str {
        "linear_residual"
    }

    fn inputs(&self) -> &'static [&'static str] {
        match self.0.scale {
            true => &["x", "weight", "bias", "residual", "scale", "keep"],
            false => &["x", "weight", "bias", "residual", "keep"],
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, self.0.count())?;
        floats(self, &inputs[..3], 3)?;
        match (&inputs[0].shape[..], &inputs[1].shape[..]) {
            ([rows @ .., k], &[n, inner]) if !rows.is_empty() && *k == inner => {
                shape(self, 2, &inputs[2], &[n], "one value an output [C]")?;
                let branch = inputs[0].with_shape(&[rows, &[n]].concat());
                self.0.infer(self, inputs, &branch)?;
                Ok(vec![branch])
            }
            _ => Err(wrong_shapes(self, inputs, "x must be [N, .., K] of rank 2 or more and the weight [C, K]")),
        }
    }

    /// Saves the weight if the gradient of x is needed, x if that of the weight is, then what the end of the block needs.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let inputs = inputs.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let [x, weight, bias] = [0, 1, 2].map(|i| &inputs[i]);
        let residual = self.0.residual(&inputs);
        let (y, branch) =
            matmul::linear_residual(x, weight, Some(bias), residual, self.0.needs_branch(save))?;
        for (input, tensor) in [(0, weight), (1, x)] {
            if save.needs(input) {
                save.save(tensor);
            }
        }
        self.0.save(&residual, branch.as_ref(), save);
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (n, k) = (at.inputs[1].shape[0], at.inputs[1].shape[1]);
        let rows = at.inputs[0].shape.iter().rev().skip(1).product();
        let mut saved = at.saved.iter();
        let weight = if at.needs[0] { saved.next() } else { None };
        let x = if at.needs[1] { saved.next() } else { None };
        let (dbranch, ends) = self.0.backward(at, &contiguous(at.gradient()?)?, &mut saved)?;
        let dbranch = dbranch.reshape(&[rows, n])?;
        let dx = weight.map(|weight| {
            reshaped(&matmul::matmul(&dbranch, weight, false, false)?, &at.inputs[0].shape)
        });
        let [dweight, dbias] = parameter_gradients(&dbranch, x, k, at.needs[2])?;
        Ok([dx.transpose()?, dweight, dbias].into_iter().chain(ends).collect())
    }

    fn has_gradient(&self, input: usize) -> bool {
        !self.0.is_keep(input)
    }
}

impl Reference for LinearResidual {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let branch = matmul::reference::linear(&inputs[0], &inputs[1], Some(&inputs[2]));
        vec![self.0.reference(inputs, &branch)]
    }
}

/// Cases of the operation's checks: with and without either factor; the last is what tensor cores take. The small ones, whose
/// Jacobian is checked, have branches of whole numbers: a scale's gradient is f32 also where the branch is rounded to bf16.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, k, n, keeps) in [
        (&[1][..], 1, 1, &[2.0][..]),
        (&[2, 3], 4, 5, &[0.0, 1.25]),
        (&[3, 2, 2], 7, 4, &[1.5, 0.0, 1.5]),
        (&[2, 35], 24, 16, &[1.25, 1.25]),
    ] {
        for (scale, keep) in [(false, false), (true, false), (false, true), (true, true)] {
            let layer = |shape: &[usize], seed, size| match k < 7 {
                true => Input::new(Array::integers(shape, seed, 4)),
                false => Input::random(shape, seed, size),
            };
            let mut inputs = vec![
                layer(&[rows, &[k]].concat(), 71, 1.0),
                layer(&[n, k], 72, 0.3),
                layer(&[n], 73, 1.0),
                Input::random(&[rows, &[n]].concat(), 74, 1.0),
            ];
            if scale {
                inputs.push(Input::random(&[n], 75, 1.0).in_f32());
            }
            if keep {
                inputs.push(Input::constant(Array::new(&rows[..1], keeps.to_vec())).in_f32());
            }
            let label = format!("{rows:?} {k} to {n} scale {scale} keep {keeps:?} {keep}");
            let op = LinearResidual(BranchEnd { before: 3, scale, keep });
            cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
        }
    }
    cases
}
