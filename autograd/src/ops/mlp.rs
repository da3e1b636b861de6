//! `mlp`: two linear layers with GELU between them, the feed-forward network of a transformer (Vaswani et al. 2017,
//! section 3.3, with GELU). As one operation, so that a device can compute GELU and its gradient where the products
//! end; results are those of `linear`, `gelu` and `linear`.

use super::check::{floats, reshaped, shape, wrong_shapes};
use super::linear::parameter_gradients;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::matmul;

/// The operation of [`mlp`].
#[derive(Clone)]
pub struct Mlp;

/// `gelu(x W1^T + b1) W2^T + b2`: x [.., K] of rank 2 or more, `first` W1 [H, K] and b1 [H], `second` W2 [N, H] and
/// b2 [N] -> [.., N].
#[track_caller]
pub fn mlp(x: &Var, first: [&Var; 2], second: [&Var; 2]) -> Result<Var> {
    apply_one(Mlp, &[x, first[0], first[1], second[0], second[1]])
}

impl Op for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "weight1", "bias1", "weight2", "bias2"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 5)?;
        match (&inputs[0].shape[..], &inputs[1].shape[..], &inputs[3].shape[..]) {
            ([rows @ .., k], &[hidden, inner], &[n, middle])
                if !rows.is_empty() && *k == inner && hidden == middle =>
            {
                shape(self, 2, &inputs[2], &[hidden], "one value a hidden unit [H]")?;
                shape(self, 4, &inputs[4], &[n], "one value an output [N]")?;
                Ok(vec![inputs[0].with_shape(&[rows, &[n]].concat())])
            }
            _ => {
                let rule = "x must be [.., K] of rank 2 or more and the weights [H, K] and [N, H]";
                Err(wrong_shapes(self, inputs, rule))
            }
        }
    }

    /// Saves, where a gradient needs it: the second weight and the first layer's sums (for all before them), the first
    /// weight (for x), x (for the first weight), the activations (for the second weight).
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let inputs = inputs.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let [x, weight1, bias1, weight2, bias2] = [0, 1, 2, 3, 4].map(|i| &inputs[i]);
        let first = (0..3).any(|i| save.needs(i));
        let (hidden, pre) = matmul::linear_gelu(x, weight1, Some(bias1), first)?;
        if let Some(pre) = &pre {
            save.save(weight2);
            save.save(pre);
        }
        for (input, tensor) in [(0, weight1), (1, x), (3, &hidden)] {
            if save.needs(input) {
                save.save(tensor);
            }
        }
        Ok(vec![matmul::linear(&hidden, weight2, Some(bias2))?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (n, hidden) = (at.inputs[3].shape[0], at.inputs[3].shape[1]);
        let k = at.inputs[1].shape[1];
        let rows = at.inputs[0].shape.iter().rev().skip(1).product();
        let dy = contiguous(at.gradient()?)?.reshape(&[rows, n])?;
        let mut saved = at.saved.iter();
        let mut take = |wanted: bool| if wanted { saved.next() } else { None };
        let first = at.needs[..3].contains(&true);
        let (weight2, pre) = (take(first), take(first));
        let (weight1, x, activations) = (take(at.needs[0]), take(at.needs[1]), take(at.needs[3]));

        let [dweight2, dbias2] = parameter_gradients(&dy, activations, hidden, at.needs[4])?;
        let (Some(weight2), Some(pre)) = (weight2, pre) else {
            return Ok(vec![None, None, None, dweight2, dbias2]);
        };
        let dpre = matmul::matmul_gelu_backward(&dy, weight2, &pre.reshape(&[rows, hidden])?)?;
        let [dweight1, dbias1] = parameter_gradients(&dpre, x, k, at.needs[2])?;
        let dx = weight1.map(|weight1| {
            reshaped(&matmul::matmul(&dpre, weight1, false, false)?, &at.inputs[0].shape)
        });
        Ok(vec![dx.transpose()?, dweight1, dbias1, dweight2, dbias2])
    }
}

impl Reference for Mlp {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let pre = matmul::reference::linear(&inputs[0], &inputs[1], Some(&inputs[2]));
        let hidden = super::gelu::Gelu.reference(&[pre]);
        vec![matmul::reference::linear(&hidden[0], &inputs[3], Some(&inputs[4]))]
    }
}

/// Cases of the operation's checks.
pub(crate) fn cases() -> Vec<Case> {
    // Rows, K, H, N; the last two are what tensor cores take.
    let sizes = [
        (&[1][..], 1, 1, 1),
        (&[5], 3, 4, 2),
        (&[2, 3], 4, 7, 5),
        (&[2, 2, 3], 7, 11, 3),
        (&[9], 16, 24, 8),
        (&[2, 33], 8, 72, 16),
    ];
    sizes
        .into_iter()
        .map(|(rows, k, hidden, n)| {
            let inputs = vec![
                Input::random(&[rows, &[k]].concat(), 64, 1.0),
                Input::random(&[hidden, k], 65, 0.5),
                Input::random(&[hidden], 66, 1.0),
                Input::random(&[n, hidden], 67, 0.5),
                Input::random(&[n], 68, 1.0),
            ];
            let label = format!("{rows:?} {k} to {hidden} to {n}");
            Case { gradient_factor: 3.0, ..Case::new(label, Mlp, inputs) }
        })
        .collect()
}
