//! `softmax_xent`: the cross-entropy of softmax with labels or with soft targets, row by row.

use super::check::{arity, element_type, float, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::softmax_xent::{self as kernel, Target};

/// The operation of [`softmax_xent`].
#[derive(Clone)]
pub struct SoftmaxXent {
    /// How much of each row's target is spread evenly over all classes, in 0 to 1.
    pub smoothing: f32,
}

/// Cross-entropy [M] of each row of logits [M, V].
///
/// The target is i32 labels [M] or probabilities [M, V] of the logits' type; it gets no gradient. The loss is f32. No mean is taken.
#[track_caller]
pub fn softmax_xent(logits: &Var, target: &Var, smoothing: f32) -> Result<Var> {
    apply_one(SoftmaxXent { smoothing }, &[logits, target])
}

fn target(tensor: &Tensor) -> Target<'_> {
    match tensor.dtype() {
        DType::I32 => Target::Labels(tensor),
        _ => Target::Probabilities(tensor),
    }
}

impl Op for SoftmaxXent {
    fn name(&self) -> &'static str {
        "softmax_xent"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["logits", "target"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 2)?;
        float(self, 0, &inputs[0])?;
        let &[m, v] = &inputs[0].shape[..] else {
            return Err(wrong_shapes(self, inputs, "logits must be [M, V]"));
        };
        match inputs[1].dtype {
            DType::I32 => shape(self, 1, &inputs[1], &[m], "one i32 label a row [M]")?,
            _ => {
                element_type(self, 1, &inputs[1], inputs[0].dtype)?;
                shape(self, 1, &inputs[1], &[m, v], "probabilities [M, V]")?;
            }
        }
        Ok(vec![Spec::f32(&[m])])
    }

    /// Saves the logits, the target and the log-sum-exp of each row.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (logits, targets) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        let (loss, lse) = kernel::forward(&logits, target(&targets), self.smoothing)?;
        [&logits, &targets, &lse].into_iter().for_each(|t| save.save(t));
        Ok(vec![loss])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dloss = contiguous(at.gradient()?)?;
        let (logits, targets, lse) = (&at.saved[0], &at.saved[1], &at.saved[2]);
        let dlogits =
            at.when(0, || kernel::backward(&dloss, logits, target(targets), self.smoothing, lse))?;
        Ok(vec![dlogits, None])
    }

    fn has_gradient(&self, input: usize) -> bool {
        input == 0
    }
}

impl Reference for SoftmaxXent {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let weights = match inputs[1].shape.len() {
            1 => {
                let labels: Vec<i32> = inputs[1].data.iter().map(|v| v.get() as i32).collect();
                kernel::reference::one_hot(&labels, inputs[0].shape[1])
            }
            _ => inputs[1].clone(),
        };
        vec![kernel::reference::forward(&inputs[0], &weights, self.smoothing).0]
    }
}

/// Cases of the operation's checks: labels and soft targets, smoothing, large logits.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (m, v, scale) in [(1, 1, 1.0), (4, 5, 2.0), (3, 7, 30.0), (17, 10, 3.0), (5, 1001, 10.0)] {
        for (soft, smoothing) in [(false, 0.0), (false, 0.1), (true, 0.0), (true, 0.1)] {
            let target = match soft {
                true => Input::constant(
                    Array::random(&[m, v], 142, 1.0).map(|t: f64| f64::from((t.abs() / v as f64) as f32)),
                ),
                false => Input::index(&[m], &(0..m).map(|i| (i * 7 % v) as i32).collect::<Vec<_>>()),
            };
            let inputs = vec![Input::random(&[m, v], 141, scale), target];
            let label = format!("[{m}, {v}] times {scale} soft {soft} smoothing {smoothing}");
            cases.push(Case::new(label, SoftmaxXent { smoothing }, inputs));
        }
    }
    cases
}
