//! `mlp`: two linear layers with an activation between them, the feed-forward network of a transformer (Vaswani et al. 2017,
//! section 3.3; there with ReLU, in vision transformers with GELU) or a projection head. As one operation, so that a device
//! can compute the activation, its gradient and the end of a residual block where the products end; results are those of
//! `linear`, `gelu` or `relu`, `linear` and `residual_scale`.

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

/// What lies between the layers of an [`mlp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenActivation {
    /// GELU.
    Gelu,
    /// The positive part.
    Relu,
}

/// The operation of [`mlp`] and [`mlp_residual`].
#[derive(Clone)]
pub struct Mlp {
    activation: HiddenActivation,
    end: Option<BranchEnd>,
}

/// `f(x W1^T + b1) W2^T + b2`: x [.., K] of rank 2 or more, `first` W1 [H, K] and b1 [H], `second` W2 [N, H] and
/// b2 [N] -> [.., N].
#[track_caller]
pub fn mlp(x: &Var, first: [&Var; 2], second: [&Var; 2], activation: HiddenActivation) -> Result<Var> {
    apply_one(Mlp { activation, end: None }, &[x, first[0], first[1], second[0], second[1]])
}

/// The same at the end of a residual block's branch: `onto.x + scale keep mlp(x)`, x [N, .., K], onto.x and the result
/// [N, .., C].
#[track_caller]
pub fn mlp_residual(
    x: &Var,
    first: [&Var; 2],
    second: [&Var; 2],
    activation: HiddenActivation,
    onto: Onto<'_>,
) -> Result<Var> {
    let (end, ends) = onto.inputs(LAYERS);
    let layers = [x, first[0], first[1], second[0], second[1]];
    let inputs: Vec<&Var> = layers.into_iter().chain(ends).collect();
    apply_one(Mlp { activation, end: Some(end) }, &inputs)
}

/// Inputs of the layers.
const LAYERS: usize = 5;

impl Op for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn inputs(&self) -> &'static [&'static str] {
        match self.end {
            None => &["x", "weight1", "bias1", "weight2", "bias2"],
            Some(BranchEnd { scale: true, .. }) => {
                &["x", "weight1", "bias1", "weight2", "bias2", "residual", "scale", "keep"]
            }
            Some(_) => &["x", "weight1", "bias1", "weight2", "bias2", "residual", "keep"],
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, self.end.map_or(LAYERS, |end| end.count()))?;
        floats(self, &inputs[..LAYERS], LAYERS)?;
        match (&inputs[0].shape[..], &inputs[1].shape[..], &inputs[3].shape[..]) {
            ([rows @ .., k], &[hidden, inner], &[n, middle])
                if !rows.is_empty() && *k == inner && hidden == middle =>
            {
                shape(self, 2, &inputs[2], &[hidden], "one value a hidden unit [H]")?;
                shape(self, 4, &inputs[4], &[n], "one value an output [N]")?;
                let y = inputs[0].with_shape(&[rows, &[n]].concat());
                self.end.map_or(Ok(()), |end| end.infer(self, inputs, &y))?;
                Ok(vec![y])
            }
            _ => {
                let rule = "x must be [.., K] of rank 2 or more and the weights [H, K] and [N, H]";
                Err(wrong_shapes(self, inputs, rule))
            }
        }
    }

    /// Saves, where a gradient needs it: the second weight and what the activation's gradient is computed from (for all
    /// before them), the first weight (for x), x (for the first weight), the activations (for the second weight), and what
    /// the end of the block needs.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let inputs = inputs.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let [x, weight1, bias1, weight2, bias2] = [0, 1, 2, 3, 4].map(|i| &inputs[i]);
        let first = (0..3).any(|i| save.needs(i));
        let (hidden, pre) = match self.activation {
            HiddenActivation::Gelu => matmul::linear_gelu(x, weight1, Some(bias1), first)?,
            HiddenActivation::Relu => (matmul::linear_relu(x, weight1, Some(bias1))?, None),
        };
        if first {
            save.save(weight2);
            save.save(pre.as_ref().unwrap_or(&hidden));
        }
        for (input, tensor) in [(0, weight1), (1, x), (3, &hidden)] {
            if save.needs(input) {
                save.save(tensor);
            }
        }
        let Some(end) = self.end else {
            return Ok(vec![matmul::linear(&hidden, weight2, Some(bias2))?]);
        };
        let residual = end.residual(&inputs);
        let (y, branch) =
            matmul::linear_residual(&hidden, weight2, Some(bias2), residual, end.needs_branch(save))?;
        end.save(&residual, branch.as_ref(), save);
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (n, hidden) = (at.inputs[3].shape[0], at.inputs[3].shape[1]);
        let k = at.inputs[1].shape[1];
        let rows = at.inputs[0].shape.iter().rev().skip(1).product();
        let mut saved = at.saved.iter();
        let mut take = |wanted: bool| if wanted { saved.next() } else { None };
        let first = at.needs[..3].contains(&true);
        let (weight2, before) = (take(first), take(first));
        let (weight1, x, activations) = (take(at.needs[0]), take(at.needs[1]), take(at.needs[3]));
        let dy = contiguous(at.gradient()?)?;
        let (dy, ends) = match self.end {
            None => (dy, Vec::new()),
            Some(end) => end.backward(at, &dy, &mut saved)?,
        };
        let dy = dy.reshape(&[rows, n])?;

        let [dweight2, dbias2] = parameter_gradients(&dy, activations, hidden, at.needs[4])?;
        let mut all = vec![None, None, None, dweight2, dbias2];
        all.extend(ends);
        let (Some(weight2), Some(before)) = (weight2, before) else { return Ok(all) };
        let before = before.reshape(&[rows, hidden])?;
        let dpre = match self.activation {
            HiddenActivation::Gelu => matmul::matmul_gelu_backward(&dy, weight2, &before)?,
            HiddenActivation::Relu => matmul::matmul_relu_backward(&dy, weight2, &before)?,
        };
        [all[1], all[2]] = parameter_gradients(&dpre, x, k, at.needs[2])?;
        if let Some(weight1) = weight1 {
            all[0] = Some(reshaped(&matmul::matmul(&dpre, weight1, false, false)?, &at.inputs[0].shape)?);
        }
        Ok(all)
    }

    fn has_gradient(&self, input: usize) -> bool {
        self.end.is_none_or(|end| !end.is_keep(input))
    }
}

