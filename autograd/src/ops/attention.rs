//! `attention`: multi-head scaled dot-product attention (Vaswani et al., "Attention is all you need", 2017) over packed
//! queries, keys and values.

use super::check::{arity, element_type, reshaped, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Error, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::attention::{self as kernel, Forward, Scores};
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
    /// Whether there is an input that is added to scores.
    masked: bool,
}

/// `softmax(scale q kᵀ) v` in each head: qkv [B, T, 3 C] -> [B, T, C], C = heads x head size.
///
/// The last dimension holds the queries of all heads, then their keys, then their values, as one linear layer gives them.
/// f32 or bf16. `scale` is 1 / sqrt(head size) if absent. What keys a query sees ([`SeenKeys`]) gets no gradient; a query that
/// sees none has result and gradient 0.
#[track_caller]
pub fn attention(qkv: &Var, heads: usize, scale: Option<f32>, seen: SeenKeys) -> Result<Var> {
    let inputs: Vec<&Var> = [qkv].into_iter().chain(seen.valid).chain(seen.mask).collect();
    apply_one(Attention { heads, scale, padded: seen.valid.is_some(), masked: seen.mask.is_some() }, &inputs)
}

/// Which keys the queries of [`attention`] see; all by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct SeenKeys<'a> {
    /// How many tokens of each sample are keys: i32 [B].
    pub valid: Option<&'a Var>,
    /// Added to the scaled scores, for queries and keys of one, or of each, sample and head: f32 [1 or B, 1 or H, T, T].
    /// Minus infinity hides a key.
    pub mask: Option<&'a Var>,
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

impl Attention {
    /// What scores are made of, from the inputs behind the first.
    fn scores<'a>(&self, seen: &'a [Tensor]) -> Scores<'a> {
        let (valid, mask) = seen.split_at(usize::from(self.padded));
        Scores { valid: valid.first(), mask: mask.first(), scale: self.scale }
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn inputs(&self) -> &'static [&'static str] {
        match self.padded {
            true => &["qkv", "valid", "mask"],
            false => &["qkv", "mask"],
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 1 + usize::from(self.padded) + usize::from(self.masked))?;
        let qkv = &inputs[0];
        if !matches!(qkv.dtype, DType::F32 | DType::BF16) {
            return Err(wrong_shapes(self, inputs, "qkv must be f32 or bf16"));
        }
        let (_, [b, t, heads, size]) = self.split(&qkv.shape)?;
        if self.padded {
            element_type(self, 1, &inputs[1], DType::I32)?;
            shape(self, 1, &inputs[1], &[b], "one number of valid tokens a sample [B]")?;
        }
        if self.masked {
            let at = inputs.len() - 1;
            element_type(self, at, &inputs[at], DType::F32)?;
            let fits = |n: usize, all: usize| n == 1 || n == all;
            match inputs[at].shape[..] {
                [samples, of, rows, columns]
                    if fits(samples, b) && fits(of, heads) && [rows, columns] == [t, t] => {}
                _ => return Err(wrong_shapes(self, inputs, "the mask must be [1 or B, 1 or H, T, T]")),
            }
        }
        Ok(vec![Spec { shape: vec![b, t, heads * size], dtype: qkv.dtype }])
    }

    /// Saves qkv, the result, the log-sum-exp of each row, and the numbers of valid tokens and the mask if there are any.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (split, [b, t, heads, size]) = self.split(inputs[0].shape())?;
        let qkv = contiguous(inputs[0])?.reshape(&split)?;
        let seen = inputs[1..].iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let (out, lse) = kernel::forward(&qkv, self.scores(&seen))?;
        [&qkv, &out, &lse].into_iter().chain(&seen).for_each(|t| save.save(t));
        Ok(vec![out.reshape(&[b, t, heads * size])?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (qkv, out, lse) = (&at.saved[0], &at.saved[1], &at.saved[2]);
        let dqkv = at.when(0, || {
            let dout = contiguous(&reshaped(at.gradient()?, out.shape())?)?;
            let of = Forward { qkv, scores: self.scores(&at.saved[3..]), out, lse };
            kernel::backward(&dout, of)?.reshape(&at.inputs[0].shape)
        })?;
        let mut gradients = vec![dqkv];
        gradients.resize(at.inputs.len(), None);
        Ok(gradients)
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
        let (valid, mask) = inputs[1..].split_at(usize::from(self.padded));
        let valid: Option<Vec<usize>> =
            valid.first().map(|valid| valid.data.iter().map(|n| n.get() as usize).collect());
        let scale = kernel::scale_of(self.scale, size);
        let (out, _) =
            kernel::reference::forward(kernel::reference::Problem {
                qkv: &qkv,
                valid: valid.as_deref(),
                mask: mask.first(),
                scale,
            });
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
        let op = Attention { heads, scale, padded: valid.is_some(), masked: false };
        let label = format!("{shape:?} times {spread} heads {heads} scale {scale:?} valid {valid:?}");
        cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
    }
    // Masks of all samples and heads, and of each; the last with padding.
    for (shape, heads, mask, valid) in [
        ([2, 5, 24], 2, [1, 1], None),
        ([2, 9, 48], 2, [2, 2], None),
        ([3, 17, 24], 1, [3, 1], Some([17, 3, 0])),
    ] {
        let mut inputs = vec![Input::random(&shape, 131, 1.0)];
        inputs.extend(valid.map(|valid: [i32; 3]| Input::index(&[3], &valid)));
        let values = Array::random(&[mask[0], mask[1], shape[1], shape[1]], 132, 1.0);
        inputs.push(Input::constant(values).in_f32());
        let op = Attention { heads, scale: None, padded: valid.is_some(), masked: true };
        let label = format!("{shape:?} heads {heads} mask {mask:?} valid {valid:?}");
        cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
    }
    cases
}
