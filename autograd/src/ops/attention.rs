//! `attention`: multi-head scaled dot-product attention (Vaswani et al., "Attention is all you need", 2017) over packed
//! queries, keys and values.

use super::check::{arity, element_type, reshaped, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Error, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::attention::{self as kernel, Forward};
use kernels::copy::contiguous;

/// The operation of [`attention`].
#[derive(Clone)]
pub struct Attention {
    /// Heads that the channels are split into.
    pub heads: usize,
    /// Of the scores; 1 / sqrt(head size) if absent.
    pub scale: Option<f32>,
    /// Whether there is an input that says how many tokens are valid.
    padded: bool,
}

/// `softmax(scale q kᵀ) v` in each head: qkv [B, T, 3 C] -> [B, T, C], C = heads x head size.
///
/// The last dimension holds the queries of all heads, then their keys, then their values, as one linear layer gives them.
/// f32 or bf16. `valid` (i32 [B]) says how many tokens of each sample are keys, all if absent; it gets no gradient. A
/// sample without any has result and gradient 0. `scale` is 1 / sqrt(head size) if absent.
#[track_caller]
pub fn attention(qkv: &Var, heads: usize, scale: Option<f32>, valid: Option<&Var>) -> Result<Var> {
    let inputs: Vec<&Var> = [qkv].into_iter().chain(valid).collect();
    apply_one(Attention { heads, scale, padded: valid.is_some() }, &inputs)
}

impl Attention {
    /// The shapes that the kernels take: qkv [B, T, 3, H, D] and out [B, T, H, D].
    #[track_caller]
    fn split(&self, qkv: &[usize]) -> Result<([usize; 5], [usize; 4])> {
        match *qkv {
            [b, t, width] if self.heads > 0 && width % (3 * self.heads) == 0 && width > 0 => {
                let d = width / (3 * self.heads);
                Ok(([b, t, 3, self.heads, d], [b, t, self.heads, d]))
            }
            _ => Err(Error::shape(
                self.name(),
                "qkv must be [B, T, 3 C] where C is a multiple of the number of heads",
            )
            .with("heads", self.heads)
            .with("qkv", qkv)),
        }
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["qkv", "valid"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 1 + usize::from(self.padded))?;
        let qkv = &inputs[0];
        if !matches!(qkv.dtype, DType::F32 | DType::BF16) {
            return Err(wrong_shapes(self, inputs, "qkv must be f32 or bf16"));
        }
        let (_, [b, t, heads, size]) = self.split(&qkv.shape)?;
        if self.padded {
            element_type(self, 1, &inputs[1], DType::I32)?;
            shape(self, 1, &inputs[1], &[b], "one number of valid tokens a sample [B]")?;
        }
        Ok(vec![Spec { shape: vec![b, t, heads * size], dtype: qkv.dtype }])
    }

    /// Saves qkv, the result, the log-sum-exp of each row, and the numbers of valid tokens if there are any.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (split, [b, t, heads, size]) = self.split(inputs[0].shape())?;
        let qkv = contiguous(inputs[0])?.reshape(&split)?;
        let valid = inputs.get(1).map(|valid| contiguous(valid)).transpose()?;
        let (out, lse) = kernel::forward(&qkv, valid.as_ref(), self.scale)?;
        [Some(&qkv), Some(&out), Some(&lse), valid.as_ref()].into_iter().flatten().for_each(|t| save.save(t));
        Ok(vec![out.reshape(&[b, t, heads * size])?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (qkv, out, lse) = (&at.saved[0], &at.saved[1], &at.saved[2]);
        let dqkv = at.when(0, || {
            let dout = contiguous(&reshaped(at.gradient()?, out.shape())?)?;
            let of = Forward { qkv, valid: at.saved.get(3), scale: self.scale, out, lse };
            kernel::backward(&dout, of)?.reshape(&at.inputs[0].shape)
        })?;
        let none = self.padded.then_some(None);
        Ok([Some(dqkv), none].into_iter().flatten().collect())
    }

    fn has_gradient(&self, input: usize) -> bool {
        input == 0
    }
}

impl Reference for Attention {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [b, t, width] = [inputs[0].shape[0], inputs[0].shape[1], inputs[0].shape[2]];
        let size = width / (3 * self.heads);
        let qkv = Array::new(&[b, t, 3, self.heads, size], inputs[0].data.clone());
        let valid: Option<Vec<usize>> =
            inputs.get(1).map(|valid| valid.data.iter().map(|n| n.get() as usize).collect());
        let scale = kernel::scale_of(self.scale, size);
        let (out, _) =
            kernel::reference::forward(kernel::reference::Problem { qkv: &qkv, valid: valid.as_deref(), scale });
        vec![Array::new(&[b, t, width / 3], out.data)]
    }
}

/// Cases of the operation's checks: one token, several heads, padding up to a whole sample, large and no scores.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, heads, spread, scale, valid) in [
        ([1, 2, 6], 1, 1.0, None, None),
        ([2, 1, 12], 2, 1.0, None, None),
        ([1, 5, 24], 4, 1.0, Some(0.7), None),
        ([2, 7, 18], 2, 1.0, Some(0.0), None),
        ([3, 6, 24], 2, 1.0, None, Some([6, 2, 0])),
        ([3, 17, 60], 1, 1.0, None, Some([1, 17, 9])),
        ([1, 37, 96], 2, 1.0, None, None),
        ([1, 19, 48], 1, 4.0, None, None),
    ] {
        let mut inputs = vec![Input::random(&shape, 131, spread)];
        inputs.extend(valid.map(|valid: [i32; 3]| Input::index(&[3], &valid)));
        let op = Attention { heads, scale, padded: valid.is_some() };
        let label = format!("{shape:?} times {spread} heads {heads} scale {scale:?} valid {valid:?}");
        cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
    }
    cases
}