impl Reference for Mlp {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let pre = matmul::reference::linear(&inputs[0], &inputs[1], Some(&inputs[2]));
        let hidden = match self.activation {
            HiddenActivation::Gelu => super::gelu::Gelu.reference(&[pre]),
            HiddenActivation::Relu => super::relu::Relu.reference(&[pre]),
        };
        let y = matmul::reference::linear(&hidden[0], &inputs[3], Some(&inputs[4]));
        vec![self.end.map_or(y.clone(), |end| end.reference(inputs, &y))]
    }
}

/// Cases of the operation's checks: either activation, with and without the end of a residual block.
pub(crate) fn cases() -> Vec<Case> {
    use HiddenActivation::{Gelu, Relu};
    let end = |scale, keep| Some(BranchEnd { before: LAYERS, scale, keep });
    // Rows, K, H, N; the last two of each are what tensor cores take.
    [
        (&[1][..], 1, 1, 1, Gelu, None),
        (&[5], 3, 4, 2, Gelu, None),
        (&[2, 3], 4, 7, 5, Gelu, None),
        (&[2, 2, 3], 7, 11, 3, Gelu, None),
        (&[9], 16, 24, 8, Gelu, None),
        (&[2, 33], 8, 72, 16, Gelu, None),
        (&[2, 3], 4, 7, 5, Gelu, end(true, true)),
        (&[3, 2], 4, 3, 2, Gelu, end(false, true)),
        (&[2, 9], 16, 24, 8, Gelu, end(false, false)),
        (&[2, 33], 8, 72, 16, Gelu, end(true, false)),
        (&[1], 1, 1, 1, Relu, None),
        (&[2, 3], 4, 7, 5, Relu, None),
        (&[2, 3], 4, 7, 5, Relu, end(true, true)),
        (&[9], 16, 24, 8, Relu, None),
        (&[2, 33], 8, 72, 16, Relu, None),
    ]
    .into_iter()
    .map(|(rows, k, hidden, n, activation, end)| {
        let mut inputs = vec![
            Input::random(&[rows, &[k]].concat(), 64, 1.0),
            Input::random(&[hidden, k], 65, 0.5),
            Input::random(&[hidden], 66, 1.0),
            Input::random(&[n, hidden], 67, 0.5),
            Input::random(&[n], 68, 1.0),
        ];
        if let Some(end) = end {
            inputs.push(Input::random(&[rows, &[n]].concat(), 69, 1.0));
            if end.scale {
                inputs.push(Input::random(&[n], 70, 1.0).in_f32());
            }
            if end.keep {
                let keeps = (0..rows[0]).map(|i| if i == 1 { 0.0 } else { 1.25 }).collect();
                inputs.push(Input::constant(Array::new(&rows[..1], keeps)).in_f32());
            }
        }
        let ends = end.map(|end| (end.scale, end.keep));
        let label = format!("{rows:?} {k} to {hidden}, {activation:?}, to {n}, scale and keep {ends:?}");
        Case { gradient_factor: 3.0, ..Case::new(label, Mlp { activation, end }, inputs) }
    })
    .collect()
}
